//! Tells bodies apart.

use std::fmt;

use ring::digest::{SHA256, digest};

/// The first 128 bits of a body's SHA-256. Stored in the ledger, so it never changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub(super) [u8; 16]);

impl Fingerprint {
    /// The fingerprint of a body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let whole = digest(&SHA256, body);
        let (first, _) = whole.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
        Self(*first)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({:032x})", u128::from_be_bytes(self.0))
    }
}
