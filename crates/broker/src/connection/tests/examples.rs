//! One example for each thing that the screen does.

use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::AMQPMethod as Basic;
use amq_protocol::protocol::channel::AMQPMethod as Channel;
use amq_protocol::protocol::connection::AMQPMethod as Connection;
use lapin::protocol::basic::parse_properties;
use lapin::types::ShortString;
use lapin::types::parsing::parse_field_table;

use super::super::alterations::{Alteration, AlteredProperties};
use super::wire::{
    body, deliver, get_ok, header, headers, heartbeat, long, message_id, method, nested, returned, short,
    text,
};
use super::{Cuts, LIMITS, Screened, screened};

fn whole(wire: &[u8]) -> Screened {
    screened(wire, &Cuts::whole())
}

fn altered(screened: &Screened, channel: usize, tag: u64) -> Option<Alteration> {
    screened.alterations[channel - 1].take(tag).expect("the window is wide enough")
}

#[test]
fn what_is_fit_passes_as_it_is() {
    let wire = [
        deliver(1, 1, "grün".as_bytes()),
        header(1, 3, &headers(&[(b"x", text(b"\xff any bytes")), (b"deep", nested(31))])),
        body(1, b"abc", 2),
        heartbeat(),
        get_ok(2, 7, b""),
        header(2, 0, b"\0\0"),
    ]
    .concat();
    let screened = whole(&wire);
    assert_eq!(screened.bytes, wire);
    assert_eq!(altered(&screened, 1, 1), None);
    assert_eq!(altered(&screened, 2, 7), None);
}

#[test]
fn a_routing_key_that_is_not_utf_8_is_replaced_and_kept() {
    for begin in [deliver, get_ok] {
        let screened = whole(&[begin(3, 9, b"\xff\xfebad"), header(3, 0, b"\0\0")].concat());
        let key = match &screened.frames()[0] {
            AMQPFrame::Method(3, AMQPClass::Basic(Basic::Deliver(deliver))) => {
                deliver.routing_key.to_string()
            }
            AMQPFrame::Method(3, AMQPClass::Basic(Basic::GetOk(get_ok))) => get_ok.routing_key.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(key, "\u{1a}\u{1a}bad");
        let expected = Alteration { routing_key: Some(b"\xff\xfebad".to_vec()), ..Alteration::default() };
        assert_eq!(altered(&screened, 3, 9), Some(expected));
    }
}

#[test]
fn a_returned_message_is_no_delivery() {
    let screened = whole(&[returned(1, b"\xff"), header(1, 0, &message_id(b"\xff"))].concat());
    assert_eq!(screened.frames().len(), 2);
    assert_eq!(altered(&screened, 1, 0), None);
}

#[test]
fn properties_that_are_not_utf_8_are_replaced_and_kept() {
    let properties = message_id(b"id-\xff");
    let screened = whole(&[deliver(1, 1, b"k"), header(1, 0, &properties)].concat());
    let AMQPFrame::Header(1, got) = &screened.frames()[1] else { panic!("a header") };
    assert_eq!(got.properties.message_id().as_ref().map(ShortString::as_str), Some("id-\u{1a}"));
    let expected = AlteredProperties::Replaced { original: properties };
    assert_eq!(altered(&screened, 1, 1).and_then(|altered| altered.properties), Some(expected));
}

#[test]
fn tables_without_end_become_bytes() {
    let properties = headers(&[(b"deep", nested(3_000)), (b"behind", text(b"seen"))]);
    let screened = whole(&[deliver(1, 1, b"k"), header(1, 0, &properties)].concat());
    let AMQPFrame::Header(1, got) = &screened.frames()[1] else { panic!("a header") };
    let table = got.properties.headers().clone().expect("they are there");
    assert!(table.inner().contains_key("behind"));
    let expected = AlteredProperties::Replaced { original: properties };
    assert_eq!(altered(&screened, 1, 1).and_then(|altered| altered.properties), Some(expected));
}

#[test]
fn properties_that_fit_no_frame_are_kept_apart() {
    let properties = headers(&[(b"x", text(&vec![b'x'; 20_000])), (b"\xff", text(b"y"))]);
    let screened = whole(&[deliver(1, 1, b"k"), header(1, 3, &properties), body(1, b"abc", 9)].concat());
    let AMQPFrame::Header(1, got) = &screened.frames()[1] else { panic!("a header") };
    assert_eq!((got.body_size, got.properties.headers()), (3, &None));
    match altered(&screened, 1, 1).and_then(|altered| altered.properties) {
        Some(AlteredProperties::Apart { parsable, original }) => {
            let (rest, parsed) = parse_properties(parsable.as_slice()).expect("the client can parse them");
            assert_eq!((rest.len(), parsed.headers().clone().map(|table| table.inner().len())), (0, Some(2)));
            assert_eq!(original, Some(properties));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn properties_that_are_far_too_long_are_left_out_with_their_body() {
    let properties = headers(&[(b"x", text(&vec![b'x'; 300_000]))]);
    let wire =
        [deliver(1, 1, b"k"), header(1, 3, &properties), body(1, b"abc", 2), deliver(1, 2, b"l")].concat();
    let screened = whole(&wire);
    let frames = screened.frames();
    let AMQPFrame::Header(1, got) = &frames[1] else { panic!("a header") };
    assert_eq!((got.body_size, got.properties.headers()), (0, &None));
    assert!(!frames.iter().any(|frame| matches!(frame, AMQPFrame::Body(..))));
    let altered = altered(&screened, 1, 1).expect("it was altered");
    assert_eq!(altered.properties, Some(AlteredProperties::LeftOut { bytes: properties.len() }));
    assert!(altered.left_something_out());
}

#[test]
fn properties_that_are_none_are_kept_and_left_out() {
    for properties in [b"\x00\x80\x0ftoo short".as_slice(), b"\0\0trailing", &headers(&[(b"x", vec![b'?'])])]
    {
        let screened = whole(&[deliver(1, 1, b"k"), header(1, 0, properties)].concat());
        assert_eq!(screened.frames().len(), 2);
        let expected = AlteredProperties::Unreadable { original: properties.to_vec() };
        assert_eq!(altered(&screened, 1, 1).and_then(|altered| altered.properties), Some(expected));
    }
}

#[test]
fn a_body_over_the_limit_becomes_heartbeats() {
    let long = vec![b'x'; 2_001];
    let wire = [
        deliver(1, 1, b"k"),
        header(1, 2_001, &message_id(b"id")),
        body(1, &long, 500),
        deliver(1, 2, b"l"),
        header(1, 2_000, b"\0\0"),
        body(1, &long[1..], 500),
    ]
    .concat();
    let screened = whole(&wire);
    let frames = screened.frames();
    let AMQPFrame::Header(1, got) = &frames[1] else { panic!("a header") };
    assert_eq!(got.body_size, 0);
    assert!(got.properties.message_id().is_some());
    assert_eq!(frames[2..7], vec![AMQPFrame::Heartbeat; 5], "one for each frame that was left out");
    let bodies = frames.iter().filter_map(|frame| match frame {
        AMQPFrame::Body(1, bytes) => Some(bytes.len()),
        _ => None,
    });
    assert_eq!(bodies.sum::<usize>(), 2_000);
    let expected = Alteration { body_bytes: Some(2_001), ..Alteration::default() };
    assert_eq!(altered(&screened, 1, 1), Some(expected));
    assert_eq!(altered(&screened, 1, 2), None);
}

#[test]
fn a_long_body_that_is_left_out_lets_the_client_write() {
    const BYTES: usize = 9 * 1024 * 1024;
    let wire =
        [deliver(1, 1, b"k"), header(1, BYTES as u64, b"\0\0"), body(1, &vec![0; BYTES], 10_000)].concat();
    assert_eq!(whole(&wire).waits, 2, "once for each 4 MiB");
}

#[test]
fn a_reply_text_that_is_cut_inside_a_character_does_no_harm() {
    let text = "PRECONDITION_FAILED - ü".as_bytes();
    let cut = &text[..text.len() - 1];
    let arguments = [vec![1, 150], short(cut), vec![0, 0, 0, 0]].concat();
    let frames = whole(&[method(1, 20, 40, &arguments), method(0, 10, 50, &arguments)].concat()).frames();
    let AMQPFrame::Method(1, AMQPClass::Channel(Channel::Close(close))) = &frames[0] else {
        panic!("{frames:?}")
    };
    assert_eq!(close.reply_text.as_str(), "PRECONDITION_FAILED - \u{1a}");
    assert!(matches!(&frames[1], AMQPFrame::Method(0, AMQPClass::Connection(Connection::Close(_)))));
}

#[test]
fn what_the_broker_says_of_itself_is_kept() {
    let table = long(&[short(b"version"), text(b"4.0.5"), short(b"\xff"), text(b"x")].concat());
    let wire = method(0, 10, 10, &[vec![0, 9], table, long(b"PLAIN"), long(b"en_US")].concat());
    let screened = whole(&wire);
    assert_eq!(screened.frames().len(), 1);
    let kept = screened.server_properties.expect("they are kept");
    let (rest, table) = parse_field_table(kept.as_slice()).expect("the client can parse them");
    assert!(rest.is_empty() && table.inner().contains_key("version"));
}

#[test]
fn the_longest_frame_is_never_more_than_the_client_makes_room_for() {
    let check = |offered: u32, expected: u32| {
        let wire = method(0, 10, 30, &[&[0, 0], offered.to_be_bytes().as_slice(), &[0, 60]].concat());
        match whole(&wire).frames().as_slice() {
            [AMQPFrame::Method(0, AMQPClass::Connection(Connection::Tune(tune)))] => {
                assert_eq!(tune.frame_max, expected, "{offered}");
            }
            other => panic!("{other:?}"),
        }
    };
    check(0, LIMITS.frame_max);
    check(u32::MAX, LIMITS.frame_max);
    check(LIMITS.frame_max, LIMITS.frame_max);
    check(8_192, 8_192);
    check(1, 4_096);
}

#[test]
fn a_method_of_endless_length_ends_the_connection() {
    let wire = [1, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let fault = whole(&wire).fault.expect("it is refused");
    assert!(fault.contains("4294967295"), "{fault}");
}

#[test]
fn a_broker_of_another_protocol_is_left_to_the_client() {
    for wire in [b"AMQP\0\0\x09\x01".as_slice(), b"AM", b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        assert_eq!(whole(wire).bytes, wire);
    }
}

#[test]
fn a_channel_that_is_closed_keeps_nothing() {
    let closes = [method(1, 20, 41, &[]), method(1, 20, 11, &long(b"")), {
        method(1, 20, 40, &[vec![1, 150], short(b"text"), vec![0; 4]].concat())
    }];
    for close in closes {
        let screened = whole(&[close, deliver(1, 1, b"\xff"), header(1, 0, b"\0\0")].concat());
        assert_eq!(altered(&screened, 1, 1), None, "it is not watched any more");
    }
}
