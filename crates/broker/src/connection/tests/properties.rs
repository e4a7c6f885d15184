//! Property lists as proptest makes them: all that RabbitMQ lets pass, and what it does not.

use proptest::prelude::*;

use super::wire::{long, short};

/// Short strings: fit, cut inside a character, any bytes.
pub(super) fn string() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z]{0,12}".prop_map(String::into_bytes),
        2 => (0..12_usize).prop_map(|end| "grün €uro 😀".as_bytes()[..end].to_vec()),
        2 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop_oneof![
        6 => sized(b"tbB", 1),
        6 => sized(b"sUu", 2),
        6 => sized(b"Iif", 4),
        6 => sized(b"D", 5),
        6 => sized(b"LldT", 8),
        6 => sized(b"V", 0),
        6 => (prop::sample::select(b"Sx".to_vec()), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(kind, bytes)| [vec![kind], long(&bytes)].concat()),
        1 => sized(b"\0Z", 1), // no type
    ];
    // Deeper than tables may be, now and then.
    let deep = (plain.clone(), 0..50_usize, any::<bool>()).prop_map(|(inner, levels, tables)| {
        (0..levels).fold(inner, |inner, _| {
            if tables {
                [vec![b'F'], long(&[short(b"n"), inner].concat())].concat()
            } else {
                [vec![b'A'], long(&inner)].concat()
            }
        })
    });
    prop_oneof![20 => plain, 1 => deep].prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| [
                vec![b'A'],
                long(&values.concat())
            ]
            .concat()),
            table(inner).prop_map(|table| [vec![b'F'], table].concat()),
        ]
    })
}

fn sized(kinds: &[u8], bytes: usize) -> impl Strategy<Value = Vec<u8>> + Clone + use<> {
    (prop::sample::select(kinds.to_vec()), prop::collection::vec(any::<u8>(), bytes))
        .prop_map(|(kind, content)| [vec![kind], content].concat())
}

fn table(value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((string(), value), 0..4).prop_map(|entries| {
        long(
            &entries.into_iter().flat_map(|(name, value)| [short(&name), value].concat()).collect::<Vec<_>>(),
        )
    })
}

/// Property flags and properties.
fn whole() -> impl Strategy<Value = Vec<u8>> {
    let long_text = (0..30_000_usize)
        .prop_map(|bytes| long(&[short(b"x"), vec![b'S'], long(&vec![b'y'; bytes])].concat()));
    let table = prop_oneof![8 => table(value()), 1 => long_text];
    let strings = prop::collection::vec(string(), 14);
    (any::<u16>(), table, strings, any::<[u8; 8]>()).prop_map(|(flags, table, strings, number)| {
        let properties = (2..16).rev().filter(|bit| flags & (1 << bit) != 0).flat_map(|bit| match bit {
            13 => table.clone(),
            12 | 11 => number[..1].to_vec(),
            6 => number.to_vec(),
            _ => short(&strings[bit - 2]),
        });
        flags.to_be_bytes().into_iter().chain(properties).collect()
    })
}

/// Property lists, some of them with a byte changed, cut off, or with something behind them.
pub(super) fn properties() -> impl Strategy<Value = Vec<u8>> {
    (whole(), 0..12_usize, any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(mut bytes, change, index, byte)| {
            match change {
                0 => bytes.truncate(index.index(bytes.len()).max(2)),
                1 => {
                    let at = index.index(bytes.len());
                    bytes[at] = byte;
                }
                2 => bytes.extend([byte; 3]),
                _ => {}
            }
            bytes
        },
    )
}
