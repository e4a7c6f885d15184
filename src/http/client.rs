//! Sends attempts over HTTP, each to its target.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls_platform_verifier::Verifier;

pub use super::connect::Names;
pub use super::error::TargetsFault;
use super::http_target::HttpTarget;
use super::{Attempt, AttemptReceipt, Target};
use crate::config::TargetConfig;
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::template::UrlTemplate;

/// All `[[target]]` of a config.
pub struct HttpTargets {
    targets: Vec<Arc<HttpTarget>>,
    names: Names,
    /// Decides which servers are believed.
    trust: Arc<dyn ServerCertVerifier>,
}

impl HttpTargets {
    /// Prepares the clients and the targets. Opens no connection. The process's TLS provider must be installed.
    ///
    /// # Errors
    /// A setting is not valid in HTTP, or the system has no CA certificates.
    pub fn new(targets: &[TargetConfig]) -> Result<Self, TargetsFault> {
        let system: Names = Arc::new(|_| None);
        Self::with_names(targets, &system)
    }

    /// As `new`, with addresses of names that take precedence over the system's.
    ///
    /// # Errors
    /// As for `new`.
    pub fn with_names(targets: &[TargetConfig], names: &Names) -> Result<Self, TargetsFault> {
        let provider = Arc::clone(ClientConfig::builder().crypto_provider());
        let verifier = Verifier::new(provider).map_err(TargetsFault::Client)?;
        Self::with_verifier(targets, names, Arc::new(verifier))
    }

    /// As `with_names`, with a verifier that says whom to trust.
    ///
    /// # Errors
    /// A setting is not valid in HTTP.
    pub fn with_verifier(
        targets: &[TargetConfig],
        names: &Names,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<Self, TargetsFault> {
        let before = Self { targets: Vec::new(), names: Arc::clone(names), trust: verifier };
        before.changed_to(targets)
    }

    /// Returns true if a target is the same here and there: its config has not changed in between.
    pub(super) fn has_same(&self, other: &Self, target: TargetId) -> bool {
        match (self.targets.get(target.0), other.targets.get(target.0)) {
            (Some(here), Some(there)) => Arc::ptr_eq(here, there),
            _ => true,
        }
    }

    /// Hosts and ports that their connections go to: those of their URLs, or the target's proxy.
    pub(super) fn addresses(&self) -> BTreeSet<(String, u16)> {
        let of = |config: &TargetConfig| match &config.proxy {
            Some(proxy) => vec![(proxy.host.trim_matches(['[', ']']).to_owned(), proxy.port)],
            None => config.urls().filter_map(UrlTemplate::host_and_port).collect(),
        };
        self.targets.iter().flat_map(|target| of(&target.config)).collect()
    }

    /// The targets of a changed config. A target keeps what is the same: its connections, or the token that it has.
    ///
    /// # Errors
    /// A setting is not valid in HTTP.
    pub fn changed_to(&self, targets: &[TargetConfig]) -> Result<Self, TargetsFault> {
        let targets = targets.iter().map(|config| {
            let before = self.targets.iter().find(|before| before.config.name == config.name);
            match before {
                Some(before) if before.config == *config => Ok(Arc::clone(before)),
                _ => {
                    HttpTarget::new(config, &self.trust, &self.names, before.map(AsRef::as_ref)).map(Arc::new)
                }
            }
        });
        let targets = targets.collect::<Result<_, _>>()?;
        Ok(Self { targets, names: Arc::clone(&self.names), trust: Arc::clone(&self.trust) })
    }
}

impl fmt::Debug for HttpTargets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTargets").field("targets", &self.targets).finish_non_exhaustive()
    }
}

impl Target for HttpTargets {
    /// # Panics
    /// If the update names an unknown target: a fault of ours, since routes and targets come from the same config.
    async fn send(&self, attempt: Attempt) -> (Outcome, AttemptReceipt) {
        let target = &self.targets[attempt.update.target.0];
        if let Some(trace) = attempt.trace.as_ref().filter(|trace| trace.is_sampled) {
            trace.request.get_or_init(|| target.shape(attempt.update.update_type.as_deref()));
        }
        target.send(&attempt).await
    }
}
