//! Random streams, valid and hostile, cut anywhere.

use std::collections::HashMap;

use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::AMQPMethod as Basic;
use lapin::protocol::basic::parse_properties;
use proptest::prelude::*;

use super::super::alterations::{Alteration, AlteredProperties};
use super::properties::{properties, string};
use super::wire::{body, deliver, get_ok, header, heartbeat, returned};
use super::{CHANNELS, Cuts, LIMITS, Screened, screened};

#[derive(Clone, Copy, Debug)]
enum Kind {
    Delivered,
    Got,
    Returned,
}

#[derive(Clone, Debug)]
struct Message {
    channel: u16,
    kind: Kind,
    key: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
    piece: usize,
}

fn message() -> impl Strategy<Value = Message> {
    let kind = prop_oneof![6 => Just(Kind::Delivered), 1 => Just(Kind::Got), 1 => Just(Kind::Returned)];
    let body = prop_oneof![Just(0), 1..3_000_usize].prop_perturb(|bytes, mut rng| {
        (0..bytes).map(|_| u8::try_from(rng.next_u32() & 0xff).expect("a byte")).collect::<Vec<u8>>()
    });
    (1..CHANNELS, kind, string(), properties(), body, 1..2_000_usize).prop_map(
        |(channel, kind, key, properties, body, piece)| Message {
            channel,
            kind,
            key,
            properties,
            body,
            piece,
        },
    )
}

fn cuts() -> impl Strategy<Value = Cuts> {
    let arriving =
        prop_oneof![Just(vec![1]), prop::collection::vec(0..3_000_usize, 1..20), Just(vec![100_000])];
    // All zeroes would never end.
    let arriving = arriving.prop_map(|sizes| [sizes, vec![7]].concat());
    let asking = prop_oneof![Just(vec![1]), prop::collection::vec(1..40_000_usize, 1..20)];
    (arriving, asking).prop_map(|(arriving, asking)| Cuts { arriving, asking })
}

/// The messages on the wire, with heartbeats between their frames; tags count from 1 for each channel.
fn wire(messages: &[Message]) -> Vec<u8> {
    let mut tags: HashMap<u16, u64> = HashMap::new();
    let mut bytes = Vec::new();
    for Message { channel, kind, key, properties, body: content, piece } in messages {
        let mut tag = || {
            let tag = tags.entry(*channel).or_default();
            *tag += 1;
            *tag
        };
        bytes.extend(match kind {
            Kind::Delivered => deliver(*channel, tag(), key),
            Kind::Got => get_ok(*channel, tag(), key),
            Kind::Returned => returned(*channel, key),
        });
        bytes.extend(header(*channel, content.len() as u64, properties));
        bytes.extend(heartbeat());
        bytes.extend(body(*channel, content, *piece));
    }
    bytes
}

/// What the client makes of a stream: per message the channel, the tag, the routing key, whether it has properties, the
/// size of the body that is announced, and the body.
#[derive(Debug)]
struct Got {
    channel: u16,
    tag: u64,
    key: String,
    announced: u64,
    body: Vec<u8>,
}

fn received(screened: &Screened) -> Vec<Got> {
    let mut messages = Vec::new();
    for frame in screened.frames() {
        let mut begin = |channel, tag, key: &str| {
            messages.push(Got { channel, tag, key: key.to_owned(), announced: 0, body: Vec::new() });
        };
        match frame {
            AMQPFrame::Method(channel, AMQPClass::Basic(Basic::Deliver(deliver))) => {
                begin(channel, deliver.delivery_tag, deliver.routing_key.as_str());
            }
            AMQPFrame::Method(channel, AMQPClass::Basic(Basic::GetOk(got))) => {
                begin(channel, got.delivery_tag, got.routing_key.as_str());
            }
            AMQPFrame::Method(channel, AMQPClass::Basic(Basic::Return(returned))) => {
                begin(channel, 0, returned.routing_key.as_str());
            }
            AMQPFrame::Header(_, header) => {
                messages.last_mut().expect("a method came first").announced = header.body_size;
            }
            AMQPFrame::Body(_, bytes) => messages.last_mut().expect("a header came first").body.extend(bytes),
            AMQPFrame::Heartbeat => {}
            other => panic!("{other:?}"),
        }
    }
    messages
}

/// Nothing is lost: what the client has and what was kept make up what came.
fn check(message: &Message, got: &Got, altered: &Alteration) {
    assert_eq!(got.channel, message.channel);
    assert_eq!(got.announced, got.body.len() as u64);
    let too_long = message.body.len() as u64 > LIMITS.body_bytes_max;
    assert_eq!(got.body, if too_long { &[][..] } else { &message.body });
    if matches!(message.kind, Kind::Returned) {
        assert_eq!(*altered, Alteration::default());
        return;
    }
    assert_eq!(altered.body_bytes, too_long.then_some(message.body.len() as u64));
    let fit = std::str::from_utf8(&message.key).is_ok();
    assert_eq!(altered.routing_key, (!fit).then(|| message.key.clone()));
    assert_eq!(got.key.len(), message.key.len());
    if fit {
        assert_eq!(got.key.as_bytes(), message.key);
    }
    let parses = parse_properties(message.properties.as_slice()).is_ok_and(|(rest, _)| rest.is_empty());
    match &altered.properties {
        None => assert!(parses, "the client could parse them anyway"),
        Some(AlteredProperties::Replaced { original }) => assert_eq!(*original, message.properties),
        Some(AlteredProperties::Apart { parsable, original }) => {
            assert!(parse_properties(parsable.as_slice()).is_ok_and(|(rest, _)| rest.is_empty()));
            assert_eq!(original.as_ref().unwrap_or(parsable), &message.properties);
        }
        Some(AlteredProperties::Unreadable { original }) => {
            assert!(!parses, "the client could have parsed them");
            assert_eq!(*original, message.properties);
        }
        Some(AlteredProperties::LeftOut { .. }) => panic!("they are not that long"),
    }
}

proptest! {
    #[test]
    fn whatever_publishers_send_the_client_can_parse_and_nothing_is_lost(
        messages in prop::collection::vec(message(), 1..8),
        cuts in cuts(),
    ) {
        let screened = screened(&wire(&messages), &cuts);
        prop_assert!(screened.fault.is_none());
        let received = received(&screened);
        prop_assert_eq!(received.len(), messages.len());
        for (message, got) in messages.iter().zip(&received) {
            let altered = screened.alterations[usize::from(got.channel) - 1].take(got.tag);
            check(message, got, &altered.expect("the window is wide enough").unwrap_or_default());
        }
    }

    #[test]
    fn where_a_stream_is_cut_makes_no_difference(
        messages in prop::collection::vec(message(), 1..5),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in cuts(),
    ) {
        let mut wire = wire(&messages);
        for (index, byte) in changes {
            let at = index.index(wire.len());
            wire[at] = byte;
        }
        let (whole, cut) = (screened(&wire, &Cuts::whole()), screened(&wire, &cuts));
        prop_assert_eq!(whole.fault, cut.fault);
        prop_assert!(whole.bytes == cut.bytes, "{} bytes and {}", whole.bytes.len(), cut.bytes.len());
    }

    #[test]
    fn no_bytes_make_it_panic_or_grow_without_bound(
        wire in prop::collection::vec(any::<u8>(), 0..4_000),
        kind in prop::sample::select(vec![1_u8, 2, 3, 8]),
        cuts in cuts(),
    ) {
        // With a frame that could be one before them, so that they are looked into.
        let wire = [vec![kind, 0, 1, 0, 0], wire].concat();
        let screened = screened(&wire, &cuts);
        prop_assert!(screened.bytes.len() <= 2 * wire.len() + 64);
    }
}
