//! What must hold, as the target and the queue see it.

use lanekeeper_core::tick::Tick;

/// Ends the world: rule and what broke it.
macro_rules! fault {
    ($rule:literal, $($what:tt)*) => { panic!("judge ({}): {}", $rule, format_args!($($what)*)) };
}
pub(super) use fault;

#[derive(Clone, Copy, Debug)]
struct OfUpdate {
    record: usize,
    is_applied: bool,
    is_gone: bool,
}

#[derive(Debug)]
pub struct Judge {
    updates: Vec<OfUpdate>,
    /// Of each record: the request that is at work, by its end.
    at_work_until: Vec<Tick>,
    /// Of each record: the latest update that was sent, and the one that was applied last.
    newest_sent: Vec<Option<usize>>,
    last_applied: Vec<Option<usize>>,
}

impl Judge {
    pub fn new(records: usize, record_of: &[usize]) -> Self {
        let update = |record: &usize| OfUpdate { record: *record, is_applied: false, is_gone: false };
        Self {
            updates: record_of.iter().map(update).collect(),
            at_work_until: vec![Tick::ZERO; records],
            newest_sent: vec![None; records],
            last_applied: vec![None; records],
        }
    }

    /// A request leaves; the target works on it until `end`, whatever becomes of its process.
    pub fn sent(&mut self, now: Tick, process: &str, update: usize, end: Tick) {
        let record = self.updates[update].record;
        if self.at_work_until[record] > now {
            fault!("one at a time, I11", "{process} sent #{update} of r{record} while a request is at work");
        }
        self.at_work_until[record] = end;
        if let Some(earlier) = (0..update)
            .find(|earlier| self.updates[*earlier].record == record && !self.updates[*earlier].is_applied)
        {
            fault!("order, I2", "{process} sent #{update} of r{record} before #{earlier} was applied");
        }
        if let Some(newest) = self.newest_sent[record].filter(|newest| *newest > update) {
            fault!("order, I14", "{process} sent #{update} of r{record} after #{newest}");
        }
        self.newest_sent[record] = Some(update);
    }

    pub fn applied(&mut self, update: usize) {
        let of = &mut self.updates[update];
        of.is_applied = true;
        self.last_applied[of.record] = Some(update);
    }

    pub fn deleted(&mut self, update: usize) {
        let of = &mut self.updates[update];
        if !of.is_applied {
            fault!("settle, I3", "#{update} of r{} was deleted and never applied", of.record);
        }
        of.is_gone = true;
    }

    pub fn all_gone(&self) -> bool {
        self.updates.iter().all(|of| of.is_gone)
    }

    pub fn end(&self) {
        for (update, of) in self.updates.iter().enumerate() {
            if !of.is_gone {
                fault!(
                    "liveness",
                    "#{update} of r{} is in the queue, and nothing happens any more",
                    of.record
                );
            }
            if self.last_applied[of.record].is_none_or(|last| last < update) {
                fault!("last value", "r{} keeps another value than #{update}", of.record);
            }
        }
    }
}
