//! Connects to the first address of a name that answers (Happy Eyeballs, RFC 8305, sections 4 and 5): the addresses are tried
//! one after another, a quarter of a second apart, and the first connection wins. So an address that swallows packets costs
//! that time, and not the whole `connect_timeout`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// How long an address has a head start before the next one (RFC 8305, section 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// What became of the addresses of a name, none of which could be connected to.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// Those that had not answered when the time was up.
    silent: Vec<SocketAddr>,
    failed: Vec<(SocketAddr, io::Error)>,
}

impl Tried {
    /// Returns true if an address did not answer, so that another try may take as long.
    pub(super) fn timed_out(&self) -> bool {
        !self.silent.is_empty()
            || self.failed.iter().any(|(_, error)| error.kind() == io::ErrorKind::TimedOut)
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.failed.iter().map(|(address, error)| match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("connection refused by {address}"),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                format!("no route to {address}")
            }
            io::ErrorKind::TimedOut => format!("no answer from {address}"),
            _ => format!("no connection to {address}: {error}"),
        });
        let silent = self.silent.iter().map(|address| format!("no answer from {address}"));
        f.write_str(&silent.chain(failed).collect::<Vec<_>>().join("; "))
    }
}

/// Connects to one of the addresses, at least one, within this time.
pub(super) async fn connect(addresses: Vec<SocketAddr>, within: Duration) -> Result<TcpStream, Tried> {
    let deadline = Instant::now() + within;
    // In a short time, each address has its turn all the same.
    let turns = u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
    let head_start = HEAD_START.min(within / turns);
    let mut waiting = by_turns(addresses);
    let mut connecting = FuturesUnordered::new();
    let mut tried = Tried::default();
    let mut next_at = Instant::now();
    while !waiting.is_empty() || !connecting.is_empty() {
        tokio::select! {
            biased;
            Some((address, connected)) = connecting.next() => match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    tried.silent.retain(|silent| *silent != address);
                    tried.failed.push((address, error));
                    next_at = Instant::now();
                }
            },
            () = sleep_until(deadline) => break,
            () = sleep_until(next_at), if !waiting.is_empty() => {
                next_at = Instant::now() + head_start;
                if let Some(address) = waiting.pop_front() {
                    tried.silent.push(address);
                    connecting.push(async move { (address, TcpStream::connect(address).await) });
                }
            }
        }
    }
    Err(tried)
}

/// One of each family in turn, beginning with the family that the resolver prefers, each once.
fn by_turns(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first_is_v4);
    let mut others = other.into_iter();
    let mut turns = VecDeque::new();
    for address in preferred {
        turns.extend([Some(address), others.next()].into_iter().flatten());
    }
    turns.extend(others);
    let mut once = VecDeque::new();
    for address in turns {
        if !once.contains(&address) {
            once.push_back(address);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_the_preferred_one_begins() {
        let check = |addresses: &str, expected: &str| {
            let addresses = addresses.split(' ').map(|address| address.parse().unwrap()).collect();
            let turns: Vec<_> = by_turns(addresses).iter().map(ToString::to_string).collect();
            assert_eq!(turns.join(" "), expected);
        };
        check("10.0.0.1:1", "10.0.0.1:1");
        check("[::1]:1 [::2]:1 [::3]:1 10.0.0.1:1", "[::1]:1 10.0.0.1:1 [::2]:1 [::3]:1");
        check("10.0.0.1:1 [::1]:1 [::2]:1 10.0.0.1:1", "10.0.0.1:1 [::1]:1 [::2]:1");
    }

    #[test]
    fn what_became_of_each_address_is_said_in_words() {
        let address: SocketAddr = "[::1]:443".parse().unwrap();
        let failed = |kind| (address, io::Error::from(kind));
        let tried = Tried {
            silent: vec!["10.0.0.1:443".parse().unwrap()],
            failed: vec![
                failed(io::ErrorKind::ConnectionRefused),
                failed(io::ErrorKind::NetworkUnreachable),
                failed(io::ErrorKind::HostUnreachable),
            ],
        };
        assert_eq!(
            tried.to_string(),
            "no answer from 10.0.0.1:443; connection refused by [::1]:443; no route to [::1]:443; no route to \
             [::1]:443"
        );
        assert!(tried.timed_out());
        assert!(!Tried { silent: Vec::new(), ..tried }.timed_out());
    }
}
