//! What goes wrong: crashes of processes and of whoever changes layouts, and channels that are lost.

use lanekeeper_core::change::Desired;

use super::broker::PartitionKey;
use super::{OPERATOR, PATIENCE_MS, World};

impl World {
    pub fn actor_dies(&mut self, actor: u32) {
        self.met.actor_crashes += 1;
        if actor == OPERATOR {
            self.note(format_args!("the operator's apply is killed"));
            if self.lock == Some(OPERATOR) {
                self.lock = None;
            }
            let desired = Desired { begun: None, ..self.operator.desired.clone() };
            self.operator.dies();
            // Sometimes nobody calls it again.
            if self.rng.chance(700) {
                self.operator.desired = desired;
                self.set_actor(OPERATOR, 5_000);
            }
            self.all_look();
        } else {
            self.crash(actor);
        }
    }

    fn crash(&mut self, process: u32) {
        self.met.crashes += 1;
        self.note(format_args!("process {process} dies"));
        let Some(dead) = self.processes.remove(&process) else { return };
        for (partition_key, driver) in dead.drivers {
            for (update, decided) in driver.in_flight.values() {
                if decided.is_none() {
                    self.judge.aborted(*update);
                }
            }
            if let Some(open) = driver.tenure {
                let lost = self.rng.index(self.broker.acks_on_their_way(partition_key, open.channel) + 1);
                self.broker.lose(partition_key, open.channel, lost);
                self.hand_over(partition_key);
            }
        }
        if self.lock == Some(process) {
            self.lock = None;
        }
        self.start_soon();
        self.all_look();
    }

    /// A dispatcher looks whether there is something to bring to an end, now and then.
    fn all_look(&mut self) {
        let all: Vec<u32> = self.processes.keys().copied().collect();
        for process in all {
            self.set_actor(process, PATIENCE_MS);
        }
    }

    pub fn inject_fault(&mut self) {
        let all: Vec<u32> = self.processes.keys().copied().collect();
        if all.is_empty() {
            return;
        }
        let process = self.rng.pick(&all);
        if self.rng.chance(300) {
            return self.crash(process);
        }
        let partition_keys: Vec<PartitionKey> = self.processes[&process].drivers.keys().copied().collect();
        if !partition_keys.is_empty() {
            self.met.channels_lost += 1;
            let partition_key = self.rng.pick(&partition_keys);
            self.lose_channel(process, partition_key);
        }
    }
}
