//! What demo, bench, chaos and the product's own broker tests are built from: private servers, programs as processes of
//! their own, and a network that fails on purpose.
//!
//! Nothing here judges: that is done by the report of [`crate::receiver`].

mod cluster;
mod dispatcher;
pub mod http;
mod process;
pub mod program;
mod proxy;
mod servers;
mod usage;

pub use cluster::{ClusterSettings, NodeNumber, PrivateCluster};
pub use dispatcher::{Dispatcher, metric_values};
pub use process::{Process, ProcessError, Signal, log_tail};
pub use proxy::{Proxy, ProxyMode};
pub use servers::{PrivateBroker, PrivatePostgres, ServerError};
pub use usage::{Usage, listener_on, load_average, raise_open_files_max};
