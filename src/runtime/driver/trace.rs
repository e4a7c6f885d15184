//! The spans of the updates that a driver holds: begun at the delivery, ended when it is settled or given back.
//!
//! If traces are off, each of these calls looks at an `Option` and does nothing.

use std::collections::HashMap;
use std::sync::Arc;

use crate::admin::metrics::TargetMetrics;
use crate::telemetry::{AttemptFacts, AttemptTrace, PartitionSpans, UpdateFacts, UpdateSpan};
use lanekeeper_core::layout::Layout;
use lanekeeper_core::message::{DeliveryTag, Holder};
use lanekeeper_core::policy::{ParkReason, Resolution};
use lanekeeper_core::update::Update;

/// The spans of one partition that have not ended.
pub(super) struct HeldSpans(Option<OpenSpans>);

struct OpenSpans {
    spans: PartitionSpans,
    updates: HashMap<Holder, HeldUpdate>,
    /// Two windows: what the broker hands over, and what was read from the ledger.
    updates_max: usize,
}

struct HeldUpdate {
    span: UpdateSpan,
    /// Tells it from an update of another session with the same delivery tag.
    update: Arc<Update>,
    redelivered: bool,
    attempts: u32,
    resolution: Option<&'static str>,
    failed: Option<&'static str>,
}

impl HeldSpans {
    pub(super) fn new(spans: Option<PartitionSpans>, layout: Layout) -> Self {
        let updates_max = 2 * usize::from(layout.prefetch);
        Self(spans.map(|spans| OpenSpans { spans, updates: HashMap::new(), updates_max }))
    }

    pub(super) fn received(&mut self, delivery: DeliveryTag, redelivered: bool, update: &Arc<Update>) {
        let Some(held) = &mut self.0 else { return };
        let span = held.spans.begin(update);
        held.hold(Holder::Broker(delivery), HeldUpdate::new(span, update, redelivered));
    }

    pub(super) fn begin_attempt(&mut self, holder: Holder, update: &Arc<Update>) -> Option<AttemptTrace> {
        let held = self.0.as_mut()?;
        let spans = held.spans.clone();
        let update = held.of(holder, update)?;
        update.attempts += 1;
        Some(spans.begin_attempt(&update.span))
    }

    pub(super) fn attempt_ended(&self, trace: AttemptTrace, facts: &AttemptFacts<'_>) {
        if let Some(held) = &self.0 {
            held.spans.end_attempt(trace, facts);
        }
    }

    /// Returns the id of its trace if that is sampled.
    pub(super) fn resolved(
        &mut self,
        holder: Holder,
        update: Option<&Arc<Update>>,
        resolution: &Resolution,
    ) -> Option<String> {
        let update = self.0.as_mut()?.of(holder, update?)?;
        update.resolution = Some(resolution.name());
        update.failed = match resolution {
            Resolution::Parked(ParkReason::Failed { reason, .. }) | Resolution::DeadLettered(reason) => {
                Some(reason.name())
            }
            Resolution::Applied
            | Resolution::Duplicate
            | Resolution::Superseded
            | Resolution::Parked(ParkReason::Behind) => None,
        };
        update.span.sampled_id()
    }

    /// The broker or the ledger keeps the update no longer.
    pub(super) fn settled(&mut self, holder: Holder, targets: &[TargetMetrics]) {
        if let Some(held) = &mut self.0
            && let Some(update) = held.updates.remove(&holder)
        {
            held.end(holder, update, false, targets);
        }
    }

    /// The session has ended: what is not settled comes again, or stays in the ledger.
    pub(super) fn session_ended(&mut self, targets: &[TargetMetrics]) {
        let Some(held) = &mut self.0 else { return };
        for (holder, update) in std::mem::take(&mut held.updates) {
            held.end(holder, update, true, targets);
        }
    }
}

impl OpenSpans {
    fn hold(&mut self, holder: Holder, update: HeldUpdate) {
        if self.updates.len() < self.updates_max {
            self.updates.insert(holder, update);
        }
    }

    /// What is held of the update. One that the ledger keeps is held from here on: its span begins when it has its turn.
    fn of(&mut self, holder: Holder, update: &Arc<Update>) -> Option<&mut HeldUpdate> {
        if let Holder::Ledger(_) = holder
            && !self.updates.contains_key(&holder)
        {
            let span = self.spans.begin_released(update);
            self.hold(holder, HeldUpdate::new(span, update, false));
        }
        self.updates.get_mut(&holder).filter(|held| Arc::ptr_eq(&held.update, update))
    }

    fn end(&self, holder: Holder, held: HeldUpdate, given_back: bool, targets: &[TargetMetrics]) {
        let HeldUpdate { span, update, redelivered, attempts, resolution, failed } = held;
        let target = targets[update.target.0].name();
        let update = &*update;
        let facts =
            UpdateFacts { update, holder, redelivered, attempts, target, resolution, failed, given_back };
        self.spans.end(span, &facts);
    }
}

impl HeldUpdate {
    fn new(span: UpdateSpan, update: &Arc<Update>, redelivered: bool) -> Self {
        Self { span, update: Arc::clone(update), redelivered, attempts: 0, resolution: None, failed: None }
    }
}
