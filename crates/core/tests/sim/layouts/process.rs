//! What a process does with the documents that say which layouts there are: as `runtime::supervisor` and the layout driver of
//! the program.

use std::collections::{BTreeMap, BTreeSet};

use lanekeeper_core::drain::LATE_PUBLISH_MAX;
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber};
use lanekeeper_core::partition::Limits;
use lanekeeper_core::placement::Placement;
use lanekeeper_core::previous_layout::PreviousLayout;

use super::actor::Actor;
use super::broker::{Item, PartitionKey};
use super::driver::Driver;
use super::ending::Leaving;
use super::event::LayoutEvent;
use super::{PATIENCE_MS, World};

#[derive(Debug)]
pub struct Process {
    /// How far it has read the stream.
    pub known: usize,
    pub layout_states: BTreeMap<LayoutNumber, LayoutState>,
    pub drivers: BTreeMap<PartitionKey, Driver>,
    pub reconciler: Actor,
}

#[derive(Debug)]
pub struct LayoutState {
    marks: bool,
    /// What is not drained of the layout before.
    pub previous: PreviousLayout,
}

impl World {
    pub fn start_soon(&mut self) {
        self.processes_made += 1;
        let process = self.processes_made;
        self.soon(1_000, LayoutEvent::Start { process });
    }

    pub fn start(&mut self, process: u32) {
        let known = self.stream.len() - 1;
        let (layout_states, drivers, reconciler) = Default::default();
        let started = Process { known, layout_states, drivers, reconciler };
        self.processes.insert(process, started);
        self.observe(process);
        self.set_actor(process, PATIENCE_MS);
    }

    pub fn read(&mut self, process: u32) {
        let newest = self.stream.len() - 1;
        let Some(reader) = self.processes.get_mut(&process).filter(|reader| reader.known < newest) else {
            return;
        };
        reader.known += 1;
        if reader.known < newest {
            self.soon(200, LayoutEvent::Document { process });
        }
        self.observe(process);
        self.set_actor(process, PATIENCE_MS);
    }

    pub fn observe(&mut self, process: u32) {
        let Some(reader) = self.processes.get(&process) else { return };
        let active_layouts = self.stream[reader.known].active_layouts();
        let of = |number: &LayoutNumber| active_layouts.iter().find(|of| of.layout.number == *number);
        let is_over = |partition_key: &PartitionKey| {
            of(&partition_key.0).is_none_or(|of| !of.partitions.contains(&partition_key.1))
        };
        let over: Vec<PartitionKey> =
            reader.drivers.keys().filter(|partition_key| is_over(partition_key)).copied().collect();
        for partition_key in over {
            self.leave(process, partition_key, Leaving::Stop);
        }
        let Some(reader) = self.processes.get_mut(&process) else { return };
        let drivers = &reader.drivers;
        reader.layout_states.retain(|number, _| {
            of(number).is_some() || drivers.keys().any(|partition_key| partition_key.0 == *number)
        });
        let is_clear = reader.layout_states.keys().all(|number| of(number).is_some());
        for active_layout in &active_layouts {
            let layout = active_layout.layout;
            let reader = self.processes.get_mut(&process).expect("it lives");
            let here: BTreeSet<PartitionNumber> = reader
                .drivers
                .keys()
                .filter(|partition_key| partition_key.0 < layout.number)
                .map(|partition_key| partition_key.1)
                .collect();
            if is_clear && !reader.layout_states.contains_key(&layout.number) {
                let previous = active_layout.previous.clone().with(here.iter().copied());
                let placement = Placement::of(layout, &active_layout.witnesses);
                for partition in &active_layout.partitions {
                    let limits = Limits {
                        in_flight_max: self.in_flight_max.try_into().expect("not zero"),
                        window: usize::from(layout.prefetch).try_into().expect("not zero"),
                    };
                    let partition_key = (layout.number, *partition);
                    let driver = Driver::new(layout, placement, limits, previous.clone());
                    reader.drivers.insert(partition_key, driver);
                }
                reader.layout_states.insert(layout.number, LayoutState { marks: false, previous });
                for partition in &active_layout.partitions {
                    self.soon(
                        50,
                        LayoutEvent::Attach { process, partition_key: (layout.number, *partition) },
                    );
                }
            }
            let reader = self.processes.get_mut(&process).expect("it lives");
            let Some(layout_state) = reader.layout_states.get_mut(&layout.number) else { continue };
            let marks = active_layout.draining && !std::mem::replace(&mut layout_state.marks, true);
            let drained =
                layout_state.previous.narrow(&active_layout.previous, |partition| here.contains(&partition));
            if marks {
                self.at(self.now.after(LATE_PUBLISH_MAX), LayoutEvent::Markers { process, layout });
            }
            if !drained.is_empty() {
                self.note(format_args!("P{process} {:?} hears that {drained:?} are drained", layout.number));
                for partition in layout.partitions() {
                    self.soon(
                        10,
                        LayoutEvent::PreviousDrained { process, partition_key: (layout.number, partition) },
                    );
                }
            }
        }
    }

    pub fn mark(&mut self, process: u32, layout: Layout) {
        if !self.processes.contains_key(&process) {
            return;
        }
        for partition in layout.partitions() {
            let partition_key = (layout.number, partition);
            if self.broker.queues.contains_key(&partition_key) {
                self.soon(20, LayoutEvent::Arrive { partition_key, item: Item::Marker });
            }
        }
    }
}
