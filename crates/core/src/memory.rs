//! What earlier tenures of this process know about updates that the broker may hand over again.
//!
//! When a channel is lost, its unsettled deliveries come back, and so do those whose acks were still on their way.
//! Attempts that were out keep running. Without this memory a lost connection would repeat requests.
//!
//! A redelivery is known by the record key and the id that its publisher gave it. An update without such an id is not
//! known again: it is sent once more, after what an earlier tenure began with it has ended.

mod recently_settled;

use std::collections::{HashMap, HashSet};

use self::recently_settled::RecentlySettled;
use super::lane::{Stray, Token};
use super::message::AttemptId;
use super::outcome::{Known, Outcome};
use super::policy::{Progress, Resolution};
use super::routes::TargetId;
use super::tick::Tick;
use super::update::{IdOrigin, Identity, RecordKey};

#[derive(Debug)]
struct Remembered {
    id: Identity,
    state: RememberedState,
    /// Its new delivery has come: it is kept until it is the head again.
    claimed: bool,
    /// The ledger holds it, so that it comes back whatever the broker hands over.
    released: bool,
}

/// How far the head of a lane had come when its tenure ended.
#[derive(Debug)]
pub(super) enum RememberedState {
    /// Its attempt is still out. Leaves to `Ended`.
    InFlight { attempt: AttemptId, target: TargetId, progress: Progress },
    /// Its attempt ended after the tenure.
    Ended { outcome: Outcome, target_shut: bool, progress: Progress, at: Tick },
    /// It waited for its next attempt.
    Waiting { until: Tick, progress: Progress },
    /// Its resolution was being written down. Leaves to `Recorded`.
    Recording { token: Token, resolution: Resolution },
    /// Its resolution was written down after the tenure.
    Recorded { resolution: Resolution },
    /// Its resolution could not be written down under the number of its tenure, and stands.
    Unwritten { resolution: Resolution },
}

impl RememberedState {
    fn attempt_out(&self) -> Option<AttemptId> {
        match self {
            Self::InFlight { attempt, .. } => Some(*attempt),
            _ => None,
        }
    }

    /// Returns true if the target has it and no further request would be made.
    fn is_applied(&self) -> bool {
        match self {
            Self::Ended { outcome, .. } => {
                matches!(outcome, Outcome::Applied | Outcome::Known(Known::Resolved | Known::Superseded))
            }
            Self::Recording { resolution, .. }
            | Self::Recorded { resolution }
            | Self::Unwritten { resolution } => {
                !matches!(resolution, Resolution::DeadLettered(_) | Resolution::Parked(_))
            }
            Self::InFlight { .. } | Self::Waiting { .. } => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    window: usize,
    /// As many as the broker can hand over again: what it has not seen acked is a window at most, and an ack that waits
    /// for older deliveries lets up to a window of those pass it.
    recently_settled: RecentlySettled,
    /// An update that was settled recently was sent once more, since its publisher published it again. For so many
    /// further settlements, copies of it may be among what comes back.
    repeated: usize,
    /// A tenure ended, and nothing new has come since: what it had settled or held may come back.
    redeliveries_expected: bool,
    /// Settled updates that may come back: filled when a tenure ends, emptied when all redeliveries have come.
    expected_redeliveries: HashSet<(RecordKey, Identity)>,
    /// Heads of earlier tenures. A record has more than one where an update was sent again before others that wait, and
    /// where updates were released before what the broker holds.
    heads: HashMap<RecordKey, Vec<Remembered>>,
    /// What has not ended, and says nothing about an update that may come back: that has no id of its publisher, or
    /// another process has owned the partition since. It blocks its record until it ends (I1). Their updates are not
    /// settled, so that there are a window of them at most.
    strays: HashMap<RecordKey, Stray>,
}

impl Memory {
    pub(super) fn new(window: usize) -> Self {
        Self {
            window,
            recently_settled: RecentlySettled::new(2 * window),
            repeated: 0,
            redeliveries_expected: false,
            expected_redeliveries: HashSet::new(),
            heads: HashMap::new(),
            strays: HashMap::new(),
        }
    }

    /// A delivery was settled; its ack may yet be lost.
    pub(super) fn settled(&mut self, record_key: &RecordKey, id: &Identity) {
        if id.origin() == IdOrigin::Publisher {
            self.repeated = self.repeated.saturating_sub(1);
            self.recently_settled.add((record_key.clone(), id.clone()));
        }
    }

    /// An update is being sent. If it was settled recently, its publisher has published it again, from it on: what was
    /// settled since then no longer says what the record holds. A later delivery with such an id may not be a settled
    /// one that comes back, and skipping it would leave the record with an earlier value.
    pub(super) fn sent(&mut self, record_key: &RecordKey, id: &Identity) {
        let update = (record_key.clone(), id.clone());
        if self.recently_settled.contains(&update) {
            self.repeated = 2 * self.window;
            self.recently_settled.forget_from(&update);
        }
    }

    /// Returns true if what comes back may be a later copy of an update whose earlier one is settled.
    pub(super) fn may_hold_repeated(&self) -> bool {
        self.repeated > 0
    }

    /// A tenure ended: what it settled may come back.
    pub(super) fn expect_redeliveries(&mut self) {
        self.redeliveries_expected = true;
        self.heads.values_mut().flatten().for_each(|head| head.claimed = false);
        if self.heads.values().map(Vec::len).sum::<usize>() > 2 * self.window {
            self.forget_heads(|_| false);
        }
        self.expected_redeliveries.extend(self.recently_settled.iter().cloned());
        self.recently_settled.tenure_ended();
    }

    /// A delivery of something settled before came back, but was not settled again before its tenure ended.
    pub(super) fn expect_redelivery(&mut self, record_key: RecordKey, id: Identity) {
        self.expected_redeliveries.insert((record_key, id));
    }

    /// How far the head of a lane had come when its tenure ended. An update without an id of its publisher comes back
    /// under another id, unless the ledger holds it.
    pub(super) fn remember(
        &mut self,
        record_key: RecordKey,
        id: Identity,
        state: RememberedState,
        released: bool,
    ) {
        if !released && id.origin() == IdOrigin::Delivery {
            let stray = match state {
                RememberedState::InFlight { attempt, .. } => Stray::Attempt(attempt),
                RememberedState::Recording { token, .. } => Stray::Recording(token),
                _ => return,
            };
            let before = self.strays.insert(record_key, stray);
            assert_eq!(before, None, "I1: nothing of a record begins before a stray has ended");
            return;
        }
        let heads = self.heads.entry(record_key).or_default();
        heads.retain(|head| head.id != id);
        heads.push(Remembered { id, state, claimed: false, released });
    }

    /// An update was handed over again. Returns true if it was settled before, and only its ack was lost.
    pub(super) fn claim(&mut self, record_key: &RecordKey, id: &Identity) -> bool {
        let mut heads = self.heads.get_mut(record_key).into_iter().flatten();
        if let Some(head) = heads.find(|head| head.id == *id) {
            head.claimed = true;
        }
        !self.expected_redeliveries.is_empty()
            && self.expected_redeliveries.contains(&(record_key.clone(), id.clone()))
    }

    /// Another process has owned the partition since: what it applied is not known here, so that nothing that we had
    /// settled says what a record holds now. Attempts that are still out block their record all the same; what is still
    /// being written down may be refused under the number of a newer tenure, or be written twice.
    pub(super) fn ownership_lapsed(&mut self) {
        self.recently_settled.clear();
        self.expected_redeliveries = HashSet::new();
        self.strays.retain(|_, stray| matches!(stray, Stray::Attempt(_)));
        #[expect(
            clippy::iter_over_hash_type,
            reason = "each entry is of another record: their order decides nothing"
        )]
        for (record_key, heads) in self.heads.drain() {
            if let Some(attempt) = heads.iter().find_map(|head| head.state.attempt_out()) {
                self.strays.insert(record_key, Stray::Attempt(attempt));
            }
        }
    }

    /// The broker handed over something new: all redeliveries have come, here or elsewhere.
    pub(super) fn redeliveries_done(&mut self) {
        if std::mem::take(&mut self.redeliveries_expected) {
            self.expected_redeliveries = HashSet::new();
            self.forget_heads(|head| head.claimed || head.released);
        }
    }

    /// An update is about to be sent that may have been sent and settled before. Later updates of its record must
    /// follow it, also those that are applied: otherwise the record would keep the earlier value.
    pub(super) fn resend_from(&mut self, record_key: &RecordKey) {
        self.expected_redeliveries.retain(|(of, _)| of != record_key);
        self.recently_settled.forget_of_earlier_tenures(record_key);
        self.retain_heads(record_key, |head| !head.state.is_applied());
    }

    /// Keeps these, and attempts that are still out: they block their record.
    fn forget_heads(&mut self, keep: impl Fn(&Remembered) -> bool) {
        self.heads.retain(|_, heads| {
            heads.retain(|head| keep(head) || head.state.attempt_out().is_some());
            !heads.is_empty()
        });
    }

    fn retain_heads(&mut self, record_key: &RecordKey, keep: impl FnMut(&Remembered) -> bool) {
        let Some(heads) = self.heads.get_mut(record_key) else { return };
        heads.retain(keep);
        if heads.is_empty() {
            self.heads.remove(record_key);
        }
    }

    /// What is known of this very update, which is the head now.
    pub(super) fn take_head(&mut self, record_key: &RecordKey, id: &Identity) -> Option<RememberedState> {
        let heads = self.heads.get_mut(record_key)?;
        let place = heads.iter().position(|head| head.id == *id)?;
        let state = heads.swap_remove(place).state;
        if heads.is_empty() {
            self.heads.remove(record_key);
        }
        Some(state)
    }

    /// What an earlier tenure began for this record, not for its present head, and has not ended.
    pub(super) fn stray(&self, record_key: &RecordKey) -> Option<Stray> {
        let mut heads = self.heads.get(record_key).into_iter().flatten();
        let out = heads.find_map(|head| head.state.attempt_out());
        out.map(Stray::Attempt).or_else(|| self.strays.get(record_key).copied())
    }

    /// Returns true if this was the stray of the record.
    fn stray_ended(&mut self, record_key: &RecordKey, ended: Stray) -> bool {
        let is_it = self.strays.get(record_key) == Some(&ended);
        if is_it {
            self.strays.remove(record_key);
        }
        is_it
    }

    /// An attempt of an earlier tenure ended. Returns true if it was known.
    pub(super) fn attempt_ended(
        &mut self,
        at: Tick,
        record_key: &RecordKey,
        ended: AttemptId,
        outcome: Outcome,
        is_shut: impl FnOnce(TargetId) -> bool,
    ) -> bool {
        if self.stray_ended(record_key, Stray::Attempt(ended)) {
            return true;
        }
        let is_out = |head: &Remembered| head.state.attempt_out() == Some(ended);
        let mut heads = self.heads.get_mut(record_key).into_iter().flatten();
        let Some(head) = heads.find(|head| is_out(head)) else { return false };
        if head.claimed || head.released || self.redeliveries_expected {
            if let RememberedState::InFlight { progress, target, .. } = &mut head.state {
                let (progress, target_shut) = (std::mem::take(progress), is_shut(*target));
                head.state = RememberedState::Ended { outcome, target_shut, progress, at };
            }
        } else {
            self.retain_heads(record_key, |head| !is_out(head));
        }
        true
    }

    /// A resolution of an earlier tenure could not be written down. When the update comes back, it is written down, or the
    /// update has its turn. Returns true if it was known.
    pub(super) fn not_recorded(&mut self, record_key: &RecordKey, unwritten: Token) -> bool {
        if self.stray_ended(record_key, Stray::Recording(unwritten)) {
            return true;
        }
        let mut heads = self.heads.get_mut(record_key).into_iter().flatten();
        let is_it = |head: &&mut Remembered| matches!(&head.state, RememberedState::Recording { token, .. } if *token == unwritten);
        let Some(head) = heads.find(is_it) else { return false };
        if let RememberedState::Recording { resolution, .. } = &head.state {
            let resolution = resolution.clone();
            head.state = RememberedState::Unwritten { resolution };
        }
        self.retain_heads(record_key, |head| {
            !matches!(&head.state, RememberedState::Unwritten { resolution } if resolution.only_behind())
        });
        true
    }

    /// A resolution of an earlier tenure is written down. Returns true if it was known.
    pub(super) fn recorded(&mut self, record_key: &RecordKey, recorded: Token) -> bool {
        if self.stray_ended(record_key, Stray::Recording(recorded)) {
            return true;
        }
        for head in self.heads.get_mut(record_key).into_iter().flatten() {
            if let RememberedState::Recording { token, resolution } = &head.state
                && *token == recorded
            {
                head.state = RememberedState::Recorded { resolution: resolution.clone() };
                return true;
            }
        }
        false
    }
}
