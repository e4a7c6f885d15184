//! Finds the beginnings of requests in what an HTTP/2 client writes (RFC 9113, sections 3.4, 4.1 and 6.2).

/// What a client sends first of all.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header.
const HEADER: usize = 9;
/// The type of a frame that begins a request.
const HEADERS: u8 = 1;
/// The flag of a frame that ends its stream.
const END_STREAM: u8 = 1;

/// How far a connection was written.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    /// Bytes until the next header of a frame.
    skip: usize,
    /// The bytes of that header that were written.
    header: [u8; HEADER],
    written: usize,
    /// Requests whose first frame's header was written.
    requests: u32,
}

/// The first frame of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestStart {
    /// Where it begins in the bytes.
    pub(super) at: usize,
    /// Where it ends, or the bytes do.
    pub(super) end: usize,
    /// The number of the request on its connection, from 0. One that was cancelled before it was written is left out.
    pub(super) number: u32,
    /// Whether it has no body.
    pub(super) is_complete: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self { skip: PREFACE.len(), header: [0; HEADER], written: 0, requests: 0 }
    }
}

impl Frames {
    /// The first request that begins in `bytes`, which are about to be written.
    pub(super) fn next_request(&self, bytes: &[u8]) -> Option<RequestStart> {
        let mut ahead = self.clone();
        let mut at = 0;
        while at < bytes.len() {
            let began = at + ahead.skip;
            let (length, header) = ahead.step(&bytes[at..]);
            at += length;
            if let Some(header) = header
                && let Some(number) = self.request(&header)
            {
                let end = bytes.len().min(at + ahead.skip);
                return Some(RequestStart {
                    at: began,
                    end,
                    number,
                    is_complete: header[4] & END_STREAM != 0,
                });
            }
        }
        None
    }

    /// Notes that `bytes` were written.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (length, header) = self.step(bytes);
            bytes = &bytes[length..];
            if let Some(number) = header.and_then(|header| self.request(&header)) {
                self.requests = number + 1;
            }
        }
    }

    /// Goes to the end of the next header, if it is within `bytes`. Returns how far it went.
    fn step(&mut self, bytes: &[u8]) -> (usize, Option<[u8; HEADER]>) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let rest = &bytes[skipped..];
        let taken = rest.len().min(HEADER - self.written);
        self.header[self.written..self.written + taken].copy_from_slice(&rest[..taken]);
        self.written += taken;
        if self.written < HEADER {
            return (skipped + taken, None);
        }
        self.written = 0;
        self.skip = usize::from(self.header[0]) << 16
            | usize::from(self.header[1]) << 8
            | usize::from(self.header[2]);
        (skipped + taken, Some(self.header))
    }

    /// The number of the request that this frame begins. Streams of a client have the numbers 1, 3, 5, …
    fn request(&self, header: &[u8; HEADER]) -> Option<u32> {
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
        let number = stream.checked_sub(1)? / 2;
        (header[3] == HEADERS && number >= self.requests).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(vec![HEADERS; length.into()]);
        frame
    }

    /// Requests are found wherever the writes are cut.
    #[test]
    fn each_request_is_found_once_and_before_its_first_byte_is_written() {
        let frames = [
            PREFACE.to_vec(),
            frame(4, 0, 0, 12),
            frame(HEADERS, 4 | END_STREAM, 1, 30),
            frame(8, 0, 0, 4),
            frame(HEADERS, 4, 5, 0),
            frame(0, END_STREAM, 5, 200),
            frame(HEADERS, 4 | END_STREAM, 5, 3),
            frame(HEADERS, 4, 7, 9),
        ];
        let starts: Vec<usize> =
            frames.iter().scan(0, |at, frame| Some(std::mem::replace(at, *at + frame.len()))).collect();
        let bytes = frames.concat();
        let expected = [(starts[2], 0, true), (starts[4], 2, false), (starts[7], 3, false)];
        for size in (1..=60).chain([bytes.len()]) {
            let (mut state, mut at, mut found) = (Frames::default(), 0, Vec::new());
            while at < bytes.len() {
                // As the client does: all that there is, of which `size` bytes can be written at once.
                let most = (at + size).min(bytes.len());
                let end = match state.next_request(&bytes[at..]) {
                    None => most,
                    Some(request) if request.at > 0 => most.min(at + request.at),
                    Some(request) => {
                        if found.last() != Some(&(at, request.number, request.is_complete))
                            && found.last().is_none_or(|(_, number, _)| *number != request.number)
                        {
                            found.push((at, request.number, request.is_complete));
                        }
                        assert!(request.end > 0);
                        most.min(at + request.end)
                    }
                };
                state.advance(&bytes[at..end]);
                at = end;
            }
            assert_eq!(found, expected, "writes of {size} bytes");
        }
    }
}
