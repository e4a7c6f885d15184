//! Writes frames, valid or not.

pub(super) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
    [&[kind], channel.to_be_bytes().as_slice(), &length, payload, &[0xce]].concat()
}

pub(super) fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let payload = [&class.to_be_bytes(), method.to_be_bytes().as_slice(), arguments].concat();
    frame(1, channel, &payload)
}

pub(super) fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).expect("it is short")], bytes].concat()
}

pub(super) fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("it is short").to_be_bytes();
    [length.as_slice(), bytes].concat()
}

pub(super) fn deliver(channel: u16, tag: u64, key: &[u8]) -> Vec<u8> {
    let tag = tag.to_be_bytes();
    let arguments = [short(b"consumer"), tag.to_vec(), vec![0], short(b"updates"), short(key)].concat();
    method(channel, 60, 60, &arguments)
}

pub(super) fn get_ok(channel: u16, tag: u64, key: &[u8]) -> Vec<u8> {
    let arguments =
        [tag.to_be_bytes().to_vec(), vec![1], short(b"updates"), short(key), vec![0, 0, 0, 9]].concat();
    method(channel, 60, 71, &arguments)
}

pub(super) fn returned(channel: u16, key: &[u8]) -> Vec<u8> {
    method(channel, 60, 50, &[vec![1, 56], short(b"NO_ROUTE"), short(b"updates"), short(key)].concat())
}

pub(super) fn header(channel: u16, body_bytes: u64, properties: &[u8]) -> Vec<u8> {
    frame(2, channel, &[&[0, 60, 0, 0], body_bytes.to_be_bytes().as_slice(), properties].concat())
}

pub(super) fn body(channel: u16, bytes: &[u8], piece: usize) -> Vec<u8> {
    bytes.chunks(piece).flat_map(|piece| frame(3, channel, piece)).collect()
}

pub(super) fn heartbeat() -> Vec<u8> {
    frame(8, 0, &[])
}

/// Properties that are a message id and nothing else.
pub(super) fn message_id(id: &[u8]) -> Vec<u8> {
    [vec![0, 0x80], short(id)].concat()
}

/// Properties that are headers and nothing else, each a name and an encoded value.
pub(super) fn headers(entries: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> =
        entries.iter().flat_map(|(name, value)| [short(name), value.clone()].concat()).collect();
    [vec![0x20, 0], long(&entries)].concat()
}

/// A value of a header: text.
pub(super) fn text(bytes: &[u8]) -> Vec<u8> {
    [vec![b'S'], long(bytes)].concat()
}

/// A value of a header: arrays within each other.
pub(super) fn nested(levels: usize) -> Vec<u8> {
    (0..levels).fold(vec![b'V'], |inner, _| [vec![b'A'], long(&inner)].concat())
}
