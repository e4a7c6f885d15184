//! The crews of the layouts that are dispatched from: one, or two side by side while a layout drains.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinSet;
use tracing::info;

use super::crew::{Crew, Ended, Yard};
use lanekeeper_core::change::AtWork;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

/// The crews that have not ended, by their layouts.
#[derive(Default)]
pub struct Crews(BTreeMap<LayoutNumber, Crew>);

impl Crews {
    /// Does what the document says now: begins crews, lets them know, asks those of other layouts to stop. To be called
    /// also when a driver has ended.
    pub fn follow(&mut self, yard: &Yard, at_work: &[AtWork], drivers: &mut JoinSet<Ended>) {
        let is_at_work =
            |number: &LayoutNumber| at_work.iter().any(|at_work| at_work.layout.number == *number);
        for (_, crew) in self.0.iter().filter(|(number, _)| !is_at_work(number)) {
            crew.stop();
        }
        self.0.retain(|number, crew| is_at_work(number) || !crew.has_ended());
        // Until the drivers of a layout that is not at work have ended, something of it may be in flight here.
        let is_clear = self.0.keys().all(is_at_work);
        for of in at_work {
            let number = of.layout.number;
            let before: BTreeSet<PartitionNumber> =
                self.0.range(..number).flat_map(|(_, crew)| crew.left()).collect();
            if is_clear && !self.0.contains_key(&number) {
                let former = of.former.clone().with(before.iter().copied());
                self.0.insert(number, Crew::begin(yard, of, former, drivers));
            }
            let Some(crew) = self.0.get_mut(&number) else { continue };
            crew.heed(yard, of, at_work.len() > 1);
            for partition in crew.former_drained(&of.former, &before) {
                info!(
                    layout = number.0,
                    former = %partition,
                    "a partition of the layout before is drained: its records are dispatched from this one"
                );
            }
        }
    }

    /// A driver has ended.
    pub fn ended(&mut self, yard: &Yard, ended: &Ended) {
        let crew = self.0.get_mut(&ended.layout).expect("a crew outlasts its drivers");
        crew.ended(yard, ended);
    }

    /// Asks all drivers to stop.
    pub fn stop(&self) {
        self.0.values().for_each(Crew::stop);
    }

    /// Tells the others that keys have moved.
    pub async fn tell_moved(&self) {
        for crew in self.0.values() {
            crew.members.tell_moved().await;
        }
    }
}
