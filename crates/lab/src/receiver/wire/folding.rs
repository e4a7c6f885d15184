//! A header field whose value goes on in the next line (`obs-fold`, RFC 9112, section 5.2). No HTTP library writes one, so a
//! placeholder of the same length is replaced as it is written.

/// The name of the field.
pub(super) const NAME: &str = "x-folded";
/// Its value as the library knows it.
pub(super) const VALUE: &str = "one\t\t\ttwo";

/// From the field's name to the end of the placeholder.
const WRITTEN: &[u8] = b"x-folded: one\t\t\t";
const REPLACEMENT: &[u8] = b"\r\n\t";

/// How much of the field was written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Folding {
    matched: usize,
}

impl Folding {
    /// What is written for this byte.
    pub(super) fn replace(&mut self, byte: u8) -> u8 {
        if WRITTEN[self.matched] != byte {
            // The first byte is the name's, and has no other place in it that begins as the name does.
            self.matched = usize::from(byte == WRITTEN[0]);
            return byte;
        }
        self.matched += 1;
        let placeholder = WRITTEN.len() - REPLACEMENT.len();
        let replaced = self.matched.checked_sub(placeholder + 1).map_or(byte, |at| REPLACEMENT[at]);
        self.matched %= WRITTEN.len();
        replaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_folded_wherever_it_is_and_nothing_else_is_changed() {
        let check = |text: &str, expected: &str| {
            let mut folding = Folding::default();
            let replaced: Vec<u8> = text.bytes().map(|byte| folding.replace(byte)).collect();
            assert_eq!(String::from_utf8(replaced).unwrap(), expected);
        };
        let head = format!("HTTP/1.1 200 OK\r\n{NAME}: {VALUE}\r\n\r\n");
        let folded = "HTTP/1.1 200 OK\r\nx-folded: one\r\n\ttwo\r\n\r\n";
        check(&head, folded);
        check(&head.repeat(2), &folded.repeat(2));
        check("xx-folded: one\t\t\ttwo", "xx-folded: one\r\n\ttwo");
        for text in ["", "one\t\t\ttwo", "x-folded: one \t\t\t", "x-fold\t\t\t"] {
            check(text, text);
        }
    }
}
