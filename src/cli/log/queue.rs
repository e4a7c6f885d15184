//! The queue between whoever logs and standard error.
//!
//! Standard error can be a pipe that nobody reads, or a file on a full disk. Who logs only appends to a buffer in memory; a
//! thread of its own writes. Lines that find no room, or that cannot be written, are dropped and counted.
//!
//! `tracing-appender` 0.2 has such a queue, but it bounds lines and not bytes, does not count what cannot be written, and if
//! its queue is full at the end of the process it says so with `println!`, which waits for a reader or panics.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::admin::metrics::{DropReason, LogMetrics};

/// Bytes that may wait to be written, and as many can be on their way to standard error. At `info` that is more than an hour
/// of a busy process.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Memory that a buffer keeps when it is empty.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// How long a process that ends waits for the lines that are not written yet.
pub(in crate::cli) const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// After so long a standard error that was made non-blocking is tried again.
const BUSY_DELAY: Duration = Duration::from_millis(10);

/// Takes lines for standard error. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::cli) struct LogQueue(Arc<QueueState>);

#[derive(Debug)]
struct QueueState {
    bytes_max: usize,
    state: Mutex<State>,
    /// There are lines to write.
    filled: Condvar,
    /// All lines are written.
    emptied: Condvar,
    metrics: LogMetrics,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    waiting: Vec<u8>,
    /// The thread has lines that it has not written yet.
    writing: bool,
    /// Lines that were dropped since a line of the log said so.
    dropped: usize,
}

impl LogQueue {
    /// Starts the thread that writes to standard error.
    ///
    /// # Panics
    /// If the operating system gives no thread.
    pub(super) fn start(metrics: LogMetrics) -> Self {
        // A descriptor of its own: while the thread waits in a write, it holds no lock of the standard library, which a
        // panic would wait for.
        match io::stderr().as_fd().try_clone_to_owned() {
            Ok(descriptor) => Self::to(File::from(descriptor), QUEUE_BYTES_MAX, metrics),
            Err(_) => Self::to(io::stderr(), QUEUE_BYTES_MAX, metrics),
        }
    }

    fn to(output: impl Write + Send + 'static, bytes_max: usize, metrics: LogMetrics) -> Self {
        let queue = Self(Arc::new(QueueState {
            bytes_max,
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            metrics,
        }));
        let writer = Writer { queue: queue.clone(), output, ends_within_a_line: false };
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || writer.write_for_ever()).expect("the operating system gives a thread");
        queue
    }

    /// Takes whole lines, with their line ends; or drops them, if there is no room. Never waits for a reader.
    pub(in crate::cli) fn push(&self, lines: &[u8]) {
        let mut state = self.state();
        if state.waiting.len().saturating_add(lines.len()) > self.0.bytes_max {
            let count = count(lines);
            state.dropped += count;
            drop(state);
            return self.0.metrics.dropped(DropReason::QueueFull, count);
        }
        state.waiting.extend_from_slice(lines);
        drop(state);
        self.0.filled.notify_one();
    }

    /// Waits until all lines are written or dropped, at most for [`FLUSH_TIME_MAX`].
    pub(in crate::cli) fn flush(&self) {
        let state = self.state();
        let is_busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        drop(self.0.emptied.wait_timeout_while(state, FLUSH_TIME_MAX, is_busy));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines and moves them into `lines`, which is empty.
    fn next(&self, lines: &mut Vec<u8>) {
        let mut state = self.state();
        state.writing = false;
        if state.waiting.is_empty() {
            self.0.emptied.notify_all();
        }
        let waited = self.0.filled.wait_while(state, |state| state.waiting.is_empty());
        state = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.waiting, lines);
        state.writing = true;
    }

    /// Lines went out: says how many did not.
    fn written(&self) {
        let lines = std::mem::take(&mut self.state().dropped);
        if lines > 0 {
            warn!(
                lines,
                "log lines were dropped: standard error was not read fast enough, or could not be written; dispatch went on"
            );
        }
    }

    fn not_written(&self, lines: usize) {
        self.state().dropped += lines;
        self.0.metrics.dropped(DropReason::WriteFailed, lines);
    }
}

/// As the writer of `tracing_subscriber`, which writes each event at once, with its line end.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogQueue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// What the thread has.
struct Writer<O> {
    queue: LogQueue,
    output: O,
    /// The last write failed in the middle of a line.
    ends_within_a_line: bool,
}

impl<O: Write> Writer<O> {
    fn write_for_ever(mut self) {
        let mut lines = Vec::new();
        loop {
            self.queue.next(&mut lines);
            match self.write(&lines) {
                Ok(()) => self.queue.written(),
                Err(left) => self.queue.not_written(left),
            }
            lines.clear();
            lines.shrink_to(BUFFER_BYTES_KEPT);
        }
    }

    /// The error is how many lines were not written whole.
    fn write(&mut self, lines: &[u8]) -> Result<(), usize> {
        if self.ends_within_a_line {
            self.write_all(b"\n").map_err(|_| count(lines))?;
            self.ends_within_a_line = false;
        }
        self.write_all(lines).map_err(|left| {
            let written = &lines[..lines.len() - left.len()];
            self.ends_within_a_line |= written.last().is_some_and(|last| *last != b'\n');
            count(left)
        })
    }

    /// The error is what was not written.
    fn write_all<'a>(&mut self, mut left: &'a [u8]) -> Result<(), &'a [u8]> {
        while !left.is_empty() {
            match self.output.write(left) {
                Ok(0) => return Err(left),
                Ok(bytes) => left = &left[bytes..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::park_timeout(BUSY_DELAY),
                Err(_) => return Err(left),
            }
        }
        Ok(())
    }
}

fn count(lines: &[u8]) -> usize {
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use super::*;
    use crate::admin::metrics::Metrics;

    /// What a write answers: so many bytes are written, or the error.
    type Answer = Result<usize, ErrorKind>;

    /// Standard error that answers each write as the test says, and waits for that.
    struct Output {
        answers: Receiver<Answer>,
        written: Sender<String>,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let answer = self.answers.recv().map_err(|_| ErrorKind::BrokenPipe)?;
            let count = answer?.min(bytes.len());
            let _ = self.written.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct World {
        queue: LogQueue,
        answers: Sender<Answer>,
        written: Receiver<String>,
        metrics: Metrics,
    }

    fn world(bytes_max: usize) -> World {
        let metrics = Metrics::new();
        let (answers, to_answer) = channel();
        let (to_written, written) = channel();
        let output = Output { answers: to_answer, written: to_written };
        World { queue: LogQueue::to(output, bytes_max, metrics.log()), answers, written, metrics }
    }

    impl World {
        fn dropped(&self, reason: &str) -> String {
            let name = format!("lanekeeper_log_lines_dropped_total{{reason=\"{reason}\"}} ");
            let text = self.metrics.encode();
            text.lines()
                .find_map(|line| line.strip_prefix(&name))
                .expect("it is counted from the start")
                .to_owned()
        }

        fn writes(&self, answer: Answer) -> String {
            self.answers.send(answer).expect("the thread runs");
            self.written.recv().expect("the thread runs")
        }

        /// Waits until the thread is in a write.
        fn is_in_a_write(&self) {
            let deadline = Instant::now() + Duration::from_secs(10);
            while !self.queue.state().writing {
                assert!(Instant::now() < deadline, "nothing is written");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_nobody_waits() {
        let world = world(10);
        world.queue.push(b"1\n");
        world.is_in_a_write();
        for line in [b"12345\n", b"67890\n"] {
            world.queue.push(line);
        }
        world.queue.push(b"a\nb\nc\nd\ne\nf\n");
        assert_eq!(world.dropped("queue_full"), "7", "a line, and six at once");
        assert_eq!(world.dropped("write_failed"), "0");
        let begun = Instant::now();
        world.queue.flush();
        assert!(begun.elapsed() < 10 * FLUSH_TIME_MAX, "an end waits for a bounded time");
        assert_eq!(world.writes(Ok(99)), "1\n");
        assert_eq!(world.writes(Ok(99)), "12345\n", "what had room is written in the end");
        world.queue.push(b"2\n");
        assert_eq!(world.writes(Ok(99)), "2\n", "and so is what comes after");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_the_next_line_begins_a_line() {
        let world = world(100);
        world.queue.push(b"one\ntwo\n");
        assert_eq!(world.writes(Ok(5)), "one\nt");
        world.answers.send(Err(ErrorKind::StorageFull)).expect("the thread runs");
        world.queue.flush();
        assert_eq!(world.dropped("write_failed"), "1", "the first line was whole");
        world.queue.push(b"three\n");
        world.answers.send(Err(ErrorKind::Interrupted)).expect("the thread runs");
        world.answers.send(Err(ErrorKind::WouldBlock)).expect("the thread runs");
        assert_eq!(world.writes(Ok(99)), "\n");
        assert_eq!(world.writes(Ok(99)), "three\n");
        world.queue.flush();
        let World { queue, answers, metrics, .. } = world;
        drop(answers);
        queue.push(b"four\n");
        queue.flush();
        assert!(metrics.encode().contains("{reason=\"write_failed\"} 2"), "nobody reads any more");
    }

    #[test]
    fn a_flush_returns_as_soon_as_everything_is_written() {
        let world = world(100);
        world.queue.push(b"line\n");
        world.answers.send(Ok(99)).expect("the thread runs");
        let begun = Instant::now();
        world.queue.flush();
        assert!(begun.elapsed() < FLUSH_TIME_MAX);
        assert_eq!(world.written.try_recv().as_deref(), Ok("line\n"));
    }
}
