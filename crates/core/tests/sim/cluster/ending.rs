//! How the tenures of a process end, and what it says about it.

use std::collections::BTreeSet;
use std::time::Duration;

use lanekeeper_core::message::Event;
use lanekeeper_core::tick::Tick;

use super::World;
use super::event::ClusterEvent;
use super::process::OpenClaim;
use super::stream::Message;

/// A word of the end is waited for so long before the channel is closed.
const WORD_MAX: Duration = Duration::from_millis(60);

/// A tenure that was lost: the process says that it is over once these requests have ended.
#[derive(Debug)]
pub struct Owed {
    pub number: u64,
    pub wait_until: Option<Tick>,
    pub requests: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// Then the process ends, or attaches again.
    pub stop: bool,
    pub until: Tick,
    /// The word of the end of this tenure is on its way.
    pub said: Option<u64>,
}

impl World {
    /// Says of lost tenures that they are over, once they are.
    pub(super) fn pay_owed(&mut self, p: usize) {
        let owed = &mut self.processes[p].owed;
        let over: Vec<Owed> = owed.extract_if(.., |owed| owed.requests.is_empty()).collect();
        for Owed { number, wait_until, .. } in over {
            let rest = wait_until.map_or(Duration::ZERO, |until| until.since(self.now));
            self.publish(p, Message::Ended { number, rest });
        }
    }

    /// For how long requests of this tenure and of those before it can still be at work.
    pub(super) fn rest(&self, p: usize) -> Duration {
        let process = &self.processes[p];
        let waits = process.core.take_over_wait().map(|until| until.since(self.now));
        let out = process.in_flight.iter().map(|request| self.timeouts[*request].since(self.now));
        waits.into_iter().chain(out).max().unwrap_or_default()
    }

    /// The channel is gone, or is given up.
    pub fn lose_channel(&mut self, p: usize) {
        let now = self.now;
        let process = &mut self.processes[p];
        let Some(channel) = process.channel.take() else { return };
        let stop = process.leaving.take().is_some_and(|leaving| leaving.stop);
        if let Some(OpenClaim { number: Some(number), .. }) = process.claim.take() {
            let wait_until = process.core.take_over_wait();
            process.owed.push(Owed { number, wait_until, requests: process.in_flight.clone() });
        }
        process.core.handle(now, Event::TenureEnded(channel.tenure));
        self.note(p, format_args!("has no channel any more"));
        let at = self.ack_time(p);
        self.at(at, ClusterEvent::ChannelClosed { process: p, channel: channel.number });
        if stop {
            return self.end_process(p);
        }
        self.pay_owed(p);
        self.soon(30, ClusterEvent::Attach { process: p });
        self.follow_up(p);
    }

    pub fn leave(&mut self, p: usize, stop: bool, until: Tick) {
        if self.processes[p].channel.is_some() && self.processes[p].leaving.is_none() {
            self.processes[p].leaving = Some(Leaving { stop, until, said: None });
            if stop {
                self.note(p, format_args!("stops"));
                self.at(until, ClusterEvent::LeaveDue { process: p });
                self.feed(p, Event::StopRequested);
            }
        }
    }

    pub fn go_on_leaving(&mut self, p: usize) {
        let now = self.now;
        let Some(leaving) = self.processes[p].leaving else { return };
        if leaving.said.is_some() {
            if now >= leaving.until {
                self.close(p);
            }
        } else if self.processes[p].core.is_quiet() || now >= leaving.until {
            let rest = self.rest(p);
            let claim = self.processes[p].claim.as_ref();
            let Some(number) = claim.and_then(|claim| claim.number) else { return self.close(p) };
            self.met.left_while_waiting += u32::from(!rest.is_zero());
            let until = now.after(WORD_MAX);
            self.processes[p].leaving = Some(Leaving { until, said: Some(number), ..leaving });
            self.at(until, ClusterEvent::LeaveDue { process: p });
            self.publish(p, Message::Ended { number, rest });
        }
    }

    pub(super) fn close(&mut self, p: usize) {
        self.processes[p].claim = None;
        self.lose_channel(p);
    }
}
