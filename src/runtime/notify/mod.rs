//! Tells people of events, by requests to the receivers of `[[notify]]`.
//!
//! [`Notifier`] is what others hold: a driver says that a record was parked, and waits for nothing. One task does the rest. It
//! looks once a second at what several processes can see ([`cluster_events`]), keeps for each receiver what it is still to be told
//! ([`batches`]), makes JSON of it ([`event`]), and sends it ([`deliver`]), one request at a time for each receiver.

mod batches;
mod cluster_events;
mod deliver;
mod event;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;
use uuid::Uuid;

use self::batches::Batches;
use self::cluster_events::{ClusterEvents, Observation};
use self::deliver::{Notification, WAITS, deliver};
pub use self::event::ParkedRecord;
use self::event::{Batch, EventSource, NotifyEvent, Place, SharedEvent, body, test_body};
use crate::admin::health::Health;
use crate::admin::metrics::{NotifyDrop, NotifyMetrics};
use crate::config::{Config, EventKind, NotifyConfig};
use crate::http::client::{HttpTargets, TargetsFault};
use lanekeeper_broker::{Link, Names, Notices, Presence, ready_messages};

/// Events that wait to be taken in. They are taken in at once: this is for a burst.
const EVENTS_MAX: usize = 1024;
/// How often it is looked at what several processes can see.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How many heartbeats updates wait in a partition without an owner before people are told. A takeover takes about three.
const WITHOUT_OWNER_HEARTBEATS: u32 = 6;
/// How many queues are looked at in a second, at most.
const QUEUES_PER_SECOND: u32 = 100;

/// The receivers of a config, ready to be sent to.
#[derive(Debug)]
struct Receivers {
    configs: Vec<NotifyConfig>,
    targets: HttpTargets,
    /// The names that targets can be shut under.
    shut_names: BTreeSet<String>,
}

impl Receivers {
    fn new(config: &Config, before: Option<&Self>) -> Result<Self, TargetsFault> {
        let receivers: Vec<_> = config.notify.iter().map(|notify| notify.receiver.clone()).collect();
        let targets = match before {
            None => HttpTargets::new(&receivers)?,
            Some(before) => before.targets.changed_to(&receivers)?,
        };
        let shut_names = config.limits.iter().map(|group| group.name.clone()).collect();
        Ok(Self { configs: config.notify.clone(), targets, shut_names })
    }

    fn want(&self, kind: EventKind) -> bool {
        self.configs.iter().any(|config| config.events.contains(&kind))
    }
}

/// Takes events in, for people. Cheap to clone; nobody waits for it.
#[derive(Clone, Debug)]
pub struct Notifier {
    events: mpsc::Sender<NotifyEvent>,
    receivers: Arc<watch::Sender<Arc<Receivers>>>,
    metrics: NotifyMetrics,
}

impl Notifier {
    /// A record was parked, which is written down.
    pub fn parked(&self, record: ParkedRecord) {
        if !self.receivers.borrow().want(EventKind::RecordParked) {
            return;
        }
        if self.events.try_send(NotifyEvent::RecordParked(record)).is_err() {
            self.metrics.dropped(NotifyDrop::QueueFull, 1);
        }
    }

    /// The config has changed.
    ///
    /// # Errors
    /// A setting is not valid in HTTP; nothing is changed then.
    pub fn change(&self, config: &Config) -> Result<(), TargetsFault> {
        let changed = Receivers::new(config, Some(&self.receivers.borrow()))?;
        self.receivers.send_replace(Arc::new(changed));
        Ok(())
    }

    /// Returns what [`Self::change`] would, and changes nothing.
    ///
    /// # Errors
    /// As there.
    pub fn can_change(&self, config: &Config) -> Result<(), TargetsFault> {
        Receivers::new(config, Some(&self.receivers.borrow())).map(|_| ())
    }
}

/// What is made before it is known where the broker is.
#[derive(Debug)]
pub struct Notifications {
    notifier: Notifier,
    events: mpsc::Receiver<NotifyEvent>,
}

/// What is looked at for events that several processes can see.
#[derive(Clone, Debug)]
pub struct NotifyInputs {
    /// Which targets are shut here, and which partitions are consumed.
    pub health: Health,
    /// Which replicas are alive.
    pub presence: Presence,
    /// Asks for queues.
    pub consuming: Link,
    /// Shows if notes are published.
    pub publishing: Link,
    /// Of the queues.
    pub names: Names,
}

/// The task that tells people.
#[derive(Debug)]
pub struct NotifyTask {
    stop: Option<oneshot::Sender<()>>,
    task: AbortOnDropHandle<()>,
}

impl NotifyTask {
    /// Sends what is left, for so long at most.
    pub async fn stop(mut self, within: Duration) {
        drop(self.stop.take());
        if timeout(within, &mut self.task).await.is_err() {
            warn!("the process ends before all notifications were sent: they are not sent any more");
        }
    }
}

impl Notifications {
    /// Opens no connection.
    ///
    /// # Errors
    /// A setting is not valid in HTTP.
    pub fn new(config: &Config, metrics: NotifyMetrics) -> Result<Self, TargetsFault> {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let receivers = Arc::new(watch::Sender::new(Arc::new(Receivers::new(config, None)?)));
        Ok(Self { notifier: Notifier { events: sender, receivers, metrics }, events })
    }

    /// For drivers, and for changes of the config.
    #[must_use]
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// Tells until it is stopped.
    #[must_use]
    pub fn begin(self, config: &Config, inputs: NotifyInputs) -> NotifyTask {
        let (stop, stopped) = oneshot::channel();
        let heartbeat = inputs.consuming.heartbeat();
        let source =
            EventSource { instance: config.instance.clone(), exchange: config.updates.exchange.clone() };
        let task = Task {
            receivers: self.notifier.receivers.subscribe(),
            metrics: self.notifier.metrics,
            cluster_events: ClusterEvents::new(
                &config.instance,
                heartbeat,
                heartbeat * WITHOUT_OWNER_HEARTBEATS,
            ),
            source,
            inputs,
            waiting: BTreeMap::new(),
            sending: FuturesUnordered::new(),
            looking: FuturesUnordered::new(),
            ready: BTreeMap::new(),
            look_at_queues_from: Instant::now(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run(self.events, stopped)));
        NotifyTask { stop: Some(stop), task }
    }
}

/// What one receiver is still to be told.
#[derive(Debug, Default)]
struct Waiting {
    batches: Batches,
    /// A request to it is out.
    busy: bool,
}

type Looking = Pin<Box<dyn Future<Output = BTreeMap<Place, u32>> + Send>>;
type Sending = Pin<Box<dyn Future<Output = String> + Send>>;

struct Task {
    receivers: watch::Receiver<Arc<Receivers>>,
    metrics: NotifyMetrics,
    source: EventSource,
    inputs: NotifyInputs,
    cluster_events: ClusterEvents,
    /// By the name of the receiver.
    waiting: BTreeMap<String, Waiting>,
    /// Each ends with the name of its receiver.
    sending: FuturesUnordered<Sending>,
    /// Looks at queues; one at a time.
    looking: FuturesUnordered<Looking>,
    /// As queues were seen last; empty if they could not be seen.
    ready: BTreeMap<Place, u32>,
    look_at_queues_from: Instant,
}

impl Task {
    async fn run(mut self, mut events: mpsc::Receiver<NotifyEvent>, mut stopped: oneshot::Receiver<()>) {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due =
                self.waiting.values().filter(|of| !of.busy).filter_map(|of| of.batches.next_due()).min();
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                Some(event) = events.recv() => self.take_in(event),
                Some(name) = self.sending.next(), if !self.sending.is_empty() => self.sent(&name),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.send_due(),
                Some(ready) = self.looking.next(), if !self.looking.is_empty() => self.ready = ready,
                _ = look.tick() => self.look(),
            }
        }
        while let Ok(event) = events.try_recv() {
            self.take_in(event);
        }
        self.send_rest().await;
    }

    fn take_in(&mut self, event: NotifyEvent) {
        let (event, now): (SharedEvent, _) = (Arc::new(event), Instant::now());
        let receivers = Arc::clone(&self.receivers.borrow());
        for config in receivers.configs.iter().filter(|config| config.events.contains(&event.kind())) {
            self.waiting.entry(config.receiver.name.clone()).or_default().batches.add(now, &event);
        }
    }

    fn sent(&mut self, name: &str) {
        if let Some(waiting) = self.waiting.get_mut(name) {
            waiting.busy = false;
        }
    }

    fn send_due(&mut self) {
        let receivers = Arc::clone(&self.receivers.borrow());
        let is_known = |name: &String| receivers.configs.iter().any(|config| config.receiver.name == *name);
        self.waiting.retain(|name, waiting| waiting.busy || is_known(name));
        for (number, config) in receivers.configs.iter().enumerate() {
            let Some(waiting) = self.waiting.get_mut(&config.receiver.name).filter(|of| !of.busy) else {
                continue;
            };
            if let Some(batch) = waiting.batches.take_due(Instant::now(), config.interval) {
                waiting.busy = true;
                let sending = self.sending(&receivers, number, &batch, &WAITS);
                self.sending.push(sending);
            }
        }
    }

    fn sending(
        &self,
        receivers: &Arc<Receivers>,
        number: usize,
        batch: &Batch,
        waits: &'static [Duration],
    ) -> Sending {
        let (receivers, metrics, kind) = (Arc::clone(receivers), self.metrics.clone(), batch.kind);
        let config = &receivers.configs[number];
        let (name, id) = (config.receiver.name.clone(), Uuid::new_v4().to_string());
        let body = body(batch, &self.source, &id, config.record_keys);
        let notification = Notification { number, id, kind: format!("lanekeeper.{}", kind.name()), body };
        Box::pin(async move {
            match deliver(&receivers.targets, &name, &notification, waits).await {
                Ok(()) => metrics.sent(kind),
                Err(why) => {
                    metrics.dropped(NotifyDrop::Failed, 1);
                    warn!(
                        notify = name,
                        event = kind.name(),
                        why,
                        "a notification was not taken, and is not sent again"
                    );
                }
            }
            name
        })
    }

    /// The process ends: each is sent once, now.
    async fn send_rest(&mut self) {
        let receivers = Arc::clone(&self.receivers.borrow());
        for (number, config) in receivers.configs.iter().enumerate() {
            let Some(waiting) = self.waiting.get_mut(&config.receiver.name) else { continue };
            for batch in waiting.batches.take_all() {
                let sending = self.sending(&receivers, number, &batch, &[]);
                self.sending.push(sending);
            }
        }
        while self.sending.next().await.is_some() {}
    }

    /// Looks at what several processes can see.
    fn look(&mut self) {
        let receivers = Arc::clone(&self.receivers.borrow());
        if receivers.configs.is_empty() {
            return self.inputs.presence.state_notices(None);
        }
        let (presence, health) = (&self.inputs.presence, &self.inputs.health);
        let (replicas, announced, shut) = (presence.replicas(), presence.announced(), health.shut_reasons());
        let partitions = health.partitions();
        let seen = Observation {
            now: Instant::now(),
            replicas: &replicas,
            shut: &shut,
            targets: &receivers.shut_names,
            partitions: &partitions,
            owners_known: !self.inputs.publishing.is_blocked(),
            announced: &announced,
        };
        let announces = self.cluster_events.look(&seen);
        let mut events = Vec::new();
        if announces {
            events = self.cluster_events.targets(&seen);
            let unclaimed = seen.unclaimed();
            if self.look_at_queues_from <= seen.now && self.looking.is_empty() && !unclaimed.is_empty() {
                let number = u32::try_from(unclaimed.len()).unwrap_or(u32::MAX);
                self.look_at_queues_from = seen.now + LOOK_INTERVAL * (1 + number / QUEUES_PER_SECOND);
                let (consuming, names) = (self.inputs.consuming.clone(), self.inputs.names.clone());
                self.looking.push(Box::pin(async move {
                    ready_messages(&consuming, &names, unclaimed).await.unwrap_or_default()
                }));
            }
            events.extend(self.cluster_events.partitions(&seen, &self.ready));
        }
        let announced = announces.then(|| self.cluster_events.announced().clone());
        self.inputs.presence.state_notices(Some(Notices { shut: shut.into_keys().collect(), announced }));
        for event in events {
            self.take_in(event);
        }
    }
}

/// Sends a notification that says only that it came, once, to the receivers of these numbers: how each has ended.
///
/// # Errors
/// A setting is not valid in HTTP.
pub async fn send_tests(config: &Config, numbers: &[usize]) -> Result<Vec<Result<(), String>>, TargetsFault> {
    let receivers = Receivers::new(config, None)?;
    let source = EventSource { instance: config.instance.clone(), exchange: config.updates.exchange.clone() };
    let mut ended = Vec::new();
    for &number in numbers {
        let id = Uuid::new_v4().to_string();
        let body = test_body(&source, &id);
        let notification = Notification { number, id, kind: "lanekeeper.test".to_owned(), body };
        let name = &receivers.configs[number].receiver.name;
        ended.push(deliver(&receivers.targets, name, &notification, &[]).await);
    }
    Ok(ended)
}

#[cfg(test)]
impl Notifier {
    /// One that tells nobody.
    pub fn off() -> Self {
        static OFF: std::sync::OnceLock<Notifier> = std::sync::OnceLock::new();
        let make = || {
            use crate::config::{Environment, Purpose, load};
            let config =
                load(None, &Environment::default(), Purpose::Publish).expect("the defaults are sound");
            // Another test of this process may have installed it.
            let _ = rustls::crypto::ring::default_provider().install_default();
            Notifications::new(&config.config, NotifyMetrics::default()).expect("nothing is wrong").notifier()
        };
        OFF.get_or_init(make).clone()
    }
}
