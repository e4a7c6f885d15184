//! Parses `Retry-After` (RFC 9110, section 10.2.3): seconds or a date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far a number can lie from now and be taken for a moment: the target's clock need not agree with ours.
const MOMENT_PAST_MAX: Duration = Duration::from_secs(3600);
const MOMENT_AHEAD_MAX: Duration = Duration::from_secs(31 * 86_400);

/// How long the answer asks us to wait; `None`: not a form that the RFC allows.
///
/// A date is taken relative to the answer's own `Date`, so that the target's clock need not agree with ours; without one,
/// relative to `now` (the system's clock). A past date or a negative number means no wait. Not bounded: the policy's
/// `retry_after_max` does that.
pub(super) fn parse(retry_after: &str, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let retry_after = retry_after.trim();
    let digits = retry_after.strip_prefix('-').unwrap_or(retry_after);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit into u64 is the longest wait.
        let seconds = if digits == retry_after { digits.parse().unwrap_or(u64::MAX) } else { 0 };
        return Some(until_moment(seconds, now).unwrap_or(Duration::from_secs(seconds)));
    }
    let until = httpdate::parse_http_date(retry_after).ok()?;
    let since = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or(now);
    Some(until.duration_since(since).unwrap_or(Duration::ZERO))
}

/// Some servers send the moment as seconds or milliseconds since 1970. A number of seconds that is, as a moment, close to now
/// would be a wait of decades, and of millennia.
fn until_moment(number: u64, now: SystemTime) -> Option<Duration> {
    let since_1970 = now.duration_since(UNIX_EPOCH).ok()?;
    let is_close = |moment: &Duration| {
        moment.saturating_add(MOMENT_PAST_MAX) >= since_1970 && *moment <= since_1970 + MOMENT_AHEAD_MAX
    };
    let moment = [Duration::from_secs(number), Duration::from_millis(number)].into_iter().find(is_close)?;
    Some(moment.saturating_sub(since_1970))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn check(retry_after: &str, date: Option<&str>, expected: Option<u64>) {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:50:07 GMT").unwrap();
        let wait = parse(retry_after, date, now).map(|wait| wait.as_secs());
        assert_eq!(wait, expected, "{retry_after:?}");
    }

    #[test]
    fn seconds() {
        check("0", None, Some(0));
        check("120", None, Some(120));
        check(" 7 ", Some(DATE), Some(7));
        check("007", None, Some(7));
        check("-5", None, Some(0));
        check("99999999999999999999999", None, Some(u64::MAX));
    }

    #[test]
    fn a_moment_is_recognized_where_it_can_be_nothing_else() {
        // Now is 784111807 s since 1970.
        check("784111837", None, Some(30));
        check("784111837500", None, Some(30));
        check("784111800", None, Some(0));
        check("784111807", Some(DATE), Some(0));
        check("30000", None, Some(30_000));
        check("790000000", None, Some(790_000_000)); // in 68 days: too far to be certain
    }

    #[test]
    fn a_date_is_relative_to_the_answers_date() {
        check("Sun, 06 Nov 1994 08:51:37 GMT", Some(DATE), Some(120));
        check("Sun, 06 Nov 1994 08:51:37 GMT", None, Some(90));
        check("Sun, 06 Nov 1994 08:51:37 GMT", Some("soon"), Some(90));
        check("Sunday, 06-Nov-94 08:51:37 GMT", Some(DATE), Some(120));
        check("Sun Nov  6 08:51:37 1994", Some(DATE), Some(120));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(DATE), Some(0));
        check(DATE, Some(DATE), Some(0));
    }

    #[test]
    fn anything_else_is_ignored() {
        for text in
            ["", "-", "soon", "1.5", "1e3", "+5", "5s", "0x10", "१२", "Sun, 99 Nov 1994 08:49:37 GMT", "-5 "]
        {
            check(text, Some(DATE), if text == "-5 " { Some(0) } else { None });
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC*", date in "\\PC*", now in 0..1u64 << 40) {
            let _ = parse(&text, Some(&date), UNIX_EPOCH + Duration::from_secs(now));
        }
    }
}
