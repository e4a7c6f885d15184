//! Until when this process may begin requests. Pure.
//!
//! A note that comes back proves that a majority of the stream's replicas took it, and that no claim stands before it that
//! was not read. The lease counts from when the note was sent: when it comes back, nobody knows how long it was there.

use std::collections::VecDeque;
use std::time::Duration;

use lanekeeper_core::tick::Tick;

/// Notes that have not come back. Of more, the oldest are forgotten: they would renew nothing.
const AWAITED_MAX: usize = 64;

/// The lease of one process.
#[derive(Debug, Default)]
pub(super) struct Lease {
    notes_sent: u64,
    awaited: VecDeque<AwaitedNote>,
    until: Tick,
    /// Since when the broker takes no publishes.
    blocked_since: Option<Tick>,
    alarms: u64,
}

#[derive(Clone, Copy, Debug)]
struct AwaitedNote {
    number: u64,
    sent: Tick,
    until: Tick,
}

impl Lease {
    /// A tenth less than the heartbeat, for clocks that drift.
    pub(super) fn length(heartbeat: Duration) -> Duration {
        heartbeat * 9 / 10
    }

    /// A note is about to be sent; returns its number.
    pub(super) fn sending(&mut self, now: Tick, heartbeat: Duration) -> u64 {
        self.notes_sent += 1;
        if self.awaited.len() == AWAITED_MAX {
            self.awaited.pop_front();
        }
        let until = now.after(Self::length(heartbeat));
        self.awaited.push_back(AwaitedNote { number: self.notes_sent, sent: now, until });
        self.notes_sent
    }

    /// A note was read back. Returns until when the lease lasts by it.
    pub(super) fn came_back(&mut self, number: u64) -> Option<Tick> {
        let place = self.awaited.iter().position(|note| note.number == number)?;
        let note = self.awaited.drain(..=place).next_back()?;
        self.until = self.until.max(note.until);
        Some(note.until)
    }

    /// When the oldest note was sent that has not come back.
    pub(super) fn awaited_since(&self) -> Option<Tick> {
        self.awaited.front().map(|note| note.sent)
    }

    /// How many alarms there were that lasted long enough to be seen here, and if there is one now. Shorter ones than a lease
    /// keep nobody's claim back for long enough.
    pub(super) fn alarms(&self) -> (u64, bool) {
        (self.alarms, self.blocked_since.is_some())
    }

    /// The broker has answered what was asked at `asked`. Returns until when the lease lasts by it, which it does only while
    /// the broker is `blocked`: takes no publishes. A lease that has lapsed then begins again after `wait`.
    pub(super) fn answered(
        &mut self,
        now: Tick,
        asked: Tick,
        blocked: bool,
        wait: Duration,
        heartbeat: Duration,
    ) -> Option<Tick> {
        if !blocked {
            self.blocked_since = None;
            return None;
        }
        self.awaited.clear(); // they come back late, if at all
        if self.blocked_since.is_none() {
            self.alarms += 1;
        }
        let lapsed_since = self.until.max(*self.blocked_since.get_or_insert(now));
        if now > self.until && now.since(lapsed_since) < wait {
            return None;
        }
        let until = asked.after(Self::length(heartbeat));
        self.until = self.until.max(until);
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(10);
    const WAIT: Duration = Duration::from_secs(19);

    fn at(seconds: u64) -> Tick {
        Tick::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_note_that_comes_back_counts_from_when_it_was_sent() {
        let mut lease = Lease::default();
        let first = lease.sending(at(100), HEARTBEAT);
        let second = lease.sending(at(103), HEARTBEAT);
        assert_eq!(lease.awaited_since(), Some(at(100)));
        assert_eq!(lease.came_back(second), Some(at(112)));
        assert_eq!(lease.came_back(first), None, "an older one renews nothing");
        assert_eq!(lease.awaited_since(), None);
        assert_eq!(lease.came_back(99), None);
    }

    #[test]
    fn notes_that_never_come_back_are_bounded() {
        let mut lease = Lease::default();
        for seconds in 0..1000 {
            lease.sending(at(seconds), HEARTBEAT);
        }
        assert_eq!(lease.awaited.len(), AWAITED_MAX);
    }

    #[test]
    fn answers_renew_a_good_lease_only_while_nothing_can_be_published() {
        let mut lease = Lease::default();
        let note = lease.sending(at(100), HEARTBEAT);
        lease.came_back(note);
        assert_eq!(lease.answered(at(101), at(101), false, WAIT, HEARTBEAT), None);
        assert_eq!(lease.answered(at(105), at(104), true, WAIT, HEARTBEAT), Some(at(113)));
        assert_eq!(lease.answered(at(113), at(112), true, WAIT, HEARTBEAT), Some(at(121)));
        assert_eq!(lease.answered(at(114), at(114), false, WAIT, HEARTBEAT), None, "the alarm is over");
    }

    #[test]
    fn without_a_lease_an_alarm_is_waited_out_as_if_another_owned_everything() {
        let mut lease = Lease::default();
        assert_eq!(lease.answered(at(100), at(100), true, WAIT, HEARTBEAT), None);
        assert_eq!(lease.answered(at(118), at(118), true, WAIT, HEARTBEAT), None);
        assert_eq!(lease.answered(at(119), at(119), true, WAIT, HEARTBEAT), Some(at(128)));
        assert_eq!(lease.answered(at(140), at(140), true, WAIT, HEARTBEAT), None, "it has lapsed at 128");
        assert_eq!(lease.answered(at(147), at(147), true, WAIT, HEARTBEAT), Some(at(156)));
        assert_eq!(lease.answered(at(150), at(150), false, WAIT, HEARTBEAT), None);
        assert_eq!(lease.answered(at(200), at(200), true, WAIT, HEARTBEAT), None, "another alarm");
        assert_eq!(lease.alarms(), (2, true));
    }
}
