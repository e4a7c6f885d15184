//! Brings the layouts to their desired state: records which partitions this process has drained, removes layouts that are
//! drained, and finishes what an operator began and did not finish. It does so under the lock, on a connection of its own:
//! an alarm of the broker freezes connections that publish, and the lock would stay with one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::auto_apply::{AutoApply, Gate};
use super::change::{Stuck, Tended, tend};
use super::document::LayoutDocument;
use super::follower::Follower;
use crate::error::SourceError;
use crate::link::Address;
use crate::log_on_change::LogOnChange;
use crate::names::Names;
use lanekeeper_core::change::{Step, Wish};
use lanekeeper_core::error::chain;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber, Shape};

/// How long others have for what they began, before this process does it; after a drain, how long all processes have to
/// stop consuming before the layout is removed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries for a lock that another process holds.
const LOCK_RETRY: Duration = Duration::from_millis(250);
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// Between two tries to remove a drained layout that needs a person.
const STUCK_DELAY: Duration = Duration::from_secs(30);
/// Reports that come within this time are written together.
const GATHERING: Duration = Duration::from_millis(50);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Stops when it is dropped.
#[derive(Debug)]
pub struct Steward {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    address: Address,
    names: Names,
    instance: String,
    drained: Mutex<Vec<(LayoutNumber, PartitionNumber)>>,
    news: Notify,
}

impl Steward {
    /// `auto`: changes the layout to this once, as soon as nothing drains and no obstacle is found; `None`: leaves it as it
    /// is.
    #[must_use]
    pub fn begin(
        address: Address,
        names: &Names,
        instance: &str,
        follower: &Follower,
        auto: Option<AutoApply>,
    ) -> Self {
        let shared = Arc::new(Shared {
            address,
            names: names.clone(),
            instance: instance.to_owned(),
            drained: Mutex::default(),
            news: Notify::new(),
        });
        let serving = serve(Arc::clone(&shared), follower.watch(), auto.map(Gate::new));
        Self { shared, _task: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }

    /// The partition holds nothing more. The other processes read it in the layout document; this is tried until it is
    /// written.
    pub fn drained(&self, layout: LayoutNumber, partition: PartitionNumber) {
        self.shared.reports().push((layout, partition));
        self.shared.news.notify_one();
    }
}

impl Shared {
    fn reports(&self) -> std::sync::MutexGuard<'_, Vec<(LayoutNumber, PartitionNumber)>> {
        self.drained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process is to bring about now; `None`: nothing.
    fn wish(&self, document: &LayoutDocument, wanted: Option<Shape>) -> Option<Wish> {
        let layouts = &document.layouts;
        self.reports().retain(|report| layouts.with_drained(std::slice::from_ref(report)).is_some());
        let wish = Wish { drained: self.reports().clone(), shape: wanted, begun: None, remove: true };
        layouts.next_step(&wish).map(|_| wish)
    }
}

async fn serve(shared: Arc<Shared>, mut documents: watch::Receiver<LayoutDocument>, mut gate: Option<Gate>) {
    let (mut log, mut stuck_log) = (LogOnChange::default(), LogOnChange::default());
    loop {
        let document = documents.borrow_and_update().clone();
        gate = gate.filter(|gate| document.layouts.in_force.shape() != gate.shape());
        let mut wanted = None;
        let mut wish = shared.wish(&document, None);
        let wants_change = |gate: &&mut Gate| shared.wish(&document, Some(gate.shape())).is_some();
        // A change begins only if nothing else is to be done, so that the check for obstacles comes shortly before it.
        if let (None, Some(gate)) = (&wish, gate.as_mut().filter(wants_change)) {
            if timeout(PATIENCE, documents.changed()).await.is_ok() {
                continue;
            }
            if let Some(delay) = gate.look().await {
                // No lock is held, and everything else goes on.
                match timeout(delay, news(&mut documents, &shared.news)).await {
                    Ok(Err(_)) => return,
                    Ok(Ok(())) | Err(_) => continue,
                }
            }
            wanted = Some(gate.shape());
            wish = shared.wish(&document, wanted);
        }
        let Some(wish) = wish else {
            stuck_log.cleared();
            if news(&mut documents, &shared.news).await.is_err() {
                return;
            }
            continue;
        };
        if !wish.drained.is_empty() {
            sleep(GATHERING).await;
        } else if wanted.is_none() {
            // Another process may be doing it.
            if timeout(PATIENCE, documents.changed()).await.is_ok() {
                continue;
            }
        }
        let wish = shared.wish(&document, wanted).unwrap_or(wish);
        let delay = match shared.tend(wish).await {
            Ok(Tended { document, stuck }) => {
                log.cleared();
                match &stuck {
                    // The follower reads the document later; until then the same would be done a second time.
                    None => {
                        let serial = document.serial;
                        let _ =
                            timeout(RETRY_DELAY, documents.wait_for(|known| known.serial >= serial)).await;
                    }
                    Some(Stuck::InUse { .. }) => {}
                    Some(Stuck::Late { .. } | Stuck::Bound { .. }) => {
                        let _ = timeout(STUCK_DELAY, documents.changed()).await;
                    }
                }
                log_stuck(&mut stuck_log, stuck);
                continue;
            }
            Err(SourceError::Locked { .. }) => LOCK_RETRY,
            Err(fault) => {
                let error = chain(&fault);
                if log.is_new(error.clone()) {
                    warn!(error, "cannot bring the layouts to their desired state, trying again");
                }
                RETRY_DELAY
            }
        };
        sleep(delay).await;
    }
}

/// Waits for a document or a report. An error: the process ends.
async fn news(
    documents: &mut watch::Receiver<LayoutDocument>,
    reports: &Notify,
) -> Result<(), watch::error::RecvError> {
    tokio::select! {
        changed = documents.changed() => changed,
        () = reports.notified() => Ok(()),
    }
}

fn log_stuck(log: &mut LogOnChange<Stuck>, stuck: Option<Stuck>) {
    match stuck {
        // The consumer stops as soon as it has read the document.
        None | Some(Stuck::InUse { .. }) => {
            log.cleared();
        }
        Some(stuck) => {
            let error = stuck.to_string();
            if log.is_new(stuck) {
                error!(error, "cannot remove a drained layout: a person must act, trying again every 30 s");
            }
        }
    }
}

impl Shared {
    async fn tend(&self, wish: Wish) -> Result<Tended, SourceError> {
        let connection = self.address.connect(&format!("lanekeeper {} layout", self.instance)).await?;
        let mut hear = |step: &Step, document: &LayoutDocument| match step {
            Step::Undo(_) | Step::Switch { .. } | Step::Begin(_) => {
                let changing = document.layouts.changing.as_ref();
                let begun_by = changing.map_or(self.instance.as_str(), |changing| changing.by.as_str());
                info!(?step, begun_by, "changing the layout");
            }
            Step::Prepare(_) | Step::Record | Step::Remove(_) => {}
        };
        let tended = tend(&connection, &self.names, &self.instance, wish, &mut hear).await;
        // If something went wrong, this connection still has the lock.
        let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "done".into())).await;
        tended
    }
}
