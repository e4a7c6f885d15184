//! Private servers, started and stopped by `scripts/broker`, `scripts/cluster` and `scripts/postgres` of the project whose
//! directory, or one below it, is the current directory. They end with their values, and with this process, however it
//! ends.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

const BROKER_SCRIPT: &str = "scripts/broker";
const POSTGRES_SCRIPT: &str = "scripts/postgres";

/// Why a private server does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// This process does not run in the project.
    #[error(
        "there is no {script} here: a private server needs Lanekeeper's sources as the current directory"
    )]
    NoScript {
        /// The script that is missing.
        script: &'static str,
    },
    /// The script does not start.
    #[error("cannot run {script}")]
    Run {
        /// The script.
        script: &'static str,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The script failed.
    #[error("{script} {command} failed: {output}")]
    Failed {
        /// The script.
        script: &'static str,
        /// Its command, such as `start`.
        command: String,
        /// What it said.
        output: String,
    },
}

/// A private RabbitMQ node.
#[derive(Debug)]
pub struct PrivateBroker {
    server: Server,
    url: String,
    management_url: String,
}

impl PrivateBroker {
    /// Starts a node with its data in `dir`, which is deleted when this value is dropped. `version` is that of
    /// `scripts/broker --rabbitmq`; `None`: the version that is installed, or that `LANEKEEPER_RABBITMQ` names.
    ///
    /// Like all calls of this type it waits for the script: seconds.
    ///
    /// # Errors
    /// The script fails; it says why.
    pub fn start(dir: &Path, version: Option<&str>) -> Result<Self, ServerError> {
        let mut options = vec!["--private"];
        options.extend(version.iter().flat_map(|version| ["--rabbitmq", version]));
        let (server, mut exported) = Server::start(BROKER_SCRIPT, &options, dir)?;
        let url = server.exported("LANEKEEPER_BROKER__URL", &mut exported)?;
        let management_url = server.exported("LANEKEEPER_MANAGEMENT_URL", &mut exported)?;
        Ok(Self { server, url, management_url })
    }

    /// Of AMQP, with user and password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Of the management API, with user and password.
    pub fn management_url(&self) -> &str {
        &self.management_url
    }

    /// What `scripts/broker status` prints: it names the version.
    ///
    /// # Errors
    /// The node does not run.
    pub fn status(&self) -> Result<String, ServerError> {
        self.server.call("status", &[])
    }

    /// Sends SIGKILL to the node; its data stays.
    ///
    /// # Errors
    /// The script fails.
    pub fn kill(&self) -> Result<(), ServerError> {
        self.server.call("kill", &[]).map(drop)
    }

    /// Starts the node again on the same ports and data.
    ///
    /// # Errors
    /// The script fails.
    pub fn restart(&self) -> Result<(), ServerError> {
        self.server.call("restart", &[]).map(drop)
    }

    /// Calls `rabbitmqctl` on this node and returns what it prints.
    ///
    /// # Errors
    /// It fails.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, ServerError> {
        self.server.call("ctl", &[&["--"], arguments].concat())
    }
}

/// A private PostgreSQL server with an empty database.
#[derive(Debug)]
pub struct PrivatePostgres {
    server: Server,
    url: String,
}

impl PrivatePostgres {
    /// Starts a server with its data in `dir`, which is deleted when this value is dropped.
    ///
    /// Like all calls of this type it waits for the script: seconds.
    ///
    /// # Errors
    /// The script fails; it says why.
    pub fn start(dir: &Path) -> Result<Self, ServerError> {
        Self::start_with(dir, &[])
    }

    /// Starts a streaming standby of this server, with its data in `dir`. It answers reads until it is promoted.
    ///
    /// # Errors
    /// The script fails; it says why.
    pub fn standby(&self, dir: &Path) -> Result<Self, ServerError> {
        Self::start_with(dir, &["--standby-of", &self.server.dir.to_string_lossy()])
    }

    fn start_with(dir: &Path, options: &[&str]) -> Result<Self, ServerError> {
        let (server, mut exported) = Server::start(POSTGRES_SCRIPT, options, dir)?;
        let url = server.exported("LANEKEEPER_POSTGRES_URL", &mut exported)?;
        Ok(Self { server, url })
    }

    /// With user, password and database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends the server in an orderly way; its data stays.
    ///
    /// # Errors
    /// The script fails.
    pub fn stop(&self) -> Result<(), ServerError> {
        self.server.call("stop", &[]).map(drop)
    }

    /// Sends SIGKILL to the server; its data stays.
    ///
    /// # Errors
    /// The script fails.
    pub fn kill(&self) -> Result<(), ServerError> {
        self.server.call("kill", &[]).map(drop)
    }

    /// Sends a signal, such as `STOP`, to all processes of the server.
    ///
    /// # Errors
    /// The server does not run.
    pub fn signal(&self, signal: &str) -> Result<(), ServerError> {
        self.server.call("signal", &["--signal", signal]).map(drop)
    }

    /// Starts the server again on the same port and data.
    ///
    /// # Errors
    /// The script fails.
    pub fn restart(&self) -> Result<(), ServerError> {
        self.server.call("start", &[]).map(drop)
    }
}

/// What these scripts have in common.
#[derive(Debug)]
pub(super) struct Server {
    script: &'static str,
    path: PathBuf,
    dir: PathBuf,
}

impl Server {
    /// The server, and the variables that the script exports.
    pub(super) fn start(
        script: &'static str,
        options: &[&str],
        dir: &Path,
    ) -> Result<(Self, HashMap<String, String>), ServerError> {
        let here = std::env::current_dir().map_err(|source| ServerError::Run { script, source })?;
        let found = here.ancestors().map(|directory| directory.join(script)).find(|path| path.is_file());
        let path = found.ok_or(ServerError::NoScript { script })?;
        let owner = std::process::id().to_string();
        let server = Self { script, path, dir: dir.to_owned() };
        let output = server.call("start", &[options, &["--owner", &owner, "--purge"]].concat())?;
        let exported = output.lines().filter_map(exported_variable).collect();
        Ok((server, exported))
    }

    pub(super) fn exported(
        &self,
        name: &str,
        exported: &mut HashMap<String, String>,
    ) -> Result<String, ServerError> {
        exported.remove(name).ok_or_else(|| ServerError::Failed {
            script: self.script,
            command: "start".to_owned(),
            output: format!("it does not export {name}"),
        })
    }

    /// Runs the script to its end; what it prints.
    pub(super) fn call(&self, command: &str, arguments: &[&str]) -> Result<String, ServerError> {
        let script = self.script;
        let mut call = Command::new(&self.path);
        call.arg(command).arg("--dir").arg(&self.dir).args(arguments);
        let output = call.output().map_err(|source| ServerError::Run { script, source })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let output = text(&output.stderr).trim().to_owned();
        Err(ServerError::Failed { script, command: command.to_owned(), output })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // If this fails, the script's watcher ends the server with this process.
        let _ = self.call("stop", &["--purge"]);
    }
}

/// `export NAME='value'`.
fn exported_variable(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
    Some((name.to_owned(), value.trim_matches('\'').to_owned()))
}
