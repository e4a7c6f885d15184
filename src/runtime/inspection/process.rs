//! What this process answers.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::convert::{TargetWords, WallClock, lane_report, wait_report, without_key};
use super::doors::ReportedDoors;
use super::parked::InspectedLedger;
use super::{DriverMailboxes, DriverQuestion, DriverState, Place};
use crate::admin::health::Health;
use crate::config::Config;
use crate::inspect::question::{InspectionQuery, KeyHash};
use crate::inspect::report::{
    Answer, LaneReport, PartitionAnswer, PartitionReport, ProcessReport, RecordAnswer, StepReport,
    TargetAnswer, TargetReport, TargetState,
};
use crate::pausing::by;
use crate::runtime::breakers::Breakers;
use crate::runtime::pacers::Pacers;
use crate::runtime::pauses::Pauses;
use crate::runtime::target_history::{STEP, Step, TargetHistories};
use crate::wall_time::unix_millis;
use lanekeeper_broker::Clock;
use lanekeeper_core::breaker::Circuit;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::partition::{Explained, View};
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tick::Tick;

/// Records of one partition that are answered at most.
const LANES_MAX: usize = 1_000;

/// What the answers are made of.
pub struct InspectedProcess {
    pub instance: String,
    /// Chosen at each start.
    pub process: String,
    pub started_at: SystemTime,
    pub clock: Clock,
    pub health: Health,
    pub mailboxes: DriverMailboxes,
    /// The names of the targets.
    pub targets: Vec<String>,
    /// The config that is in force, for what can change while partitions stay attached.
    pub config: watch::Receiver<Config>,
    pub breakers: Breakers,
    pub pacers: Pacers,
    pub pauses: Pauses,
    pub histories: TargetHistories,
    /// `None`: there is none.
    pub ledger: Option<InspectedLedger>,
    pub doors: ReportedDoors,
}

impl InspectedProcess {
    /// Answers within some seconds, whatever its drivers do.
    pub async fn answer(&self, question: InspectionQuery) -> Answer {
        match question {
            InspectionQuery::Status => Answer::Status(self.status().await),
            InspectionQuery::Record { key, places } => Answer::Record(self.record(&key, &places).await),
            InspectionQuery::Partition { layout, partition, limit } => {
                let place = (LayoutNumber(layout), PartitionNumber(partition));
                Answer::Partition(self.partition(place, limit.min(LANES_MAX)).await)
            }
            InspectionQuery::Target { name } => Answer::Target(self.target_answer(&name)),
        }
    }

    async fn status(&self) -> ProcessReport {
        let ledger = async {
            match &self.ledger {
                None => None,
                Some(ledger) => Some(ledger.report().await),
            }
        };
        let places = self.mailboxes.places();
        let (partitions, ledger) = tokio::join!(self.partitions(&places), ledger);
        let clock = WallClock::of(self.clock);
        ProcessReport {
            instance: self.instance.clone(),
            process: self.process.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_ms: unix_millis(self.started_at),
            answered_at_ms: clock.now_ms(),
            unready: self.health.unready(),
            partitions,
            targets: (0..self.targets.len()).map(|number| self.target(TargetId(number), clock)).collect(),
            ledger,
            doors: self.doors.known(),
        }
    }

    async fn record(&self, key: &KeyHash, places: &[(u32, u16)]) -> RecordAnswer {
        let places: Vec<Place> = places
            .iter()
            .map(|(layout, partition)| (LayoutNumber(*layout), PartitionNumber(*partition)))
            .collect();
        let (mut lanes, mut holders, mut unanswered) = (Vec::new(), Vec::new(), 0);
        let mut asked = self.mailboxes.places();
        asked.retain(|place| places.is_empty() || places.contains(place));
        let matcher = key.matcher().map(Arc::new);
        let found = join_all(asked.iter().map(|place| async {
            let matcher = matcher.clone()?;
            Some((*place, self.mailboxes.ask(*place, |answer| DriverQuestion::Record(matcher, answer)).await))
        }));
        // A driver that does not answer costs its time once.
        let (found, partitions) = tokio::join!(found, self.partitions(&asked));
        for (place, found) in found.into_iter().flatten() {
            let Some(found) = found else {
                unanswered += 1;
                continue;
            };
            lanes.extend(found.explained.map(|explained| self.lane(&explained, place)));
            holders.extend(found.holders.iter().map(|explained| self.lane(explained, place)));
        }
        RecordAnswer {
            instance: self.instance.clone(),
            process: self.process.clone(),
            lanes,
            unanswered,
            holders,
            partitions,
        }
    }

    async fn partition(&self, place: Place, limit: usize) -> PartitionAnswer {
        let places = [place];
        let lanes = self.mailboxes.ask(place, |answer| DriverQuestion::Oldest(limit, answer));
        let (lanes, partition) = tokio::join!(lanes, self.partitions(&places));
        // A partition whose driver did not say what it holds is not known.
        let partition = partition.into_iter().next().filter(|_| lanes.is_some());
        let lanes = lanes.unwrap_or_default().iter().map(|explained| self.lane(explained, place)).collect();
        PartitionAnswer { instance: self.instance.clone(), process: self.process.clone(), partition, lanes }
    }

    fn target_answer(&self, name: &str) -> TargetAnswer {
        let clock = WallClock::of(self.clock);
        let number = self.targets.iter().position(|known| known == name).map(TargetId);
        let steps = number.map(|number| {
            let history = self.histories.of_target(number);
            let step = |step: &Step| StepReport {
                at_ms: clock.millis(Tick::ZERO.after(STEP * u32::try_from(step.number).unwrap_or(u32::MAX))),
                attempts: step.attempts,
                applied: step.applied,
                refused: step.refused,
                latency_ms: latency_ms(step),
            };
            history.steps(clock.now()).map(step).collect()
        });
        TargetAnswer {
            instance: self.instance.clone(),
            process: self.process.clone(),
            target: number.map(|number| self.target(number, clock)),
            steps: steps.unwrap_or_default(),
        }
    }

    /// Those that have a driver here. One whose driver does not answer in time is missing.
    async fn partitions(&self, places: &[Place]) -> Vec<PartitionReport> {
        let states = join_all(
            places
                .iter()
                .map(|place| async { (*place, self.mailboxes.ask(*place, DriverQuestion::State).await) }),
        );
        let states = states.await.into_iter();
        states.filter_map(|(place, state)| Some(self.partition_report(place, &state?))).collect()
    }

    fn partition_report(&self, (layout, partition): Place, state: &DriverState) -> PartitionReport {
        let clock = WallClock::of(self.clock);
        let View {
            held,
            released,
            lanes,
            ready,
            in_flight,
            waiting,
            target_shut,
            target_paused,
            paced,
            take_over_wait,
            blocked_by_previous,
            recording,
            stale: _,
        } = state.view;
        let (ownership, tenure) = match state.ownership {
            OwnershipState::Unclaimed => ("unclaimed", None),
            OwnershipState::Claiming => ("claiming", None),
            OwnershipState::Claimed(tenure) => ("claimed", tenure),
            OwnershipState::Lapsed(tenure) => ("lapsed", tenure),
            OwnershipState::Lost => ("lost", None),
        };
        PartitionReport {
            layout: layout.0,
            partition: partition.0,
            attached: state.attached,
            owns: state.owns,
            ownership: ownership.to_owned(),
            tenure: tenure.map(|tenure| tenure.0),
            held,
            window: state.limits.window.get(),
            in_flight_max: state.limits.in_flight_max.get(),
            released,
            records: lanes,
            ready,
            in_flight,
            waiting,
            target_shut: target_shut + target_paused,
            limited: paced,
            take_over_wait,
            previous_layout: blocked_by_previous,
            recording,
            oldest_received_at_ms: state
                .oldest
                .as_ref()
                .and_then(|oldest| oldest.head.received_at)
                .map(|at| clock.millis(at)),
            oldest_wait: state
                .oldest
                .as_ref()
                .map(|oldest| wait_report(&without_key(oldest), &self.words(oldest.head.target), clock)),
        }
    }

    fn lane(&self, explained: &Explained, place: Place) -> LaneReport {
        lane_report(explained, place, &self.words(explained.head.target), WallClock::of(self.clock))
    }

    fn words(&self, target: TargetId) -> TargetWords {
        let Some(name) = self.targets.get(target.0) else { return TargetWords::default() };
        let timeout = self.config.borrow().targets.get(target.0).map(|target| target.timeout);
        let pacer = self.pacers.view(target);
        let shut = !matches!(self.breakers.view(target).0, Circuit::Closed);
        let history = self.histories.of_target(target);
        let failure = history.last_failure().filter(|_| shut).map(|(_, why)| why.failure().to_owned());
        TargetWords {
            name: name.clone(),
            failure,
            limit: pacer.limit.map(lanekeeper_core::pacing::Limit::words),
            permit_at: pacer.next_grant_at,
            timeout: timeout.unwrap_or_default(),
        }
    }

    fn target(&self, target: TargetId, clock: WallClock) -> TargetReport {
        let (circuit, shut_since) = self.breakers.view(target);
        let (pacer, history) = (self.pacers.view(target), self.histories.of_target(target));
        let minute = history.sum(clock.now(), 60 / STEP.as_secs());
        let failure = history.last_failure();
        let name = &self.targets[target.0];
        // Nothing is sent to a paused target, whatever its breaker says.
        let pause = self.pauses.of(name);
        let state = match circuit {
            _ if pause.is_some() => TargetState::Paused,
            Circuit::Closed => TargetState::Open,
            Circuit::Shut { .. } | Circuit::Probing => TargetState::Shut,
        };
        let paused_since = pause.as_ref().map(|pause| pause.since_ms);
        TargetReport {
            name: name.clone(),
            state,
            since_ms: paused_since.or_else(|| shut_since.map(|since| clock.millis(since))),
            paused: pause.map(|pause| by(&pause.operator_reason)),
            probe_at_ms: match circuit {
                Circuit::Shut { probe_from } if state == TargetState::Shut => Some(clock.millis(probe_from)),
                Circuit::Shut { .. } | Circuit::Closed | Circuit::Probing => None,
            },
            last_failure: failure.map(|(_, why)| why.failure().to_owned()),
            last_failure_ms: failure.map(|(at, _)| unix_millis(at)),
            paced: pacer.in_force,
            rate: pacer.rate,
            limit: pacer.limit.map(|limit| limit.words().to_owned()),
            permit_at_ms: pacer.next_grant_at.map(|at| clock.millis(at)),
            waiting_for_permit: pacer.waiting,
            attempts_per_minute: u64::from(minute.attempts),
            applied_per_minute: u64::from(minute.applied),
            latency_ms: latency_ms(&minute),
        }
    }
}

/// Median and 99th percentile.
fn latency_ms(step: &Step) -> Option<(f64, f64)> {
    let millis = |part| step.percentile(part).map(|duration| duration.as_secs_f64() * 1e3);
    millis(0.5).zip(millis(0.99))
}
