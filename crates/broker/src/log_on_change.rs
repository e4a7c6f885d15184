//! One log line when something that is tried again and again changes, not one line a try.

/// What was logged last of one thing, such as the reason why a connection is not made.
///
/// It does not log: the caller does, with a message and fields of its own, if [`Self::is_new`] or [`Self::cleared`]
/// returns true.
#[derive(Clone, Debug)]
pub struct LogOnChange<T = String> {
    last_logged: Option<T>,
}

impl<T> Default for LogOnChange<T> {
    fn default() -> Self {
        Self { last_logged: None }
    }
}

impl<T: PartialEq> LogOnChange<T> {
    /// Returns true if the state differs from the one that was logged last. The caller then logs it.
    pub fn is_new(&mut self, state: T) -> bool {
        let is_new = self.last_logged.as_ref() != Some(&state);
        self.last_logged = Some(state);
        is_new
    }

    /// Everything is as it should be. Returns true if something was logged since it last was: the caller then logs that
    /// it is over.
    pub fn cleared(&mut self) -> bool {
        self.last_logged.take().is_some()
    }

    /// The state that was logged last; `None`: none since the last [`Self::cleared`].
    pub fn last(&self) -> Option<&T> {
        self.last_logged.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// States, one letter each, `.` for "as it should be"; which of them are logged.
    fn check(states: &str, expected: &str) {
        let mut log = LogOnChange::default();
        let logged = |state: &char| match state {
            '.' => log.cleared(),
            state => log.is_new(*state),
        };
        assert_eq!(states.chars().filter(logged).collect::<String>(), expected, "{states}");
    }

    #[test]
    fn a_state_is_logged_once_until_it_changes() {
        check("", "");
        check("...", "");
        check("aaa", "a");
        check("aab", "ab");
        check("aba", "aba");
        check("aa..aa.", "a.a.");
        check(".a.", "a.");
    }
}
