//! What is asked of the processes. A question stands in a stream that is kept for a time, so it names no record key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use lanekeeper_core::update::RecordKey;

/// A question to all processes, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "about")]
pub enum InspectionQuery {
    /// How each process is.
    Status,
    /// What a record waits for.
    Record {
        /// Which record.
        key: KeyHash,
        /// Partitions that can hold it, as (layout, number): their state is answered as well.
        places: Vec<(u32, u16)>,
    },
    /// The records of one partition, those first whose oldest update came first.
    Partition {
        /// Its layout.
        layout: u32,
        /// Its number.
        partition: u16,
        /// How many records at most.
        limit: usize,
    },
    /// What a target did in the last hour.
    Target {
        /// Its name.
        name: String,
    },
}

/// Names a record to whoever holds it: HMAC-SHA-256 of its key, under a salt that is another one for each question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHash {
    /// 16 random bytes, in base64url.
    salt: String,
    /// The first 16 bytes of the HMAC, in base64url.
    hash: String,
}

/// Finds the record that a [`KeyHash`] names.
#[derive(Debug)]
pub struct KeyMatcher {
    key: hmac::Key,
    hash: Vec<u8>,
}

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 16;

impl KeyHash {
    /// Names this record, under a new salt.
    #[must_use]
    pub fn of(record_key: &RecordKey) -> Self {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).expect("the operating system gives random bytes");
        let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salt), record_key.as_str().as_bytes());
        Self {
            salt: URL_SAFE_NO_PAD.encode(salt),
            hash: URL_SAFE_NO_PAD.encode(&hash.as_ref()[..HASH_BYTES]),
        }
    }

    /// What finds the record; `None`: this names none.
    #[must_use]
    pub fn matcher(&self) -> Option<KeyMatcher> {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let (salt, hash) = (decode(&self.salt)?, decode(&self.hash)?);
        (salt.len() == SALT_BYTES && hash.len() == HASH_BYTES)
            .then(|| KeyMatcher { key: hmac::Key::new(hmac::HMAC_SHA256, &salt), hash })
    }
}

impl KeyMatcher {
    /// Returns true if this is the record.
    #[must_use]
    pub fn fits(&self, record_key: &RecordKey) -> bool {
        hmac::sign(&self.key, record_key.as_str().as_bytes()).as_ref()[..HASH_BYTES] == self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_finds_its_record_and_no_other_and_says_nothing_of_the_key() {
        let (key, other) = (RecordKey::new("customer-17").unwrap(), RecordKey::new("customer-18").unwrap());
        let question = InspectionQuery::Record { key: KeyHash::of(&key), places: vec![(1, 3)] };
        let text = serde_json::to_string(&question).expect("plain data");
        assert!(!text.contains("customer"), "{text}");
        let Ok(InspectionQuery::Record { key: read, .. }) = serde_json::from_str(&text) else {
            panic!("{text}")
        };
        let matcher = read.matcher().expect("it names a record");
        assert!(matcher.fits(&key) && !matcher.fits(&other));
        assert_ne!(KeyHash::of(&key), KeyHash::of(&key), "two questions cannot be linked");
    }

    #[test]
    fn what_is_no_hash_names_no_record() {
        for (salt, hash) in [("", ""), ("AAAA", "AAAA"), ("!", "!")] {
            assert!(KeyHash { salt: salt.to_owned(), hash: hash.to_owned() }.matcher().is_none());
        }
    }
}
