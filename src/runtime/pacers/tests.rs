//! What drivers get of the pacers that they have together.

use std::num::NonZeroUsize;

use super::*;
use lanekeeper_core::outcome::{Cause, Failure};
use lanekeeper_core::pacing::{PacerLimits, Quota, Reply};
use lanekeeper_core::update::RecordKey;

const CRM: TargetId = TargetId(0);
const ERP: TargetId = TargetId(1);
const OTHER: TargetId = TargetId(2);

/// Two targets share one request in flight; the third has no limit.
fn pacers() -> Pacers {
    let limits = PacerLimits { in_flight_max: NonZeroUsize::new(1), ..PacerLimits::default() };
    let api = LimitsConfig { name: "api".to_owned(), targets: vec![CRM, ERP], limits };
    let free =
        LimitsConfig { name: "other".to_owned(), targets: vec![OTHER], limits: PacerLimits::default() };
    Pacers::begin(&[api, free], &Metrics::new(), Clock::start())
}

fn shown(events: &[Event]) -> String {
    let event = |event: &Event| match event {
        Event::TargetPaced(TargetId(target)) => format!("paced {target}"),
        Event::TargetUnpaced(TargetId(target)) => format!("unpaced {target}"),
        Event::PermitsGranted { target: TargetId(target), permits } => format!("{permits} for {target}"),
        other => format!("{other:?}"),
    };
    events.iter().map(event).collect::<Vec<_>>().join(", ")
}

fn end(
    watch: &mut PacerWatch,
    now: Tick,
    (target, key, permit): (TargetId, &str, bool),
    outcome: Outcome,
) -> Outcome {
    let record_key = RecordKey::new(key).unwrap();
    let (reply, quota) = (Reply::of(&outcome), Quota::default());
    let end = RequestEnd { record_key: &record_key, began: now, permit, reply, quota };
    watch.ended(now, target, &end, outcome, None)
}

fn failed(status: u16) -> Outcome {
    let failure = Failure { cause: Cause::Status(status), detail: String::new() };
    if status == 403 { Outcome::Refused(failure) } else { Outcome::Retryable { failure, retry_after: None } }
}

#[tokio::test(start_paused = true)]
async fn targets_that_share_limits_have_their_permits_one_after_another() {
    let pacers = pacers();
    let (mut one, mut other) = (pacers.watch(), pacers.watch());
    for watch in [&mut one, &mut other] {
        watch.changed().await;
        assert_eq!(shown(&watch.take_changes()), "paced 0, paced 1");
    }
    let now = Tick::ZERO;
    one.ask(now, CRM, 2);
    other.ask(now, ERP, 1);
    assert_eq!(shown(&one.take_changes()), "1 for 0");
    end(&mut one, now, (CRM, "a", true), Outcome::Applied);
    assert_eq!((shown(&one.take_changes()), shown(&other.take_changes())), ("1 for 0".into(), String::new()));
    one.give_up(now, CRM, 1);
    other.changed().await;
    assert_eq!(shown(&other.take_changes()), "1 for 1");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_ends_gives_its_permits_back_and_asks_for_no_more() {
    let pacers = pacers();
    let (mut one, mut two, mut three) = (pacers.watch(), pacers.watch(), pacers.watch());
    for watch in [&mut one, &mut two, &mut three] {
        watch.take_changes();
    }
    for watch in [&one, &two, &three] {
        watch.ask(Tick::ZERO, CRM, 2);
    }
    assert_eq!(shown(&one.take_changes()), "1 for 0");
    drop(one);
    drop(two); // with a permit that it has not read
    three.changed().await;
    assert_eq!(shown(&three.take_changes()), "1 for 0");
}

#[tokio::test(start_paused = true)]
async fn refusals_of_several_records_pace_a_target_and_those_of_one_do_not() {
    let pacers = pacers();
    let mut watch = pacers.watch();
    watch.take_changes();
    let now = Tick::ZERO;
    for _ in 0..3 {
        let judged = end(&mut watch, now, (OTHER, "a", false), failed(429));
        assert!(matches!(judged, Outcome::Retryable { .. }), "{judged:?}");
        assert_eq!(shown(&watch.take_changes()), "");
    }
    let judged = end(&mut watch, now, (OTHER, "b", false), failed(429));
    assert!(matches!(judged, Outcome::Throttled(_)), "{judged:?}");
    assert_eq!(shown(&watch.take_changes()), "paced 2");
    watch.ask(now, OTHER, 1);
    watch.changed().await; // in time, without anything else
}

#[tokio::test(start_paused = true)]
async fn a_refused_record_is_alone_once_another_one_of_its_limits_was_applied() {
    let pacers = pacers();
    let mut watch = pacers.watch();
    let now = Tick::ZERO;
    assert!(matches!(end(&mut watch, now, (CRM, "a", false), failed(403)), Outcome::Refused(_)));
    end(&mut watch, now, (CRM, "a", false), Outcome::Applied);
    assert!(matches!(end(&mut watch, now, (CRM, "a", false), failed(403)), Outcome::Refused(_)));
    end(&mut watch, now, (ERP, "b", false), Outcome::Applied);
    let judged = end(&mut watch, now, (CRM, "a", false), failed(403));
    assert!(
        matches!(judged, Outcome::RefusedAlone { others_applied, .. } if others_applied == now),
        "{judged:?}"
    );
}
