//! What the rest of the crate does on a channel: publish with confirms, consume, read a stream.

pub(crate) mod confirm_channel;
pub(crate) mod confirmed_publisher;
pub(crate) mod consumer_channel;
pub(crate) mod stream_reader;
