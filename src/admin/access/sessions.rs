//! Who is logged in. The client has the session's id, and this process its hash.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Right;

/// People at once. A further one ends the session that was used least recently.
const SESSIONS_MAX: usize = 256;
/// A session that was not used for so long is over.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// A working day: nobody stays logged in for longer.
const AGE_MAX: Duration = Duration::from_secs(12 * 3600);

#[derive(Debug, Default)]
pub(super) struct Sessions(HashMap<[u8; 32], Session>);

#[derive(Debug)]
struct Session {
    right: Right,
    begun: Instant,
    used: Instant,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.begun) >= AGE_MAX || now.duration_since(self.used) >= IDLE_MAX
    }
}

impl Sessions {
    pub(super) fn begin(&mut self, hash: [u8; 32], right: Right, now: Instant) {
        self.0.retain(|_, session| !session.is_over(now));
        if self.0.len() >= SESSIONS_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, session)| session.used).map(|(hash, _)| *hash)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(hash, Session { right, begun: now, used: now });
    }

    pub(super) fn right(&mut self, hash: &[u8; 32], now: Instant) -> Option<Right> {
        let session = self.0.get_mut(hash)?;
        if session.is_over(now) {
            self.0.remove(hash);
            return None;
        }
        session.used = now;
        Some(session.right)
    }

    pub(super) fn has(&self, hash: &[u8; 32], now: Instant) -> bool {
        self.0.get(hash).is_some_and(|session| !session.is_over(now))
    }

    pub(super) fn end(&mut self, hash: &[u8; 32]) {
        self.0.remove(hash);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_with_their_age_and_without_use() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        sessions.begin([1; 32], Right::Read, start);
        let mut now = start;
        while now.duration_since(start) < AGE_MAX {
            assert_eq!(sessions.right(&[1; 32], now), Some(Right::Read));
            now += IDLE_MAX.saturating_sub(Duration::from_secs(1));
        }
        assert_eq!(sessions.right(&[1; 32], now), None, "a day is over");
        sessions.begin([2; 32], Right::Read, now);
        assert_eq!(sessions.right(&[2; 32], now + IDLE_MAX), None, "nobody has used it");
    }

    #[test]
    fn the_session_that_was_used_least_recently_makes_room() {
        let (mut sessions, mut now) = (Sessions::default(), Instant::now());
        let hash = |number: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            hash
        };
        for number in 0..SESSIONS_MAX {
            now += Duration::from_millis(1);
            sessions.begin(hash(number), Right::Read, now);
        }
        now += Duration::from_millis(1);
        assert_eq!(sessions.right(&hash(0), now), Some(Right::Read));
        sessions.begin(hash(SESSIONS_MAX), Right::Change, now);
        assert_eq!(sessions.0.len(), SESSIONS_MAX);
        assert_eq!(sessions.right(&hash(1), now), None);
        assert_eq!(sessions.right(&hash(0), now), Some(Right::Read));
        assert_eq!(sessions.right(&hash(SESSIONS_MAX), now), Some(Right::Change));
    }
}
