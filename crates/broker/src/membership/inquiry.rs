//! Puts a question to all processes of a topology, and takes their answers: the question goes into the stream of members, the
//! answers come by a queue of this connection alone, which ends with it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::message::{MemberMessage, MessageKind, READING, ReplicaId};
use super::seen::{SeenProcess, SeenProcesses, parse_short};
use crate::channel::confirm_channel::Message;
use crate::channel::consumer_channel::ConsumerChannel;
use crate::channel::stream_reader::{StreamOffset, offset_of};
use crate::connection::Connection;
use crate::error::SourceError;
use crate::inquiries::PublishedInquiry;
use crate::names::Names;
use crate::topology::session::TopologySession;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

const ASKING: &str = "asking the processes";
/// Of no layout: it is for all of them.
const NO_LAYOUT: LayoutNumber = LayoutNumber(0);
/// How often it is looked whether the broker has said that it takes no publishes.
const BLOCKED_POLL: Duration = Duration::from_millis(20);
/// How far back notes are read: they are published every quarter of a heartbeat, and a process that has published none for so
/// long is gone.
const NOTES_BACK: Duration = Duration::from_secs(30);
/// Answers that wait to be read, and how long each may be: what is longer, the connection leaves out.
const ANSWERS_MAX: i32 = 4_096;
pub(crate) const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Of all answers to a question together.
const ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// If no note of the last half minute was read, perhaps since the clocks of this host and of the broker differ, answers are
/// waited for so long all the same.
const UNSEEN_TIMEOUT: Duration = Duration::from_millis(500);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What came of a question.
#[derive(Clone, Debug, Default)]
pub struct Inquired {
    /// Who could answer, by process.
    pub seen: BTreeMap<String, SeenProcess>,
    /// The answers.
    pub answers: Vec<Vec<u8>>,
    /// Processes that have not answered in time.
    pub silent: Vec<String>,
    /// Why nobody could be asked, or why some may not have answered; `None`: nothing is known against it.
    pub fault: Option<String>,
    /// The broker takes no publishes, since it has a memory or disk alarm. The connection is of no more use.
    pub alarmed: bool,
    /// Asked otherwise during the alarm, all that are known to be alive have answered.
    pub alarmed_and_all_known: bool,
    /// The question was read back: everybody gets it.
    asked: bool,
}

/// Asks. Returns once every process that is alive has answered, at the latest at `until`. `process_of` reads from an answer
/// which process it is of.
pub(crate) async fn inquire(
    connection: &Connection,
    names: &Names,
    instance: &str,
    text: &str,
    until: Instant,
    process_of: impl Fn(&[u8]) -> Option<String> + Send,
) -> Inquired {
    let (mut inquired, mut seen) = (Inquired::default(), SeenProcesses::default());
    let mut answered: Vec<String> = Vec::new();
    let so_far = (&mut inquired, &mut seen, &mut answered);
    let asking = ask(connection, (names, instance), text, so_far, process_of);
    let asked = tokio::select! {
        asked = timeout_at(until, asking) => asked.ok(),
        () = blocked(connection) => None,
    };
    match asked {
        Some(Err(SourceError::Missing { .. })) => {
            inquired.fault =
                Some(format!("the stream {} does not exist: no process has run", names.members()));
        }
        Some(Err(fault)) => inquired.fault = Some(error_chain(&fault)),
        None if connection.status().blocked() => {
            inquired.alarmed = true;
            inquired.fault = Some(
                "the broker takes no publishes, since it has a memory or disk alarm: nobody can be asked by it, and nobody can answer"
                    .to_owned(),
            );
        }
        None if !inquired.asked => {
            inquired.fault = Some("the broker did not take the question in time".to_owned());
        }
        Some(Ok(())) if seen.processes.is_empty() && !inquired.answers.is_empty() => {
            inquired.fault = Some(
                "processes answer, and no note of theirs of the last half minute was read: compare the clocks of this host and of the \
                 broker"
                    .to_owned(),
            );
        }
        Some(Ok(())) | None => {}
    }
    inquired.seen = seen.processes;
    let silent = inquired.seen.keys().filter(|process| !answered.contains(process));
    inquired.silent = silent.cloned().collect();
    inquired
}

async fn ask(
    connection: &Connection,
    (names, instance): (&Names, &str),
    text: &str,
    (inquired, seen, answered): (&mut Inquired, &mut SeenProcesses, &mut Vec<String>),
    process_of: impl Fn(&[u8]) -> Option<String> + Send,
) -> Result<(), SourceError> {
    let mut session = TopologySession::new(connection, names, instance);
    let stream = names.members();
    let back = SystemTime::now().checked_sub(NOTES_BACK).unwrap_or(UNIX_EPOCH);
    let back = back.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut notes = session.read_stream(&stream, StreamOffset::Since(back), READING).await?;
    let reply_to = names.answers(&Uuid::new_v4().to_string());
    let mut replies = open_reply_queue(connection, names, &reply_to).await?;
    let id = Uuid::new_v4().to_string();
    let question = PublishedInquiry { id: id.clone(), reply_to, text: text.to_owned() };
    let process = format!("asks {id}");
    let replica = ReplicaId { instance: instance.to_owned(), process, layout: NO_LAYOUT };
    let message = replica.message(MessageKind::Inquiry, PartitionNumber(0), 0, 0);
    let body = MemberMessage { inquiry: Some(question), ..message }.body();
    let properties = BasicProperties::default().with_content_type("application/json".into());
    // Reading it back is the proof that it was taken.
    let messages = vec![Message::to_queue(&stream, properties, &body)];
    session.publish_all(ASKING, &format!("stream {stream}"), messages).await?;
    let mut bytes = 0_usize;
    while !inquired.asked || seen.processes.keys().any(|process| !answered.contains(process)) {
        tokio::select! {
            delivery = notes.receive(), if !inquired.asked => {
                let delivery = delivery?;
                notes.credit(&delivery).await?;
                if let Some(message) = parse_short(&delivery.data) {
                    inquired.asked = message.inquiry.as_ref().is_some_and(|question| question.id == id);
                    seen.see(offset_of(&delivery).unwrap_or_default(), message);
                }
            }
            delivery = replies.next_of(0) => match delivery {
                Some(Ok(delivery)) => {
                    bytes = delivery.data.len().saturating_add(bytes);
                    if bytes > ANSWERS_BYTES_MAX {
                        let fault = format!("all answers together have more than {ANSWERS_BYTES_MAX} bytes");
                        inquired.fault = Some(fault);
                        break;
                    }
                    answered.extend(process_of(&delivery.data));
                    inquired.answers.push(delivery.data);
                }
                Some(Err(fault)) => return Err(SourceError::amqp(ASKING)(fault)),
                None => return Err(SourceError::ConnectionLost),
            },
        }
    }
    if seen.processes.is_empty() {
        let until = Instant::now() + UNSEEN_TIMEOUT;
        while let Ok(Some(Ok(delivery))) = timeout_at(until, replies.next_of(0)).await {
            inquired.answers.push(delivery.data);
        }
    }
    notes.close().await;
    let _ = replies.close(CLOSE_TIMEOUT).await;
    session.close().await;
    Ok(())
}

/// Returns once the broker has said that it takes no publishes.
async fn blocked(connection: &Connection) {
    while !connection.status().blocked() {
        sleep(BLOCKED_POLL).await;
    }
}

/// A queue of this connection alone, which ends with it.
async fn open_reply_queue(
    connection: &Connection,
    names: &Names,
    queue: &str,
) -> Result<ConsumerChannel, SourceError> {
    let channel = connection.create_channel().await.map_err(SourceError::amqp(ASKING))?;
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(ANSWERS_MAX));
    let declaring = channel.queue_declare(queue.into(), options, arguments);
    declaring.await.map_err(|source| {
        SourceError::from_amqp("declaring a queue", &format!("queue {queue}"), names.public(), source)
    })?;
    let mut channel = ConsumerChannel::new(channel);
    let consuming = channel.consume_settled(queue);
    consuming.await.map_err(|source| {
        SourceError::from_consuming(ASKING, &format!("queue {queue}"), names.public(), source)
    })?;
    Ok(channel)
}
