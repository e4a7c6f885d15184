use super::*;

/// Each line is a moment in milliseconds, what happens then, and what is to come of it:
///
/// - `step` → `use N`, `use N and fetch`, `fetch`, `wait`, or `fail: WHY`
/// - `token LIFE` (in seconds; `-`: not said), `fault WHY`: a fetch ends that began then → `quiet`, `warn` or `info`
/// - `refused N` → `replaced`, `dropped` or `too soon`
/// - `accepted N` → `ok`
fn check(story: &[(u64, &str, &str)]) {
    let zero = Instant::now();
    let mut cache = TokenCache::default();
    let token = |number: u64| Token { number, header: header(number) };
    for (ms, event, expected) in story {
        let now = zero + Duration::from_millis(*ms);
        let (what, argument) = event.split_once(' ').unwrap_or((event, ""));
        let number = || token(argument.parse().unwrap());
        let got = match what {
            "step" => match cache.next_step(now) {
                Step::Use(token) => format!("use {}", token.number),
                Step::UseAndFetch(token) => format!("use {} and fetch", token.number),
                Step::Fetch => "fetch".to_owned(),
                Step::Wait => "wait".to_owned(),
                Step::Fail(why) => format!("fail: {why}"),
            },
            "token" => {
                let life = argument.parse().ok().map(Duration::from_secs);
                let ended = Ok(NewToken { header: header(cache.count + 1), life });
                log_level(cache.fetched(now, now, ended))
            }
            "fault" => log_level(cache.fetched(now, now, Err(argument.to_owned()))),
            "refused" => match cache.refused(&number(), now) {
                Refusal::Replaced => "replaced".to_owned(),
                Refusal::Dropped => "dropped".to_owned(),
                Refusal::TooSoon => "too soon".to_owned(),
            },
            "accepted" => {
                cache.accepted(&number());
                "ok".to_owned()
            }
            other => panic!("{other}"),
        };
        assert_eq!(got, *expected, "{event} at {ms} ms of {story:#?}");
    }
}

fn header(number: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("Bearer t{number}")).unwrap()
}

fn log_level(event: LogEvent) -> String {
    match event {
        LogEvent::None => "quiet",
        LogEvent::FailsWhileGood => "warn",
        LogEvent::WorksAgain => "info",
    }
    .to_owned()
}

#[test]
fn a_token_is_fetched_once_and_used_by_all() {
    check(&[
        (0, "step", "fetch"),
        (0, "step", "wait"),
        (10, "step", "wait"),
        (20, "token 100", "quiet"),
        (20, "step", "use 1"),
        (70_000, "step", "use 1"),
    ]);
}

#[test]
fn a_token_is_renewed_by_one_attempt_before_it_expires_and_used_meanwhile() {
    check(&[
        (0, "step", "fetch"),
        (0, "token 100", "quiet"),
        (79_999, "step", "use 1"),
        (80_000, "step", "use 1 and fetch"),
        (80_000, "step", "use 1"),
        (80_100, "token 100", "quiet"),
        (80_100, "step", "use 2"),
    ]);
}

#[test]
fn a_token_without_a_life_is_used_until_it_is_refused() {
    check(&[
        (0, "step", "fetch"),
        (0, "token -", "quiet"),
        (1_000_000_000, "step", "use 1"),
        (1_000_000_000, "refused 1", "dropped"),
        (1_000_000_000, "step", "fetch"),
    ]);
}

#[test]
fn the_old_token_is_used_while_it_is_good_if_it_cannot_be_renewed() {
    check(&[
        (0, "step", "fetch"),
        (0, "token 100", "quiet"),
        (80_000, "step", "use 1 and fetch"),
        (80_000, "fault away", "warn"),
        (80_999, "step", "use 1"),
        (81_000, "step", "use 1 and fetch"),
        (81_000, "fault away", "quiet"),
        (82_999, "step", "use 1"),
        (83_000, "step", "use 1 and fetch"),
        (99_999, "step", "use 1"),
        (100_000, "step", "wait"),
        (100_000, "fault still away", "quiet"),
        (100_000, "step", "fail: still away"),
        (104_000, "step", "fetch"),
        (104_000, "token 100", "info"),
        (104_000, "step", "use 2"),
    ]);
}

#[test]
fn a_server_that_is_away_is_asked_at_growing_intervals_up_to_a_bound() {
    let mut story = Vec::new();
    let mut now = 0;
    for wait in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
        story.extend([(now, "step", "fetch"), (now, "fault away", "quiet"), (now, "step", "fail: away")]);
        story.push((now + wait - 1, "step", "fail: away"));
        now += wait;
    }
    check(&story);
}

#[test]
fn many_refusals_of_one_token_cause_one_fetch() {
    check(&[
        (0, "step", "fetch"),
        (0, "token 100", "quiet"),
        (5, "refused 1", "dropped"),
        (5, "step", "fetch"),
        (6, "refused 1", "dropped"),
        (6, "step", "wait"),
        (7, "token 100", "quiet"),
        (8, "refused 1", "replaced"),
        (8, "step", "use 2"),
    ]);
}

#[test]
fn a_target_that_refuses_every_token_has_few_fetched() {
    let mut story = vec![(0, "step", "fetch"), (0, "token 100", "quiet"), (0, "refused 1", "dropped")];
    let mut now = 0;
    let refused: Vec<String> = (2..10).map(|number| format!("refused {number}")).collect();
    for (refused, wait) in refused.iter().zip([2, 4, 8, 16, 32, 60, 60]) {
        story.extend([(now, "step", "fetch"), (now, "token 100000", "quiet")]);
        story.extend([(now + 1, refused.as_str(), "too soon"), (now + wait * 1000 - 1, refused, "too soon")]);
        now += wait * 1000;
        story.push((now, refused, "dropped"));
    }
    check(&story);
}

#[test]
fn what_was_accepted_ends_the_intervals_after_the_one_that_has_begun() {
    check(&[
        (0, "step", "fetch"),
        (0, "token 100", "quiet"),
        (0, "refused 1", "dropped"),
        (0, "step", "fetch"),
        (0, "token 100", "quiet"),
        (1, "accepted 2", "ok"),
        (2, "refused 2", "too soon"),
        (2, "step", "use 2"),
        (2_000, "refused 2", "dropped"),
        (2_000, "step", "fetch"),
        (2_000, "token 100", "quiet"),
        (3_999, "refused 3", "too soon"),
        (4_000, "refused 3", "dropped"),
    ]);
}

#[test]
fn a_refused_token_is_never_used_again_if_its_server_is_away() {
    check(&[
        (0, "step", "fetch"),
        (0, "token -", "quiet"),
        (5, "refused 1", "dropped"),
        (5, "step", "fetch"),
        (5, "fault away", "quiet"),
        (6, "refused 1", "dropped"),
        (6, "step", "fail: away"),
        (1_005, "step", "fetch"),
        (1_005, "token -", "info"),
    ]);
}

/// One that is refused during its renewal waits for it.
#[test]
fn a_refusal_during_a_renewal_waits_for_it() {
    check(&[
        (0, "step", "fetch"),
        (0, "token 100", "quiet"),
        (80_000, "step", "use 1 and fetch"),
        (80_001, "refused 1", "dropped"),
        (80_001, "step", "wait"),
        (80_002, "token 100", "quiet"),
        (80_003, "step", "use 2"),
    ]);
}

#[test]
fn a_life_that_no_clock_can_represent_has_no_end() {
    let mut cache = TokenCache::default();
    let now = Instant::now();
    let life = Some(Duration::MAX);
    let _ = cache.next_step(now);
    assert_eq!(cache.fetched(now, now, Ok(NewToken { header: header(1), life })), LogEvent::None);
    assert!(cache.has_good(now + Duration::from_secs(1 << 40)));
}
