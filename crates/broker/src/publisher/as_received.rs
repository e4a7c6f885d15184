//! What a dispatcher makes of an update that is not published, for a person who wants to see it.

use std::sync::Arc;

use super::session::properties;
use crate::connection::Alteration;
use crate::deliveries::Decoder;
use lanekeeper_core::policy::Malformed;
use lanekeeper_core::publish::outgoing::Outgoing;
use lanekeeper_core::update::Update;

/// The update as it is after publishing and delivery.
///
/// # Errors
/// Why it would be dead-lettered.
pub fn as_received(outgoing: &Outgoing, decoder: &Decoder) -> Result<Arc<Update>, Malformed> {
    let routing_key = outgoing.record_key.as_str();
    decoder.decode(routing_key, &properties(outgoing), outgoing.body.clone(), &Alteration::default())
}
