//! A probe: a message that goes to the ingress and comes back if nothing is bound there. It shows, over AMQP alone, if
//! there is a way into some queue.

use lapin::message::Delivery;
use lapin::types::ShortString;
use lapin::{BasicProperties, ExchangeKind};
use uuid::Uuid;

use super::arguments::probe_arguments;
use super::session::TopologySession;
use crate::channel::confirm_channel::{Message, PublishAnswer, PublishOutcome};
use crate::error::SourceError;
use crate::names::Names;

/// AMQP `type` of a probe.
const PROBE: &str = "lanekeeper.probe";
const PROBING: &str = "looking what is bound to the ingress";

/// One probe, and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probed {
    /// True: something is bound to the ingress, or to the handoff behind it, and has the probe.
    pub(crate) is_routed: bool,
    /// Its AMQP `message_id`.
    pub(crate) id: String,
}

/// Returns true if the delivery is a probe. What publishers send comes through another exchange, so that no update can look
/// like one.
pub(crate) fn is_probe(delivery: &Delivery, names: &Names) -> bool {
    is_probe_through(delivery, &names.probe())
}

/// The same; `exchange`: [`Names::probe`].
pub(crate) fn is_probe_through(delivery: &Delivery, exchange: &str) -> bool {
    let kind = delivery.properties.kind().as_ref().map(ShortString::as_str);
    kind == Some(PROBE) && delivery.exchange.as_str() == exchange
}

/// Returns true if the delivery is this very probe.
pub(crate) fn is_of(delivery: &Delivery, names: &Names, id: &str) -> bool {
    is_probe(delivery, names) && delivery.properties.message_id().as_ref().is_some_and(|of| of.as_str() == id)
}

/// Sends a probe. The ingress must exist. Clients cannot publish to it, since it is internal: so an exchange comes into
/// being whose alternate exchange it is, and is deleted again. One that a process left behind when it died does no harm.
///
/// The caller holds the lock. Whoever consumes what is bound settles the probe and sends it nowhere.
///
/// # Errors
/// The queue behind it does not take it, or the broker does not answer.
pub(crate) async fn probe(session: &mut TopologySession<'_>) -> Result<Probed, SourceError> {
    let (exchange, id) = (session.names().probe(), Uuid::new_v4().to_string());
    let arguments = probe_arguments(session.names());
    session.declare_exchange(&exchange, ExchangeKind::Fanout, false, arguments).await?;
    let properties = BasicProperties::default()
        .with_type(PROBE.into())
        .with_message_id(id.as_str().into())
        .with_delivery_mode(2);
    let message = Message {
        exchange: ShortString::from(exchange.as_str()),
        // No update is without a record key: a program of before that gets it dead-letters it, and sends it to no target.
        routing_key: ShortString::default(),
        properties,
        body: b"",
    };
    let answers = session.publish_all(PROBING, &format!("exchange {exchange}"), vec![message]).await?;
    session.delete_exchange(&exchange).await?;
    let is_routed = match answers.first().map(PublishAnswer::outcome) {
        Some(PublishOutcome::Unroutable) => false,
        Some(PublishOutcome::Taken) => true,
        Some(PublishOutcome::Refused) | None => {
            return Err(SourceError::NotTaken { exchange: session.names().ingress() });
        }
    };
    Ok(Probed { is_routed, id })
}
