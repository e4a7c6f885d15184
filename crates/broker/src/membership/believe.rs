//! Publishes to all processes that a person believes the rejections of a target.

use lapin::BasicProperties;
use uuid::Uuid;

use super::message::{MemberMessage, MessageKind, ReplicaId};
use crate::beliefs::PublishedBelief;
use crate::channel::confirm_channel::{Message, PublishOutcome};
use crate::connection::Connection;
use crate::error::SourceError;
use crate::names::Names;
use crate::topology::session::TopologySession;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

const PUBLISHING: &str = "publishing to the stream of members";

/// Of no layout: what it says is for all of them.
const NO_LAYOUT: LayoutNumber = LayoutNumber(0);

/// Returns once a majority of the stream's replicas has it.
///
/// # Errors
/// [`SourceError::NoLayout`]: no process has ever run, which would read it. What else can go wrong: it was published or not.
pub(crate) async fn believe(
    connection: &Connection,
    names: &Names,
    instance: &str,
    belief: PublishedBelief,
) -> Result<(), SourceError> {
    let mut session = TopologySession::new(connection, names, instance);
    let (stream, no_layout) =
        (names.members(), || SourceError::NoLayout { exchange: names.public().to_owned() });
    session.queue_depth(&stream).await.map_err(|fault| match fault {
        SourceError::Missing { .. } => no_layout(),
        other => other,
    })?;
    let process = Uuid::new_v4().to_string();
    let replica = ReplicaId { instance: instance.to_owned(), process, layout: NO_LAYOUT };
    let message = replica.message(MessageKind::TargetBelieved, PartitionNumber(0), 0, 0);
    let body = MemberMessage { belief: Some(belief), ..message }.body();
    let properties = BasicProperties::default().with_content_type("application/json".into());
    let messages = vec![Message::to_queue(&stream, properties, &body)];
    let answers = session.publish_all(PUBLISHING, &format!("stream {stream}"), messages).await?;
    for answer in answers {
        match answer.outcome() {
            PublishOutcome::Taken => {}
            PublishOutcome::Unroutable => return Err(no_layout()),
            PublishOutcome::Refused => return Err(SourceError::NoQuorum { step: PUBLISHING }),
        }
    }
    session.close().await;
    Ok(())
}
