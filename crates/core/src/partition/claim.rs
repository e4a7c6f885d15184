//! Deliveries wait for the claim; attempts wait for it and for the lease.

use std::sync::Arc;

use super::Partition;
use crate::lane::HeldUpdate;
use crate::message::{DeliveryTag, Effect, Holder, Tenure, TenureNumber, YieldReason};
use crate::ownership::OwnershipState;
use crate::policy::{DeadLetterReason, Malformed, Resolution};
use crate::tick::Tick;
use crate::update::{Identity, Update};

/// A delivery that waits for the claim.
#[derive(Debug)]
pub(super) enum Unclaimed {
    Update { delivery: DeliveryTag, redelivered: bool, update: Arc<Update> },
    Malformed { delivery: DeliveryTag, fault: Malformed },
}

impl Unclaimed {
    pub(super) fn update(&self) -> Option<&Update> {
        match self {
            Self::Update { update, .. } => Some(update),
            Self::Malformed { .. } => None,
        }
    }
}

impl Partition {
    /// The state of the claim on the partition.
    #[must_use]
    pub fn ownership_state(&self) -> OwnershipState {
        self.ownership.state()
    }

    /// Until when requests may leave, and under which number; `None`: none may.
    #[must_use]
    pub fn may_send_until(&self) -> Option<(Option<TenureNumber>, Tick)> {
        self.ownership.may_send_until()
    }

    pub(super) fn delivered(&mut self, tenure: Tenure, delivery: Unclaimed) {
        if self.tenure == Some(tenure) && self.ownership.state() == OwnershipState::Lost {
            return; // it comes again, on the next channel
        }
        if !self.admit(tenure) {
            return;
        }
        if matches!(self.ownership.state(), OwnershipState::Claimed(_)) {
            return self.take_in(tenure, delivery);
        }
        self.unclaimed.push_back(delivery);
        if !self.stopping && self.ownership.delivered() {
            self.effects.push_back(Effect::Claim { tenure });
        }
    }

    pub(super) fn ownership_hint(&mut self, tenure: Tenure) {
        if self.tenure != Some(tenure) {
            self.stale += 1;
        } else if !self.stopping && self.ownership.delivered() {
            self.effects.push_back(Effect::Claim { tenure });
        }
    }

    fn take_in(&mut self, tenure: Tenure, delivery: Unclaimed) {
        match delivery {
            Unclaimed::Update { delivery, redelivered, update } => {
                if !redelivered {
                    self.memory.redeliveries_done();
                }
                let identity = Identity::of(&update);
                let settled_before = redelivered && self.memory.claim(&update.record_key, &identity);
                let holder = Holder::Broker(delivery);
                let (arrival, received_at) = (self.count_in(), self.now);
                self.receive(HeldUpdate {
                    holder,
                    arrival,
                    received_at,
                    redelivered,
                    update,
                    identity,
                    settled_before,
                });
            }
            Unclaimed::Malformed { delivery, fault } => {
                self.malformed.insert(delivery);
                self.recording += 1;
                let resolution = Resolution::DeadLettered(DeadLetterReason::Malformed(fault));
                let holder = Holder::Broker(delivery);
                self.effects.push_back(Effect::Record { tenure, holder, update: None, resolution });
            }
        }
    }

    pub(super) fn lease_renewed(&mut self, now: Tick, until: Tick) {
        self.ownership.lease_renewed(now, until);
        self.take_in_unclaimed();
    }

    /// While the lease has lapsed, another process may have owned the partition since, and what is known of the updates
    /// may be outdated: they are not looked at before its claim would have been read.
    fn take_in_unclaimed(&mut self) {
        let Some(tenure) = self.tenure else { return };
        while matches!(self.ownership.state(), OwnershipState::Claimed(_))
            && let Some(delivery) = self.unclaimed.pop_front()
        {
            self.take_in(tenure, delivery);
        }
    }

    pub(super) fn claimed(
        &mut self,
        now: Tick,
        tenure: Tenure,
        number: Option<TenureNumber>,
        rival_claim: Option<TenureNumber>,
        wait_until: Option<Tick>,
    ) {
        let first = self.held == self.unclaimed.len() && self.released == 0;
        if self.tenure != Some(tenure) || !self.ownership.claimed(number) {
            self.stale += 1;
            return;
        }
        // A lower number is of a stream that was recreated, and new as well.
        if rival_claim.is_some() && rival_claim != self.last_rival_claim {
            if !first {
                return self.lose_claim(tenure);
            }
            self.memory.ownership_lapsed();
            self.last_rival_claim = rival_claim;
        }
        self.take_over.set(wait_until);
        self.ownership.check_lease(now);
        self.take_in_unclaimed();
    }

    /// Nothing was taken in yet: deliveries wait for the claim.
    pub(super) fn claims_kept_back(&mut self, tenure: Tenure) {
        if self.tenure == Some(tenure) {
            self.memory.ownership_lapsed();
        } else {
            self.stale += 1;
        }
    }

    pub(super) fn claim_superseded(&mut self, tenure: Tenure) {
        if self.tenure != Some(tenure) {
            self.stale += 1;
        } else if self.holds_nothing() {
            self.let_go(tenure);
        } else {
            self.lose_claim(tenure);
        }
    }

    /// Nothing is held: the claim ends, and the next delivery claims.
    pub(super) fn let_go(&mut self, tenure: Tenure) {
        if self.ownership.let_go() {
            self.effects.push_back(Effect::ClaimEnded { tenure });
        }
    }

    pub(super) fn deliveries_void(&mut self, tenure: Tenure) {
        if self.tenure == Some(tenure) {
            self.lose_claim(tenure);
        } else {
            self.stale += 1;
        }
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.held == 0 && self.released == 0
    }

    /// The broker has handed over to another process what we hold.
    fn lose_claim(&mut self, tenure: Tenure) {
        if self.ownership.lose() {
            self.effects.push_back(Effect::Abandon { tenure });
        }
    }

    pub(super) fn preempted(&mut self, tenure: Tenure) {
        if self.tenure == Some(tenure) && self.holds_nothing() {
            self.let_go(tenure);
        } else {
            self.request_yield(tenure, YieldReason::Preempted);
        }
    }

    pub(super) fn request_yield(&mut self, tenure: Tenure, reason: YieldReason) {
        if self.tenure != Some(tenure) {
            self.stale += 1;
        } else if !self.stopping && self.ownership.state() != OwnershipState::Lost {
            self.stopping = true;
            self.effects.push_back(Effect::Yield { tenure, reason });
        }
    }

    pub(super) fn recorded_malformed(&mut self, tenure: Tenure, delivery: DeliveryTag) {
        if self.tenure == Some(tenure) && self.malformed.remove(&delivery) {
            self.recording -= 1;
            self.settle(delivery);
        } else {
            self.stale += 1;
        }
    }
}
