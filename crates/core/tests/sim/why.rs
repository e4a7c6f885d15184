//! A person asks what a record waits for, at random moments.

use std::collections::BTreeMap;

use crate::judge::HeldRecord;
use crate::world::World;

/// Of a thousand moments, in so many somebody asks.
const ASKED: u64 = 300;

impl World {
    /// Asks of one record of which updates are held. The question changes nothing, and takes no chance from the world.
    pub fn ask_why(&mut self) {
        if self.setup.lazy || !self.chance_of_questions.chance(ASKED) {
            return;
        }
        let Some(channel) = &self.dispatcher.channel else { return };
        let mut held: BTreeMap<usize, Vec<(u64, usize)>> = BTreeMap::new();
        for (tag, update) in
            self.dispatcher.names.iter().filter(|(_, update)| !channel.settled.contains(update))
        {
            if let Some(record) = self.setup.publications[*update].record {
                held.entry(record).or_default().push((tag.0, *update));
            }
        }
        if held.is_empty() {
            return;
        }
        let asked = self.chance_of_questions.index(held.len());
        let Some((record, mut held)) = held.into_iter().nth(asked) else { return };
        held.sort_unstable();
        let key = &self.setup.record_keys[record];
        let process = self.dispatcher.process;
        let is_written = self.writings.iter().any(|writing| {
            writing.process == process && !writing.done && writing.record_key.as_ref() == Some(key)
        });
        let held: Vec<usize> = held.into_iter().map(|(_, update)| update).collect();
        let publication = &self.setup.publications[held[0]];
        let ambiguous = publication.equals.is_some() || publication.repeats.is_some();
        let explained = self.dispatcher.partition.explain(self.now, |record_key| record_key == key);
        let of = HeldRecord { record, held, is_written, ambiguous };
        self.judge.judge_why(self.now, &of, explained.as_ref());
        self.causes.count_all(explained.iter().map(|explained| &explained.cause));
    }
}
