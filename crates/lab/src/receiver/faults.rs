//! Injected faults: how a request fails on purpose, and the seeded choice of which one does.

use std::str::FromStr;
use std::time::Duration;

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// True if the update is applied all the same, which the sender cannot know.
    pub applied: bool,
    /// What the sender gets.
    pub answer: FaultAnswer,
}

/// What the sender of a failing request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAnswer {
    /// This status, with a problem document.
    Status(u16),
    /// This status as a gateway answers that does not reach the receiver, with plain text.
    Gateway(u16),
    /// This status with an HTML page, as from a firewall, or from a gateway during maintenance.
    Page(u16),
    /// Nothing for `hang_for`, then status 503.
    Hang,
    /// The beginning of an answer; then the connection is closed.
    Aborted,
}

/// A text is no fault, or no failing record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectedFaultError {
    /// Not `500`, `gateway-404`, `page-503`, `hang` or `cut`, alone or as in `applied-then-500`.
    #[error(
        "{0:?} is neither a status from 300 to 599, alone or after gateway- or page-, nor hang nor cut, alone or after applied-then-"
    )]
    Fault(String),
    /// Not `KEY=STATUS[:DURATION][:retry-after-DURATION]`.
    #[error(
        "write KEY=STATUS or KEY=STATUS:DURATION, such as customer-7=503:10s, and perhaps :retry-after-DURATION behind it"
    )]
    Record,
    /// A part after a colon is no duration.
    #[error("{0:?} is not a duration; write one such as 500ms, 10s or 2m")]
    Duration(String),
}

impl FromStr for Fault {
    type Err = InjectedFaultError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (applied, answer) = match text.strip_prefix("applied-then-") {
            Some(answer) => (true, answer),
            None => (false, text),
        };
        let prefixed = answer.split_once('-').filter(|_| !applied);
        let (with_status, status): (fn(u16) -> FaultAnswer, _) = match prefixed {
            Some(("gateway", status)) => (FaultAnswer::Gateway, status),
            Some(("page", status)) => (FaultAnswer::Page, status),
            _ => (FaultAnswer::Status, answer),
        };
        let answer = match status.parse() {
            Ok(status @ 300..=599) => with_status(status),
            Err(_) if answer == "hang" => FaultAnswer::Hang,
            Err(_) if answer == "cut" => FaultAnswer::Aborted,
            _ => return Err(InjectedFaultError::Fault(text.to_owned())),
        };
        Ok(Self { applied, answer })
    }
}

/// A record whose requests all fail, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingRecord {
    /// Which record.
    pub record_key: String,
    /// How.
    pub fault: Fault,
    /// How long, from its first request on; `None`: always.
    pub lasts: Option<Duration>,
    /// Sent as `Retry-After` with 429 and 503; `None`: as the settings say.
    pub retry_after: Option<Duration>,
}

impl FromStr for FailingRecord {
    type Err = InjectedFaultError;

    /// `KEY=FAULT[:DURATION][:retry-after-DURATION]`. The key ends at the last `=`, so it may have some itself.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (record_key, rest) = text.rsplit_once('=').ok_or(InjectedFaultError::Record)?;
        if record_key.is_empty() {
            return Err(InjectedFaultError::Record);
        }
        let duration = |text: &str| {
            humantime::parse_duration(text).map_err(|_| InjectedFaultError::Duration(text.to_owned()))
        };
        let (rest, retry_after) = match rest.split_once(":retry-after-") {
            Some((rest, wait)) => (rest, Some(duration(wait)?)),
            None => (rest, None),
        };
        let (fault, lasts) = match rest.split_once(':') {
            Some((fault, lasts)) => (fault, Some(duration(lasts)?)),
            None => (rest, None),
        };
        Ok(Self { record_key: record_key.to_owned(), fault: fault.parse()?, lasts, retry_after })
    }
}

/// Numbers that look random and depend only on the seed and the attempt: the same attempts fail, in whatever order they
/// come.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultRng(u64);

impl FaultRng {
    pub(super) fn of_attempt(seed: u64, record_key: &str, update_id: &str, attempt: u64) -> Self {
        // FNV-1a; `unit` spreads it.
        let bytes = record_key.bytes().chain([0]).chain(update_id.bytes()).chain(attempt.to_le_bytes());
        Self(bytes.fold(spread(seed ^ 0xcbf2_9ce4_8422_2325), |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        }))
    }

    /// A number from 0 to below 1, another one for each `purpose`.
    pub(super) fn unit(self, purpose: u64) -> f64 {
        (spread(self.0 ^ spread(purpose)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of the items; `None` if there is none.
    pub(super) fn pick<T: Copy>(self, purpose: u64, of: &[T]) -> Option<T> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a unit is within 0 and 1"
        )]
        let index = (self.unit(purpose) * of.len() as f64) as usize;
        of.get(index).copied()
    }
}

/// The finalizer of `SplitMix64`.
fn spread(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_written_as_they_happen() {
        let check =
            |text: &str, applied, answer| assert_eq!(text.parse(), Ok(Fault { applied, answer }), "{text}");
        check("500", false, FaultAnswer::Status(500));
        check("gateway-404", false, FaultAnswer::Gateway(404));
        check("page-503", false, FaultAnswer::Page(503));
        check("hang", false, FaultAnswer::Hang);
        check("applied-then-cut", true, FaultAnswer::Aborted);
        check("applied-then-500", true, FaultAnswer::Status(500));
        check("applied-then-hang", true, FaultAnswer::Hang);
        for text in [
            "",
            "200",
            "600",
            "99999",
            "5OO",
            "applied-then-",
            "applied",
            "Hang",
            "-1",
            "gateway-200",
            "gateway-hang",
            "applied-then-gateway-404",
            "page-200",
            "page-hang",
            "applied-then-page-403",
        ] {
            assert!(text.parse::<Fault>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_failing_record_has_a_key_a_fault_and_perhaps_an_end() {
        let check = |text: &str, record_key: &str, fault: &str, lasts| {
            let expected = FailingRecord {
                record_key: record_key.into(),
                fault: fault.parse().unwrap(),
                lasts,
                retry_after: None,
            };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        };
        check("customer-7=503", "customer-7", "503", None);
        check("customer-7=503:10s", "customer-7", "503", Some(Duration::from_secs(10)));
        check("a=b:c=hang:1m 5s", "a=b:c", "hang", Some(Duration::from_secs(65)));
        let waits = |text: &str| {
            let failing: FailingRecord = text.parse().unwrap();
            (failing.fault.answer, failing.lasts, failing.retry_after)
        };
        let two = Some(Duration::from_secs(2));
        assert_eq!(waits("k=429:retry-after-2s"), (FaultAnswer::Status(429), None, two));
        assert_eq!(waits("k=page-503:2s:retry-after-2s"), (FaultAnswer::Page(503), two, two));
        for text in [
            "",
            "k",
            "=503",
            "k=",
            "k=200",
            "k=503:",
            "k=503:soon",
            "k=503:-1s",
            "k=503:retry-after-",
            "k=503:retry-after-2s:10s",
        ] {
            assert!(text.parse::<FailingRecord>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn chance_is_even_and_depends_on_every_part() {
        let unit = |seed, key: &str, id: &str, attempt| FaultRng::of_attempt(seed, key, id, attempt).unit(0);
        let units: Vec<f64> = (0..10_000).map(|n| unit(1, "k", &format!("u-{n}"), 1)).collect();
        let share = units.iter().filter(|unit| **unit < 0.3).count();
        assert!((2_800..3_200).contains(&share), "{share}");
        let first = unit(1, "k", "u", 1);
        assert_eq!(first.to_bits(), unit(1, "k", "u", 1).to_bits());
        for other in [unit(2, "k", "u", 1), unit(1, "l", "u", 1), unit(1, "k", "v", 1), unit(1, "k", "u", 2)]
        {
            assert!((first - other).abs() > 1e-9);
        }
        let picked: Vec<usize> = (0..4)
            .map(|kind| {
                let picks = (0..1000)
                    .filter(|n| FaultRng::of_attempt(0, "k", "u", *n).pick(7, &[0, 1, 2, 3]) == Some(kind));
                picks.count()
            })
            .collect();
        assert!(picked.iter().all(|count| (180..320).contains(count)), "{picked:?}");
        assert_eq!(FaultRng::of_attempt(0, "k", "u", 1).pick::<u8>(0, &[]), None);
    }
}
