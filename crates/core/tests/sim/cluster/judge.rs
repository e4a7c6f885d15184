//! What must hold, as the target and the queue see it.

use std::collections::BTreeMap;

use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::tick::Tick;

/// Ends the world: rule and what broke it.
macro_rules! fault {
    ($rule:literal, $($what:tt)*) => { panic!("judge ({}): {}", $rule, format_args!($($what)*)) };
}
pub(super) use fault;

#[derive(Debug)]
pub struct Judge {
    /// Of each update: its record, how often it was applied, and if it has left the queue.
    updates: Vec<(usize, u32, bool)>,
    /// Of each record: requests that may be at work, each with its update and its end.
    at_work: Vec<Vec<(usize, Tick)>>,
    /// Of each record: the update that was applied last.
    last: Vec<Option<usize>>,
    /// Of each tenure and record: the latest update that was sent.
    newest_sent: BTreeMap<(TenureNumber, usize), usize>,
}

impl Judge {
    pub fn new(records: usize, record_of: &[usize]) -> Self {
        Self {
            updates: record_of.iter().map(|record| (*record, 0, false)).collect(),
            at_work: vec![Vec::new(); records],
            last: vec![None; records],
            newest_sent: BTreeMap::new(),
        }
    }

    /// A request leaves; the target works on it until `end`, whatever becomes of its process.
    pub fn sent(&mut self, now: Tick, process: &str, tenure: TenureNumber, update: usize, end: Tick) {
        let (record, ..) = self.updates[update];
        // What was taken back comes again, but not under the same number.
        let newest = self.newest_sent.entry((tenure, record)).or_insert(update);
        if *newest > update {
            fault!(
                "order in a tenure, I2",
                "{process} sent #{update} of r{record} after #{newest}, both under number {}",
                tenure.0
            );
        }
        *newest = update;
        let at_work = &mut self.at_work[record];
        at_work.retain(|(_, end)| *end > now);
        if let Some((other, end)) = at_work.first() {
            fault!(
                "one at a time, I11",
                "{process} sent #{update} of r{record} while a request with #{other} is at work for another {:?}",
                end.since(now)
            );
        }
        at_work.push((update, end));
        for (earlier, (of, applied, _)) in self.updates.iter().enumerate().take(update) {
            if *of == record && *applied == 0 {
                fault!("order, I2", "{process} sent #{update} of r{record} before #{earlier} was applied");
            }
        }
    }

    pub fn applied(&mut self, update: usize) {
        let (record, applied, _) = &mut self.updates[update];
        *applied += 1;
        self.last[*record] = Some(update);
    }

    pub fn acked(&mut self, update: usize) {
        let (record, applied, gone) = &mut self.updates[update];
        if *applied == 0 {
            fault!("settle, I3", "#{update} of r{record} left the queue and was never applied");
        }
        *gone = true;
    }

    pub fn all_gone(&self) -> bool {
        self.updates.iter().all(|(.., gone)| *gone)
    }

    pub fn end(&self) {
        for (update, (record, _, gone)) in self.updates.iter().enumerate() {
            if !gone {
                fault!(
                    "liveness",
                    "#{update} of r{record} is still in the queue, and nothing happens any more"
                );
            }
            if self.last[*record].is_none_or(|last| last < update) {
                fault!(
                    "last value",
                    "r{record} keeps {:?}, though #{update} was applied",
                    self.last[*record]
                );
            }
        }
    }
}
