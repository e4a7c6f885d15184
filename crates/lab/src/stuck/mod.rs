//! `lanekeeper-lab stuck`: five records wait, each for another reason, until a person ends the command. It is for learning to
//! tell the reasons apart with `lanekeeper why`, and for trying the pages.

mod error;

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use self::error::StuckError;
use crate::command::{self, ConfigArguments, Exit, StopSignals};
use crate::receiver::{Receiver, ReceiverSettings};
use crate::testbed::{Dispatcher, program};
use lanekeeper::config::Purpose;
use lanekeeper_broker::{Address, ConnectionSettings, Names, SourceError, remove_topology};
use lanekeeper_core::layout::{Layout, LayoutNumber};

const PARTITIONS: u16 = 2;
const PREFETCH: u16 = 100;
/// The variable that the config takes the broker's URL from, so that no password is in a file.
const BROKER_VARIABLE: &str = "LANEKEEPER_STUCK_BROKER";
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const CLEARING_TIMEOUT: Duration = Duration::from_secs(15);

/// What waits, for whom it goes to, and the code of the cause that `lanekeeper why` finds.
const SITUATIONS: [Situation; 5] = [
    Situation { record: "invoice-17", code: "retry", about: "its API answers 503 for this record alone" },
    Situation { record: "address-4", code: "parked", about: "its API has rejected it with 422" },
    Situation {
        record: "report-9",
        code: "in_flight",
        about: "its API has taken the request, and does not answer",
    },
    Situation { record: "order-1", code: "target_shut", about: "its API answers 503 for all records" },
    Situation {
        record: "letter-2",
        code: "limit",
        about: "its API may get one request an hour, and has had it for the update before",
    },
];

/// A record that waits.
struct Situation {
    record: &'static str,
    code: &'static str,
    about: &'static str,
}

const AFTER_HELP: &str = "\
It needs a running RabbitMQ: broker.url of the config, or LANEKEEPER_BROKER__URL; `scripts/broker run -- lanekeeper-lab stuck`
starts a private one. It declares an exchange and queues of its own there, named lanekeeper-stuck-…, and deletes them at the
end. It also needs the program lanekeeper, beside this one or on the PATH.

Exit codes: 0 ended by Ctrl-C or SIGTERM, 1 other, 2 config, 3 broker.";

/// Options of `lanekeeper-lab stuck`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print what each record waits for, with the code of the cause.
    #[arg(long)]
    answers: bool,
}

/// Runs it.
pub fn main(arguments: &Arguments) -> Exit {
    let broker = match arguments.config.load(Purpose::Publish) {
        Ok(loaded) => loaded.config.broker.connection,
        Err(exit) => return exit,
    };
    let shown = command::runtime().block_on(show(broker, arguments.answers));
    shown.unwrap_or_else(|fault| {
        command::print_error(&fault);
        fault.exit()
    })
}

async fn show(broker: ConnectionSettings, answers: bool) -> Result<Exit, StuckError> {
    let mut stop = StopSignals::with_hang_up().map_err(StuckError::system("take signals"))?;
    let dir = tempfile::Builder::new().prefix("lanekeeper-stuck-").rand_bytes(8).tempdir();
    let dir = dir.map_err(StuckError::system("make a temporary directory"))?;
    let exchange = dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let shown = tokio::select! {
        biased;
        _ = stop.next() => Ok(()),
        shown = set_up(&broker, &dir, &exchange, answers) => match shown {
            Ok(running) => {
                stop.next().await;
                drop(running);
                Ok(())
            }
            Err(fault) => Err(fault),
        },
    };
    let clearing = timeout(CLEARING_TIMEOUT, clear_away(&broker, &exchange)).await;
    let step = "deleting the queues and exchanges";
    let cleared = clearing.unwrap_or(Err(SourceError::Silent { step, seconds: CLEARING_TIMEOUT.as_secs() }));
    shown?;
    cleared?;
    Ok(Exit::Done)
}

/// What has to live while a person looks.
struct Running {
    _dispatcher: Dispatcher,
    _receivers: [Receiver; 2],
}

async fn set_up(
    broker: &ConnectionSettings,
    dir: &TempDir,
    exchange: &str,
    answers: bool,
) -> Result<Running, StuckError> {
    let some_fail = ["invoice-17=503", "address-4=422", "report-9=hang"];
    let picky = Receiver::new(ReceiverSettings {
        fail_records: some_fail.iter().filter_map(|of| of.parse().ok()).collect(),
        hang_for: Duration::from_secs(3600),
        ..ReceiverSettings::default()
    });
    let broken = Receiver::new(ReceiverSettings {
        fail_share: 1.0,
        fail_with: "503".parse().into_iter().collect(),
        ..ReceiverSettings::default()
    });
    let serving = StuckError::system("serve the APIs");
    let picky_url = picky.spawn().await.map_err(serving)?;
    let broken_url = broken.spawn().await.map_err(StuckError::system("serve the APIs"))?;
    let config = dir.path().join("lanekeeper.toml");
    let text =
        config_text(exchange, dir.path(), &format!("http://{picky_url}"), &format!("http://{broken_url}"));
    std::fs::write(&config, text).map_err(StuckError::system("write the config"))?;
    let executable = program::executable().map_err(StuckError::system("find the program lanekeeper"))?;
    let mut running = program::run_command(&executable, &config);
    running.env(BROKER_VARIABLE, broker.urls[0].reveal()).stdout(Stdio::null());
    let dispatcher = Dispatcher::start(running, &dir.path().join("dispatcher.log"))?;
    dispatcher.wait_ready(READY_TIMEOUT).await?;
    publish(&executable, &config, broker).await?;
    print(&config, &dispatcher, answers).map_err(StuckError::system("write to standard output"))?;
    Ok(Running { _dispatcher: dispatcher, _receivers: [picky, broken] })
}

/// The updates of all situations, and of enough other orders to show that their API fails for all.
async fn publish(executable: &Path, config: &Path, broker: &ConnectionSettings) -> Result<(), StuckError> {
    let orders = (1..=8).map(|number| format!("order-{number}"));
    // The second update of a record is the one that waits for the limit: the permits of two records come in any order.
    let others = ["invoice-17", "address-4", "report-9", "letter-2", "letter-2"].map(ToOwned::to_owned);
    let mut lines = String::new();
    for (number, key) in others.into_iter().chain(orders).enumerate() {
        let update_type = key.split('-').next().unwrap_or_default();
        let update =
            json!({"key": key, "id": format!("stuck-{number}"), "type": update_type, "body": {"version": 1}});
        lines.push_str(&update.to_string());
        lines.push('\n');
    }
    let mut publishing = program::command(executable);
    publishing.args(["publish", "--config"]).arg(config).env(BROKER_VARIABLE, broker.urls[0].reveal());
    publishing.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let run = move || {
        let mut child = publishing.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = tokio::task::spawn_blocking(run).await.expect("it does not panic");
    let output = output.map_err(StuckError::system("run lanekeeper publish"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(StuckError::Publish(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// Nothing ends by itself within an hour, but what a person may want to see end.
fn config_text(exchange: &str, dir: &Path, picky: &str, broken: &str) -> String {
    format!(
        r#"instance.name = "stuck"
broker.url = "${{{BROKER_VARIABLE}}}"
updates.exchange = "{exchange}"
updates.partitions = {PARTITIONS}
dispatch.prefetch = {PREFETCH}
ledger.url = "sqlite://{ledger}"
retry.elapsed_max = "0s"
breaker.attempts_min = 5
admin.listen = "127.0.0.1:0"

[[target]]
name = "crm"
types = ["invoice", "address", "report"]
method = "PUT"
url = "{picky}/{{record_key}}"
timeout = "10m"

[[target]]
name = "shop"
types = ["order"]
method = "PUT"
url = "{broken}/{{record_key}}"

[[target]]
name = "post"
types = ["letter"]
method = "PUT"
url = "{picky}/{{record_key}}"
rate_max = "1/1h"
"#,
        ledger = dir.join("ledger.db").display(),
    )
}

fn print(config: &Path, dispatcher: &Dispatcher, answers: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "Five records wait, each for another reason. In another terminal, ask why, one command each:\n"
    )?;
    writeln!(out, "  export {BROKER_VARIABLE}=…   # the broker's URL, as this command got it")?;
    for Situation { record, .. } in SITUATIONS {
        writeln!(out, "  lanekeeper why {record} --config {}", config.display())?;
    }
    if let Some(admin) = dispatcher.admin() {
        writeln!(out, "\nOr open http://{admin}/ in a browser.")?;
    }
    if answers {
        writeln!(out, "\nThe answers:")?;
        for Situation { record, code, about } in SITUATIONS {
            writeln!(out, "  {record}: {code}: {about}")?;
        }
    }
    writeln!(out, "\nCtrl-C ends it, and deletes what it has declared.")?;
    out.flush()
}

async fn clear_away(broker: &ConnectionSettings, exchange: &str) -> Result<(), SourceError> {
    let layout = Layout { number: LayoutNumber(1), partitions: PARTITIONS, prefetch: PREFETCH };
    let connection = Address::new(broker)?.connect("lanekeeper stuck").await?;
    remove_topology(&connection, &Names::new(exchange), layout).await?;
    let _ = connection.close(200, "normal shutdown".into()).await; // it has done its work
    Ok(())
}
