//! Exit codes, and the line of `--help` that lists them.

use std::process::ExitCode;

/// How a command ended, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: any error without a code of its own.
    Other,
    /// 2: the config or the command line is wrong.
    Config,
    /// 3: the broker cannot be reached, or refuses something.
    Broker,
    /// 4: the ledger cannot be opened or used.
    Ledger,
    /// 10: no error; `topology plan` or `check --against-running` found something to do.
    Pending,
}

impl Exit {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 6] =
        [Self::Done, Self::Other, Self::Config, Self::Broker, Self::Ledger, Self::Pending];

    /// The code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Other => 1,
            Self::Config => 2,
            Self::Broker => 3,
            Self::Ledger => 4,
            Self::Pending => 10,
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Other => "any other error",
            Self::Config => "config or command line",
            Self::Broker => "broker",
            Self::Ledger => "ledger",
            Self::Pending => "`topology plan` or `check --against-running` found something to do",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The line of `--help`.
pub(super) fn help() -> String {
    let codes = Exit::ALL.map(|exit| format!("{} {}", exit.code(), exit.meaning()));
    format!("Exit codes: {}.", codes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_exit_code() {
        let readme = include_str!("../../README.md");
        let (_, line) = readme.split_once("\nExit codes: ").expect("README.md has a line of exit codes");
        let line = line.lines().next().unwrap_or_default();
        let number = |part: &str| part.trim().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        let mut listed: Vec<u8> = line.split([',', ';']).filter_map(number).collect();
        listed.sort_unstable();
        assert_eq!(listed, Exit::ALL.map(Exit::code));
    }
}
