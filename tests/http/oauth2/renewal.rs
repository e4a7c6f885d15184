//! One token for all attempts, renewed in time, and fetched again when it is refused.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::outcome::{Cause, Failure, Outcome};

use super::world::{Behaviour, World, attempt, attempts, why_without};
use crate::targets;

const MANY: usize = 50;

fn seen(token: &str, status: u16) -> (String, u16) {
    (token.to_owned(), status)
}

#[tokio::test]
async fn all_attempts_wait_for_one_token() {
    let mut world = World::new(Behaviour { open: 0, ..Behaviour::default() }).await;
    let targets = Arc::new(world.targets());
    let attempting = tokio::spawn({
        let targets = Arc::clone(&targets);
        async move { attempts(&targets, MANY).await }
    });
    let request = world.token_server.next_request().await;
    assert!(request.starts_with("POST /token?key=qu3ry HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\ngrant_type=client_credentials"), "{request}");
    assert!(world.seen().is_empty(), "nothing goes out without a token");
    world.shared.gate.add_permits(MANY);
    assert_eq!(attempting.await.unwrap(), vec![Outcome::Applied; MANY]);
    assert_eq!(world.seen(), vec![seen("t1", 200); MANY]);
    assert_eq!(world.given(), 1);
    assert!(world.token_server.no_further_request());
}

/// The second fetch is not answered while the first token is good: nobody waits for it. A machine that is too slow to see that
/// has another chance.
#[tokio::test]
async fn a_token_is_renewed_before_it_expires_and_nothing_waits_for_that() {
    for _ in 0..5 {
        if renewed_in_time().await {
            return;
        }
    }
    panic!("the attempt after the second fetch had begun waited for it");
}

async fn renewed_in_time() -> bool {
    const LIFE: u64 = 3;
    let mut world = World::new(Behaviour { life: LIFE, open: 1, ..Behaviour::default() }).await;
    let targets = world.targets();
    let expires_at = tokio::time::Instant::now() + Duration::from_secs(LIFE);
    assert_eq!(attempt(&targets).await, Outcome::Applied);
    world.token_server.next_request().await;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while world.token_server.no_further_request() {
        pace.tick().await;
        if tokio::time::timeout_at(expires_at, attempt(&targets)).await.is_err() {
            return false;
        }
    }
    let Ok(outcome) = tokio::time::timeout_at(expires_at, attempt(&targets)).await else { return false };
    assert_eq!(outcome, Outcome::Applied);
    assert!(world.seen().iter().all(|seen| *seen == ("t1".to_owned(), 200)));
    world.shared.gate.add_permits(1);
    // The old one is used until the new one has come.
    while world.seen().last().is_none_or(|seen| *seen != ("t2".to_owned(), 200)) {
        assert_eq!(attempt(&targets).await, Outcome::Applied);
    }
    assert_eq!(world.given(), 2);
    true
}

#[tokio::test]
async fn many_refusals_of_one_token_fetch_one_other() {
    let world = World::new(Behaviour { together: MANY, ..Behaviour::default() }).await;
    let targets = Arc::new(world.targets());
    assert_eq!(attempts(&targets, MANY).await, vec![Outcome::Applied; MANY]);
    assert_eq!((world.given(), world.seen()), (1, vec![seen("t1", 200); MANY]));
    world.revoke("t1");
    assert_eq!(attempts(&targets, MANY).await, vec![Outcome::Applied; MANY]);
    assert_eq!(world.given(), 2);
    let mut all = world.seen();
    all.sort();
    assert_eq!(all, [vec![seen("t1", 401); MANY], vec![seen("t2", 200); MANY]].concat());
}

#[tokio::test]
async fn a_token_that_was_refused_at_once_is_replaced_within_the_attempt() {
    let world = World::new(Behaviour { good_from: 2, life: 0, ..Behaviour::default() }).await;
    let targets = world.targets();
    assert_eq!(attempt(&targets).await, Outcome::Applied);
    assert_eq!(world.seen(), [seen("t1", 401), seen("t2", 200)]);
    assert_eq!(attempt(&targets).await, Outcome::Applied);
    assert_eq!((world.seen(), world.given()), (vec![seen("t2", 200)], 2));
}

#[tokio::test]
async fn a_target_that_refuses_every_token_does_not_make_us_ask_for_one_each_time() {
    let world = World::new(Behaviour { good_from: usize::MAX, ..Behaviour::default() }).await;
    let targets = Arc::new(world.targets());
    let refused = attempt(&targets).await;
    let expected = Failure { cause: Cause::Status(401), detail: "who are you?".to_owned() };
    assert_eq!(refused, Outcome::Refused(expected), "both tokens were refused");
    assert_eq!(world.seen(), [seen("t1", 401), seen("t2", 401)]);
    let began = tokio::time::Instant::now();
    let outcomes = attempts(&targets, MANY).await;
    // One more than the intervals of 2 s that have passed, on a machine that is slow.
    let bound = 3 + began.elapsed().as_secs() / 2;
    assert!(world.given() as u64 <= bound, "{} tokens, at most {bound}", world.given());
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Refused(_))), "{outcomes:?}");
}

#[tokio::test]
async fn the_same_token_again_is_no_reason_to_send_again() {
    let world =
        World::new(Behaviour { good_from: usize::MAX, always_the_same: true, ..Behaviour::default() }).await;
    let outcome = attempt(&world.targets()).await;
    assert!(matches!(outcome, Outcome::Refused(Failure { cause: Cause::Status(401), .. })), "{outcome:?}");
    assert_eq!((world.seen(), world.given()), (vec![seen("t1", 401)], 2));
}

/// With `if_match = "auto"`, an attempt begins with a GET.
#[tokio::test]
async fn a_fetch_of_the_record_that_is_refused_is_sent_again_too() {
    let world = World::new(Behaviour { good_from: 2, ..Behaviour::default() }).await;
    let targets = targets(world.config("if_match = \"auto\"")).unwrap();
    assert_eq!(attempt(&targets).await, Outcome::Applied);
    assert_eq!(world.seen(), [seen("t1", 401), seen("t2", 200), seen("t2", 200)]);
}

#[tokio::test]
async fn a_changed_config_keeps_the_token_if_the_auth_is_the_same() {
    let world = World::new(Behaviour::default()).await;
    let targets = world.targets();
    assert_eq!(attempt(&targets).await, Outcome::Applied);
    for same in ["method = \"POST\"", "connect_timeout = \"7s\"", "connection_age_max = \"1s\""] {
        let changed = targets.changed_to(&[world.config(same)]).unwrap();
        assert_eq!(attempt(&changed).await, Outcome::Applied);
        assert_eq!(world.given(), 1, "{same}");
    }
    let mut other = world.config("");
    let lanekeeper::config::AuthConfig::OAuth2(grant) = &mut other.auth else { panic!("{other:?}") };
    grant.scopes.push("more".to_owned());
    let changed = targets.changed_to(&[other]).unwrap();
    assert_eq!(attempt(&changed).await, Outcome::Applied);
    assert_eq!(world.given(), 2);
}

#[tokio::test]
async fn a_slow_server_costs_an_attempt_its_connect_timeout_and_its_answer_serves_the_next() {
    let world = World::new(Behaviour { open: 0, ..Behaviour::default() }).await;
    let targets = targets(world.config("connect_timeout = \"200ms\"")).unwrap();
    let outcome = attempt(&targets).await;
    let url = format!("token server http://{}/token", world.token_server.address);
    assert_eq!(why_without(&outcome), format!("{url}: no token yet within connect_timeout"));
    assert!(world.seen().is_empty());
    world.shared.gate.add_permits(1);
    // The fetch goes on: nobody asks a second time.
    while world.given() == 0 {
        tokio::task::yield_now().await;
    }
    let mut outcome = attempt(&targets).await;
    while outcome != Outcome::Applied {
        why_without(&outcome);
        outcome = attempt(&targets).await;
    }
    assert_eq!(world.given(), 1);
}
