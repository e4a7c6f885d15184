//! What a door has done for each client and hook since its start, for those who look after it. Bounded by the config: a few
//! numbers each, and words that have no part of a request.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::problem::{DoorProblem, DoorProblemCode};
use super::senders::SenderName;
use crate::config::IngestConfig;
use crate::inspect::doors::{DoorReport, DoorSenderReport, SENDERS_MAX};
use lanekeeper_broker::publisher::ConnectionEvent;
use lanekeeper_core::publish::intake::LineAnswer;

/// A minute is counted in so many steps.
const STEPS: usize = 12;
const STEP_MS: i64 = 5_000;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct DoorStatistics(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// The clients, then the hooks, in the order of the config.
    order: Vec<SenderName>,
    senders: HashMap<SenderName, SenderCounts>,
    accepted: u64,
    known: u64,
    refused: BTreeMap<DoorProblemCode, u64>,
    /// Of a request of which it is not known who sent it.
    last_failure: Option<(String, i64)>,
    has_been_connected: bool,
    reconnects: u64,
    negative_confirms: u64,
    is_blocked: bool,
}

#[derive(Debug, Default)]
struct SenderCounts {
    accepted: u64,
    known: u64,
    last_minute: LastMinute,
    refused: BTreeMap<DoorProblemCode, u64>,
    wrong_signatures: u64,
    last_accepted_ms: Option<i64>,
    last_signed_ms: Option<i64>,
    last_failure: Option<(String, i64)>,
}

/// Counts of the last twelve steps: the number of the step, and the count in it.
#[derive(Debug, Default)]
struct LastMinute([(i64, u64); STEPS]);

impl DoorStatistics {
    /// The door has the clients and hooks of this config from now on. Counts of those that stay go on.
    pub(super) fn change(&self, config: &IngestConfig) {
        self.counts().change(SenderName::all(config).collect());
    }

    /// A request of this client or hook was taken, and its updates were answered.
    pub(super) fn answered(&self, sender: &SenderName, answers: &[LineAnswer], now_ms: i64) {
        let count = |kind| answers.iter().filter(|answer| **answer == kind).count() as u64;
        let (accepted, known) = (count(LineAnswer::Accepted), count(LineAnswer::Known));
        let mut counts = self.counts();
        counts.accepted += accepted;
        counts.known += known;
        // The config may have it no more.
        let Some(sender) = counts.senders.get_mut(sender) else { return };
        sender.accepted += accepted;
        sender.known += known;
        if accepted + known > 0 {
            sender.last_accepted_ms = Some(now_ms);
            sender.last_minute.add(accepted + known, now_ms);
        }
    }

    /// A request was refused.
    pub(super) fn refused(&self, problem: &DoorProblem, now_ms: i64) {
        let mut counts = self.counts();
        *counts.refused.entry(problem.code()).or_default() += 1;
        let failure = Some((problem.failure(), now_ms));
        match problem.sender() {
            None => counts.last_failure = failure,
            Some(sender) => {
                let Some(sender) = counts.senders.get_mut(sender) else { return };
                *sender.refused.entry(problem.code()).or_default() += 1;
                sender.last_failure = failure;
            }
        }
    }

    /// A request to this hook has a good signature.
    pub(super) fn signed(&self, hook: &SenderName, now_ms: i64) {
        if let Some(hook) = self.counts().senders.get_mut(hook) {
            hook.wrong_signatures = 0;
            hook.last_signed_ms = Some(now_ms);
        }
    }

    /// A request to this hook has no good signature.
    pub(super) fn wrongly_signed(&self, hook: &SenderName) {
        if let Some(hook) = self.counts().senders.get_mut(hook) {
            hook.wrong_signatures += 1;
        }
    }

    /// The connection that publishes has changed. Returns true if it was made again.
    pub(super) fn connection(&self, event: &ConnectionEvent) -> bool {
        let mut counts = self.counts();
        counts.is_blocked = matches!(event, ConnectionEvent::Blocked { .. });
        let is_again =
            *event == ConnectionEvent::Up && std::mem::replace(&mut counts.has_been_connected, true);
        counts.reconnects += u64::from(is_again);
        is_again
    }

    /// The broker has refused an update.
    pub(super) fn negatively_confirmed(&self) {
        self.counts().negative_confirms += 1;
    }

    /// What is known, beside what waits. `pending`: of each client and hook.
    pub(super) fn report(&self, pending: &HashMap<SenderName, usize>, now_ms: i64) -> DoorReport {
        let counts = self.counts();
        let mut listed: Vec<(usize, &SenderName)> = counts.order.iter().enumerate().collect();
        listed.sort_by_key(|(_, name)| !counts.senders[*name].is_active());
        listed.truncate(SENDERS_MAX);
        listed.sort_unstable_by_key(|(place, _)| *place);
        let of_sender = |(_, name): &(usize, &SenderName)| {
            let pending = pending.get(*name).copied().unwrap_or_default();
            counts.senders[*name].report(name, pending, now_ms)
        };
        DoorReport {
            blocked: counts.is_blocked,
            reconnects: counts.reconnects,
            negative_confirms: counts.negative_confirms,
            accepted: counts.accepted,
            known: counts.known,
            refused: by_name(&counts.refused),
            last_failure: counts.last_failure.as_ref().map(|(failure, _)| failure.clone()),
            last_failure_ms: counts.last_failure.as_ref().map(|(_, at_ms)| *at_ms),
            senders_left_out: counts.order.len() - listed.len(),
            senders: listed.iter().map(of_sender).collect(),
            reported_at_ms: now_ms,
            ..DoorReport::default()
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn change(&mut self, order: Vec<SenderName>) {
        let mut before = std::mem::take(&mut self.senders);
        let kept = |name: &SenderName| (name.clone(), before.remove(name).unwrap_or_default());
        self.senders = order.iter().map(kept).collect();
        self.order = order;
    }
}

impl SenderCounts {
    fn is_active(&self) -> bool {
        self.last_accepted_ms.is_some() || self.last_failure.is_some()
    }

    fn report(&self, name: &SenderName, pending: usize, now_ms: i64) -> DoorSenderReport {
        DoorSenderReport {
            name: name.as_str().to_owned(),
            is_hook: name.is_hook(),
            accepted: self.accepted,
            known: self.known,
            per_minute: self.last_minute.sum(now_ms),
            pending,
            refused: by_name(&self.refused),
            wrong_signatures: self.wrong_signatures,
            last_accepted_ms: self.last_accepted_ms,
            last_signed_ms: self.last_signed_ms,
            last_failure: self.last_failure.as_ref().map(|(failure, _)| failure.clone()),
            last_failure_ms: self.last_failure.as_ref().map(|(_, at_ms)| *at_ms),
        }
    }
}

impl LastMinute {
    fn add(&mut self, count: u64, now_ms: i64) {
        let number = now_ms.div_euclid(STEP_MS);
        let known = self.0.iter_mut().find(|(of, _)| *of == number);
        if let Some((_, of_step)) = known {
            *of_step += count;
        } else if let Some(oldest) = self.0.iter_mut().min_by_key(|(of, _)| *of) {
            *oldest = (number, count);
        }
    }

    fn sum(&self, now_ms: i64) -> u64 {
        let now = now_ms.div_euclid(STEP_MS);
        let is_recent = |of: i64| (0..60_000 / STEP_MS).contains(&(now - of));
        self.0.iter().filter(|(of, _)| is_recent(*of)).map(|(_, count)| count).sum()
    }
}

fn by_name(refused: &BTreeMap<DoorProblemCode, u64>) -> BTreeMap<String, u64> {
    refused.iter().map(|(code, count)| (code.name(), *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> SenderName {
        SenderName::Client(format!("sender-{number}"))
    }

    fn of(senders: usize) -> DoorStatistics {
        let statistics = DoorStatistics::default();
        statistics.counts().change((0..senders).map(name).collect());
        statistics
    }

    fn nothing_waits() -> HashMap<SenderName, usize> {
        HashMap::new()
    }

    #[test]
    fn each_sender_has_its_own_counts_and_nobody_has_the_rest() {
        let statistics = of(2);
        let answers = [LineAnswer::Accepted, LineAnswer::Accepted, LineAnswer::Known, LineAnswer::Unknown];
        statistics.answered(&name(1), &answers, 1_000);
        let problem = |code| DoorProblem::new(code, "customer-17 has a fault");
        statistics.refused(&problem(DoorProblemCode::NoKey).of_sender(name(1)), 2_000);
        statistics.refused(&problem(DoorProblemCode::Unauthorized), 3_000);
        let report = statistics.report(&HashMap::from([(name(1), 4)]), 4_000);
        assert_eq!((report.accepted, report.known, report.refused_in_all()), (2, 1, 2));
        assert_eq!(report.last_failure.as_deref(), Some("401 unauthorized: A token is needed"));
        let sender = &report.senders[1];
        assert_eq!((sender.accepted, sender.known, sender.pending, sender.per_minute), (2, 1, 4, 3));
        assert_eq!(sender.last_failure.as_deref(), Some("422 no_key: The update has no record key"));
        assert_eq!((sender.last_accepted_ms, sender.last_failure_ms), (Some(1_000), Some(2_000)));
        let text = serde_json::to_string(&report).expect("plain data");
        assert!(!text.contains("customer-17"), "nothing of a request is reported: {text}");
        assert_eq!(
            report.senders[0],
            DoorSenderReport { name: "sender-0".to_owned(), ..DoorSenderReport::default() }
        );
    }

    #[test]
    fn counts_go_on_when_the_config_changes() {
        let statistics = of(2);
        statistics.answered(&name(1), &[LineAnswer::Accepted], 1_000);
        statistics.counts().change(vec![SenderName::Hook("sender-1".to_owned()), name(1)]);
        // It had begun before.
        statistics.answered(&name(0), &[LineAnswer::Accepted], 2_000);
        statistics.wrongly_signed(&SenderName::Hook("sender-0".to_owned()));
        let report = statistics.report(&nothing_waits(), 3_000);
        let of_each: Vec<(bool, u64)> =
            report.senders.iter().map(|sender| (sender.is_hook, sender.accepted)).collect();
        assert_eq!(of_each, [(true, 0), (false, 1)], "a hook and a client of one name are two");
        assert_eq!(report.accepted, 2);
    }

    #[test]
    fn wrong_signatures_count_until_one_is_good() {
        let statistics = of(1);
        let wrong = || statistics.report(&nothing_waits(), 0).senders[0].wrong_signatures;
        statistics.wrongly_signed(&name(0));
        statistics.wrongly_signed(&name(0));
        assert_eq!(wrong(), 2);
        statistics.signed(&name(0), 5);
        assert_eq!(wrong(), 0);
    }

    #[test]
    fn the_last_minute_is_what_it_says() {
        let mut minute = LastMinute::default();
        assert_eq!(minute.sum(1_000_000), 0);
        for second in 0..120 {
            minute.add(1, 1_000_000 + second * 1_000);
        }
        assert_eq!(minute.sum(1_119_000), 60);
        assert_eq!(minute.sum(1_149_000), 30);
        assert_eq!(minute.sum(1_300_000), 0);
    }

    #[test]
    fn of_many_senders_those_are_reported_that_have_sent_something() {
        let statistics = of(SENDERS_MAX + 10);
        statistics.answered(&name(SENDERS_MAX + 5), &[LineAnswer::Accepted], 1);
        let report = statistics.report(&nothing_waits(), 1);
        assert_eq!((report.senders.len(), report.senders_left_out), (SENDERS_MAX, 10));
        assert!(report.senders.iter().any(|sender| sender.accepted == 1), "{:?}", report.senders);
    }

    #[test]
    fn a_connection_that_is_made_again_is_counted() {
        let statistics = of(0);
        let down = ConnectionEvent::Down { cause: "closed".to_owned() };
        let made_again: Vec<bool> = [ConnectionEvent::Up, down.clone(), ConnectionEvent::Up]
            .iter()
            .map(|event| statistics.connection(event))
            .collect();
        assert_eq!(made_again, [false, false, true]);
        statistics.connection(&ConnectionEvent::Blocked { reason: "low on memory".to_owned() });
        assert!(statistics.report(&nothing_waits(), 0).blocked);
        statistics.connection(&down);
        let report = statistics.report(&nothing_waits(), 0);
        assert_eq!((report.blocked, report.reconnects), (false, 1));
    }
}
