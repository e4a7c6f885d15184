//! The codes: how bad each danger is, and what it can cost. Once released, a code never changes its meaning;
//! docs/doctor.md explains each.

use std::fmt;

/// How bad a finding is. Worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Updates can be lost, reordered or stuck. `doctor` ends with exit code 1.
    Error,
    /// Something is likely a mistake, or can become an error.
    Warning,
    /// Good to know.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

use Severity::{Error, Info, Warning};

macro_rules! codes {
    ($($name:ident = $code:literal, $severity:ident, $cost:literal;)*) => {
        /// A kind of danger.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = concat!($code, ": ", $cost)] $name,)*
        }

        impl Code {
            /// All codes, in order.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// `LK101`.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// How bad it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => $severity,)* }
            }

            /// What it can cost, as a sentence without a full stop.
            pub const fn cost(self) -> &'static str {
                match self { $(Self::$name => $cost,)* }
            }
        }
    };
}

codes! {
    // 1xx: the broker.
    HashExchangeMissing = "LK101", Error,
        "`lanekeeper run` cannot spread record keys over partitions, and exits at the start";
    KhepriReordersKeys = "LK102", Error,
        "a restart of the broker sends almost every record key to another partition: two partitions then work on one \
         record, and its updates overtake each other";
    BrokerTooOld = "LK103", Error,
        "streams or quorum queues do not work as Lanekeeper needs them; this version was never tested";
    QueueCanWedge = "LK104", Warning,
        "after all consumers of a partition have hit the acknowledgement timeout, its queue can stop delivering forever";
    PublishingBlocked = "LK105", Error,
        "publishers hang without an error, a door answers 503, and dead letters and claims of partitions wait; queued updates are \
         still dispatched";
    NoMajority = "LK106", Error,
        "without a majority of its copies (replicas) a queue neither accepts nor delivers messages";
    CopiesMissing = "LK107", Warning,
        "if one more node fails, a queue can lose the majority of its copies (replicas) and stop";
    NotPermitted = "LK108", Error,
        "`lanekeeper run` exits at the start, or cannot dead-letter updates; `lanekeeper ingest` exits with the first update that it \
         takes";
    ClusterPartitioned = "LK109", Error,
        "the nodes know different queues and bindings: updates can be lost, sent twice or be in another partition than the \
         earlier ones of their record";
    PartitionHandlingUnknown = "LK110", Info,
        "with ignore, the default, both sides of a split go on, and disagree until the smaller side is restarted";
    CopiesFew = "LK111", Warning,
        "if one node fails, a queue or stream can lose the majority of its copies (replicas) and stop, or be lost with its only \
         one";
    CopiesEven = "LK112", Warning,
        "the copy that makes the number even costs time and disk, and no further node may fail for it; a split into halves stops \
         both";
    LeadersOnOneNode = "LK113", Info,
        "that node does the work of all partitions, and if it fails, all of them stand until other leaders are elected";
    NoReplicaOnNode = "LK114", Warning,
        "dispatchers that are connected to that node never attach: a stream is read from the replica of the connected node";
    FilesTooFew = "LK115", Error,
        "the broker accepts no connection any more, of anybody: before RabbitMQ 4.0 each copy of a quorum queue reserves three open \
         files, and connections get what is left";
    DocumentMisfits = "LK116", Error,
        "`lanekeeper run` exits at the start and changes nothing: a layout that is made or bound beside the one that is there would \
         send each update two ways";
    MessageSizeLimited = "LK130", Warning,
        "the broker closes the channel of a publisher that sends a larger update, and what was not confirmed on it must be \
         published again; `lanekeeper ingest` exits then";

    // 2xx: the topology.
    NoLayoutYet = "LK201", Info,
        "until the first `lanekeeper run` has created the layout, there is no exchange to publish to";
    ObjectMissing = "LK202", Error,
        "updates are refused, dropped, or sent to other partitions than the earlier updates of their records";
    ObjectDiffers = "LK203", Error,
        "`lanekeeper run` refuses the object at its start; until then updates can be lost or reordered";
    QueueTypeDiffers = "LK204", Error,
        "other queue types than quorum lose updates in a crash, or reorder returned ones; `lanekeeper run` refuses the queue";
    BindingMissing = "LK205", Error,
        "updates that need this binding are lost, or go to other partitions than the earlier updates of their records";
    IngressBoundTwice = "LK206", Error,
        "every update also goes to the second destination, and is applied twice if that is another layout; while the layout \
         changes, updates are confirmed and lost";
    HandoffBound = "LK207", Warning,
        "at the next change of the layout, updates also go to that destination, and are lost or applied twice";
    ForeignWayIn = "LK208", Error,
        "messages that come in this way bypass the public exchange: updates can be applied twice, or overtake earlier ones of \
         their record";
    ForeignBindingOfPartition = "LK209", Error,
        "messages that come in this way bypass the hash: updates of one record can be in two partitions and overtake each other";
    ForeignBindingOfHash = "LK210", Error,
        "the hash counts the binding as a partition: record keys have moved to other queues, and nobody dispatches the updates \
         that this binding gets";
    DocumentUnreadable = "LK211", Error,
        "no dispatcher can know the current layout: `lanekeeper run` exits at the start";

    // 3xx: policies.
    DeliveryLimitLowered = "LK301", Error,
        "the broker drops or dead-letters an update after that many deliveries (each lost connection and each restart of a \
         dispatcher counts as one), and later updates of its record go on without it";
    MessageTtl = "LK302", Error,
        "the broker drops or dead-letters updates that wait longer, for example while their target is down";
    LengthLimited = "LK303", Error,
        "a full queue refuses updates or drops its oldest one, even if that is unsettled";
    QueueExpires = "LK304", Error,
        "if the queue has no consumer for that long, the broker deletes it with all its updates";
    OverflowDiffers = "LK305", Warning,
        "with a length limit the queue would drop updates instead of refusing them to their publisher";
    DelayedRetry = "LK306", Error,
        "later updates overtake an update that was returned to the queue";
    Federated = "LK307", Error,
        "another broker puts updates into the queue or takes them out, bypassing the hash and the single active consumer";
    DocumentShortLived = "LK308", Warning,
        "the broker can delete the layout document with the oldest part of its stream; the next start then creates a new \
         layout, with other numbers";

    // 4xx: consumers and time.
    ForeignConsumer = "LK401", Error,
        "updates that it takes reach no dispatcher; while it is the active consumer, no dispatcher owns the partition";
    AckTimeoutTooShort = "LK402", Error,
        "the broker closes the channel (from 4.3 on: cancels the consumer) while attempts are in flight; these updates are then \
         sent again";
    PrefetchTooLow = "LK403", Error,
        "updates that were returned to the queue are delivered again in another order, so a later update of a record can come \
         first";
    NobodyConsumes = "LK404", Warning,
        "the updates wait until a `lanekeeper run` consumes the partition";

    // 5xx: config against broker, and what waits for a person.
    DeadLetters = "LK501", Warning,
        "the target has not applied these updates, and their records went on without them";
    PartitionsDiffer = "LK502", Warning,
        "`lanekeeper run` uses the layout in the broker, so the config shows a wrong number of partitions";
    PrefetchDiffers = "LK503", Warning,
        "`lanekeeper run` uses the layout's prefetch; a lower one, on a queue that has updates, would return them in another order";

    // 6xx: the door.
    DoorCannotListen = "LK601", Error,
        "`lanekeeper ingest` exits at its start: nobody can send it updates";
    DoorCertificateExpired = "LK602", Error,
        "senders that check the certificate refuse the connection, and their updates do not arrive";
    DoorCertificateExpires = "LK603", Warning,
        "once it has expired, senders that check it refuse the connection, and their updates do not arrive";
    DoorWithoutTls = "LK604", Warning,
        "tokens and bodies travel as plain text, and whoever reads a token on the way can send updates";
    DoorNotShown = "LK605", Info,
        "`lanekeeper status` and the pages of dispatchers do not show the door; it takes updates all the same";

    // 9xx: what could not be looked at.
    ManagementNotSeen = "LK901", Warning,
        "policies, bindings, foreign consumers and the metadata store were not checked, and most dangers are there";
    ManagementSeenInPart = "LK902", Info,
        "the things listed below were not checked";
    DoorSeenInPart = "LK903", Info,
        "the things listed below were not checked; a door itself needs no right at the management API";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_none_is_given_twice() {
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
        assert!(codes.iter().all(|code| code.len() == 5 && code.starts_with("LK")), "{codes:?}");
    }

    #[test]
    fn the_manual_explains_every_code_with_its_severity() {
        let page = include_str!("../../docs/doctor.md");
        // A section begins with "### LK101: title", its text with "*error.*".
        let sections = page.split("\n### ").skip(1).filter(|section| section.starts_with("LK"));
        let documented: Vec<(&str, &str)> = sections
            .map(|section| {
                let code = section.split(':').next().unwrap_or_default();
                let severity = section.split("\n\n*").nth(1).and_then(|text| text.split('.').next());
                (code, severity.unwrap_or_default())
            })
            .collect();
        let codes = Code::ALL.iter().map(|code| (code.code(), code.severity().to_string()));
        let codes: Vec<(&str, String)> = codes.collect();
        assert!(
            codes.iter().map(|(code, severity)| (*code, severity.as_str())).eq(documented.iter().copied()),
            "docs/doctor.md has {documented:?}, src/doctor/codes.rs has {codes:?}"
        );
    }
}
