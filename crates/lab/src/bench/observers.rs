//! Who looks on while a dispatcher works: `lanekeeper status --watch`, and readers of the overview's events, which render
//! nothing.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::error::BenchError;
use super::stage::Stage;
use crate::testbed::{Process, http, program};

/// As many pages are open.
const READERS: usize = 3;
/// The dispatcher opens its port first of all, and what is read of it ends after some seconds.
const AGAIN: Duration = Duration::from_millis(50);

/// They end when this is dropped.
#[derive(Debug)]
pub(super) struct Observers {
    _status: Process,
    _readers: JoinSet<()>,
}

impl Observers {
    /// Looks at the dispatcher with this config, whose admin port is there.
    pub(super) fn start(
        lanekeeper: &Path,
        stage: &Stage,
        config: &Path,
        admin: SocketAddr,
    ) -> Result<Self, BenchError> {
        let mut command = program::command(lanekeeper);
        command.args(["status", "--watch", "--config"]).arg(config).stdout(Stdio::null());
        command.env("LANEKEEPER_BROKER__URL", stage.broker.urls[0].reveal());
        command.env("LANEKEEPER_LEDGER__URL", "none");
        let status = Process::start_group("lanekeeper status --watch", command, &stage.file("status.log"))?;
        let mut readers = JoinSet::new();
        for _ in 0..READERS {
            readers.spawn(read_for_ever(format!("http://{admin}/events")));
        }
        Ok(Self { _status: status, _readers: readers })
    }
}

async fn read_for_ever(url: String) {
    loop {
        if let Ok(mut events) = http::client().get(&url).send().await {
            while let Ok(Some(_)) = events.chunk().await {}
        }
        sleep(AGAIN).await;
    }
}

/// An address on loopback where nobody listens now.
pub(super) fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
