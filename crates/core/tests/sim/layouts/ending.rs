//! How a driver leaves its partition, and how its channel ends: because it was asked to, since the partition is drained, or
//! without being asked.

use std::time::Duration;

use lanekeeper_core::drain::Drained;
use lanekeeper_core::message::Event;

use super::World;
use super::broker::PartitionKey;
use super::event::LayoutEvent;

/// How long a channel that is given up stays open for its acks to arrive.
const SETTLE_GRACE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// To attach again.
    Back,
    /// For good: it was asked to.
    Stop,
    /// For good: it is drained.
    Drained,
}

impl World {
    pub fn look_at_drain(&mut self, process: u32, partition_key: PartitionKey) {
        let now = self.now;
        let Some(driver) = self.driver(process, partition_key) else { return };
        if driver.leaving.is_some() || driver.tenure.is_none() {
            return;
        }
        let view = driver.partition.view();
        let at_rest = view.held == 0 && view.released == 0 && driver.partition.is_quiet();
        let leaving = match driver.watch.look(now, at_rest) {
            None => return,
            Some(Drained::GiveBack) => Leaving::Back,
            Some(Drained::Proven) => Leaving::Drained,
        };
        self.note(format_args!("P{process} {partition_key:?} leaves: {leaving:?}"));
        self.leave(process, partition_key, leaving);
    }

    pub fn leave(&mut self, process: u32, partition_key: PartitionKey, leaving: Leaving) {
        let now = self.now;
        let Some(driver) = self.driver(process, partition_key) else { return };
        if driver.leaving.is_none_or(|before| before == Leaving::Back) {
            driver.leaving = Some(leaving);
            driver.partition.handle(now, Event::StopRequested);
            self.follow_up(process, partition_key);
        }
    }

    /// Nothing is under way any more: settle, wait for the acks, close.
    pub fn go_on_leaving(&mut self, process: u32, partition_key: PartitionKey) {
        let Some(driver) = self.driver(process, partition_key) else { return };
        if driver.leaving.is_none() || !driver.partition.is_quiet() {
            return;
        }
        let mut acks = Vec::new();
        let Some(open) = driver.tenure.as_mut() else {
            return self.left(process, partition_key);
        };
        let channel = open.channel;
        while let Some(ack) = open.acks.flush() {
            acks.push(ack);
        }
        for ack in acks {
            self.send_ack(partition_key, channel, ack);
        }
        let at = self.now.after(SETTLE_GRACE);
        self.at(at, LayoutEvent::Close { process, partition_key, channel });
    }

    /// The grace is over. The acks have arrived, as a rule.
    pub fn close(&mut self, process: u32, partition_key: PartitionKey, channel: u64) {
        let Some(driver) = self.driver(process, partition_key) else { return };
        if driver.leaving.is_none() || driver.tenure.as_ref().is_none_or(|open| open.channel != channel) {
            return;
        }
        let on_their_way = self.broker.acks_on_their_way(partition_key, channel);
        let lost = self.rng.index(on_their_way + 1);
        self.end_tenure(process, partition_key, lost);
        self.left(process, partition_key);
    }

    fn left(&mut self, process: u32, partition_key: PartitionKey) {
        let Some(driver) = self.driver(process, partition_key) else { return };
        match driver.leaving.take() {
            None => {}
            Some(Leaving::Back) => self.soon(20, LayoutEvent::Attach { process, partition_key }),
            Some(leaving) => {
                self.processes.get_mut(&process).expect("it lives").drivers.remove(&partition_key);
                if leaving == Leaving::Drained {
                    self.processes
                        .get_mut(&process)
                        .expect("it lives")
                        .reconciler
                        .desired
                        .drained
                        .push(partition_key);
                }
                self.soon(20, LayoutEvent::Observe { process });
                self.set_actor(process, 50);
            }
        }
    }

    /// The channel ends, with these of the newest acks.
    pub fn end_tenure(&mut self, process: u32, partition_key: PartitionKey, acks_lost: usize) {
        let now = self.now;
        let Some(driver) = self.driver(process, partition_key) else { return };
        let Some(open) = driver.tenure.take() else { return };
        driver.watch.tenure_ended();
        driver.partition.handle(now, Event::TenureEnded(open.tenure));
        self.broker.lose(partition_key, open.channel, acks_lost);
        self.note(format_args!(
            "P{process} {partition_key:?} channel {} ends, {acks_lost} acks lost",
            open.channel
        ));
        self.hand_over(partition_key);
    }

    /// Without being asked.
    pub fn lose_channel(&mut self, process: u32, partition_key: PartitionKey) {
        let Some(channel) = self
            .driver(process, partition_key)
            .and_then(|driver| driver.tenure.as_ref())
            .map(|open| open.channel)
        else {
            return;
        };
        let lost = self.rng.index(self.broker.acks_on_their_way(partition_key, channel) + 1);
        let driver =
            self.processes.get_mut(&process).and_then(|process| process.drivers.get_mut(&partition_key));
        for (update, decided) in driver.expect("it has a channel").in_flight.values_mut() {
            if decided.is_none() {
                let applied = self.rng.chance(500);
                *decided = Some(applied);
                self.judge.ended(*update, applied);
            }
        }
        self.end_tenure(process, partition_key, lost);
        let leaving = self.driver(process, partition_key).and_then(|driver| driver.leaving);
        if matches!(leaving, None | Some(Leaving::Back)) {
            self.driver(process, partition_key).expect("looked at above").leaving = None;
            self.soon(50, LayoutEvent::Attach { process, partition_key });
        }
        self.follow_up(process, partition_key);
    }
}
