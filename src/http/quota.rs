//! Reads what an answer says about the target's limit.
//!
//! The forms, in the order in which they are believed: `RateLimit` (draft-ietf-httpapi-ratelimit-headers, from -08 on a list
//! of policies, in -07 a dictionary); the three fields of the earlier drafts; the same with `X-` before, which most APIs send;
//! those of `HubSpot`. `RateLimit-Policy` adds the window to any of them, and stands alone if there is nothing else.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use http::header::{DATE, HeaderMap};
use sfv::{BareItem, Dictionary, Item, List, ListEntry, Parser};

use super::retry_after;
use lanekeeper_core::pacing::Quota;

/// A longer field is ignored.
const FIELD_BYTES_MAX: usize = 4 * 1024;
/// A longer window and a later reset are taken for mistakes. A month is the longest that APIs have.
const WINDOW_MAX: Duration = Duration::from_secs(31 * 86_400);

/// The fields that an API sends one by one.
struct Names {
    limit: &'static str,
    remaining: &'static str,
    /// The wait, or the moment; the first that is there counts.
    reset: &'static [&'static str],
    /// The window in milliseconds.
    window_ms: Option<&'static str>,
}

const SEPARATE: [Names; 4] = [
    // Drafts up to -06; Zendesk, Kong. GitLab, with a moment as its reset.
    Names {
        limit: "ratelimit-limit",
        remaining: "ratelimit-remaining",
        reset: &["ratelimit-reset"],
        window_ms: None,
    },
    // GitHub and Atlassian, with a moment; Envoy, in the form of the drafts; Discord.
    Names {
        limit: "x-ratelimit-limit",
        remaining: "x-ratelimit-remaining",
        reset: &["x-ratelimit-reset-after", "x-ratelimit-reset"],
        window_ms: None,
    },
    // Okta and X (Twitter), with a moment.
    Names {
        limit: "x-rate-limit-limit",
        remaining: "x-rate-limit-remaining",
        reset: &["x-rate-limit-reset"],
        window_ms: None,
    },
    Names {
        limit: "x-hubspot-ratelimit-max",
        remaining: "x-hubspot-ratelimit-remaining",
        reset: &[],
        window_ms: Some("x-hubspot-ratelimit-interval-milliseconds"),
    },
];

/// An item of `RateLimit-Policy`.
#[derive(Debug)]
struct Policy {
    /// Drafts before -08 have no names.
    name: Option<String>,
    limit: u64,
    window: Option<Duration>,
    /// It counts requests, and not bytes or requests at the same time.
    of_requests: bool,
}

/// What an answer says about the target's limit. A value that makes no sense counts as missing.
pub(super) fn quota_of(headers: &HeaderMap, now: SystemTime) -> Quota {
    let policies = field(headers, "ratelimit-policy").map(|text| policies(&text)).unwrap_or_default();
    let rate_limit = field(headers, "ratelimit").and_then(|text| of_rate_limit(&text, &policies));
    let separate = || SEPARATE.iter().find_map(|names| of_separate(headers, names, &policies, now));
    let tightest = || {
        let of_requests = policies.iter().filter(|policy| policy.of_requests);
        let policy = of_requests.min_by_key(|policy| tightness(policy.limit, policy.window))?;
        Some(Quota { limit: Some(policy.limit), window: policy.window, ..Quota::default() })
    };
    rate_limit.or_else(separate).or_else(tightest).unwrap_or_default()
}

/// The lower, the tighter: the rate at which so many requests are used up in this time, and the longer time if that is equal.
fn tightness(requests: u64, time: Option<Duration>) -> (u128, Reverse<Option<Duration>>) {
    let rate = time.map_or(u128::MAX, |time| u128::from(requests) * 1_000_000_000 / time.as_millis().max(1));
    (if requests == 0 { 0 } else { rate }, Reverse(time))
}

/// The whole value of a field, whose lines are joined (RFC 9110, section 5.3).
fn field(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut value = String::new();
    for line in headers.get_all(name) {
        let line = line.to_str().ok()?;
        if value.len() + line.len() > FIELD_BYTES_MAX {
            return None;
        }
        value.push_str(if value.is_empty() { "" } else { ", " });
        value.push_str(line);
    }
    (!value.is_empty()).then_some(value)
}

/// `"burst";q=100;w=60` (from -08 on), or `100;w=60`.
fn policies(text: &str) -> Vec<Policy> {
    items(text).unwrap_or_default().iter().filter_map(policy).collect()
}

fn policy(item: &Item) -> Option<Policy> {
    let window = parameter(item, "w").map(Duration::from_secs).filter(is_window);
    let unit = item.params.iter().find(|(key, _)| key.as_str() == "qu").map(|(_, unit)| unit);
    let of_requests = unit.is_none_or(|unit| name(unit).as_deref() == Some("requests"));
    let limit = count(&item.bare_item).or_else(|| parameter(item, "q")).filter(|limit| *limit > 0)?;
    Some(Policy { name: name(&item.bare_item), limit, window, of_requests })
}

/// `"burst";r=50;t=30`. Of several items, the one that would be used up at the lowest rate counts.
fn of_rate_limit(text: &str, policies: &[Policy]) -> Option<Quota> {
    let Some(items) = items(text) else { return of_dictionary(text, policies) };
    let only = policies.first().filter(|_| policies.len() == 1 && items.len() == 1);
    let quotas = items.iter().filter_map(|item| {
        let remaining = parameter(item, "r")?;
        let reset = parameter(item, "t").map(Duration::from_secs).filter(is_reset);
        let name = name(&item.bare_item);
        let policy = policies.iter().find(|policy| policy.name == name).or(only);
        if policy.is_some_and(|policy| !policy.of_requests) {
            return None;
        }
        let (limit, window) = policy.map_or((None, None), |policy| (Some(policy.limit), policy.window));
        Some(Quota { remaining: Some(remaining), reset, limit, window })
    });
    quotas.min_by_key(|quota| tightness(quota.remaining.unwrap_or_default(), quota.reset.or(quota.window)))
}

/// `limit=100, remaining=50, reset=30` (-07).
fn of_dictionary(text: &str, policies: &[Policy]) -> Option<Quota> {
    let dictionary = Parser::new(text).parse::<Dictionary>().ok()?;
    let member = |name: &str| match dictionary.iter().find(|(key, _)| key.as_str() == name)?.1 {
        ListEntry::Item(item) => count(&item.bare_item),
        ListEntry::InnerList(_) => None,
    };
    let limit = member("limit").filter(|limit| *limit > 0);
    let reset = member("reset").map(Duration::from_secs).filter(is_reset);
    let quota = Quota { remaining: member("remaining"), reset, limit, window: window_of(limit, policies) };
    says_something(quota)
}

fn of_separate(headers: &HeaderMap, names: &Names, policies: &[Policy], now: SystemTime) -> Option<Quota> {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let reset = names
        .reset
        .iter()
        .find_map(|name| retry_after::parse(&field(headers, name)?, date, now).filter(is_reset));
    // `100`, or `100, 100;w=60, 1000;w=3600`; but not `100,000`.
    let listed = field(headers, names.limit).and_then(|text| items(&text)).unwrap_or_default();
    let is_limit = listed.iter().skip(1).all(|item| parameter(item, "w").is_some());
    let listed: Vec<Policy> = listed.iter().filter(|_| is_limit).filter_map(policy).collect();
    let limit = listed.first().map(|policy| policy.limit);
    let window_ms = names.window_ms.and_then(|name| field(headers, name)?.trim().parse().ok());
    let window = window_ms.map(Duration::from_millis).filter(is_window);
    let in_list =
        || listed.iter().find(|policy| Some(policy.limit) == limit && policy.window.is_some())?.window;
    let window = window.or_else(in_list).or_else(|| window_of(limit, policies));
    let remaining = field(headers, names.remaining).and_then(|text| whole(&text));
    says_something(Quota { remaining, reset, limit, window })
}

/// The window of the policy that has this limit.
fn window_of(limit: Option<u64>, policies: &[Policy]) -> Option<Duration> {
    policies.iter().find(|policy| policy.of_requests && Some(policy.limit) == limit)?.window
}

fn says_something(quota: Quota) -> Option<Quota> {
    (quota != Quota::default()).then_some(quota)
}

/// The items of a list; `None`: it is no list.
fn items(text: &str) -> Option<Vec<Item>> {
    let list = Parser::new(text).parse::<List>().ok()?;
    let item = |entry| match entry {
        ListEntry::Item(item) => Some(item),
        ListEntry::InnerList(_) => None,
    };
    Some(list.into_iter().filter_map(item).collect())
}

fn parameter(item: &Item, name: &str) -> Option<u64> {
    item.params.iter().find(|(key, _)| key.as_str() == name).and_then(|(_, value)| count(value))
}

fn count(value: &BareItem) -> Option<u64> {
    u64::try_from(i64::from(value.as_integer()?)).ok()
}

/// Names are strings; some drafts had tokens.
fn name(value: &BareItem) -> Option<String> {
    let string = value.as_string().map(|name| name.as_str().to_owned());
    string.or_else(|| value.as_token().map(|name| name.as_str().to_owned()))
}

/// A number of requests; half a request is none.
fn whole(text: &str) -> Option<u64> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(whole) && is_number(fraction) { whole.parse().ok() } else { None }
}

fn is_reset(reset: &Duration) -> bool {
    *reset <= WINDOW_MAX
}

fn is_window(window: &Duration) -> bool {
    !window.is_zero() && *window <= WINDOW_MAX
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    /// Sat, 12 Nov 2016 00:00:00 GMT.
    const NOW: Duration = Duration::from_secs(1_478_908_800);

    fn headers(lines: &str) -> HeaderMap {
        let line = |line: &str| {
            let (name, value) = line.split_once(": ").expect("name: value");
            (HeaderName::try_from(name.trim()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        lines.lines().filter(|text| !text.trim().is_empty()).map(line).fold(
            HeaderMap::new(),
            |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            },
        )
    }

    /// `expected`: remaining, seconds to the reset, limit, seconds of the window.
    fn check(lines: &str, expected: [Option<u64>; 4]) {
        let quota = quota_of(&headers(lines), UNIX_EPOCH + NOW);
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
        let found = [quota.remaining, seconds(quota.reset), quota.limit, seconds(quota.window)];
        assert_eq!(found, expected, "{lines}");
    }

    const NOTHING: [Option<u64>; 4] = [None; 4];

    #[test]
    fn the_fields_of_the_draft() {
        let all = [Some(50), Some(30), Some(100), Some(60)];
        check("RateLimit: \"default\";r=50;t=30\nRateLimit-Policy: \"default\";q=100;w=60", all);
        check("RateLimit: default;r=50;t=30\nRateLimit-Policy: default;q=100;w=60", all);
        check(
            "RateLimit: \"a\";r=50;t=30;pk=:cHVwcHk=:\nRateLimit-Policy: \"a\";q=100;w=60;pk=:cHVwcHk=:",
            all,
        );
        check("RateLimit: \"default\";r=50;t=30\nRateLimit-Policy: \"other\";q=100;w=60", all);
        check("RateLimit: \"default\";r=50", [Some(50), None, None, None]);
        check(
            "RateLimit-Policy: \"burst\";q=100;w=60, \"daily\";q=1000;w=86400",
            [None, None, Some(1000), Some(86_400)],
        );
        check("RateLimit-Policy: \"burst\";q=100", [None, None, Some(100), None]);
    }

    #[test]
    fn the_tightest_of_several_limits_counts() {
        let policies = "RateLimit-Policy: \"burst\";q=10;w=1, \"daily\";q=1000;w=86400\n";
        let check_both = |limits: &str, expected| check(&format!("{policies}RateLimit: {limits}"), expected);
        let burst = |remaining| [Some(remaining), Some(1), Some(10), Some(1)];
        check_both("\"daily\";r=50000;t=4000, \"burst\";r=3;t=1", burst(3));
        check_both("\"daily\";r=900;t=40000, \"burst\";r=0;t=1", burst(0));
        check_both(
            "\"daily\";r=5;t=40000, \"burst\";r=9;t=1",
            [Some(5), Some(40_000), Some(1000), Some(86_400)],
        );
        check_both(
            "\"daily\";r=0;t=40000, \"burst\";r=0;t=1",
            [Some(0), Some(40_000), Some(1000), Some(86_400)],
        );
        check_both("\"daily\";r=900\nRateLimit: \"burst\";r=3", [Some(900), None, Some(1000), Some(86_400)]);
        check_both("\"burst\";r=3;t=1, \"unknown\";r=1", burst(3));
    }

    #[test]
    fn a_quota_of_bytes_is_none_of_requests() {
        let policies =
            "RateLimit-Policy: \"peak\";q=65535;qu=\"content-bytes\";w=10, \"r\";q=50;qu=\"requests\";w=5\n";
        check(
            &format!("{policies}RateLimit: \"peak\";r=1;t=9, \"r\";r=7;t=2"),
            [Some(7), Some(2), Some(50), Some(5)],
        );
        check(&format!("{policies}RateLimit: \"peak\";r=1;t=9"), [None, None, Some(50), Some(5)]);
    }

    #[test]
    fn the_forms_of_earlier_drafts() {
        let all = [Some(50), Some(30), Some(100), Some(60)];
        check("RateLimit: limit=100, remaining=50, reset=30\nRateLimit-Policy: 100;w=60", all);
        let rest = "\nRateLimit-Remaining: 50\nRateLimit-Reset: 30";
        check(&format!("RateLimit-Limit: 100\nRateLimit-Policy: 100;w=60, 1000;w=3600{rest}"), all);
        check(&format!("RateLimit-Limit: 100, 100;w=60{rest}"), all);
        check(
            &format!("RateLimit-Limit: 100, 10;w=1, 1000;w=3600{rest}"),
            [Some(50), Some(30), Some(100), None],
        );
        check(&format!("RateLimit-Limit: 100{rest}"), [Some(50), Some(30), Some(100), None]);
        check(
            "X-RateLimit-Limit: 10, 10;w=1;name=\"per-ip\", 1000;w=3600\nX-RateLimit-Remaining: 9\nX-RateLimit-Reset: 1",
            [Some(9), Some(1), Some(10), Some(1)],
        );
    }

    #[test]
    fn what_apis_send() {
        let moment = NOW.as_secs() + 40;
        // GitHub.
        check(
            &format!(
                "x-ratelimit-limit: 5000\nx-ratelimit-remaining: 4987\nx-ratelimit-reset: {moment}\nx-ratelimit-used: 13"
            ),
            [Some(4987), Some(40), Some(5000), None],
        );
        // Okta.
        check(
            &format!("X-Rate-Limit-Limit: 600\nX-Rate-Limit-Remaining: 599\nX-Rate-Limit-Reset: {moment}"),
            [Some(599), Some(40), Some(600), None],
        );
        // Zendesk, with two families; the standard's counts.
        check(
            "X-Rate-Limit: 700\nX-Rate-Limit-Remaining: 699\nratelimit-limit: 700\nratelimit-remaining: 698\nratelimit-reset: 41",
            [Some(698), Some(41), Some(700), None],
        );
        // Atlassian.
        check(
            "X-RateLimit-Limit: 40\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 2016-11-12T00:05Z",
            [Some(0), Some(300), Some(40), None],
        );
        // GitLab.
        check(
            &format!(
                "RateLimit-Limit: 60\nRateLimit-Observed: 67\nRateLimit-Remaining: 0\nRateLimit-Reset: {moment}\n\
            RateLimit-ResetTime: Sat, 12 Nov 2016 00:00:40 GMT"
            ),
            [Some(0), Some(40), Some(60), None],
        );
        // Discord.
        check(
            &format!(
                "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: {moment}.5\nX-RateLimit-Reset-After: 1.25"
            ),
            [Some(0), Some(1), Some(5), None],
        );
        // HubSpot.
        check(
            "X-HubSpot-RateLimit-Max: 100\nX-HubSpot-RateLimit-Remaining: 98\nX-HubSpot-RateLimit-Interval-Milliseconds: 10000",
            [Some(98), None, Some(100), Some(10)],
        );
        // Shopify's leaky bucket says nothing about time.
        check("X-Shopify-Shop-Api-Call-Limit: 32/40", NOTHING);
    }

    #[test]
    fn a_reset_is_a_wait_or_a_moment() {
        let check_reset = |text: &str, expected| {
            check(&format!("X-RateLimit-Reset: {text}"), [None, expected, None, None]);
        };
        check_reset("30", Some(30));
        check_reset("0.5", Some(0));
        check_reset("1478908830", Some(30));
        check_reset("1478908830.75", Some(30));
        check_reset("1478908830123", Some(30));
        check_reset("1478908790", Some(0));
        check_reset("Sat, 12 Nov 2016 00:01:00 GMT", Some(60));
        check_reset("2016-11-12T01:01:00+01:00", Some(60));
        check_reset("2678400", Some(2_678_400));
        for nonsense in
            ["2678401", "1400000000", "99999999999999999999", "soon", "1e3", "30s", "2017-11-12T00:00:00Z"]
        {
            check_reset(nonsense, None);
        }
    }

    #[test]
    fn nonsense_says_nothing() {
        for lines in [
            "RateLimit: ",
            "RateLimit: \"default",
            "RateLimit: \"default\"",
            "RateLimit: \"default\";r=-1;t=5",
            "RateLimit: \"default\";r=1.5",
            "RateLimit: (\"a\" \"b\");r=5",
            "RateLimit: limit=0",
            "RateLimit-Policy: \"a\";q=0;w=1",
            "RateLimit-Policy: 0;w=60",
            "RateLimit-Policy: -5;w=60",
            "RateLimit-Limit: unlimited",
            "X-RateLimit-Limit: 100,000",
            "X-RateLimit-Limit: 0",
            "X-RateLimit-Remaining: -1",
            "X-RateLimit-Remaining: 3/4",
            "X-RateLimit-Remaining: 99999999999999999999",
            "X-Other: 5",
        ] {
            check(lines, NOTHING);
        }
        check(
            "RateLimit: \"a\";r=5;t=99999999\nRateLimit-Policy: \"a\";q=9;w=0",
            [Some(5), None, Some(9), None],
        );
        check("RateLimit: nonsense!\nX-RateLimit-Remaining: 3.7", [Some(3), None, None, None]);
        check(&format!("RateLimit: \"{}\";r=5", "a".repeat(FIELD_BYTES_MAX)), NOTHING);
        check(&format!("RateLimit: {}", "\"a\";r=5\nRateLimit: ".repeat(1000) + "\"a\";r=5"), NOTHING);
    }

    proptest! {
        #[test]
        fn nothing_panics(
            values in proptest::collection::vec("([a-z\";=, 0-9.:()-]|[ -~]){0,40}", 6),
            now in 0..1u64 << 40,
        ) {
            let names = ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining",
                "x-ratelimit-reset", "date"];
            let mut headers = HeaderMap::new();
            for (name, value) in names.into_iter().zip(values) {
                headers.insert(name, HeaderValue::from_str(&value).unwrap());
            }
            let quota = quota_of(&headers, UNIX_EPOCH + Duration::from_secs(now));
            prop_assert!(quota.reset.is_none_or(|reset| reset <= WINDOW_MAX));
            prop_assert!(quota.window.is_none_or(|window| is_window(&window)));
            prop_assert!(quota.limit != Some(0));
        }

        #[test]
        fn well_formed_fields_do_not_panic(
            remaining in any::<u64>(), time in any::<u64>(), limit in any::<u64>(), window in any::<u64>()
        ) {
            let lines = format!("RateLimit: \"a\";r={remaining};t={time}, \"b\";r={limit};t={window}\n\
                RateLimit-Policy: \"a\";q={limit};w={window}");
            let _ = quota_of(&headers(&lines), UNIX_EPOCH);
        }
    }
}
