//! Times and names, as commands and pages print them.

use std::time::Duration;

use crate::wall_time::format_seconds;

/// `2026-11-25T01:02:03Z`, of milliseconds since 1970.
pub fn time(millis: i64) -> String {
    u64::try_from(millis / 1000).map_or_else(|_| "before 1970".to_owned(), format_seconds)
}

/// `1h 2m`: the two largest units, and seconds with one digit below ten.
pub fn length(millis: u64) -> String {
    if millis < 10_000 {
        return format!("{}.{} s", millis / 1000, millis % 1000 / 100);
    }
    let exact = humantime::format_duration(Duration::from_secs(millis / 1000)).to_string();
    exact.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// `12s ago`.
pub fn ago(now_ms: i64, millis: i64) -> String {
    format!("{} ago", length(u64::try_from(now_ms.saturating_sub(millis)).unwrap_or_default()))
}

/// `in 12s`; `now` for what has passed.
pub fn ahead(now_ms: i64, millis: i64) -> String {
    match u64::try_from(millis.saturating_sub(now_ms)) {
        Ok(millis) if millis > 0 => format!("in {}", length(millis)),
        _ => "now".to_owned(),
    }
}

/// `l1.p003`.
pub fn place_name(layout: u32, partition: u16) -> String {
    format!("l{layout}.p{partition:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_never_out_of_range() {
        assert_eq!(time(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert_eq!(time(-5_000), "before 1970");
        assert_eq!(length(950), "0.9 s");
        assert_eq!(length(3_723_000), "1h 2m");
        assert_eq!(ago(10_000, 4_000), "6.0 s ago");
        assert_eq!(ago(0, 4_000), "0.0 s ago", "another clock is ahead");
        assert_eq!(ahead(4_000, 64_000), "in 1m");
        assert_eq!(ahead(4_000, 4_000), "now");
        assert_eq!(place_name(2, 7), "l2.p007");
    }
}
