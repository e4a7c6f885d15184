//! Brings the layouts to their desired state: records which partitions this process has drained, removes layouts that are
//! drained, finishes what an operator began and did not finish, and records epochs of tenure numbers. It does so under the
//! lock, on a connection of its own: an alarm of the broker freezes connections that publish, and the lock would stay with
//! one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::auto_apply::{AutoApply, AutoApplyGate};
use super::change::{Reconciled, Stuck, reconcile};
use super::document::LayoutDocument;
use super::epoch_record::record_epochs;
use super::follower::Follower;
use crate::connection::Address;
use crate::epochs::Epochs;
use crate::error::SourceError;
use crate::log_on_change::LogOnChange;
use crate::names::Names;
use lanekeeper_core::change::{Desired, Step};
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber, Shape};

/// How long others have for what they began, before this process does it; after a drain, how long all processes have to
/// stop consuming before the layout is removed.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(2);
/// Between two tries for a lock that another process holds.
const LOCK_RETRY: Duration = Duration::from_millis(250);
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// Between two tries to remove a drained layout that needs a person.
const STUCK_DELAY: Duration = Duration::from_secs(30);
/// Reports that come within this time are written together.
const BATCH_DELAY: Duration = Duration::from_millis(50);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Stops when it is dropped.
#[derive(Debug)]
pub struct LayoutReconciler {
    shared: Arc<ReconcilerState>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

#[derive(Debug)]
struct ReconcilerState {
    address: Address,
    names: Names,
    instance: String,
    drained: Mutex<Vec<(LayoutNumber, PartitionNumber)>>,
    reported: Notify,
}

impl LayoutReconciler {
    /// `auto`: changes the layout to this once, as soon as nothing drains and no obstacle is found; `None`: leaves it as it
    /// is. `epochs`: those that the document does not know are recorded in it.
    #[must_use]
    pub fn begin(
        address: Address,
        names: &Names,
        instance: &str,
        follower: &Follower,
        auto: Option<AutoApply>,
        epochs: &Epochs,
    ) -> Self {
        let recording = record_epochs(
            address.clone(),
            names.clone(),
            instance.to_owned(),
            follower.watch(),
            epochs.clone(),
        );
        let shared = Arc::new(ReconcilerState {
            address,
            names: names.clone(),
            instance: instance.to_owned(),
            drained: Mutex::default(),
            reported: Notify::new(),
        });
        let serving = serve(Arc::clone(&shared), follower.watch(), auto.map(AutoApplyGate::new));
        let tasks = [tokio::spawn(serving), tokio::spawn(recording)];
        Self { shared, _tasks: tasks.map(AbortOnDropHandle::new) }
    }

    /// The partition holds nothing more. The other processes read it in the layout document; this is tried until it is
    /// written.
    pub fn drained(&self, layout: LayoutNumber, partition: PartitionNumber) {
        self.shared.reports().push((layout, partition));
        self.shared.reported.notify_one();
    }
}

impl ReconcilerState {
    fn reports(&self) -> std::sync::MutexGuard<'_, Vec<(LayoutNumber, PartitionNumber)>> {
        self.drained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process is to bring about now; `None`: nothing.
    fn desired(&self, document: &LayoutDocument, wanted: Option<Shape>) -> Option<Desired> {
        let layouts = &document.layouts;
        self.reports().retain(|report| layouts.with_drained(std::slice::from_ref(report)).is_some());
        let desired = Desired { drained: self.reports().clone(), shape: wanted, begun: None, remove: true };
        layouts.next_step(&desired).map(|_| desired)
    }
}

async fn serve(
    shared: Arc<ReconcilerState>,
    mut documents: watch::Receiver<LayoutDocument>,
    mut gate: Option<AutoApplyGate>,
) {
    let (mut log, mut stuck_log) = (LogOnChange::default(), LogOnChange::default());
    loop {
        let document = documents.borrow_and_update().clone();
        gate = gate.filter(|gate| document.layouts.in_force.shape() != gate.shape());
        let mut wanted = None;
        let mut desired = shared.desired(&document, None);
        let wants_change =
            |gate: &&mut AutoApplyGate| shared.desired(&document, Some(gate.shape())).is_some();
        // A change begins only if nothing else is to be done, so that the check for obstacles comes shortly before it.
        if let (None, Some(gate)) = (&desired, gate.as_mut().filter(wants_change)) {
            if timeout(WAIT_FOR_OTHERS, documents.changed()).await.is_ok() {
                continue;
            }
            if let Some(delay) = gate.look().await {
                // No lock is held, and everything else goes on.
                match timeout(delay, next_change(&mut documents, &shared.reported)).await {
                    Ok(Err(_)) => return,
                    Ok(Ok(())) | Err(_) => continue,
                }
            }
            wanted = Some(gate.shape());
            desired = shared.desired(&document, wanted);
        }
        let Some(desired) = desired else {
            stuck_log.cleared();
            if next_change(&mut documents, &shared.reported).await.is_err() {
                return;
            }
            continue;
        };
        if !desired.drained.is_empty() {
            sleep(BATCH_DELAY).await;
        } else if wanted.is_none() {
            // Another process may be doing it.
            if timeout(WAIT_FOR_OTHERS, documents.changed()).await.is_ok() {
                continue;
            }
        }
        let desired = shared.desired(&document, wanted).unwrap_or(desired);
        let delay = match shared.reconcile(desired).await {
            Ok(Reconciled { document, stuck }) => {
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
                let error = error_chain(&fault);
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
async fn next_change(
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

impl ReconcilerState {
    async fn reconcile(&self, desired: Desired) -> Result<Reconciled, SourceError> {
        let connection = self.address.connect(&format!("lanekeeper {} layout", self.instance)).await?;
        let mut on_step = |step: &Step, document: &LayoutDocument| match step {
            Step::Undo(_) | Step::Switch { .. } | Step::Begin(_) => {
                let changing = document.layouts.changing.as_ref();
                let begun_by = changing.map_or(self.instance.as_str(), |changing| changing.by.as_str());
                info!(?step, begun_by, "changing the layout");
            }
            Step::Prepare(_) | Step::Record | Step::Remove(_) => {}
        };
        let reconciled = reconcile(&connection, &self.names, &self.instance, desired, &mut on_step).await;
        // If something went wrong, this connection still has the lock.
        let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "normal shutdown".into())).await;
        reconciled
    }
}
