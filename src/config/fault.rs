//! Faults of a config, and origins of values.

use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The built-in `config/default.toml`, or the default of a target's key.
    BuiltIn,
    /// The config file.
    File(PathBuf),
    /// The environment variable of this name.
    Variable(String),
    /// The name of this machine.
    HostName,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::HostName => f.write_str("host name"),
        }
    }
}

/// What is wrong with a value, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    what: String,
    fix: String,
    is_constant: bool,
}

impl Problem {
    /// `what` is wrong; `fix` says what to do. Neither may quote a secret.
    pub fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into(), is_constant: false }
    }

    /// As `new`, with words that are the same for every value. They quote nothing, even if a secret has a part of them.
    pub fn constant(what: &'static str, fix: &'static str) -> Self {
        Self { is_constant: true, ..Self::new(what, fix) }
    }

    /// Returns true if the words do not depend on the value.
    pub(super) fn is_constant(&self) -> bool {
        self.is_constant
    }

    /// The same of one part of the value.
    #[must_use]
    pub fn of(self, part: &str) -> Self {
        Self { what: format!("{part} {}", self.what), is_constant: false, ..self }
    }

    /// The same of the value with this place in a list, from 0.
    #[must_use]
    pub fn of_index(self, index: usize) -> Self {
        Self { what: format!("number {} of the list {}", index + 1, self.what), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.fix)
    }
}

/// A fault of a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Key path, such as `broker.url` or `target[0].types[1]`; empty: the file as a whole.
    pub key: String,
    /// Where the value comes from.
    pub origin: Origin,
    /// What is wrong, and what to do.
    pub problem: Problem,
}

impl Fault {
    /// What is wrong, without what to do.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.problem.what
    }

    /// What to do.
    #[must_use]
    pub fn fix(&self) -> &str {
        &self.problem.fix
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => writeln!(f, "{}", self.origin)?,
            key => writeln!(f, "{key} ({})", self.origin)?,
        }
        write!(f, "  {}", self.what())?;
        self.fix()
            .lines()
            .try_for_each(|line| if line.is_empty() { f.write_str("\n") } else { write!(f, "\n  {line}") })
    }
}

/// All faults of a config, in the order of its keys; at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = if self.0.len() == 1 { "fault" } else { "faults" };
        write!(f, "the config has {} {faults}", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n\n{fault}"))
    }
}
