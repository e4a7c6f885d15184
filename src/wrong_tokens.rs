//! Counts wrong tokens and signatures, so that nobody can try many: on the admin pages and at the door.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How far back wrong tokens count.
const WINDOW: Duration = Duration::from_secs(60);
/// Wrong tokens of one client within the window; after that none of its tokens is looked at, or none of its wrong ones counts.
const OF_CLIENT_MAX: u32 = 10;
/// Wrong tokens of all clients within the window; after that only tokens of clients are looked at that have shown a right one
/// before, so that those who guess from many addresses do not lock people out.
const OF_ALL_MAX: u32 = 200;
/// Clients that are remembered. A further one takes the place of the one that was heard of least recently.
const CLIENTS_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct WrongTokens {
    clients: HashMap<IpAddr, Client>,
    all: Window,
}

#[derive(Debug)]
struct Client {
    wrong: Window,
    /// It has shown a right one.
    is_known: bool,
    last: Instant,
}

#[derive(Debug, Default)]
struct Window {
    begun: Option<Instant>,
    count: u32,
}

impl Window {
    fn add(&mut self, now: Instant) {
        if self.begun.is_none_or(|begun| now.duration_since(begun) >= WINDOW) {
            *self = Self { begun: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
    }

    /// How long until it counts from zero again, if it has reached this.
    fn wait(&self, max: u32, now: Instant) -> Option<Duration> {
        let left = WINDOW.checked_sub(now.duration_since(self.begun?)).filter(|left| !left.is_zero())?;
        (self.count >= max).then_some(left)
    }
}

impl WrongTokens {
    /// How long no token of this client is looked at; `None`: the next one is.
    pub(crate) fn wait(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        let known = self.clients.get(&network(client));
        let of_client = known.and_then(|client| client.wrong.wait(OF_CLIENT_MAX, now));
        let of_all = self.all.wait(OF_ALL_MAX, now).filter(|_| !known.is_some_and(|client| client.is_known));
        of_client.max(of_all)
    }

    pub(crate) fn wrong(&mut self, client: IpAddr, now: Instant) {
        self.all.add(now);
        self.client(client, now).wrong.add(now);
    }

    /// Counts a wrong token of a client. Returns how long no further one of it counts, if there were too many before.
    pub(crate) fn add(&mut self, client: IpAddr, now: Instant) -> Option<Duration> {
        let wait = self.wait(client, now);
        if wait.is_none() {
            self.wrong(client, now);
        }
        wait
    }

    pub(crate) fn right(&mut self, client: IpAddr, now: Instant) {
        self.client(client, now).is_known = true;
    }

    fn client(&mut self, client: IpAddr, now: Instant) -> &mut Client {
        let network = network(client);
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&network) {
            // A known one goes last: otherwise guesses from many addresses would push it out.
            let oldest = self.clients.iter().min_by_key(|(_, client)| (client.is_known, client.last));
            if let Some(oldest) = oldest.map(|(network, _)| *network) {
                self.clients.remove(&oldest);
            }
        }
        let client = self.clients.entry(network).or_insert_with(|| Client {
            wrong: Window::default(),
            is_known: false,
            last: now,
        });
        client.last = now;
        client
    }
}

/// One client can have all addresses of an IPv6 network.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn a_client_with_wrong_tokens_waits_alone() {
        let (mut tokens, start) = (WrongTokens::default(), Instant::now());
        for second in 0..OF_CLIENT_MAX {
            let now = start + Duration::from_secs(second.into());
            assert_eq!(tokens.wait(client(1), now), None);
            tokens.wrong(client(1), now);
        }
        let now = start + Duration::from_secs(OF_CLIENT_MAX.into());
        assert_eq!(tokens.wait(client(1), now), Some(start + WINDOW - now));
        assert_eq!(tokens.wait(client(2), now), None);
        assert_eq!(tokens.wait(client(1), start + WINDOW), None);
        let [a, b, c] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|ip| ip.parse().unwrap());
        (0..OF_CLIENT_MAX).for_each(|_| tokens.wrong(a, now));
        assert!(tokens.wait(b, now).is_some(), "one network");
        assert_eq!(tokens.wait(c, now), None);
    }

    #[test]
    fn who_guesses_from_many_addresses_locks_nobody_out_who_is_known() {
        let (mut tokens, now) = (WrongTokens::default(), Instant::now());
        tokens.right(client(1), now);
        for number in 0..u32::try_from(2 * CLIENTS_MAX).unwrap() {
            tokens.wrong(client(1000 + number), now);
            assert!(tokens.clients.len() <= CLIENTS_MAX);
        }
        assert_eq!(tokens.wait(client(2), now), Some(WINDOW));
        assert_eq!(tokens.wait(client(1), now), None);
        assert_eq!(tokens.wait(client(2), now + WINDOW), None);
    }
}
