//! Walks over the values in a frame, and replaces in place what the client would refuse to parse.
//!
//! AMQP 0-9-1, section 4.2.5, with the types of field values that RabbitMQ and the client know ("Amendments and errata
//! to AMQP 0-9-1", section 3).

/// Stands for each byte of a short string that is not part of valid UTF-8: U+001A, SUBSTITUTE.
pub(crate) const SUBSTITUTE: u8 = 0x1a;

/// Tables and arrays within each other. The client parses them recursively: some thousand levels, which fit one frame,
/// would overflow its stack. What lies deeper is handed over as a byte array.
const DEPTH_MAX: usize = 32;

/// A position in the payload of a frame. Methods return `None` if the payload ends too early or holds an unknown type.
pub(super) struct Walk<'a> {
    bytes: &'a mut [u8],
    at: usize,
    /// The whole payload as it was before the first replacement.
    original: Option<Vec<u8>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0, original: None }
    }

    /// What lies behind the position.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// The payload as it was, if something in it was replaced.
    pub(super) fn into_original(self) -> Option<Vec<u8>> {
        self.original
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len())?;
        self.at = end;
        Some(())
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.number().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.number().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.number().map(u64::from_be_bytes)
    }

    /// Passes a number of four bytes, and writes another in its place.
    pub(super) fn change_u32(&mut self, change: impl FnOnce(u32) -> u32) -> Option<()> {
        let start = self.at;
        let value = change(self.u32()?);
        self.bytes[start..self.at].copy_from_slice(&value.to_be_bytes());
        Some(())
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        let start = self.at;
        self.skip(N)?;
        self.bytes[start..self.at].try_into().ok()
    }

    /// Passes a short string; its original bytes, if some were replaced.
    #[expect(clippy::option_option, reason = "the outer one is whether there is a short string")]
    pub(super) fn short_string(&mut self) -> Option<Option<Vec<u8>>> {
        let [length] = self.number()?;
        let start = self.at;
        self.skip(usize::from(length))?;
        let end = self.at;
        if std::str::from_utf8(&self.bytes[start..end]).is_ok() {
            return Some(None);
        }
        let original = self.bytes[start..end].to_vec();
        self.keep_original();
        substitute(&mut self.bytes[start..end]);
        Some(Some(original))
    }

    /// Passes the property flags and properties of a content header of the class basic (60).
    pub(super) fn properties(&mut self) -> Option<()> {
        const HEADERS: u16 = 1 << 13;
        const DELIVERY_MODE: u16 = 1 << 12;
        const PRIORITY: u16 = 1 << 11;
        const TIMESTAMP: u16 = 1 << 6;
        let flags = self.u16()?;
        // From content-type down to cluster-id. The lowest two bits are no properties.
        for flag in (2..16).rev().map(|bit| 1 << bit).filter(|flag| flags & flag != 0) {
            match flag {
                HEADERS => drop(self.table()?),
                DELIVERY_MODE | PRIORITY => self.skip(1)?,
                TIMESTAMP => self.skip(8)?,
                _ => drop(self.short_string()?),
            }
        }
        Some(())
    }

    /// Passes a field table; its bytes, as the client can parse them.
    pub(super) fn table(&mut self) -> Option<&[u8]> {
        let start = self.at;
        self.values(true, 1)?;
        Some(&self.bytes[start..self.at])
    }

    /// Passes the values of a table, which have names, or of an array, which have none.
    fn values(&mut self, named: bool, depth: usize) -> Option<()> {
        let length = usize::try_from(self.u32()?).ok()?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        while self.at < end {
            if named {
                self.short_string()?;
            }
            let type_at = self.at;
            let [kind] = self.number()?;
            match kind {
                b't' | b'b' | b'B' => self.skip(1)?,
                b's' | b'U' | b'u' => self.skip(2)?,
                b'I' | b'i' | b'f' => self.skip(4)?,
                b'D' => self.skip(5)?,
                b'L' | b'l' | b'd' | b'T' => self.skip(8)?,
                b'S' | b'x' => self.long_string()?,
                b'V' => {}
                b'F' | b'A' if depth < DEPTH_MAX => self.values(kind == b'F', depth + 1)?,
                b'F' | b'A' => {
                    // Tables, arrays and byte arrays alike begin with their length in bytes.
                    self.keep_original();
                    self.bytes[type_at] = b'x';
                    self.long_string()?;
                }
                _ => return None,
            }
        }
        (self.at == end).then_some(())
    }

    fn long_string(&mut self) -> Option<()> {
        let length = self.u32()?;
        self.skip(usize::try_from(length).ok()?)
    }

    fn keep_original(&mut self) {
        if self.original.is_none() {
            self.original = Some(self.bytes.to_vec());
        }
    }
}

/// Replaces what is not UTF-8, byte by byte, so that lengths stay.
fn substitute(bytes: &mut [u8]) {
    let mut start = 0;
    while let Err(error) = std::str::from_utf8(&bytes[start..]) {
        let bad = start + error.valid_up_to();
        let end = error.error_len().map_or(bytes.len(), |length| bad + length);
        bytes[bad..end].fill(SUBSTITUTE);
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced_one_by_one() {
        let check = |given: &[u8], expected: &[u8]| {
            let mut bytes = given.to_vec();
            substitute(&mut bytes);
            assert_eq!(bytes, expected, "{given:x?}");
        };
        check(b"", b"");
        check("grün".as_bytes(), "grün".as_bytes());
        check(b"\xff\xfebad", b"\x1a\x1abad");
        check(b"a\xe2\x82", b"a\x1a\x1a");
        check("é\u{1f600}".as_bytes(), "é\u{1f600}".as_bytes());
        check(b"\xc3\xc3\xa9", "\x1aé".as_bytes());
    }
}
