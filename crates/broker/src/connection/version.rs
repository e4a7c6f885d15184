//! Which RabbitMQ it is, as it says itself when it is connected to.

use std::fmt;

/// The first version whose quorum queues and streams are as this program needs them.
pub const VERSION_MIN: Version = Version { major: 3, minor: 10 };

/// The first two numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// From `3.10.8`, `4.0.0-rc.1`, `3.12+1.g2f`; `None` where it says nothing that can be understood.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next()?.parse().ok();
        Some(Self { major: number()?, minor: number()? })
    }

    /// Whether the broker gives a partition to the consumer with the highest priority (RabbitMQ 4.0 and later; 3.10
    /// ignores priorities where there is a single active consumer; both measured).
    #[must_use]
    pub const fn observes_priority(self) -> bool {
        self.major >= 4
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_too_old_is_distinguished_from_the_others() {
        let check = |text: &str, expected: Option<bool>| {
            assert_eq!(Version::parse(text).map(|version| version >= VERSION_MIN), expected, "{text}");
        };
        for new in ["3.10.0", "3.10.8", "3.13.7", "4.0.5", "4.3.0-rc.1", "3.12+1.g2f", "10.0"] {
            check(new, Some(true));
        }
        for old in ["3.9.29", "3.8.0", "2.8.7", "3.9"] {
            check(old, Some(false));
        }
        for other in ["", "4", "four", "x.y"] {
            check(other, None);
        }
    }
}
