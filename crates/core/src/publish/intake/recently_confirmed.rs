//! Which updates were confirmed lately, so that repeats are not published again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::{BodyHash, UpdateName};
use crate::tick::Tick;

/// Bounded in time and number; the oldest is forgotten first.
#[derive(Debug)]
pub(super) struct RecentlyConfirmed {
    remember: Duration,
    remembered_max: usize,
    bodies: HashMap<UpdateName, (BodyHash, Tick)>,
    /// Oldest first. An entry whose time is not that in `bodies` is out of date.
    oldest: VecDeque<(Tick, UpdateName)>,
}

impl RecentlyConfirmed {
    pub(super) fn new(remember: Duration, remembered_max: usize) -> Self {
        Self { remember, remembered_max, bodies: HashMap::new(), oldest: VecDeque::new() }
    }

    pub(super) fn insert(&mut self, name: UpdateName, body_hash: BodyHash, now: Tick) {
        if self.remember.is_zero() || self.remembered_max == 0 {
            return;
        }
        while self.oldest.len() >= self.remembered_max {
            self.forget_oldest();
        }
        self.bodies.insert(name, (body_hash, now));
        self.oldest.push_back((now, name));
    }

    /// Forgets what is over.
    pub(super) fn forget(&mut self, now: Tick) {
        while self.oldest.front().is_some_and(|(since, _)| since.after(self.remember) <= now) {
            self.forget_oldest();
        }
    }

    pub(super) fn body_hash(&self, name: UpdateName) -> Option<BodyHash> {
        self.bodies.get(&name).map(|(body_hash, _)| *body_hash)
    }

    fn forget_oldest(&mut self) {
        if let Some((since, name)) = self.oldest.pop_front()
            && self.bodies.get(&name).is_some_and(|(_, newest)| *newest == since)
        {
            self.bodies.remove(&name);
        }
    }
}
