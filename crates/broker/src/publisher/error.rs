//! Why nothing can be published at all.

/// Publishing cannot begin or cannot go on. The broker is named as `host:port`, never with a password.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The URL is not an AMQP URL.
    #[error("broker.url is not an AMQP URL (amqp://user:password@host:port/virtual%2fhost)")]
    Url,
    /// No connection came about.
    #[error("cannot connect to the broker at {broker}: {cause}")]
    Unreachable {
        /// `host:port`.
        broker: String,
        /// What went wrong.
        cause: String,
    },
    /// Wrong user or password, or a user that may not connect from here.
    #[error("the broker at {broker} refuses the login of user {user}")]
    LoginRefused {
        /// `host:port`.
        broker: String,
        /// As in the URL.
        user: String,
    },
    /// It does not exist, or the user may not use it.
    #[error("the broker at {broker} refuses virtual host {virtual_host}: {text}")]
    VirtualHostRefused {
        /// `host:port`.
        broker: String,
        /// As in the URL.
        virtual_host: String,
        /// What the broker says.
        text: String,
    },
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
