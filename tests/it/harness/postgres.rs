//! A private PostgreSQL, started and stopped by `scripts/postgres`.

use lanekeeper_lab::testbed::PrivatePostgres;
use tempfile::TempDir;

use super::broker::done;

/// A server. It ends with this value, and with this process.
pub struct Postgres {
    server: PrivatePostgres,
    _keep: TempDir,
}

impl Postgres {
    pub fn start() -> Self {
        let keep = tempfile::tempdir().expect("a directory can be made");
        Self { server: done(PrivatePostgres::start(&keep.path().join("postgres"))), _keep: keep }
    }

    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// An orderly end; the data stays.
    pub fn stop(&self) {
        done(self.server.stop());
    }

    /// On the same port and data.
    pub fn restart(&self) {
        done(self.server.restart());
    }
}
