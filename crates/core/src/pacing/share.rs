//! How processes divide one limit, without a coordinator: each publishes notes into one stream that all of them read.
//!
//! A note states the demand of its process and the share that the process claims. A process may use no more than it claims.
//! It lowers a claim at once. A claim that it has raised counts only when every other live process has written a note after
//! it had read the one that states the claim, and only as far as the claims of these notes leave room. Of two processes that
//! raise their claims at once, the one whose note stands later in the stream thus knows of the other's claim. So the shares
//! in use are never more than the whole, however late notes are written and read.

use serde::{Deserialize, Serialize};

/// The whole, in the unit of [`Share`].
const WHOLE: u32 = 1_000_000;
/// A process with demand gets at least one of so many equal parts of what each would get if all had the same demand.
const LEAST_OF_EQUAL: u64 = 10;
/// The same for one without demand: its first request need not wait for notes.
const LEAST_OF_EQUAL_IDLE: u64 = 100;
/// If all claims fit into the whole, a claim changes to a share that differs by more than one of so many parts of it, or
/// that is free: demand is never quite steady.
const HYSTERESIS: u32 = 10;

/// A part of a limit, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(u32);

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self(WHOLE);
    /// Nothing of it: no request is made where a limit is known.
    pub const NONE: Self = Self(0);

    /// So many millionths; not more than the whole.
    #[must_use]
    pub const fn from_millionths(millionths: u32) -> Self {
        Self(if millionths < WHOLE { millionths } else { WHOLE })
    }

    /// The part as millionths.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// The part as a number from 0 to 1.
    #[must_use]
    pub fn part(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::WHOLE
    }
}

/// What a process would like to send through one pacer. It publishes this to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Requests that wait for permits, and those that were made per second lately.
    pub requests: u32,
    /// Requests with permits that have not ended.
    pub in_flight: u32,
}

/// What a process publishes about its part of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareNote {
    /// What it would like to send.
    pub demand: Demand,
    /// It uses no more than this before it publishes another note.
    pub claim: Share,
}

/// The newest note of another live process.
#[derive(Clone, Copy, Debug)]
pub struct OtherNote {
    /// The note.
    pub note: ShareNote,
    /// Its author had read the first note of ours with the present [`Claim::number`] when it wrote this one.
    pub seen: bool,
}

/// The part of a limit that this process claims, and how much of it may be used.
#[derive(Debug)]
pub struct Claim {
    claimed: Share,
    in_use: Share,
    number: u64,
}

impl Default for Claim {
    fn default() -> Self {
        Self { claimed: Share::NONE, in_use: Share::NONE, number: 0 }
    }
}

impl Claim {
    /// The part that may be used.
    #[must_use]
    pub const fn in_use(&self) -> Share {
        self.in_use
    }

    /// Grows each time the claim is raised. See [`OtherNote::seen`].
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The note to publish now.
    #[must_use]
    pub const fn note(&self, demand: Demand) -> ShareNote {
        ShareNote { demand, claim: self.claimed }
    }

    /// Notes were read, or the demand has changed. `others` are all other live processes: one whose notes were never read has a
    /// note that claims the whole. Returns the part that may be used.
    ///
    /// A process that is not live any more must not use its part: its lease has ended.
    pub fn update(&mut self, demand: Demand, others: &[OtherNote]) -> Share {
        let of_others: u32 = others.iter().fold(0, |sum, other| sum.saturating_add(other.note.claim.0));
        let room = WHOLE.saturating_sub(of_others);
        let wanted = fair_share(demand, others);
        let seen = others.iter().all(|other| other.seen);
        if self.number > 0 && seen {
            self.in_use = self.in_use.max(Share(self.claimed.0.min(room)));
        }
        let differs = wanted.0.abs_diff(self.claimed.0) > self.claimed.0 / HYSTERESIS;
        if wanted < self.claimed && (differs || room < self.claimed.0) {
            self.claimed = wanted;
            self.in_use = self.in_use.min(wanted);
        } else if wanted > self.claimed && (differs || wanted.0 <= room) && (self.number == 0 || seen) {
            self.claimed = wanted;
            self.number += 1;
            if others.is_empty() {
                self.in_use = wanted;
            }
        }
        self.in_use
    }
}

/// The part of this process if each gets what its demand is of the sum, and none too little. In sum at most the whole.
fn fair_share(demand: Demand, others: &[OtherNote]) -> Share {
    let requests = |demand: Demand| u64::from(demand.requests) + u64::from(demand.in_flight);
    let demands =
        || std::iter::once(demand).chain(others.iter().map(|other| other.note.demand)).map(requests);
    let processes = others.len() as u64 + 1;
    let sum = demands().sum::<u64>().max(1);
    let whole = u64::from(WHOLE);
    let weight = |requests: u64| {
        let least = if requests == 0 { LEAST_OF_EQUAL_IDLE } else { LEAST_OF_EQUAL };
        (requests * whole / sum).max(whole / processes / least).max(1)
    };
    let weights: u64 = demands().map(weight).sum();
    let share = weight(requests(demand)) * whole / weights;
    Share(u32::try_from(share).unwrap_or(WHOLE))
}
