//! Connections that lose what is on its way, and the queue.

use lanekeeper_core::publish::outbox::{PublishId, Refusal};
use lanekeeper_core::update::RecordKey;

use super::door::Tag;
use super::{Carried, DoorsEvent, MILLISECOND, World};
use crate::rng::Rng;

/// An update on its way to the broker.
#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) connection: usize,
    pub(super) record_key: RecordKey,
    pub(super) id: PublishId,
    pub(super) tag: Tag,
    pub(super) carried: Carried,
}

/// What the broker says of it; `None`: a positive confirm.
#[derive(Clone, Debug)]
pub(super) struct Confirmation {
    pub(super) publish: Publish,
    pub(super) refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Connection {
    is_broken: bool,
    /// Nothing that is sent after something that is lost arrives.
    is_cut: bool,
    reaches_last: u64,
}

pub(super) struct Broker {
    /// What is sent arrives at once or never. Otherwise it may arrive when its door has given up the connection long since.
    is_prompt: bool,
    nacks: u64,
    returns: u64,
    stalls: u64,
    connections: Vec<Connection>,
    pub(super) queue: Vec<Carried>,
}

impl Broker {
    pub(super) fn new(rng: &mut Rng, is_prompt: bool) -> Self {
        let (nacks, returns, stalls) = (rng.below(150), rng.below(150), rng.below(100));
        Self { is_prompt, nacks, returns, stalls, connections: Vec::new(), queue: Vec::new() }
    }

    pub(super) fn connect(&mut self) -> usize {
        self.connections.push(Connection { is_broken: false, is_cut: false, reaches_last: 0 });
        self.connections.len() - 1
    }
}

impl World {
    /// A door writes into its socket.
    pub(super) fn send(&mut self, publish: Publish) {
        let is_quiet = self.is_quiet();
        let connection = &mut self.broker.connections[publish.connection];
        if self.broker.is_prompt {
            if !connection.is_broken {
                self.take(publish);
            }
            return;
        }
        let latency = if self.rng.chance(100) && !is_quiet { 1000 * MILLISECOND } else { 10 * MILLISECOND };
        let reaches = (self.now.micros() + self.rng.below(latency)).max(connection.reaches_last);
        connection.reaches_last = reaches;
        let micros = reaches - self.now.micros();
        self.at(micros, DoorsEvent::Taken(publish));
    }

    /// The broker reads it.
    pub(super) fn take(&mut self, publish: Publish) {
        let is_quiet = self.is_quiet();
        let connection = &mut self.broker.connections[publish.connection];
        connection.is_cut |= connection.is_broken && !self.broker.is_prompt && self.rng.chance(400);
        if connection.is_cut {
            return;
        }
        let refusal = match self.rng.below(1000) {
            _ if is_quiet => None,
            number if number < self.broker.nacks => Some(Refusal::Nacked),
            number if number < self.broker.nacks + self.broker.returns => Some(Refusal::Unroutable),
            _ => None,
        };
        let arrives = match refusal {
            None => true,
            // A part of the queues may have it.
            Some(Refusal::Nacked) => self.rng.chance(500),
            Some(Refusal::Unroutable) => false,
        };
        if arrives {
            self.judge.arrived(
                publish.tag,
                publish.carried,
                &self.senders[publish.carried.record],
                &self.broker.queue,
            );
            self.broker.queue.push(publish.carried);
        }
        let micros = if !is_quiet && self.rng.chance(self.broker.stalls) {
            self.rng.below(800 * MILLISECOND)
        } else {
            self.rng.below(4 * MILLISECOND)
        };
        self.at(micros, DoorsEvent::BrokerAnswered(Confirmation { publish, refusal }));
    }

    pub(super) fn broker_answers(&mut self, answered: &Confirmation) {
        let Confirmation { publish, refusal } = answered;
        let Tag { door, life, .. } = publish.tag;
        let is_current = self.lives(door, life) && self.doors[door].connection == Some(publish.connection);
        let is_broken = self.broker.connections[publish.connection].is_broken;
        // Of an earlier connection, or just before the end of this one.
        let is_late = self.lives(door, life) && self.rng.chance(200);
        if is_current && !is_broken || is_late {
            self.answered(door, publish, *refusal);
        }
    }

    pub(super) fn break_connection(&mut self, door: usize) {
        let Some(connection) = self.doors[door].connection else { return };
        self.broker.connections[connection].is_broken = true;
        let life = self.doors[door].life;
        let micros = self.rng.below(300 * MILLISECOND);
        self.at(micros, DoorsEvent::Down { door, life, connection });
    }

    /// Nothing more is sent, and in prompt worlds nothing is on its way.
    pub(super) fn sever(&mut self, door: usize) {
        if let Some(connection) = self.doors[door].connection.take() {
            self.broker.connections[connection].is_broken = true;
        }
    }
}
