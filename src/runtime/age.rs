//! How old an update is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since the publisher's timestamp, by our wall clock; `None` if that lies in the future.
#[must_use]
pub fn age(published_at: u64) -> Option<Duration> {
    let published_at = UNIX_EPOCH.checked_add(Duration::from_secs(published_at))?;
    SystemTime::now().duration_since(published_at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_of_any_number_has_an_age_or_none() {
        assert!(age(0).is_some());
        for ahead in [u64::MAX, u64::MAX / 2, u64::MAX / 2 + 1, i64::MAX as u64 - 1] {
            assert_eq!(age(ahead), None, "{ahead}");
        }
    }
}
