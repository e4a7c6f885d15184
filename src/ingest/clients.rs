//! Who sends: clients, shown by their tokens.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::config::ClientConfig;
use lanekeeper_core::routes::TypePattern;

/// A keyed hash of a token: the time that it takes to find one says nothing about it.
type TokenHash = [u8; 32];

/// Whose token a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShownToken {
    Of(usize),
    Wrong,
    /// No header has one.
    None,
}

/// The clients of `[[ingest.client]]`. A client is known by its index here.
pub(super) struct Clients {
    key: hmac::Key,
    /// The headers with tokens.
    headers: Vec<HeaderName>,
    by_token: HashMap<(HeaderName, TokenHash), usize>,
    names_and_types: Vec<(String, Vec<TypePattern>)>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    /// # Panics
    /// If the system has no random numbers.
    pub(super) fn new(configs: &[ClientConfig]) -> Self {
        let random = SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).expect("the system has random numbers");
        let mut by_token = HashMap::new();
        let mut headers = BTreeSet::new();
        for (index, client) in configs.iter().enumerate() {
            let header: HeaderName =
                client.header.parse().expect("the config's check has seen a header name");
            for token in &client.tokens {
                by_token.insert((header.clone(), hash(&key, token.reveal())), index);
            }
            headers.insert(client.header.clone());
        }
        let headers = headers.iter().map(|name| name.parse().expect("it was parsed before")).collect();
        let names_and_types =
            configs.iter().map(|client| (client.name.clone(), client.types.clone())).collect();
        Self { key, headers, by_token, names_and_types }
    }

    /// The client that sends this, by the first header that has a token of one.
    pub(super) fn find(&self, headers: &HeaderMap) -> ShownToken {
        let shown = self.headers.iter().filter_map(|name| Some((name, headers.get(name)?)));
        let mut found = ShownToken::None;
        for (name, value) in shown {
            match self.of_header(name, value) {
                Some(client) => return ShownToken::Of(client),
                None => found = ShownToken::Wrong,
            }
        }
        found
    }

    fn of_header(&self, name: &HeaderName, value: &HeaderValue) -> Option<usize> {
        let value = value.to_str().ok()?;
        let token =
            if *name == header::AUTHORIZATION { of_authorization(value)? } else { value.trim().to_owned() };
        self.by_token.get(&(name.clone(), hash(&self.key, &token))).copied()
    }

    pub(super) fn name(&self, client: usize) -> &str {
        &self.names_and_types[client].0
    }

    /// Returns true if the client may send updates of this type.
    pub(super) fn may_send(&self, client: usize, update_type: Option<&str>) -> bool {
        self.names_and_types[client].1.iter().any(|pattern| pattern.matches(update_type))
    }
}

/// `Bearer TOKEN`, or the password of Basic (RFC 7617), for tools that know nothing else.
fn of_authorization(value: &str) -> Option<String> {
    let (scheme, credentials) = value.split_once(' ')?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

fn hash(key: &hmac::Key, token: &str) -> TokenHash {
    hmac::sign(key, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use lanekeeper_core::secret::Secret;

    fn client(name: &str, header: &str, tokens: &[&str], types: &[&str]) -> ClientConfig {
        ClientConfig {
            name: name.to_owned(),
            tokens: tokens.iter().map(|token| Secret::new(*token)).collect(),
            header: header.to_owned(),
            types: types.iter().map(|pattern| pattern.parse().unwrap()).collect(),
            pending_max: NonZeroUsize::MIN,
            rate_max: None,
        }
    }

    #[test]
    fn a_client_is_known_by_any_of_its_tokens_in_its_header() {
        let clients = Clients::new(&[
            client("crm", "authorization", &["one", "two"], &["customer.*"]),
            client("flow", "x-api-key", &["three"], &["*"]),
        ]);
        let check = |name: &'static str, value: &str, expected: Option<&str>| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )]);
            let found = match clients.find(&headers) {
                ShownToken::Of(client) => Some(clients.name(client)),
                ShownToken::Wrong => None,
                ShownToken::None => panic!("{name} is looked at"),
            };
            assert_eq!(found, expected, "{name}: {value}");
        };
        check("authorization", "Bearer one", Some("crm"));
        check("authorization", "bearer  two ", Some("crm"));
        check("authorization", "Bearer three", None);
        check("authorization", "one", None);
        check("authorization", "Bearer", None);
        check("authorization", "Basic YW55Om9uZQ==", Some("crm")); // any:one
        check("authorization", "Basic YW55OnNlY3JldA==", None);
        check("authorization", "Basic ?", None);
        check("authorization", "Bearer öne", None);
        check("x-api-key", "three", Some("flow"));
        check("x-api-key", "Bearer three", None);
        check("x-api-key", "one", None);
        assert_eq!(clients.find(&HeaderMap::new()), ShownToken::None);
        let both = [("authorization", "Basic of-a-proxy"), ("x-api-key", "three")];
        let both = both.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        assert_eq!(clients.find(&HeaderMap::from_iter(both)), ShownToken::Of(1));
        assert!(clients.may_send(0, Some("customer.updated")) && !clients.may_send(0, Some("order.paid")));
        assert!(!clients.may_send(0, None) && clients.may_send(1, None));
    }
}
