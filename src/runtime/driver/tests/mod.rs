//! The driver below the broker: the real one, between a broker, a target and a ledger in memory, in paused time.
//!
//! [`scenarios`] and [`ledger_scenarios`] have what must hold case by case, [`seeds`] some hundred worlds drawn by chance. Both are judged by
//! [`facts`]: by what the target saw, what was written down and what was settled.

mod broker;
mod facts;
mod ledger;
mod ledger_scenarios;
mod rng;
mod scenarios;
mod seeds;
mod target;
mod traces;
mod world;
