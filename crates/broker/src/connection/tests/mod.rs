//! The screen under streams of all kinds. The client's own parser says whether what comes out is AMQP.

mod examples;
mod properties;
mod streams;
mod wire;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use amq_protocol::frame::{AMQPFrame, parse_frame};
use futures_io::AsyncRead;

use super::alterations::{ChannelAlterations, WatchedChannels};
use super::screen::{Limits, Screen};
use super::stream::ScreenedStream;

const LIMITS: Limits = Limits { body_bytes_max: 2_000, frame_max: 20_000 };
const WINDOW: usize = 100;
const CHANNELS: u16 = 4;

/// How a stream is cut: what arrives at once, and what is asked for at once.
#[derive(Clone, Debug)]
struct Cuts {
    /// 0: nothing has arrived yet.
    arriving: Vec<usize>,
    asking: Vec<usize>,
}

impl Cuts {
    fn whole() -> Self {
        Self { arriving: vec![usize::MAX], asking: vec![1 << 20] }
    }
}

/// Gives its bytes in pieces.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: Box<dyn Iterator<Item = usize> + 'a>,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let size = self.sizes.next().expect("the sizes go round").min(self.bytes.len()).min(to.len());
        if size == 0 && !self.bytes.is_empty() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let (now, later) = self.bytes.split_at(size);
        to[..size].copy_from_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(size))
    }
}

/// What came of a stream.
struct Screened {
    bytes: Vec<u8>,
    /// By channel number, from 1.
    alterations: Vec<ChannelAlterations>,
    server_properties: Option<Vec<u8>>,
    /// How often the reader had to wait.
    waits: usize,
    fault: Option<String>,
}

impl Screened {
    fn frames(&self) -> Vec<AMQPFrame> {
        let (mut rest, mut frames) = (self.bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (next, frame) = parse_frame(rest).expect("the client can parse what is let through");
            assert!(rest.len() - next.len() <= LIMITS.frame_max as usize, "the client takes its length");
            frames.push(frame);
            rest = next;
        }
        frames
    }
}

fn screened(wire: &[u8], cuts: &Cuts) -> Screened {
    let (watched, server_properties) = (WatchedChannels::default(), Arc::new(OnceLock::new()));
    let alterations = (1..CHANNELS).map(|channel| watched.watch(channel, WINDOW)).collect();
    let sizes = Box::new(cuts.arriving.iter().copied().cycle());
    let screen = Screen::new(LIMITS, watched, Arc::clone(&server_properties));
    let mut stream = ScreenedStream::new(Pieces { bytes: wire, sizes }, screen);
    let (mut bytes, mut waits, mut fault) = (Vec::new(), 0, None);
    let mut context = Context::from_waker(Waker::noop());
    for asked in cuts.asking.iter().cycle() {
        let mut to = vec![0; *asked];
        match Pin::new(&mut stream).poll_read(&mut context, &mut to) {
            Poll::Pending => waits += 1,
            Poll::Ready(Ok(0)) => break,
            Poll::Ready(Ok(count)) => bytes.extend_from_slice(&to[..count]),
            Poll::Ready(Err(error)) => {
                fault = Some(error.to_string());
                break;
            }
        }
    }
    let server_properties = server_properties.get().cloned();
    Screened { bytes, alterations, server_properties, waits, fault }
}
