//! Why nothing can be published at all.

use crate::connection::ConnectError;

/// Publishing cannot begin or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nobody has declared the topology, or `updates.exchange` has another name here than there.
    #[error("exchange {exchange} does not exist: start `lanekeeper run` once, which declares it")]
    ExchangeMissing {
        /// `updates.exchange`.
        exchange: String,
    },
    /// The broker closed the channel or the connection because of what was published.
    #[error("the broker refuses to take updates: {text}")]
    Refused {
        /// What the broker says.
        text: String,
    },
}
