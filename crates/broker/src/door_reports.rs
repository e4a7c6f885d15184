//! Takes in what doors say of themselves, for a dispatcher: by a queue of its own that ends with its connection. What doors
//! report never stands in the stream of members, so that nobody takes a door for a replica.

use std::convert::Infallible;
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};
use uuid::Uuid;

use super::backoff::Backoff;
use super::channel::consumer_channel::ConsumerChannel;
use super::door_reporter::DOOR_REPORT_BYTES_MAX;
use super::error::SourceError;
use super::link::Link;
use super::log_on_change::LogOnChange;
use super::names::Names;
use lanekeeper_core::error::error_chain;

const STEP: &str = "taking in the reports of doors";
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Reports that wait in the queue; of more, the oldest are dropped.
const REPORTS_MAX: i32 = 1_000;
/// Their bytes. Whoever may publish reports could write anything.
const REPORTS_BYTES_MAX: i32 = 4 * 1024 * 1024;
/// Exchange and binding are declared again so often: somebody may have deleted them.
const DECLARE_EVERY: Duration = Duration::from_secs(20);
/// An alarm keeps the answer back.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether there is an alarm.
const BLOCKED_POLL: Duration = Duration::from_secs(1);
const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// What comes of doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorEvent<'a> {
    /// Reports come from now on.
    Listening,
    /// A door has published this.
    Report(&'a [u8]),
    /// Reports do not come, as the broker cannot be reached, refuses, or has an alarm.
    Interrupted,
}

/// Takes in reports until what this returns is dropped.
pub fn take_door_reports(
    link: Link,
    names: &Names,
    on_event: impl FnMut(DoorEvent<'_>) + Send + 'static,
) -> AbortOnDropHandle<()> {
    let names = names.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { match take_for_ever(link, &names, on_event).await {} }))
}

async fn take_for_ever(
    link: Link,
    names: &Names,
    mut on_event: impl FnMut(DoorEvent<'_>) + Send,
) -> Infallible {
    let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
    let mut log = LogOnChange::default();
    loop {
        let Ok((channel, number)) = link.channel_of().await else {
            backoff.wait().await;
            continue;
        };
        let mut channel = ConsumerChannel::new(channel);
        let taking = async {
            let queue = open_queue(&mut channel, names).await?;
            log.cleared();
            backoff.reset();
            on_event(DoorEvent::Listening);
            take(&mut channel, &link, (names, &queue), &mut on_event).await
        };
        let Err(fault) = link.while_up(number, taking).await;
        on_event(DoorEvent::Interrupted);
        let error = error_chain(&fault);
        if log.is_new(error.clone()) {
            if fault.can_heal() {
                debug!(error, "reports of doors do not come, trying again");
            } else {
                info!(error, exchange = names.doors(), "doors are not shown by this process, trying again");
            }
        }
        let _ = channel.close(CLOSE_TIMEOUT).await;
        backoff.wait().await;
    }
}

async fn open_queue(channel: &mut ConsumerChannel, names: &Names) -> Result<String, SourceError> {
    let queue = names.door_reports(&Uuid::new_v4().to_string());
    declare_exchange(channel, names).await?;
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(REPORTS_MAX));
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongInt(REPORTS_BYTES_MAX));
    let declaring = channel.channel().queue_declare(queue.as_str().into(), options, arguments);
    declaring.await.map_err(|source| {
        SourceError::from_amqp("declaring a queue", &format!("queue {queue}"), names.public(), source)
    })?;
    bind(channel, names, &queue).await?;
    let consuming = channel.consume_settled(&queue);
    consuming.await.map_err(|source| {
        SourceError::from_consuming(STEP, &format!("queue {queue}"), names.public(), source)
    })?;
    Ok(queue)
}

async fn declare_exchange(channel: &ConsumerChannel, names: &Names) -> Result<(), SourceError> {
    let exchange = names.doors();
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declaring = channel.channel().exchange_declare(
        exchange.as_str().into(),
        ExchangeKind::Fanout,
        options,
        FieldTable::default(),
    );
    declaring.await.map_err(|source| {
        SourceError::from_amqp(
            "declaring an exchange",
            &format!("exchange {exchange}"),
            names.public(),
            source,
        )
    })
}

async fn bind(channel: &ConsumerChannel, names: &Names, queue: &str) -> Result<(), SourceError> {
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    let binding =
        channel.channel().queue_bind(queue.into(), names.doors().as_str().into(), "".into(), options, none);
    binding.await.map_err(|source| {
        SourceError::from_amqp("binding a queue", &format!("queue {queue}"), names.public(), source)
    })
}

/// Takes in reports until the channel fails.
async fn take(
    channel: &mut ConsumerChannel,
    link: &Link,
    (names, queue): (&Names, &str),
    on_event: &mut (impl FnMut(DoorEvent<'_>) + Send),
) -> Result<Infallible, SourceError> {
    let mut declaring = interval(DECLARE_EVERY);
    declaring.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looking, mut is_blocked) = (interval(BLOCKED_POLL), false);
    looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let delivery = tokio::select! {
            delivery = channel.next_of(0) => delivery,
            _ = looking.tick() => {
                // An alarm keeps doors from publishing, too.
                if std::mem::replace(&mut is_blocked, link.is_blocked()) != is_blocked {
                    on_event(if is_blocked { DoorEvent::Interrupted } else { DoorEvent::Listening });
                }
                continue;
            }
            _ = declaring.tick(), if !is_blocked => {
                let declared = async {
                    declare_exchange(channel, names).await?;
                    bind(channel, names, queue).await
                };
                let silent = |_| SourceError::Silent { step: STEP, seconds: DECLARE_TIMEOUT.as_secs() };
                timeout(DECLARE_TIMEOUT, declared).await.map_err(silent)??;
                continue;
            }
        };
        match delivery {
            Some(Ok(delivery)) if delivery.data.len() <= DOOR_REPORT_BYTES_MAX => {
                on_event(DoorEvent::Report(&delivery.data));
            }
            Some(Ok(_)) => debug!("a report of a door was passed over, since it is too long"),
            Some(Err(fault)) => return Err(SourceError::amqp(STEP)(fault)),
            None => return Err(SourceError::ConnectionLost),
        }
    }
}
