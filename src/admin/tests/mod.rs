//! The port as clients see it: over sockets, with requests as browsers, programs and others write them.

mod access;
mod inquiry;
mod openapi;
mod parked;
mod pauses;
mod port;
mod probes;
mod tls;
mod world;

#[expect(dead_code, reason = "the suite of the broker uses all of it")]
#[path = "../../../tests/it/harness/wait.rs"]
mod wait;
