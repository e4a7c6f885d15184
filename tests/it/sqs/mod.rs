//! Updates from an SQS FIFO queue. `fake.py` is an SQS on loopback that behaves as AWS documents; nothing here ran on AWS.

mod order;
mod updates;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use aws_smithy_http_client::{Builder, tls};
use lanekeeper_lab::receiver::{Receiver, ReceiverSettings, Report};
use lanekeeper_lab::testbed::Process;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Dispatcher, http, until};

/// A queue for updates, one for dead letters, and a receiver.
struct SqsWorld {
    client: Client,
    queue: String,
    dead_letters: String,
    endpoint: String,
    receiver: Receiver,
    target: String,
    dir: TempDir,
    _fake: Process,
}

impl SqsWorld {
    async fn new() -> Self {
        Self::with(ReceiverSettings::default()).await
    }

    async fn with(settings: ReceiverSettings) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let mut command = Command::new("python3");
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sqs/fake.py");
        command.arg(fake).arg("0").stdout(Stdio::piped());
        let mut fake = Process::start("sqs", command, &dir.path().join("sqs.log")).expect("python3 starts");
        let mut port = String::new();
        let stdout = fake.take_stdout().expect("it is piped");
        BufReader::new(stdout).read_line(&mut port).expect("it prints its port");
        let endpoint = format!("http://127.0.0.1:{}", port.trim());
        let client = client(&endpoint);
        let queue = create(&client, "updates.fifo").await;
        let dead_letters = create(&client, "dead.fifo").await;
        let receiver = Receiver::new(settings);
        let target = format!("http://{}", receiver.spawn().await.expect("a port is free"));
        Self { client, queue, dead_letters, endpoint, receiver, target, dir, _fake: fake }
    }

    /// `extra` is TOML that goes before the target.
    fn config(&self, name: &str, extra: &str) -> String {
        let without = if extra.contains("ledger.url") {
            ""
        } else {
            "ledger.url = \"none\"\nfailure.rejected = \"dead_letter\"\nfailure.exhausted = \"dead_letter\"\n\
             failure.conflict = \"dead_letter\"\n"
        };
        format!(
            "instance.name = \"{name}\"\nadmin.listen = \"127.0.0.1:0\"\nsource.kind = \"sqs\"\nsqs.queue_url = \"{queue}\"\n\
             sqs.dead_letter_queue_url = \"{dead}\"\nsqs.region = \"eu-central-1\"\nsqs.access_key_id = \"test\"\n\
             sqs.secret_access_key = \"test\"\nsqs.endpoint_url = \"{endpoint}\"\nsqs.wait_time = \"1s\"\n\
             sqs.visibility_timeout = \"10s\"\n{without}{extra}\n\
             [[target]]\nname = \"receiver\"\ntypes = [\"*\"]\nmethod = \"PUT\"\ntimeout = \"1s\"\n\
             url = \"{target}/records/{{record_key}}\"\n",
            queue = self.queue,
            dead = self.dead_letters,
            endpoint = self.endpoint,
            target = self.target,
        )
    }

    fn start(&self, name: &str, extra: &str) -> Dispatcher {
        let path = self.dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, self.config(name, extra)).expect("the config can be written");
        Dispatcher::start(&path)
    }

    async fn dispatcher(&self, extra: &str) -> Dispatcher {
        let dispatcher = self.start("one", extra);
        dispatcher.ready().await;
        dispatcher
    }

    /// Sends updates, each a JSON line as for `lanekeeper publish`, ten at a time.
    async fn send(&self, lines: impl IntoIterator<Item = Value>) {
        let lines: Vec<Value> = lines.into_iter().collect();
        for batch in lines.chunks(10) {
            let entry = |(index, line): (usize, &Value)| {
                let text = |key: &str| line[key].as_str().map(str::to_owned);
                let id = text("id").expect("it has an id");
                let mut attributes = std::collections::HashMap::from([("update-id".to_owned(), string(&id))]);
                attributes.extend(text("type").map(|value| ("type".to_owned(), string(&value))));
                SendMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .message_group_id(text("key").expect("it has a key"))
                    .message_deduplication_id(id)
                    .set_message_attributes(Some(attributes))
                    .message_body(line["body"].to_string())
                    .build()
                    .expect("it has what it needs")
            };
            let entries = batch.iter().enumerate().map(entry).collect();
            let sent = self.client.send_message_batch().queue_url(&self.queue).set_entries(Some(entries));
            let sent = sent.send().await.expect("the queue takes messages");
            assert!(sent.failed().is_empty(), "{:?}", sent.failed());
        }
    }

    /// The next calls of this action have this fault.
    async fn fault(&self, action: &str, times: u32, fault: Value) {
        let mut body = json!({ "action": action, "times": times });
        body.as_object_mut().expect("it is one").extend(fault.as_object().cloned().expect("it is one"));
        let asked = http().post(format!("{}/_faults", self.endpoint)).body(body.to_string()).send().await;
        assert!(asked.expect("the fake answers").status().is_success());
    }

    /// Waits until the receiver has applied so many different updates.
    async fn applied(&self, updates: u64) -> Report {
        until(&format!("{updates} updates applied"), || async {
            let report = self.receiver.report(0);
            if report.counts.updates >= updates { Ok(report) } else { Err(report.counts.to_string()) }
        })
        .await
    }

    /// Messages in a queue, those in flight included.
    async fn left(&self, queue: &str) -> u64 {
        let asked = self.client.get_queue_attributes().queue_url(queue);
        let answer = asked.attribute_names(QueueAttributeName::All).send().await.expect("the queue answers");
        let attributes = answer.attributes.unwrap_or_default();
        let number =
            |name| attributes.get(&name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        number(QueueAttributeName::ApproximateNumberOfMessages)
            + number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)
    }

    /// Waits until both queues are empty.
    async fn emptied(&self) {
        until("an empty queue", || async {
            match (self.left(&self.queue).await, self.left(&self.dead_letters).await) {
                (0, 0) => Ok(()),
                left => Err(format!("{left:?} left")),
            }
        })
        .await;
    }

    async fn dead_letter(&self) -> Message {
        until("a dead letter", || async {
            let asked = self.client.receive_message().queue_url(&self.dead_letters);
            let asked = asked
                .message_attribute_names("All")
                .message_system_attribute_names(MessageSystemAttributeName::All);
            let answer = asked.send().await.expect("the queue answers");
            answer.messages.unwrap_or_default().pop().ok_or_else(|| "none".to_owned())
        })
        .await
    }
}

fn client(endpoint: &str) -> Client {
    let http = Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring));
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http.build_https())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}

async fn create(client: &Client, name: &str) -> String {
    let created = client.create_queue().queue_name(name).attributes(QueueAttributeName::FifoQueue, "true");
    created.send().await.expect("it can be made").queue_url.expect("it has a URL")
}

fn string(text: &str) -> MessageAttributeValue {
    MessageAttributeValue::builder().data_type("String").string_value(text).build().expect("it has a type")
}
