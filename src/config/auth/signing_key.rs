//! A private key that signs assertions (JWS, RFC 7515).
//!
//! The keys and the signing are ring's, which TLS uses anyway. `jsonwebtoken` no longer signs with ring, and would bring a second
//! provider of cryptography or leave this file to be written as its backend.

use std::fmt;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use crate::config::fault::Problem;
use lanekeeper_core::secret::Secret;

/// Algorithms as RFC 7518, section 3.1, RFC 8037 and RFC 9864 name them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rsa(&'static str, RsaHash),
    Ecdsa(&'static str, Curve),
    Ed25519(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RsaHash {
    Pkcs1Sha256,
    Pkcs1Sha384,
    Pkcs1Sha512,
    PssSha256,
    PssSha384,
    PssSha512,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

/// The values of `algorithm`.
pub(super) const ALGORITHMS: [(&str, Algorithm); 10] = [
    ("RS256", Algorithm::Rsa("RS256", RsaHash::Pkcs1Sha256)),
    ("RS384", Algorithm::Rsa("RS384", RsaHash::Pkcs1Sha384)),
    ("RS512", Algorithm::Rsa("RS512", RsaHash::Pkcs1Sha512)),
    ("PS256", Algorithm::Rsa("PS256", RsaHash::PssSha256)),
    ("PS384", Algorithm::Rsa("PS384", RsaHash::PssSha384)),
    ("PS512", Algorithm::Rsa("PS512", RsaHash::PssSha512)),
    ("ES256", Algorithm::Ecdsa("ES256", Curve::P256)),
    ("ES384", Algorithm::Ecdsa("ES384", Curve::P384)),
    ("Ed25519", Algorithm::Ed25519("Ed25519")),
    ("EdDSA", Algorithm::Ed25519("EdDSA")),
];

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Rsa(name, _) | Self::Ecdsa(name, _) | Self::Ed25519(name) => name,
        }
    }

    /// What makes a key for it.
    fn command(self) -> &'static str {
        match self {
            Self::Rsa(..) => "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048",
            Self::Ecdsa(_, Curve::P256) => "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            Self::Ecdsa(_, Curve::P384) => "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384",
            Self::Ed25519(_) => "openssl genpkey -algorithm ED25519",
        }
    }
}

impl RsaHash {
    fn encoding(self) -> &'static dyn RsaEncoding {
        match self {
            Self::Pkcs1Sha256 => &RSA_PKCS1_SHA256,
            Self::Pkcs1Sha384 => &RSA_PKCS1_SHA384,
            Self::Pkcs1Sha512 => &RSA_PKCS1_SHA512,
            Self::PssSha256 => &RSA_PSS_SHA256,
            Self::PssSha384 => &RSA_PSS_SHA384,
            Self::PssSha512 => &RSA_PSS_SHA512,
        }
    }
}

impl Curve {
    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        }
    }
}

/// The key could not sign. It says nothing about the key.
#[derive(Debug, thiserror::Error)]
#[error("the assertion cannot be signed")]
pub struct SigningFault;

/// A private key and the algorithm that it is used with.
#[derive(Clone)]
pub struct SigningKey {
    pem: Secret,
    algorithm: Algorithm,
    pair: Arc<Pair>,
}

enum Pair {
    Rsa(RsaKeyPair, RsaHash),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// Reads a private key from PEM. The problem quotes nothing of it.
    pub(super) fn new(pem: Secret, algorithm: Algorithm) -> Result<Self, Problem> {
        let name = algorithm.name();
        let convert = "convert it with `openssl pkcs8 -topk8 -nocrypt -in FILE`";
        let der = PrivateKeyDer::from_pem_slice(pem.reveal().as_bytes()).map_err(|_| {
            Problem::constant(
                "is not a private key as PEM (-----BEGIN PRIVATE KEY-----) without a passphrase",
                "write \"file:PATH\" of such a file; for another form of it, convert it with \
                 `openssl pkcs8 -topk8 -nocrypt -in FILE`",
            )
        })?;
        let unfit = |why: &str| {
            let fix =
                format!("{convert}, name the key's algorithm, or make one with `{}`", algorithm.command());
            Problem::new(format!("is not a key for {name} ({why})"), fix)
        };
        let pair = match (algorithm, &der) {
            (Algorithm::Rsa(_, hash), PrivateKeyDer::Pkcs8(der)) => {
                RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map(|pair| Pair::Rsa(pair, hash))
            }
            (Algorithm::Rsa(_, hash), PrivateKeyDer::Pkcs1(der)) => {
                RsaKeyPair::from_der(der.secret_pkcs1_der()).map(|pair| Pair::Rsa(pair, hash))
            }
            (Algorithm::Ecdsa(_, curve), PrivateKeyDer::Pkcs8(der)) => {
                EcdsaKeyPair::from_pkcs8(curve.signing(), der.secret_pkcs8_der(), &SystemRandom::new())
                    .map(Pair::Ecdsa)
            }
            (Algorithm::Ed25519(_), PrivateKeyDer::Pkcs8(der)) => {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map(Pair::Ed25519)
            }
            _ => return Err(unfit("it is of another kind, or not in the form PKCS#8")),
        };
        let pair = Arc::new(pair.map_err(|rejected| unfit(&rejected.to_string()))?);
        Ok(Self { pem, algorithm, pair })
    }

    /// The value of `alg`.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// The signature as JWS has it.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFault> {
        let random = SystemRandom::new();
        match &*self.pair {
            Pair::Rsa(pair, hash) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(hash.encoding(), &random, message, &mut signature).map_err(|_| SigningFault)?;
                Ok(signature)
            }
            Pair::Ecdsa(pair) => Ok(pair.sign(&random, message).map_err(|_| SigningFault)?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem && self.algorithm == other.algorithm
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}
