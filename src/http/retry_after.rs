//! Reads when to come again: `Retry-After` (RFC 9110, section 10.2.3), and the reset of a quota, which APIs write in the same
//! forms and in some more.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far a number can lie from now and be taken for a moment: the target's clock need not agree with ours.
const MOMENT_PAST_MAX: Duration = Duration::from_secs(3600);
const MOMENT_AHEAD_MAX: Duration = Duration::from_secs(31 * 86_400);

/// How long the answer asks us to wait; `None`: not a form that is certain.
///
/// Seconds and dates of HTTP are what the RFC allows. Some servers send fractions of seconds, a date of RFC 3339, or the moment
/// as a number ([`until_moment`]). A date is taken relative to the answer's own `Date`, so that the target's clock need not
/// agree with ours; without one, relative to `now` (the system's clock). A past date or a negative number means no wait. Not
/// bounded: the policy's `retry_after_max` does that.
pub(super) fn parse(text: &str, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let date = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok());
    if let Some(number) = number(text) {
        return Some(until_moment(number, date, now).unwrap_or(number));
    }
    let until = httpdate::parse_http_date(text).ok().or_else(|| rfc3339(text))?;
    Some(until.duration_since(date.unwrap_or(now)).unwrap_or(Duration::ZERO))
}

/// A number of seconds. A negative one is 0, and one that does not fit into u64 is the longest wait.
fn number(text: &str) -> Option<Duration> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    if digits != text {
        return Some(Duration::ZERO);
    }
    let nanos = format!("{fraction:0<9.9}").parse().unwrap_or(0);
    Some(Duration::new(whole.parse().unwrap_or(u64::MAX), nanos))
}

/// Some servers send the moment as seconds, milliseconds or microseconds since 1970. A number of seconds that is, as a moment,
/// close to now would be a wait of decades, or of millennia. The wait is relative to the answer's `Date`, if that is plausible.
fn until_moment(number: Duration, date: Option<SystemTime>, now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
    let since = date.filter(|date| date.abs_diff(now) <= MOMENT_PAST_MAX).unwrap_or(now);
    let is_close = |moment: &Duration| {
        moment.saturating_add(MOMENT_PAST_MAX) >= since && *moment <= since + MOMENT_AHEAD_MAX
    };
    let moment = [1, 1_000, 1_000_000].into_iter().map(|unit| number / unit).find(is_close)?;
    Some(moment.saturating_sub(since))
}

/// A date of RFC 3339, with or without seconds (`2026-02-16T09:02Z`). One that does not say its time zone is not certain.
fn rfc3339(text: &str) -> Option<SystemTime> {
    const ZONE_BYTES: usize = "+01:00".len();
    const MINUTES_BYTES: usize = "2026-02-16T09:02".len();
    if !text.is_ascii() {
        return None;
    }
    let (local, zone) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, None),
        None => text
            .split_at_checked(text.len().checked_sub(ZONE_BYTES)?)
            .map(|(local, zone)| (local, Some(zone)))?,
    };
    let seconds = if local.len() == MINUTES_BYTES { ":00" } else { "" };
    let moment = humantime::parse_rfc3339_weak(&format!("{local}{seconds}")).ok()?;
    let Some(zone) = zone else { return Some(moment) };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let ahead = Duration::from_secs(60 * (60 * two_digits(hours)? + two_digits(minutes)?));
    match zone.as_bytes()[0] {
        b'+' => moment.checked_sub(ahead),
        b'-' => moment.checked_add(ahead),
        _ => None,
    }
}

fn two_digits(text: &str) -> Option<u64> {
    let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
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
    fn fractions_of_seconds() {
        let now = httpdate::parse_http_date(DATE).unwrap();
        for (text, ms) in [("1.5", 1500), ("0.25", 250), ("2.0", 2000), ("0.0009999999999", 0), ("-1.5", 0)] {
            let wait = parse(text, None, now).map(|wait| wait.as_millis());
            assert_eq!(wait, Some(ms), "{text}");
        }
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
        check("784111807.5", None, Some(0));
        check("784111837500000", None, Some(30));
        check("784111807", Some(DATE), Some(30)); // the target's clock is 30 s behind ours
        check("784111837", Some("Sun, 06 Nov 1994 02:00:00 GMT"), Some(30)); // not plausible
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
    fn a_date_can_be_of_rfc_3339() {
        check("1994-11-06T08:51:37Z", Some(DATE), Some(120));
        check("1994-11-06T08:51:37Z", None, Some(90));
        check("1994-11-06T08:51:37.250z", Some(DATE), Some(120));
        check("1994-11-06T08:51Z", Some(DATE), Some(83));
        check("1994-11-06T10:51:37+02:00", Some(DATE), Some(120));
        check("1994-11-06T07:21:37-01:30", Some(DATE), Some(120));
        check("1994-11-06T08:51:37", Some(DATE), None);
        check("1994-11-06", Some(DATE), None);
        check("1994-11-06T08:51:37+aa:00", Some(DATE), None);
        check("1994-11-06T08:51:37 01:00", Some(DATE), None);
    }

    #[test]
    fn anything_else_is_ignored() {
        for text in ["", "-", "soon", ".5", "5.", "1.2.3", "1.-5", "1,5", "1e3", "+5", "5s", "0x10", "१२"]
        {
            check(text, Some(DATE), None);
        }
        check("Sun, 99 Nov 1994 08:49:37 GMT", Some(DATE), None);
        check("-5 ", Some(DATE), Some(0));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC*", date in "\\PC*", now in 0..1u64 << 40) {
            let _ = parse(&text, Some(&date), UNIX_EPOCH + Duration::from_secs(now));
        }

        #[test]
        fn no_number_and_no_date_panics(
            text in "-?[0-9]{0,25}(\\.[0-9]{0,15})?|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{0,12}([Zz]|[+-][0-9]{2}:[0-9]{2})",
            date in 0..1u64 << 37,
            now in 0..1u64 << 37,
        ) {
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(date));
            let _ = parse(&text, Some(&date), UNIX_EPOCH + Duration::from_secs(now));
        }
    }
}
