//! A stream of which the client reads only what the screen lets through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use super::screen::{Screen, Step};

/// What is read at once, and how much the buffer holds unless one frame needs more.
const BUFFER_BYTES: usize = 256 * 1024;
/// A body frame of which so much is still to come is read straight into the buffer of the client.
const STRAIGHT_BYTES_MIN: usize = 16 * 1024;
/// After leaving so much out, the client gets to write: it reads for as long as there is something.
const DROPPED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A stream with a screen before its reader. What is written passes as it is.
#[derive(Debug)]
pub(super) struct ScreenedStream<S> {
    inner: S,
    screen: Screen,
    /// What was read. Up to `passed` the reader has it, up to `screened` it may have it, up to `filled` it is there.
    buffer: Vec<u8>,
    passed: usize,
    screened: usize,
    filled: usize,
    /// What the reader gets once it has all up to `screened`, instead of so many bytes behind that.
    replacement: Option<(usize, Vec<u8>)>,
    /// What the reader gets next, and how much of it it has.
    inserted: Vec<u8>,
    inserted_passed: usize,
    /// Left out since the reader last had to wait.
    dropped: usize,
}

impl<S> ScreenedStream<S> {
    pub(super) fn new(inner: S, screen: Screen) -> Self {
        Self {
            inner,
            screen,
            buffer: vec![0; BUFFER_BYTES],
            passed: 0,
            screened: 0,
            filled: 0,
            replacement: None,
            inserted: Vec::new(),
            inserted_passed: 0,
            dropped: 0,
        }
    }

    /// Gives the reader what it may have. 0: nothing is left of that.
    fn give(&mut self, to: &mut [u8]) -> usize {
        let inserted = &self.inserted[self.inserted_passed..];
        if !inserted.is_empty() {
            let count = copy(inserted, to);
            self.inserted_passed += count;
            return count;
        }
        let count = copy(&self.buffer[self.passed..self.screened], to);
        self.passed += count;
        count
    }

    /// Has the screen look at what was read. 0: the reader can have something, else how many bytes the screen needs. To be
    /// called when the reader has all that it may have.
    fn screen(&mut self) -> io::Result<usize> {
        loop {
            if let Some((bytes, with)) = self.replacement.take_if(|_| self.passed == self.screened) {
                self.dropped += bytes;
                self.passed += bytes;
                self.screened = self.passed;
                (self.inserted, self.inserted_passed) = (with, 0);
                if !self.inserted.is_empty() {
                    return Ok(0);
                }
            }
            if self.replacement.is_some() {
                return Ok(0); // what is before it first
            }
            match self.screen.step(&mut self.buffer[self.screened..self.filled]) {
                Step::Pass(bytes) => self.screened += bytes,
                Step::Replace(bytes, with) => self.replacement = Some((bytes, with)),
                // What is before it first: wherever the stream is cut, the reader gets the same.
                Step::Need(_) | Step::Refuse(_) if self.passed < self.screened => return Ok(0),
                Step::Need(bytes) => return Ok(bytes),
                Step::Refuse(fault) => return Err(io::Error::new(io::ErrorKind::InvalidData, fault)),
            }
        }
    }

    /// Makes room for as many bytes as the screen needs. To be called when the reader has all that it may have.
    fn make_room(&mut self, needed: usize) {
        if self.passed == self.filled && self.buffer.len() > BUFFER_BYTES {
            self.buffer = vec![0; BUFFER_BYTES]; // one long frame has passed
            (self.passed, self.screened, self.filled) = (0, 0, 0);
        }
        self.buffer.copy_within(self.passed..self.filled, 0);
        (self.screened, self.filled, self.passed) =
            (self.screened - self.passed, self.filled - self.passed, 0);
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}

impl<S: AsyncRead + Unpin> AsyncRead for ScreenedStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if to.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            let given = this.give(to);
            if given > 0 {
                return Poll::Ready(Ok(given));
            }
            let needed = this.screen()?;
            if needed == 0 {
                continue;
            }
            if this.dropped >= DROPPED_BYTES_MAX {
                this.dropped = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let straight = this.screen.passing().min(to.len());
            let read = if this.passed == this.filled && straight >= STRAIGHT_BYTES_MIN {
                let reading = Pin::new(&mut this.inner).poll_read(context, &mut to[..straight]);
                let read = this.waited(reading)?;
                if let Poll::Ready(read) = read {
                    this.screen.passed(read);
                }
                return read.map(Ok);
            } else {
                this.make_room(needed);
                let reading = Pin::new(&mut this.inner).poll_read(context, &mut this.buffer[this.filled..]);
                ready!(this.waited(reading)?)
            };
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            this.filled += read;
        }
    }
}

impl<S> ScreenedStream<S> {
    /// A reader that has to wait gets to write.
    fn waited(&mut self, reading: Poll<io::Result<usize>>) -> io::Result<Poll<usize>> {
        match reading {
            Poll::Pending => {
                self.dropped = 0;
                Ok(Poll::Pending)
            }
            Poll::Ready(read) => read.map(Poll::Ready),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ScreenedStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, from)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, from)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(context)
    }
}
