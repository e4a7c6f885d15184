//! Which exchange a ledger belongs to.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use lanekeeper_core::message::TenureNumber;

/// What a ledger says of the exchange that it belongs to, and of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerBinding {
    /// The exchange; `None`: none has used the ledger, or only programs of before.
    pub topology: Option<BoundTopology>,
    /// How long ago a dispatcher of that exchange has used the ledger; `None`: all have stopped in order.
    pub used_ago: Option<Duration>,
    /// Marks of the last starts, newest last; at most [`MARKS_MAX`] and one.
    pub marks: Vec<Uuid>,
    /// The highest tenure number of all partitions and layouts.
    pub highest: Option<TenureNumber>,
}

/// One exchange of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundTopology {
    /// As in the layout document.
    pub identity: Uuid,
    /// Where it is, for people, and to recognize one that was made again.
    pub place: TopologyPlace,
}

/// Where an exchange is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyPlace {
    /// The name that the broker's cluster gives itself; `None`: it says none.
    pub cluster: Option<String>,
    /// The virtual host.
    pub vhost: String,
    /// `updates.exchange`.
    pub exchange: String,
}

/// In the place of a virtual host, if updates come from SQS.
const SQS: &str = "SQS";

impl TopologyPlace {
    /// A queue of SQS, by its URL.
    #[must_use]
    pub fn of_sqs(queue_url: &str) -> Self {
        Self { cluster: None, vhost: SQS.to_owned(), exchange: queue_url.to_owned() }
    }

    fn is_of_sqs(&self) -> bool {
        self.vhost == SQS && self.exchange.contains("://")
    }

    /// Returns false if they are certainly two places.
    #[must_use]
    pub fn can_be(&self, other: &Self) -> bool {
        let one_cluster = match (&self.cluster, &other.cluster) {
            (Some(cluster), Some(other)) => cluster == other,
            (None, _) | (_, None) => true,
        };
        one_cluster && self.vhost == other.vhost && self.exchange == other.exchange
    }
}

impl fmt::Display for TopologyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, vhost, exchange } = self;
        if self.is_of_sqs() {
            return write!(f, "the SQS queue {exchange}");
        }
        write!(f, "the exchange {exchange} of virtual host {vhost}")?;
        cluster.as_ref().map_or(Ok(()), |cluster| write!(f, " on {cluster}"))
    }
}

/// Marks that are kept. A start that wrote its mark into the ledger, and then not into the layout document, leaves one behind.
pub const MARKS_MAX: u32 = 64;
