//! Lines of a stream, each of bounded length; a longer one is skipped without being held.

use std::io::{self, BufRead};

/// Reads lines one at a time into one buffer.
#[derive(Debug)]
pub struct LineReader<R> {
    source: R,
    buffer: Vec<u8>,
    line_bytes_max: usize,
    bytes_read: u64,
}

/// A line, without its line feed.
#[derive(Debug, PartialEq, Eq)]
pub enum InputLine<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// It was longer than allowed and is skipped.
    TooLong {
        /// Its length.
        bytes: u64,
    },
}

impl<R: BufRead> LineReader<R> {
    /// Lines over `line_bytes_max` bytes are skipped.
    pub fn new(source: R, line_bytes_max: usize) -> Self {
        Self { source, buffer: Vec::new(), line_bytes_max, bytes_read: 0 }
    }

    /// Bytes taken from the source so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The next line; `None` at the end. A last line need not end with a line feed.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<InputLine<'_>>> {
        self.buffer.clear();
        let mut bytes = 0_u64;
        let mut too_long = false;
        loop {
            let chunk = match self.source.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let at_end = chunk.is_empty();
            let line_feed = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..line_feed.unwrap_or(chunk.len())];
            bytes += part.len() as u64;
            too_long |= self.buffer.len() + part.len() > self.line_bytes_max;
            if !too_long {
                self.buffer.extend_from_slice(part);
            }
            let used = part.len() + usize::from(line_feed.is_some());
            self.source.consume(used);
            self.bytes_read += used as u64;
            if line_feed.is_some() || at_end {
                return Ok(match (bytes, line_feed) {
                    (0, None) => None,
                    _ if too_long => Some(InputLine::TooLong { bytes }),
                    _ => Some(InputLine::Whole(&self.buffer)),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// Reads `input` with lines of at most 5 bytes, through a buffer of `capacity` bytes.
    fn check(input: &str, expected: &[&str]) {
        for capacity in [1, 2, 3, 64] {
            let mut reader = LineReader::new(BufReader::with_capacity(capacity, input.as_bytes()), 5);
            let mut lines = Vec::new();
            while let Some(line) = reader.next_line().unwrap() {
                lines.push(match line {
                    InputLine::Whole(line) => String::from_utf8(line.to_vec()).unwrap(),
                    InputLine::TooLong { bytes } => format!("too long: {bytes}"),
                });
            }
            assert_eq!(lines, expected, "{input:?} with a buffer of {capacity}");
            assert_eq!(reader.bytes_read(), input.len() as u64);
            assert!(reader.buffer.capacity() <= 64, "a long line is not held");
        }
    }

    #[test]
    fn lines_come_whole_or_not_at_all() {
        check("", &[]);
        check("a", &["a"]);
        check("a\n", &["a"]);
        check("a\n\nb", &["a", "", "b"]);
        check("\n", &[""]);
        check("12345\n123456\n1", &["12345", "too long: 6", "1"]);
        check("1234567", &["too long: 7"]);
        check(&format!("{}\nb\n", "x".repeat(10_000)), &["too long: 10000", "b"]);
        check("a\r\nb\r\n", &["a\r", "b\r"]);
    }
}
