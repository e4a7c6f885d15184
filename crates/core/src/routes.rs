//! Which target an update goes to, by its type.

use std::fmt;
use std::str::FromStr;

/// A target's position in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub usize);

/// One entry of a target's `types`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypePattern {
    /// `*`: every update, also one without a type.
    Any,
    /// `customer.*`: every type that begins with `customer.`.
    Prefix(String),
    /// `customer.updated`: this type alone.
    Exact(String),
}

/// Why a string is not a type pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypePatternFault {
    /// Nothing there.
    #[error("a type pattern is empty; write an exact type, \"prefix.*\", or \"*\"")]
    Empty,
    /// A star that is not the end of `prefix.*`.
    #[error("\"*\" stands alone or ends a pattern after a dot, as in \"customer.*\"")]
    MisplacedStar,
}

impl FromStr for TypePattern {
    type Err = TypePatternFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let stem = match text {
            "" => return Err(TypePatternFault::Empty),
            "*" => return Ok(Self::Any),
            _ => text.strip_suffix(".*"),
        };
        match stem {
            _ if stem.unwrap_or(text).contains('*') => Err(TypePatternFault::MisplacedStar),
            Some("") => Err(TypePatternFault::MisplacedStar),
            Some(stem) => Ok(Self::Prefix(format!("{stem}."))),
            None => Ok(Self::Exact(text.to_owned())),
        }
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Exact(exact) => f.write_str(exact),
        }
    }
}

impl TypePattern {
    /// Returns true if updates of this type (`None`: without one) match.
    #[must_use]
    pub fn matches(&self, update_type: Option<&str>) -> bool {
        match (self, update_type) {
            (Self::Any, _) => true,
            (_, None) => false,
            (Self::Prefix(prefix), Some(t)) => t.starts_with(prefix.as_str()),
            (Self::Exact(exact), Some(t)) => t == exact,
        }
    }
}

/// The types of all targets, in the order of the config; the first match wins.
#[derive(Clone, Debug, Default)]
pub struct Routes(Vec<(TypePattern, TargetId)>);

impl Routes {
    /// Patterns with their targets, in order of precedence.
    #[must_use]
    pub fn new(patterns: impl IntoIterator<Item = (TypePattern, TargetId)>) -> Self {
        Self(patterns.into_iter().collect())
    }

    /// The target for an update of this type (`None`: it has no type), if there is one.
    #[must_use]
    pub fn find(&self, update_type: Option<&str>) -> Option<TargetId> {
        self.0.iter().find(|(pattern, _)| pattern.matches(update_type)).map(|(_, target)| *target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_matches_wins() {
        let routes = Routes::new([
            ("customer.*".parse().unwrap(), TargetId(0)),
            ("order.paid".parse().unwrap(), TargetId(1)),
            ("*".parse().unwrap(), TargetId(2)),
        ]);
        let check = |update_type, target| {
            assert_eq!(routes.find(update_type), Some(TargetId(target)), "{update_type:?}");
        };
        check(Some("customer.updated"), 0);
        check(Some("customer.address.moved"), 0);
        check(Some("customer"), 2);
        check(Some("customers.x"), 2);
        check(Some("order.paid"), 1);
        check(Some("order.paid.twice"), 2);
        check(None, 2);
    }

    #[test]
    fn an_update_without_a_type_only_matches_the_star() {
        let routes = Routes::new([("customer.*".parse().unwrap(), TargetId(0))]);
        assert_eq!(routes.find(None), None);
        assert_eq!(routes.find(Some("order.paid")), None);
    }

    #[test]
    fn a_pattern_with_a_star_elsewhere_is_refused() {
        for text in ["", "a*", "*.a", "a.*.b", ".*", "**"] {
            assert!(text.parse::<TypePattern>().is_err(), "{text:?}");
        }
        assert_eq!("customer.*".parse::<TypePattern>().unwrap().to_string(), "customer.*");
    }
}
