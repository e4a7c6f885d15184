//! Reads and parses the lines on a thread of their own: reading standard input blocks, and parsing takes as much CPU
//! time as publishing.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::console::Console;
use lanekeeper_broker::publisher::json_line::{self, BadLine};
use lanekeeper_broker::publisher::line_reader::{InputLine, LineReader};
use lanekeeper_broker::publisher::{Outgoing, Submission, SubmissionId};

/// Bytes that one read asks for.
const READ_BYTES: usize = 64 * 1024;

/// Bad lines that are printed; further ones are only counted.
const BAD_LINES_SHOWN_MAX: u64 = 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where lines come from.
pub(super) struct Input {
    source: Box<dyn Read + Send>,
    bytes: Option<u64>,
    body_bytes_max: usize,
    strict: bool,
}

/// How far the input was read. Shared by the reading thread and the report.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Bytes read.
    pub(super) bytes: AtomicU64,
    /// Lines read, including bad and blank ones.
    pub(super) lines: AtomicU64,
    /// Of these: bad ones.
    pub(super) bad: AtomicU64,
    /// The input was read to its end.
    pub(super) complete: AtomicBool,
}

impl Input {
    /// Opens the file, or standard input.
    pub(super) fn open(file: Option<&Path>, body_bytes_max: usize, strict: bool) -> io::Result<Self> {
        let (source, bytes): (Box<dyn Read + Send>, _) = match file.filter(|file| *file != Path::new("-")) {
            Some(path) => {
                let mut file = File::open(path)?;
                if file.metadata()?.is_dir() {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                // A pipe or a device has no end to seek to, and no length to show.
                let bytes =
                    file.seek(io::SeekFrom::End(0)).and_then(|bytes| file.rewind().map(|()| bytes)).ok();
                (Box::new(file), bytes)
            }
            None => (Box::new(io::stdin()), None),
        };
        Ok(Self { source, bytes, body_bytes_max, strict })
    }

    /// Its length, if known.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Reads on a new thread until the end of the input, until the receiver is dropped, or with `--strict` until the
    /// first bad line.
    pub(super) fn read(self, lines: mpsc::Sender<Submission>, console: Console) -> Arc<Reading> {
        let reading = Arc::new(Reading::default());
        let progress = Arc::clone(&reading);
        std::thread::Builder::new()
            .name("lines".to_owned())
            .spawn(move || self.read_all(&lines, &console, &progress))
            .expect("a thread starts");
        reading
    }

    fn read_all(self, lines: &mpsc::Sender<Submission>, console: &Console, progress: &Reading) {
        let source = BufReader::with_capacity(READ_BYTES, self.source);
        let line_bytes_max = json_line::line_bytes_max(self.body_bytes_max);
        let mut reader = LineReader::new(source, line_bytes_max);
        loop {
            let number = progress.lines.load(Ordering::Relaxed) + 1;
            let parsed = match reader.next_line() {
                Ok(Some(line)) => parse(&line, number, line_bytes_max, self.body_bytes_max),
                Ok(None) => return progress.complete.store(true, Ordering::Release),
                Err(error) => {
                    return console.say(&format!("cannot read the input after line {}: {error}", number - 1));
                }
            };
            progress.bytes.store(reader.bytes_read(), Ordering::Relaxed);
            match parsed {
                Ok(None) => progress.lines.store(number, Ordering::Relaxed),
                Ok(Some(outgoing)) => {
                    if lines
                        .blocking_send(Submission { submission_id: SubmissionId(number), outgoing })
                        .is_err()
                    {
                        return;
                    }
                    progress.lines.store(number, Ordering::Relaxed);
                }
                Err(bad) => {
                    progress.lines.store(number, Ordering::Relaxed);
                    show_bad_line(console, progress.bad.fetch_add(1, Ordering::Relaxed), number, &bad);
                    if self.strict {
                        return;
                    }
                }
            }
        }
    }
}

/// `None`: a blank line.
fn parse(
    line: &InputLine<'_>,
    number: u64,
    line_bytes_max: usize,
    body_bytes_max: usize,
) -> Result<Option<Outgoing>, BadLine> {
    let line = match line {
        InputLine::TooLong { bytes } => {
            return Err(BadLine::LineTooLong { bytes: *bytes, bytes_max: line_bytes_max });
        }
        // Some editors put it at the start of a file.
        InputLine::Whole(line) if number == 1 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
        InputLine::Whole(line) => line,
    };
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json_line::parse(line, body_bytes_max, now).map(Some)
}

fn show_bad_line(console: &Console, shown_before: u64, number: u64, bad: &BadLine) {
    if shown_before < BAD_LINES_SHOWN_MAX {
        console.say(&format!("line {number} skipped: {bad}"));
    } else if shown_before == BAD_LINES_SHOWN_MAX {
        console.say("further bad lines are counted, not printed");
    }
}
