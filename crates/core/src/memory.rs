//! What earlier tenures of this process know about updates that the broker may hand over again.
//!
//! When a channel is lost, its unsettled deliveries come back, and so do those whose acks were still on their way.
//! Attempts that were out keep running. Without this memory a lost connection would repeat requests.

use std::collections::{HashMap, HashSet, VecDeque};

use super::lane::Token;
use super::message::AttemptId;
use super::outcome::{Known, Outcome};
use super::policy::{Progress, Resolution};
use super::redelivery::{RedeliveryMatch, RedeliveryMatcher};
use super::routes::TargetId;
use super::tick::Tick;
use super::update::{IdOrigin, Identity, RecordKey, Update};

#[derive(Debug)]
struct Remembered {
    id: Identity,
    state: RememberedState,
    /// Its new delivery has come: kept until it is the head again.
    claimed: bool,
    /// The ledger holds it, so it comes back whatever the broker hands over.
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

    /// The target has it, and no further request would be made.
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
    /// Settled of late, oldest first. As many as the broker can hand over again: what it has not seen acked is a window
    /// at most, and an ack that waits for older deliveries lets up to a window of those pass it.
    recently_settled: VecDeque<(RecordKey, Identity)>,
    /// How often each of them is there.
    known: HashMap<(RecordKey, Identity), usize>,
    /// An update that was settled of late was sent once more, since its publisher published it again. For so many
    /// further settlements, copies of it may be among what comes back.
    repeated: usize,
    /// How many of them, the oldest, were settled before the present tenure.
    settled_before: usize,
    /// A tenure ended, and nothing new has come since: what it had settled or held may come back.
    redeliveries_expected: bool,
    /// Of `settled`, what may come back: filled when a tenure ends, emptied when everything returned has come.
    expected_redeliveries: HashSet<(RecordKey, Identity)>,
    /// Heads of earlier tenures. A record has more than one only where updates without an id of their publisher were
    /// sent again before others that wait.
    heads: HashMap<RecordKey, Vec<Remembered>>,
    /// Attempts that are still out and began before another process owned the partition. How they end tells nothing about
    /// what their record holds; until then they bar it (I1).
    blocked_by_stray_attempt: HashMap<RecordKey, AttemptId>,
    redelivery: RedeliveryMatcher,
}

impl Memory {
    pub(super) fn new(window: usize) -> Self {
        Self {
            window,
            recently_settled: VecDeque::new(),
            known: HashMap::new(),
            repeated: 0,
            settled_before: 0,
            redeliveries_expected: false,
            expected_redeliveries: HashSet::new(),
            heads: HashMap::new(),
            blocked_by_stray_attempt: HashMap::new(),
            redelivery: RedeliveryMatcher::new(window),
        }
    }

    /// A delivery was settled; its ack may yet be lost.
    pub(super) fn settled(&mut self, record_key: &RecordKey, id: &Identity) {
        if id.origin() == IdOrigin::Delivery {
            return self.redelivery.settled(record_key, id.id());
        }
        self.repeated = self.repeated.saturating_sub(1);
        if self.recently_settled.len() == 2 * self.window
            && let Some(oldest) = self.recently_settled.pop_front()
        {
            self.settled_before = self.settled_before.saturating_sub(1);
            self.forget_one(&oldest);
        }
        let entry = (record_key.clone(), id.clone());
        *self.known.entry(entry.clone()).or_default() += 1;
        self.recently_settled.push_back(entry);
    }

    /// An update is being sent. Where it was settled of late, its publisher has published it again, from it on: what was
    /// settled since then no longer tells what the record holds. A later delivery with such an id may not be a settled
    /// one that comes back, and skipping it would leave the record with an earlier value.
    pub(super) fn sent(&mut self, record_key: &RecordKey, id: &Identity) {
        let entry = (record_key.clone(), id.clone());
        if !self.known.contains_key(&entry) {
            return;
        }
        self.repeated = 2 * self.window;
        self.redelivery.forget_settled(record_key);
        let mut since = false;
        self.forget_settled(|settled, _| {
            since |= *settled == entry;
            since && settled.0 == entry.0
        });
    }

    /// Whether what comes back may be a later copy of an update whose earlier one is settled.
    pub(super) fn may_hold_repeated(&self) -> bool {
        self.repeated > 0
    }

    /// Forgets the settled ones for which this holds, given whether an earlier tenure settled them.
    fn forget_settled(&mut self, mut forget: impl FnMut(&(RecordKey, Identity), bool) -> bool) {
        let before = std::mem::take(&mut self.settled_before);
        for (place, entry) in std::mem::take(&mut self.recently_settled).into_iter().enumerate() {
            if forget(&entry, place < before) {
                self.forget_one(&entry);
            } else {
                self.settled_before += usize::from(place < before);
                self.recently_settled.push_back(entry);
            }
        }
    }

    fn forget_one(&mut self, entry: &(RecordKey, Identity)) {
        if let Some(count) = self.known.get_mut(entry) {
            *count -= 1;
            if *count == 0 {
                self.known.remove(entry);
            }
        }
    }

    /// A tenure ended: what it settled may come back, before the newest that it held.
    pub(super) fn expect_redeliveries(&mut self, newest_held: Option<&Update>) {
        self.redeliveries_expected = true;
        self.redelivery.expect_redeliveries(newest_held);
        self.heads.values_mut().flatten().for_each(|head| head.claimed = false);
        if self.heads.values().map(Vec::len).sum::<usize>() > 2 * self.window {
            self.forget_heads(|_| false);
        }
        self.expected_redeliveries.extend(self.recently_settled.iter().cloned());
        self.settled_before = self.recently_settled.len();
    }

    /// A delivery of something settled before came back, but was not settled again before its tenure ended.
    pub(super) fn expect_redelivery(&mut self, record_key: RecordKey, id: Identity) {
        self.expected_redeliveries.insert((record_key, id));
    }

    /// How far the head of a lane had come when its tenure ended.
    pub(super) fn remember(
        &mut self,
        record_key: RecordKey,
        id: Identity,
        state: RememberedState,
        released: bool,
    ) {
        let heads = self.heads.entry(record_key).or_default();
        heads.retain(|head| head.id != id);
        heads.push(Remembered { id, state, claimed: false, released });
    }

    /// A delivery came. What it is known as, where its publisher gave it no id and it came before.
    pub(super) fn match_redelivery(&mut self, update: &Update, redelivered: bool) -> Option<RedeliveryMatch> {
        self.redelivery.received(update, redelivered)
    }

    /// An update was handed over again. Whether it was settled before, and only its ack lost.
    pub(super) fn claim(&mut self, record_key: &RecordKey, id: &Identity) -> bool {
        let mut heads = self.heads.get_mut(record_key).into_iter().flatten();
        if let Some(head) = heads.find(|head| head.id == *id) {
            head.claimed = true;
        }
        !self.expected_redeliveries.is_empty()
            && self.expected_redeliveries.contains(&(record_key.clone(), id.clone()))
    }

    /// Another process owned the partition meanwhile: what it applied is not known here, so that nothing that we had
    /// settled tells what a record holds now. Attempts that are still out bar their record all the same.
    pub(super) fn ownership_lapsed(&mut self) {
        self.redelivery.forget_all();
        self.recently_settled.clear();
        self.known.clear();
        self.settled_before = 0;
        self.expected_redeliveries = HashSet::new();
        for (record_key, heads) in self.heads.drain() {
            if let Some(attempt) = heads.iter().find_map(|head| head.state.attempt_out()) {
                self.blocked_by_stray_attempt.insert(record_key, attempt);
            }
        }
    }

    /// The broker handed over something new: everything returned has come, here or elsewhere.
    pub(super) fn redeliveries_done(&mut self) {
        if std::mem::take(&mut self.redeliveries_expected) {
            self.expected_redeliveries = HashSet::new();
            self.redelivery.redeliveries_done();
            self.forget_heads(|head| head.claimed || head.released);
        }
    }

    /// An update is about to be sent that may have been sent and settled before. Later updates of its record must
    /// follow it, also those that are applied: otherwise the record would keep the earlier value.
    pub(super) fn resend_from(&mut self, record_key: &RecordKey) {
        self.expected_redeliveries.retain(|(of, _)| of != record_key);
        self.redelivery.forget_settled(record_key);
        self.forget_settled(|(of, _), before| before && of == record_key);
        self.retain_heads(record_key, |head| !head.state.is_applied());
    }

    /// All but those to keep, and attempts that are still out: they bar their record.
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

    /// The attempt of this record that is still out and is not the one of its present head.
    pub(super) fn attempt_out(&self, record_key: &RecordKey) -> Option<AttemptId> {
        let mut heads = self.heads.get(record_key).into_iter().flatten();
        let out = heads.find_map(|head| head.state.attempt_out());
        out.or_else(|| self.blocked_by_stray_attempt.get(record_key).copied())
    }

    /// An attempt of an earlier tenure ended. Whether it was known.
    pub(super) fn attempt_ended(
        &mut self,
        at: Tick,
        record_key: &RecordKey,
        ended: AttemptId,
        outcome: Outcome,
        is_shut: impl FnOnce(TargetId) -> bool,
    ) -> bool {
        if self.blocked_by_stray_attempt.get(record_key) == Some(&ended) {
            self.blocked_by_stray_attempt.remove(record_key);
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

    /// A resolution of an earlier tenure could not be written down: it is when the update comes back, or the update has
    /// its turn then. Whether it was known.
    pub(super) fn not_recorded(&mut self, record_key: &RecordKey, unwritten: Token) -> bool {
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

    /// A resolution of an earlier tenure is written down. Whether it was known.
    pub(super) fn recorded(&mut self, record_key: &RecordKey, recorded: Token) -> bool {
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
