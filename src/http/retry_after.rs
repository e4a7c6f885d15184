//! Parses `Retry-After` (RFC 9110, section 10.2.3): seconds or a date.

use std::time::{Duration, SystemTime};

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
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(retry_after).ok()?;
    let since = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or(now);
    Some(until.duration_since(since).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

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
