//! The keys of `[breaker]`.

use std::time::Duration;

use super::model::BreakerConfig;
use super::parse::{duration, flag, integer, number};
use super::reader::Reader;
use super::schedule::waits;
use lanekeeper_core::breaker::{ATTEMPTS_KEPT_MAX, BreakerLimits};

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Factor from one wait between probes to the next.
const WAIT_MULTIPLIER: f64 = 2.0;

/// Reads the section. With `enabled = false` the other keys are still checked.
pub fn read(reader: &mut Reader<'_>) -> Option<BreakerConfig> {
    let mut section = reader.section("breaker");
    let enabled = section.read("enabled", flag);
    let window = section.read("window", duration(MILLISECOND..=HOUR));
    let attempts_min = section.read("attempts_min", integer::<usize>(1..=ATTEMPTS_KEPT_MAX as u64));
    let records_min = section.read("records_min", integer::<usize>(2..=ATTEMPTS_KEPT_MAX as u64));
    let failure_share = section.read("failure_share", number(0.01..=1.0));
    let wait_initial = section.read("wait_initial", duration(MILLISECOND..=HOUR));
    let wait_max = section.read("wait_max", duration(MILLISECOND..=HOUR));
    section.at_most("wait_initial", wait_initial, "wait_max", wait_max);
    section.finish();
    let limits = BreakerLimits {
        window: window?,
        attempts_min: attempts_min?,
        records_min: records_min?,
        failure_share: failure_share?,
        waits: waits(wait_initial?, WAIT_MULTIPLIER, wait_max?),
    };
    Some(if enabled? { BreakerConfig::On(limits) } else { BreakerConfig::Off })
}
