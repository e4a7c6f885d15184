//! A private PostgreSQL, started and stopped by `scripts/postgres`.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A server. It ends with this value, and with this process.
pub struct Postgres {
    url: String,
    dir: PathBuf,
    _keep: TempDir,
}

impl Postgres {
    pub fn start() -> Self {
        let keep = tempfile::tempdir().expect("a directory can be made");
        let dir = keep.path().join("postgres");
        let owner = std::process::id().to_string();
        let output = script(&["start", "--dir", text(&dir), "--owner", &owner, "--purge"]);
        let url = output
            .lines()
            .find_map(|line| line.strip_prefix("export LANEKEEPER_POSTGRES_URL="))
            .expect("the script prints the URL")
            .trim_matches('\'')
            .to_owned();
        Self { url, dir, _keep: keep }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// An orderly end; the data stays.
    pub fn stop(&self) {
        script(&["stop", "--dir", text(&self.dir)]);
    }

    /// On the same port and data.
    pub fn restart(&self) {
        script(&["start", "--dir", text(&self.dir)]);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        script(&["stop", "--dir", text(&self.dir), "--purge"]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

fn script(arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres");
    let output = Command::new(&path).args(arguments).output().expect("scripts/postgres can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/postgres {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("it prints text")
}
