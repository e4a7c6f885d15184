//! Calls of SQS, one function each. Nothing here is repeated by itself: whoever calls knows what a repetition means.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::Credentials;
use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
    MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
};
use aws_smithy_http_client::{Builder, tls};

use super::settings::SqsSettings;
use lanekeeper_core::message_groups::{Entry, EntryAnswer};

/// How long a call may take, beside the time that a receive waits for messages.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A deletion, and a new visibility timeout, have this part of the visibility timeout.
const SHORT_PARTS: u32 = 6;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a call has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CallFault {
    /// As SQS names it, without its namespace; `None`: there was no answer of SQS.
    pub code: Option<String>,
    /// For people.
    pub text: String,
}

/// What a queue says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFacts {
    /// Updates keep their order.
    pub is_fifo: bool,
    /// Its name in AWS.
    pub arn: String,
    /// SQS itself takes messages away after some deliveries, and the group goes on.
    pub has_redrive_policy: bool,
}

/// Speaks to SQS. Cheap to clone.
#[derive(Clone)]
pub struct SqsClient {
    client: Client,
    queue_url: Arc<str>,
    dead_letter_queue_url: Arc<str>,
    visibility_timeout: i32,
    wait_time: i32,
    /// Of calls that a visibility timeout depends on.
    short: TimeoutConfig,
}

impl fmt::Debug for SqsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqsClient").field(&self.queue_url).finish()
    }
}

impl SqsClient {
    /// Finds credentials and region; calls nobody yet, but for what holds the credentials.
    pub async fn new(settings: &SqsSettings) -> Self {
        let http = Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring));
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT + settings.wait_time)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http.build_https())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(region) = settings.region.clone().or_else(|| region_of(&settings.queue_url)) {
            loader = loader.region(Region::new(region));
        }
        if let Some(keys) = &settings.credentials {
            loader = loader.credentials_provider(Credentials::new(
                keys.access_key_id.clone(),
                keys.secret_access_key.reveal(),
                keys.session_token.as_ref().map(|token| token.reveal().to_owned()),
                None,
                "config",
            ));
        }
        if let Some(url) = &settings.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let seconds = |duration: Duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
        // So that a lost answer leaves time for another try.
        let short = (settings.visibility_timeout / SHORT_PARTS).min(CALL_TIMEOUT);
        let short =
            TimeoutConfig::builder().connect_timeout(short.min(CONNECT_TIMEOUT)).operation_timeout(short);
        Self {
            short: short.build(),
            client: Client::new(&loader.load().await),
            queue_url: settings.queue_url.as_str().into(),
            dead_letter_queue_url: settings.dead_letter_queue_url.as_str().into(),
            visibility_timeout: seconds(settings.visibility_timeout),
            wait_time: seconds(settings.wait_time),
        }
    }

    /// What the queue says of itself; `of_dead_letters`: the one for dead letters.
    ///
    /// # Errors
    /// SQS does not answer, or not so.
    pub async fn facts(&self, of_dead_letters: bool) -> Result<QueueFacts, CallFault> {
        let url = if of_dead_letters { &self.dead_letter_queue_url } else { &self.queue_url };
        let call =
            self.client.get_queue_attributes().queue_url(&**url).attribute_names(QueueAttributeName::All);
        let answer = call.send().await.map_err(|error| fault(&error))?;
        let attributes = answer.attributes.unwrap_or_default();
        let text = |name| attributes.get(&name).cloned();
        Ok(QueueFacts {
            is_fifo: text(QueueAttributeName::FifoQueue).as_deref() == Some("true"),
            arn: text(QueueAttributeName::QueueArn).unwrap_or_default(),
            has_redrive_policy: text(QueueAttributeName::RedrivePolicy).is_some(),
        })
    }

    /// Waits for messages. With the same `attempt_id`, SQS hands over the same messages again, if the answer was lost.
    ///
    /// # Errors
    /// SQS does not answer, or not so.
    pub(crate) async fn receive(
        &self,
        attempt_id: &str,
        messages_max: usize,
    ) -> Result<Vec<Message>, CallFault> {
        let call = self
            .client
            .receive_message()
            .queue_url(&*self.queue_url)
            .max_number_of_messages(i32::try_from(messages_max).unwrap_or(1))
            .visibility_timeout(self.visibility_timeout)
            .wait_time_seconds(self.wait_time)
            .receive_request_attempt_id(attempt_id)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All");
        let answer = call.send().await.map_err(|error| fault(&error))?;
        Ok(answer.messages.unwrap_or_default())
    }

    fn shortly(&self) -> aws_sdk_sqs::config::Builder {
        aws_sdk_sqs::Config::builder().timeout_config(self.short.clone())
    }

    /// An answer for each entry.
    pub(crate) async fn delete(&self, entries: &[Entry]) -> (Vec<EntryAnswer>, Option<CallFault>) {
        let call = self.client.delete_message_batch().queue_url(&*self.queue_url);
        let batch = entries.iter().enumerate().map(|(index, entry)| {
            let request = DeleteMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(&*entry.receipt_handle.0);
            request.build().expect("it has an id and a handle")
        });
        let call = call.set_entries(Some(batch.collect())).customize();
        match call.config_override(self.shortly()).send().await {
            Err(error) => unknown(entries, fault(&error)),
            Ok(answer) => {
                let done = answer.successful().iter().map(|done| done.id().to_owned());
                answers(entries, done, answer.failed())
            }
        }
    }

    /// An answer for each entry. `seconds`: `None`: the visibility timeout.
    pub(crate) async fn change_visibility(
        &self,
        entries: &[Entry],
        seconds: Option<i32>,
    ) -> (Vec<EntryAnswer>, Option<CallFault>) {
        let call = self.client.change_message_visibility_batch().queue_url(&*self.queue_url);
        let seconds = seconds.unwrap_or(self.visibility_timeout);
        let batch = entries.iter().enumerate().map(|(index, entry)| {
            let request = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(&*entry.receipt_handle.0)
                .visibility_timeout(seconds);
            request.build().expect("it has an id and a handle")
        });
        let call = call.set_entries(Some(batch.collect())).customize();
        match call.config_override(self.shortly()).send().await {
            Err(error) => unknown(entries, fault(&error)),
            Ok(answer) => {
                let done = answer.successful().iter().map(|done| done.id().to_owned());
                answers(entries, done, answer.failed())
            }
        }
    }

    /// Sends a message to the queue for dead letters. With the same `deduplication_id`, it is there once.
    ///
    /// # Errors
    /// SQS does not answer, or not so.
    pub(crate) async fn send_dead_letter(
        &self,
        (group, deduplication_id): (&str, &str),
        body: &str,
        attributes: HashMap<String, MessageAttributeValue>,
    ) -> Result<(), CallFault> {
        let call = self
            .client
            .send_message()
            .queue_url(&*self.dead_letter_queue_url)
            .message_group_id(group)
            .message_deduplication_id(deduplication_id)
            .message_body(body)
            .set_message_attributes(Some(attributes).filter(|attributes| !attributes.is_empty()));
        call.send().await.map(|_| ()).map_err(|error| fault(&error))
    }
}

/// `https://sqs.REGION.amazonaws.com/…`, also of the other partitions of AWS and of FIPS endpoints.
fn region_of(queue_url: &str) -> Option<String> {
    let (_, rest) = queue_url.split_once("://")?;
    let host = rest.split(['/', ':']).next()?;
    let region = host.strip_prefix("sqs.").or_else(|| host.strip_prefix("sqs-fips."))?;
    let (region, suffix) = region.split_once('.')?;
    suffix.starts_with("amazonaws.com").then(|| region.to_owned())
}

fn fault<E>(error: &SdkError<E>) -> CallFault
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).map(plain);
    let text = match error.as_service_error().and_then(ProvideErrorMetadata::message) {
        Some(message) => format!("{}: {message}", code.as_deref().unwrap_or("SQS refuses")),
        None => DisplayErrorContext(error).to_string(),
    };
    CallFault { code, text }
}

/// `com.amazonaws.sqs#QueueDoesNotExist` and `AWS.SimpleQueueService.NonExistentQueue` without what stands before the name.
fn plain(code: &str) -> String {
    code.rsplit(['#', '.']).next().unwrap_or(code).to_owned()
}

fn unknown(entries: &[Entry], fault: CallFault) -> (Vec<EntryAnswer>, Option<CallFault>) {
    (vec![EntryAnswer::Unknown; entries.len()], Some(fault))
}

fn answers(
    entries: &[Entry],
    done: impl Iterator<Item = String>,
    failed: &[BatchResultErrorEntry],
) -> (Vec<EntryAnswer>, Option<CallFault>) {
    let mut answers = vec![EntryAnswer::Unknown; entries.len()];
    let mut set = |id: &str, answer| {
        if let Some(place) = id.parse::<usize>().ok().and_then(|index| answers.get_mut(index)) {
            *place = answer;
        }
    };
    for id in done {
        set(&id, EntryAnswer::Done);
    }
    let mut fault = None;
    for entry in failed {
        let (code, message) = (plain(entry.code()), entry.message().unwrap_or_default());
        let answer =
            if is_of_the_handle(&code, message) { EntryAnswer::Refused } else { EntryAnswer::Unknown };
        set(entry.id(), answer);
        fault = Some(CallFault { text: format!("{code}: {message}"), code: Some(code) });
    }
    (answers, fault)
}

/// The receipt handle counts no longer, or the message is not in flight: another consumer may have it.
fn is_of_the_handle(code: &str, message: &str) -> bool {
    match code {
        "ReceiptHandleIsInvalid" | "MessageNotInflight" => true,
        "InvalidParameterValue" => message.contains("expired") || message.contains("not available"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_in_the_url() {
        let check =
            |url: &str, expected: Option<&str>| assert_eq!(region_of(url).as_deref(), expected, "{url}");
        check("https://sqs.eu-central-1.amazonaws.com/1/a.fifo", Some("eu-central-1"));
        check("https://sqs.cn-north-1.amazonaws.com.cn/1/a.fifo", Some("cn-north-1"));
        check("https://sqs-fips.us-east-1.amazonaws.com/1/a.fifo", Some("us-east-1"));
        check("http://127.0.0.1:4566/000000000000/a.fifo", None);
        check("https://queue.amazonaws.com/1/a.fifo", None);
    }

    #[test]
    fn only_what_is_said_of_the_handle_ends_the_tenure() {
        assert!(is_of_the_handle("ReceiptHandleIsInvalid", ""));
        assert!(is_of_the_handle(
            "InvalidParameterValue",
            "Value x … Reason: The receipt handle has expired."
        ));
        assert!(!is_of_the_handle("InvalidParameterValue", "VisibilityTimeout must be an integer"));
        for code in ["RequestThrottled", "InternalError", "KmsThrottled", "AccessDenied"] {
            assert!(!is_of_the_handle(code, "expired"), "{code}");
        }
        assert_eq!(plain("AWS.SimpleQueueService.NonExistentQueue"), "NonExistentQueue");
    }
}
