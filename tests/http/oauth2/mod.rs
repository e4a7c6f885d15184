//! Targets that want a token: when it is fetched, what is done when it is refused, and what becomes of an attempt without one.

mod faults;
mod renewal;
mod world;

pub use world::attempt;
