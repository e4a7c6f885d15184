//! What a dispatcher does for the layouts besides dispatching: it tells what it has drained, removes what is drained, and
//! brings to an end what an operator began and did not finish. All of it under the lock, on a connection of its own, so
//! that an alarm, which freezes connections that publish, cannot keep the lock with a process that works.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::auto_apply::{AutoApply, AutoApplyGate};
use super::change::{Reconciled, Stuck, reconcile};
use super::connection::Address;
use super::document::LayoutDocument;
use super::error::SourceError;
use super::follower::Follower;
use super::names::Names;
use super::task::Task;
use lanekeeper_core::change::{Desired, Step};
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber, Shape};

/// Before a look whether whoever began a change still lives, and between two such looks; after a drain, before the
/// removal, so that all processes have heard and let go.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(2);
/// Between two tries for a lock that another process has for a moment.
const LOCK_RETRY: Duration = Duration::from_millis(250);
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// Between two looks at a drained layout that only a person can help.
const STUCK_DELAY: Duration = Duration::from_secs(30);
/// Reports that come together are written together.
const BATCH_DELAY: Duration = Duration::from_millis(50);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Does all that for as long as it lives.
#[derive(Debug)]
pub struct LayoutReconciler {
    shared: Arc<ReconcilerState>,
    _task: Task,
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
    /// `auto`: the layout is to be changed to this once, as soon as nothing drains and nothing is in the way; `None`: it
    /// stays as it is.
    #[must_use]
    pub fn begin(
        address: Address,
        names: &Names,
        instance: &str,
        follower: &Follower,
        auto: Option<AutoApply>,
    ) -> Self {
        let shared = Arc::new(ReconcilerState {
            address,
            names: names.clone(),
            instance: instance.to_owned(),
            drained: Mutex::default(),
            reported: Notify::new(),
        });
        let task = Task::begin(serve(Arc::clone(&shared), follower.watch(), auto.map(AutoApplyGate::new)));
        Self { shared, _task: task }
    }

    /// The partition holds nothing more. The others learn of it from the document, whatever it takes.
    pub fn drained(&self, layout: LayoutNumber, partition: PartitionNumber) {
        self.shared.reports().push((layout, partition));
        self.shared.reported.notify_one();
    }
}

impl ReconcilerState {
    fn reports(&self) -> std::sync::MutexGuard<'_, Vec<(LayoutNumber, PartitionNumber)>> {
        self.drained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process is to see to now; `None`: nothing.
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
    let (mut last_logged, mut stuck_logged) = (String::new(), None);
    loop {
        let document = documents.borrow_and_update().clone();
        gate = gate.filter(|gate| document.layouts.in_force.shape() != gate.auto.shape);
        let mut wanted = None;
        let mut desired = shared.desired(&document, None);
        let wants_change =
            |gate: &&mut AutoApplyGate| shared.desired(&document, Some(gate.auto.shape)).is_some();
        // A change begins with nothing else to do, so that what could be in the way is looked for shortly before.
        if let (None, Some(gate)) = (&desired, gate.as_mut().filter(wants_change)) {
            if timeout(WAIT_FOR_OTHERS, documents.changed()).await.is_ok() {
                continue;
            }
            if let Some(delay) = gate.look().await {
                // Nothing is held meanwhile, and everything else goes on.
                match timeout(delay, next_change(&mut documents, &shared.reported)).await {
                    Ok(Err(_)) => return,
                    Ok(Ok(())) | Err(_) => continue,
                }
            }
            wanted = Some(gate.auto.shape);
            desired = shared.desired(&document, wanted);
        }
        let Some(desired) = desired else {
            stuck_logged = None;
            if next_change(&mut documents, &shared.reported).await.is_err() {
                return;
            }
            continue;
        };
        if !desired.drained.is_empty() {
            sleep(BATCH_DELAY).await;
        } else if wanted.is_none() {
            // Somebody else may be at it.
            if timeout(WAIT_FOR_OTHERS, documents.changed()).await.is_ok() {
                continue;
            }
        }
        let desired = shared.desired(&document, wanted).unwrap_or(desired);
        let delay = match shared.reconcile(desired).await {
            Ok(Reconciled { document, stuck }) => {
                last_logged.clear();
                match &stuck {
                    // The follower may have it later, and nothing is to be done twice meanwhile.
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
                log_stuck(&mut stuck_logged, stuck);
                continue;
            }
            Err(SourceError::Locked { .. }) => LOCK_RETRY,
            Err(fault) => {
                let fault = error_chain(&fault);
                if fault != last_logged {
                    warn!(error = fault, "the layouts cannot be tended, trying again");
                    last_logged = fault;
                }
                RETRY_DELAY
            }
        };
        sleep(delay).await;
    }
}

/// A document came, or a report. An error: the process ends.
async fn next_change(
    documents: &mut watch::Receiver<LayoutDocument>,
    reports: &Notify,
) -> Result<(), watch::error::RecvError> {
    tokio::select! {
        changed = documents.changed() => changed,
        () = reports.notified() => Ok(()),
    }
}

fn log_stuck(last_logged: &mut Option<Stuck>, stuck: Option<Stuck>) {
    match &stuck {
        // It lets go as soon as it has heard.
        None | Some(Stuck::InUse { .. }) => {}
        Some(_) if *last_logged == stuck => {}
        Some(reason) => {
            error!(error = reason.to_string(), "a drained layout stays until a person has looked");
        }
    }
    *last_logged = stuck;
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
        // It has the lock, if something went wrong.
        let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "normal shutdown".into())).await;
        reconciled
    }
}
