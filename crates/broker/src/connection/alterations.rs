//! What the screen changed in a delivery, kept until the delivery is taken.
//!
//! Only channels that are watched keep anything: their consumer takes an alteration with each delivery. An entry is
//! written before the client sees the last frame of its delivery, and cannot be forged by a publisher.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::BasicProperties;
use lapin::protocol::basic::parse_properties;

/// What the screen changed in one delivery. Its `Debug` form tells sizes, no content.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Alteration {
    /// The routing key as it came, if it is not UTF-8. The delivery has U+001A for each stray byte.
    pub(crate) routing_key: Option<Vec<u8>>,
    /// What became of the properties.
    pub(crate) properties: Option<AlteredProperties>,
    /// How long the body was, if it was too long and left out. The delivery has an empty body.
    pub(crate) body_bytes: Option<u64>,
}

/// The properties of a delivery, if the client could not take them as they came. Bytes are a list of property flags and
/// properties as in a content header (AMQP 0-9-1, section 4.2.6.1).
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum AlteredProperties {
    /// The delivery has them with some bytes replaced; these are the original ones.
    Replaced {
        /// As they came.
        original: Vec<u8>,
    },
    /// They do not fit one frame: the delivery has none.
    Apart {
        /// The client can parse these.
        parsable: Vec<u8>,
        /// As they came, if some bytes of `parsable` were replaced.
        original: Option<Vec<u8>>,
    },
    /// They are not properties as AMQP has them: the delivery has none.
    Unreadable {
        /// As they came.
        original: Vec<u8>,
    },
    /// They were too long to be kept: the delivery has neither properties nor body.
    LeftOut {
        /// How long they were.
        bytes: usize,
    },
}

/// What a delivery had that the client cannot express, as it came.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Originals {
    /// Of a routing key that is not UTF-8.
    pub(crate) routing_key: Option<Vec<u8>>,
    /// A list of property flags and properties.
    pub(crate) properties: Option<Vec<u8>>,
}

impl Originals {
    /// As headers of a dead letter, by their names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let all = [
            ("lanekeeper-original-routing-key", &self.routing_key),
            ("lanekeeper-original-properties", &self.properties),
        ];
        all.into_iter().filter_map(|(name, original)| Some((name, original.as_deref()?)))
    }
}

impl Alteration {
    /// Gives a delivery back its properties, if they were kept apart.
    pub(crate) fn restore(&self, properties: &mut BasicProperties) {
        if let Some(AlteredProperties::Apart { parsable, .. }) = &self.properties {
            let parsed = parse_properties(parsable.as_slice());
            *properties = parsed.map(|(_, parsed)| parsed).expect("the screen lets through what parses");
        }
    }

    /// What the delivery lacks, after [`Self::restore`].
    pub(crate) fn into_originals(self) -> Originals {
        let properties = match self.properties {
            Some(AlteredProperties::Replaced { original } | AlteredProperties::Unreadable { original }) => {
                Some(original)
            }
            Some(AlteredProperties::Apart { original, .. }) => original,
            Some(AlteredProperties::LeftOut { .. }) | None => None,
        };
        Originals { routing_key: self.routing_key, properties }
    }

    /// Whether something of the delivery never reached us. Nobody but the broker can dead-letter such a delivery.
    pub(crate) fn left_something_out(&self) -> bool {
        self.body_bytes.is_some() || matches!(self.properties, Some(AlteredProperties::LeftOut { .. }))
    }
}

impl fmt::Debug for Alteration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alteration")
            .field("routing_key_bytes", &self.routing_key.as_ref().map(Vec::len))
            .field("properties", &self.properties)
            .field("body_bytes", &self.body_bytes)
            .finish()
    }
}

impl fmt::Debug for Originals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Originals")
            .field("routing_key_bytes", &self.routing_key.as_ref().map(Vec::len))
            .field("properties_bytes", &self.properties.as_ref().map(Vec::len))
            .finish()
    }
}

impl fmt::Debug for AlteredProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes) = match self {
            Self::Replaced { original } => ("Replaced", original.len()),
            Self::Apart { parsable, .. } => ("Apart", parsable.len()),
            Self::Unreadable { original } => ("Unreadable", original.len()),
            Self::LeftOut { bytes } => ("LeftOut", *bytes),
        };
        write!(f, "{name}({bytes} bytes)")
    }
}

/// The watched channels of one connection, by their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct WatchedChannels(Arc<Mutex<HashMap<u16, Arc<Entries>>>>);

impl WatchedChannels {
    /// Keeps the alterations of this channel from now on. To be called when the channel is open and before it consumes.
    pub(super) fn watch(&self, channel: u16, window: usize) -> ChannelAlterations {
        let entries = Arc::new(Entries { window, count: AtomicUsize::new(0), by_tag: Mutex::default() });
        lock(&self.0).insert(channel, Arc::clone(&entries));
        ChannelAlterations(entries)
    }

    /// Keeps an alteration if its channel is watched.
    pub(super) fn keep(&self, channel: u16, delivery_tag: u64, alteration: Alteration) {
        let entries = lock(&self.0).get(&channel).cloned();
        if let Some(entries) = entries {
            entries.keep(delivery_tag, alteration);
        }
    }

    /// The number of the channel is free, or names another channel. Whoever still takes deliveries of the old one has its
    /// alterations.
    pub(super) fn forget(&self, channel: u16) {
        lock(&self.0).remove(&channel);
    }
}

/// The alterations of one watched channel, for its consumer.
#[derive(Debug)]
pub(crate) struct ChannelAlterations(Arc<Entries>);

/// The broker handed over more than the window allows, so that an alteration may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowExceeded;

impl ChannelAlterations {
    /// What was changed in a delivery, if anything was. To be called once, before anybody looks at the delivery.
    pub(crate) fn take(&self, delivery_tag: u64) -> Result<Option<Alteration>, WindowExceeded> {
        match self.0.count.load(Ordering::Acquire) {
            0 => Ok(None),
            _ => self.0.take(delivery_tag),
        }
    }
}

#[derive(Debug)]
struct Entries {
    /// More cannot wait: it is the prefetch of the channel.
    window: usize,
    /// How many entries there are: most deliveries need no lock. Over the window once it was exceeded.
    count: AtomicUsize,
    by_tag: Mutex<HashMap<u64, Alteration>>,
}

impl Entries {
    fn keep(&self, delivery_tag: u64, alteration: Alteration) {
        let mut by_tag = lock(&self.by_tag);
        if by_tag.len() < self.window && self.count.load(Ordering::Relaxed) <= self.window {
            by_tag.insert(delivery_tag, alteration);
            self.count.store(by_tag.len(), Ordering::Release);
        } else {
            self.count.store(self.window + 1, Ordering::Release);
        }
    }

    fn take(&self, delivery_tag: u64) -> Result<Option<Alteration>, WindowExceeded> {
        let mut by_tag = lock(&self.by_tag);
        if self.count.load(Ordering::Relaxed) > self.window {
            return Err(WindowExceeded);
        }
        let taken = by_tag.remove(&delivery_tag);
        self.count.store(by_tag.len(), Ordering::Release);
        Ok(taken)
    }
}

/// A panic elsewhere leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alteration(body_bytes: u64) -> Alteration {
        Alteration { body_bytes: Some(body_bytes), ..Alteration::default() }
    }

    #[test]
    fn each_alteration_is_taken_once_by_the_consumer_of_its_channel() {
        let channels = WatchedChannels::default();
        let (first, second) = (channels.watch(1, 10), channels.watch(2, 10));
        channels.keep(1, 7, alteration(70));
        channels.keep(2, 7, alteration(71));
        channels.keep(3, 7, alteration(72));
        assert_eq!(first.take(6), Ok(None));
        assert_eq!(first.take(7), Ok(Some(alteration(70))));
        assert_eq!(first.take(7), Ok(None));
        assert_eq!(second.take(7), Ok(Some(alteration(71))));
    }

    #[test]
    fn a_channel_that_takes_over_a_number_gets_nothing_of_the_one_before() {
        let channels = WatchedChannels::default();
        let old = channels.watch(1, 10);
        channels.keep(1, 1, alteration(1));
        channels.forget(1);
        channels.keep(1, 2, alteration(2));
        let new = channels.watch(1, 10);
        channels.keep(1, 1, alteration(3));
        assert_eq!(old.take(1), Ok(Some(alteration(1))), "it may still be taken");
        assert_eq!(old.take(2), Ok(None));
        assert_eq!(new.take(1), Ok(Some(alteration(3))));
    }

    #[test]
    fn more_than_the_window_is_neither_kept_nor_passed_over() {
        let channels = WatchedChannels::default();
        let watched = channels.watch(1, 2);
        (1..=3).for_each(|tag| channels.keep(1, tag, alteration(tag)));
        assert_eq!(watched.take(1), Err(WindowExceeded));
        channels.keep(1, 4, alteration(4));
        assert_eq!(watched.take(4), Err(WindowExceeded), "for good");
    }
}
