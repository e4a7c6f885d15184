//! Why records wait, and how the processes are: asked of all of them, and put together into one report.
//!
//! [`question`] is what goes to the processes, [`report`] is what they answer and what commands, pages and the API show,
//! [`asker`] asks (during an alarm of the broker by [`admin_ports`]), [`record`] finds out what a record waits for, of the answers, the broker and the ledger. [`doors`] is what doors say of
//! themselves, which dispatchers answer for them. The causes and their
//! sentences are in [`lanekeeper_core::why`]; what a process answers is made in `src/runtime/inspection`.

pub mod admin_ports;
pub mod asker;
pub mod cluster;
pub mod doors;
#[cfg(test)]
pub mod examples;
pub mod question;
pub mod record;
pub mod report;
pub mod signature;
pub mod words;
