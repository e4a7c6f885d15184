//! The deliveries of a partition: consumes its queue, decodes what comes, acks what is settled, publishes dead letters.

mod amqp_deliveries;
mod amqp_source;
mod claim_watch;
mod context;
mod dead_letter;
mod dead_letters;
mod decode;
mod redelivery;
mod unsettled;

pub use amqp_source::AmqpSource;
pub use context::SourceContext;
pub use dead_letters::DeadLetters;
pub use decode::Decoder;
