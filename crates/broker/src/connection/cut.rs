//! Ends a connection without a word. A connection that the broker has blocked is read by nobody there, so that the client keeps
//! what it would say of the end, and with it the connection and its thread, until the alarm is over.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use futures_util::task::AtomicWaker;

/// Cuts the streams that were made with it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut(Arc<CutState>);

#[derive(Debug, Default)]
struct CutState {
    is_cut: AtomicBool,
    reader: AtomicWaker,
}

/// A stream that ends when it is cut.
#[derive(Debug)]
pub(super) struct CutStream<S> {
    inner: S,
    cut: Cut,
}

impl Cut {
    /// Whoever reads or writes gets an error from now on.
    pub(super) fn cut(&self) {
        self.0.is_cut.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    fn check(&self) -> io::Result<()> {
        if self.0.is_cut.load(Ordering::Acquire) { Err(ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl<S> CutStream<S> {
    pub(super) fn new(inner: S, cut: Cut) -> Self {
        Self { inner, cut }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CutStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let reading = Pin::new(&mut this.inner).poll_read(context, to);
        if reading.is_pending() {
            this.cut.0.reader.register(context.waker());
        }
        // After that: a cut that comes now wakes.
        this.cut.check()?;
        reading
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CutStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.cut.check()?;
        Pin::new(&mut this.inner).poll_write(context, from)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.cut.check()?;
        Pin::new(&mut this.inner).poll_write_vectored(context, from)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use futures_util::future::{Either, select};

    use super::*;

    /// Nothing ever comes.
    struct Silent;

    impl AsyncRead for Silent {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_stream_that_is_cut_gets_an_error() {
        let cut = Cut::default();
        let mut stream = CutStream::new(Silent, cut.clone());
        let mut buffer = [0; 8];
        let reading = pin!(poll_fn(|context| Pin::new(&mut stream).poll_read(context, &mut buffer)));
        let later = pin!(tokio::task::yield_now());
        let Either::Right(((), reading)) = select(reading, later).await else { panic!("nothing has come") };
        tokio::spawn(async move { cut.cut() });
        assert_eq!(reading.await.expect_err("it is cut").kind(), ErrorKind::ConnectionAborted);
    }
}
