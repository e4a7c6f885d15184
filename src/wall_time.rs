//! Times of the wall clock for people, whatever the clock says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-25T01:02:03Z`, of seconds since 1970-01-01 UTC; beyond the year 9999, the number of seconds.
pub fn format_seconds(seconds: u64) -> String {
    const YEAR_10_000: u64 = 253_402_300_800;
    if seconds >= YEAR_10_000 {
        return seconds.to_string();
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// As [`format_seconds`]; a clock that was never set can be before 1970.
pub fn format_time(time: SystemTime) -> String {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => format_seconds(since.as_secs()),
        Err(_) => "before 1970".to_owned(),
    }
}

/// As [`format_seconds`], of milliseconds since 1970-01-01 UTC, as the ledger has them.
pub fn format_millis(ms: i64) -> String {
    u64::try_from(ms).map_or_else(|_| "before 1970".to_owned(), |ms| format_seconds(ms / 1000))
}

/// Milliseconds since 1970, negative before.
pub fn unix_millis(time: SystemTime) -> i64 {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_readable_and_never_out_of_range() {
        assert_eq!(format_seconds(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(format_seconds(253_402_300_799), "9999-12-31T23:59:59Z");
        for beyond in [253_402_300_800, u64::MAX] {
            assert_eq!(format_seconds(beyond), beyond.to_string());
        }
        assert_eq!(format_time(UNIX_EPOCH + Duration::from_secs(7)), "1970-01-01T00:00:07Z");
        assert_eq!(format_time(UNIX_EPOCH - Duration::from_secs(7)), "before 1970");
        assert_eq!(format_millis(7_999), "1970-01-01T00:00:07Z");
        assert_eq!(format_millis(-1), "before 1970");
        assert_eq!(unix_millis(UNIX_EPOCH + Duration::from_millis(5)), 5);
        assert_eq!(unix_millis(UNIX_EPOCH - Duration::from_millis(5)), -5);
    }
}
