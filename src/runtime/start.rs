//! Opens what a process needs before it dispatches: the ledger, three connections, the complete topology.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::auto_apply::first_layout;
use super::ledger_binding::{BindingError, LedgerAndExchange};
use super::pauses::Pauses;
use super::supervisor::RunError;
use super::upkeep::open_ledger;
use crate::admin::metrics::Metrics;
use crate::config::Config;
use lanekeeper_broker::{
    Address, Epochs, LayoutDocument, Link, LogOnChange, Names, SourceError, ensure_topology,
};
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{Layout, LayoutNumber, Shape};
use lanekeeper_ledger::{AnyLedger, Ledger, LedgerError, TopologyPlace};

/// Between two tries to complete the topology: another process may be doing it.
const TOPOLOGY_RETRY_DELAY: Duration = Duration::from_millis(500);

/// What is open as long as the process runs, whatever config is in force.
pub(super) struct Started {
    pub(super) address: Address,
    pub(super) consuming: Link,
    pub(super) publishing: Link,
    pub(super) membership_link: Link,
    pub(super) document: LayoutDocument,
    pub(super) epochs: Epochs,
    pub(super) names: Names,
    pub(super) ledger: Option<Arc<AnyLedger>>,
    pub(super) pauses: Pauses,
    pub(super) place: TopologyPlace,
}

/// Opens three connections (an alarm of the broker blocks those that publish, and notes must not wait behind dead letters), and
/// completes the topology.
pub(super) async fn start(
    config: &Config,
    metrics: &Metrics,
    adopt_ledger: bool,
) -> Result<Started, RunError> {
    let ledger = open_ledger(config.ledger.as_ref(), metrics).await?;
    let address = Address::new(&config.broker.connection).map_err(SourceError::from)?;
    let instance = &config.instance;
    let names = Names::new(&config.updates.exchange);
    let wanted = wanted(config).numbered(LayoutNumber(1));
    let first = first_layout(config, wanted.shape());
    let name = |purpose| format!("lanekeeper {instance} {purpose}");
    let (mut log, epochs) = (LogOnChange::default(), Epochs::default());
    let (publishing, document, place) = loop {
        let connection = address.connect_patiently(&name("publish")).await.map_err(SourceError::from)?;
        let completed = async {
            let document = ensure_topology(&connection, &names, &first, instance).await?;
            let place = TopologyPlace {
                cluster: connection.server_property("cluster_name"),
                vhost: address.vhost().to_owned(),
                exchange: names.public().to_owned(),
            };
            let binding = LedgerAndExchange {
                ledger: ledger.as_deref(),
                place: &place,
                names: &names,
                instance,
                epochs: &epochs,
                adopt: adopt_ledger,
            };
            let document = binding.bind(&address, document).await?;
            Ok::<_, BindingError>((document, place))
        };
        match completed.await {
            Ok((document, place)) => break (connection, document, place),
            Err(error) if error.can_heal() => {
                if let BindingError::Source(_) = error {
                    address.avoid(&connection);
                }
                let text = error_chain(&error);
                if log.is_new(text.clone()) {
                    warn!(error = text, "topology not ready, trying again in 0.5 s");
                }
                tokio::time::sleep(TOPOLOGY_RETRY_DELAY).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let pauses = match &ledger {
        None => Pauses::none(),
        Some(ledger) => {
            place_parked_records(ledger, &document).await?;
            Pauses::begin(Arc::clone(ledger)).await?
        }
    };
    epochs.observe(document.epoch);
    log_difference(document.layouts.in_force, wanted, config.updates.auto_apply);
    let reading = address.reading_bodies(config.updates.body_bytes_max as u64);
    let consuming = reading.connect_patiently(&name("consume")).await.map_err(SourceError::from)?;
    let membership_link = address.connect_patiently(&name("members")).await.map_err(SourceError::from)?;
    Ok(Started {
        membership_link: Link::keep(address.clone(), name("members"), membership_link),
        consuming: Link::keep(reading, name("consume"), consuming),
        publishing: Link::keep(address.clone(), name("publish"), publishing),
        address,
        document,
        epochs,
        names,
        ledger,
        pauses,
        place,
    })
}

/// Layouts began again, with a ledger that knows of later ones: what they parked is released by the partitions of now.
async fn place_parked_records(ledger: &AnyLedger, document: &LayoutDocument) -> Result<(), LedgerError> {
    let newest = LayoutNumber(document.layouts.number_max.max(document.layouts.in_force.number.0));
    let records = ledger.forget_layouts(newest).await?;
    if records > 0 {
        warn!(
            records,
            layout = newest.0,
            "records are parked by layouts that the broker knows no more: their keys decide from now on which partition sends them when they are released"
        );
    }
    Ok(())
}

/// Logs, once, what the config wants otherwise than the current layout.
fn log_difference(in_force: Layout, wanted: Layout, auto_apply: bool) {
    let advice = if auto_apply {
        "updates.auto_apply changes it as soon as no layout drains and nothing stands against it"
    } else {
        "`lanekeeper topology plan` shows what a change would do, `lanekeeper topology apply` makes it"
    };
    if in_force.partitions != wanted.partitions {
        warn!(
            in_force = in_force.partitions,
            config = wanted.partitions,
            "updates.partitions differs from the current layout, which stays: {advice}"
        );
    }
    if in_force.prefetch != wanted.prefetch {
        warn!(
            in_force = in_force.prefetch,
            config = wanted.prefetch,
            "dispatch.prefetch differs from the current layout, which stays: {advice}"
        );
    }
}

pub(super) fn wanted(config: &Config) -> Shape {
    Shape { partitions: config.updates.partitions.get(), prefetch: config.dispatch.prefetch.get() }
}
