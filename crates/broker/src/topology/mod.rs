//! The topology: the exchanges, queues and streams of one `updates.exchange`, the layouts in it, and how they change.

pub(crate) mod arguments;
mod auto_apply;
mod change;
pub(crate) mod declare;
mod definitions;
mod delete;
pub(crate) mod document;
pub(crate) mod document_stream;
mod ensure;
mod follower;
mod ledger_identity;
mod majority;
mod marker;
mod placement;
mod purge_markers;
mod reconciler;
pub(crate) mod session;
mod unknown;
mod witness_round;
mod witnesses;

pub use arguments::DELIVERY_LIMIT;
pub use auto_apply::{AutoApply, Obstacle, Obstacles};
pub(crate) use change::reconcile;
pub use change::{Reconciled, Stuck};
pub use definitions::definitions;
pub use delete::remove;
pub use document::LayoutDocument;
pub use ensure::ensure;
pub use follower::Follower;
pub use ledger_identity::{OwnLedger, ensure_ledger};
pub use majority::Majority;
pub use marker::Markers;
pub(crate) use marker::{InternalMessage, internal_message};
pub use reconciler::LayoutReconciler;
pub use session::Depth;
pub use witnesses::Witnesses;
