//! Publishes updates of three records to Lanekeeper, each record in order.
//!
//! Usage: `cargo run --example publisher -- [URL]`, else `LANEKEEPER_BROKER__URL`, else the local default.
//! In a project of your own: `cargo add lapin tokio --features tokio/full` and `cargo add serde_json`.

use std::collections::BTreeSet;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

const URL_DEFAULT: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";
const TRIES_MAX: u32 = 10;
const WAIT: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    match publish_all().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What is not confirmed may have arrived or not. Publish it again, with the same ids, before anything
            // newer of its record: running this program again does just that.
            eprintln!("not everything is confirmed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn publish_all() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).or_else(|| std::env::var("LANEKEEPER_BROKER__URL").ok());
    let url = url.unwrap_or_else(|| URL_DEFAULT.to_owned());
    let exchange = std::env::var("LANEKEEPER_UPDATES__EXCHANGE").unwrap_or_else(|_| "updates".to_owned());
    // Which implementation of TLS an amqps:// URL uses.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let properties = ConnectionProperties::default().with_connection_name("example publisher (Rust)".into());
    let connection = Connection::connect(&url, properties).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;

    let records: BTreeSet<String> = (0..3).map(|record| format!("customer-{record}")).collect();
    for sequence in 0..20 {
        // One update of each record at the same time; the next ones when all of these are confirmed.
        publish(&channel, &exchange, records.clone(), sequence).await?;
    }
    connection.close(200, "done".into()).await?;
    println!("confirmed 60 of 60");
    Ok(())
}

/// Publishes update `sequence` of each record; returns once the broker has confirmed them all.
async fn publish(
    channel: &Channel,
    exchange: &str,
    mut records: BTreeSet<String>,
    sequence: u32,
) -> Result<(), Box<dyn Error>> {
    for tries in 1.. {
        let mut confirms = Vec::new();
        for record_key in &records {
            // `mandatory`: an update that no queue takes comes back, instead of being confirmed and lost.
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let body = serde_json::json!({ "sequence": sequence, "name": format!("Customer {record_key}") });
            let (body, properties) = (body.to_string(), properties(record_key, sequence));
            let confirm = channel
                .basic_publish(
                    exchange.into(),
                    record_key.as_str().into(),
                    options,
                    body.as_bytes(),
                    properties,
                )
                .await?;
            confirms.push((record_key.clone(), confirm));
        }
        // lapin hands a returned message over with whichever confirm comes next, so its own routing key says
        // whose it is, and only when all confirms are there is it clear who was not returned.
        let mut refused = BTreeSet::new();
        for (record_key, confirm) in confirms {
            let returned = match confirm.await? {
                Confirmation::Ack(returned) => returned,
                Confirmation::Nack(returned) => {
                    refused.insert(record_key);
                    returned
                }
                Confirmation::NotRequested => return Err("the channel is not in confirm mode".into()),
            };
            refused.extend(returned.map(|message| message.delivery.routing_key.to_string()));
        }
        if refused.is_empty() {
            return Ok(());
        }
        if tries == TRIES_MAX {
            return Err(format!("update {sequence} of {refused:?} is refused, or no queue is bound").into());
        }
        eprintln!("update {sequence} of {refused:?} is refused, or no queue is bound; trying again");
        records = refused;
        tokio::time::sleep(WAIT).await;
    }
    unreachable!("the last try returns")
}

fn properties(record_key: &str, sequence: u32) -> BasicProperties {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut headers = FieldTable::default();
    headers.insert("record-version".into(), AMQPValue::LongLongInt(i64::from(sequence) + 1));
    BasicProperties::default()
        // From your own data: the same id whenever this update is published again.
        .with_message_id(format!("rust-{record_key}-{sequence}").into())
        .with_type("customer.updated".into())
        .with_content_type("application/json".into())
        .with_delivery_mode(2) // survives a restart of the broker
        .with_timestamp(now)
        .with_headers(headers)
}
