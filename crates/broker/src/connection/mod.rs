//! One connection to the broker: how it is made, and the screen that keeps one message from ending it.
//!
//! The client (lapin) parses what the broker sends more strictly than the broker checks what publishers send. Between the
//! decrypted stream and the client lies a screen: [`screen`] decides over bytes, without IO; [`stream`] and [`runtime`]
//! put it into the client's way; [`alterations`] keeps what was changed. [`connect`] is the one function that connects.
//! Why it is done so: docs/decisions/001-a-screen-before-the-amqp-client.md.

mod address;
mod alterations;
mod connect;
mod cut;
mod error;
mod failures;
mod frames;
mod retry;
mod runtime;
mod screen;
mod stream;
mod values;
mod version;

pub use address::Address;
pub(crate) use alterations::{Alteration, AlteredProperties, ChannelAlterations, Originals, WindowExceeded};
pub use connect::{Connection, connect};
pub use error::ConnectError;
pub(crate) use retry::{RECONNECT_DELAY_MAX, Reconnecting};
pub use version::Version;

#[cfg(test)]
mod tests;
