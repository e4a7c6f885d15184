//! Requests over HTTP/2, without TLS: what the target sees of those that are withheld.

#![expect(clippy::disallowed_types, reason = "the client of the targets is tested")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, connect::capture_connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::super::SendGuard;
use super::super::send_guard::Withheld;
use super::*;

/// A connection whose other side is known to speak HTTP/2.
struct Http2(TokioIo<TcpStream>);

impl Connection for Http2 {
    fn connected(&self) -> Connected {
        Connected::new().negotiated_h2()
    }
}

impl Read for Http2 {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Http2 {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[derive(Clone)]
struct Connector(std::net::SocketAddr);

impl tower_service::Service<http::Uri> for Connector {
    type Response = GatedIo<Http2>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<GatedIo<Http2>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let address = self.0;
        Box::pin(async move {
            Ok(GatedIo::new(
                Http2(TokioIo::new(TcpStream::connect(address).await?)),
                true,
                EarlyAlerts::default(),
            ))
        })
    }
}

/// A target that takes `streams_max` requests of a connection at once, and answers as many as `answers` has permits.
struct World {
    client: Client<Connector, GatedBody>,
    seen: mpsc::UnboundedReceiver<String>,
    answers: Arc<Semaphore>,
    connections: Arc<AtomicUsize>,
}

impl World {
    async fn new(streams_max: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let (answers, connections) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (answer, counted) = (Arc::clone(&answers), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (sender, answer) = (sender.clone(), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = Arc::clone(&answer);
                    // At the head, as targets may that need no body.
                    let _ = sender.send(format!("{} {}", request.method(), request.uri().path()));
                    async move {
                        answer.acquire().await.unwrap().forget();
                        Ok::<_, Infallible>(Response::new(http_body()))
                    }
                });
                let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                server.max_concurrent_streams(streams_max);
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build(Connector(address));
        Self { client, seen, answers, connections }
    }

    /// Sends a request; its status, or why it was withheld (`None`: something else failed).
    fn send(
        &self,
        path: &str,
        body: &'static [u8],
        check: SendCheck,
    ) -> impl Future<Output = Result<u16, Option<Withheld>>> + use<> {
        let mut request = Request::new(());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = format!("http://target/{path}").parse().unwrap();
        let connection = capture_connection(&mut request);
        let request = request.map(|()| GatedBody::new(Bytes::from_static(body), check.clone(), connection));
        let sending = self.client.request(request);
        async move { sending.await.map(|answer| answer.status().as_u16()).map_err(|_| check.withheld()) }
    }
}

fn http_body() -> GatedBody {
    GatedBody { bytes: None, check: Cell::new(None) }
}

fn check(allowed: bool) -> SendCheck {
    SendCheck::new(SendGuard::new(move || allowed), Instant::now() + Duration::from_secs(60))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_guard_denies_leaves_no_trace_on_http2() {
    let mut world = World::new(100).await;
    for body in [&b""[..], b"{}"] {
        for round in 0..20 {
            world.answers.add_permits(1);
            let path = format!("{round}");
            assert_eq!(world.send(&path, body, check(true)).await, Ok(200));
            assert_eq!(world.seen.recv().await, Some(format!("DELETE /{round}")));
            let withheld = world.send("withheld", body, check(false)).await;
            assert_eq!(withheld, Err(Some(Withheld::Denied)), "{round}");
        }
    }
    assert!(world.seen.try_recv().is_err(), "the target saw nothing of what was withheld");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_share_a_connection_and_each_has_its_own_check() {
    let mut world = World::new(100).await;
    // While there is no connection yet, two requests can each begin one.
    world.answers.add_permits(1);
    assert_eq!(world.send("first", b"", check(true)).await, Ok(200));
    assert_eq!(world.seen.recv().await.as_deref(), Some("DELETE /first"));
    let sending: Vec<_> = (0..50)
        .map(|number| {
            let body: &[u8] = if number % 2 == 0 { b"" } else { b"{}" };
            tokio::spawn(world.send(&number.to_string(), body, check(true)))
        })
        .collect();
    world.answers.add_permits(50);
    for sent in sending {
        assert_eq!(sent.await.unwrap(), Ok(200));
    }
    let mut seen = Vec::new();
    while let Ok(request) = world.seen.try_recv() {
        seen.push(request);
    }
    assert_eq!(seen.len(), 50);
    assert_eq!(world.connections.load(Ordering::SeqCst), 1);
}

/// The target takes one request at a time; the other waits in the client, and is asked about when its turn comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_its_turn_is_checked_when_it_is_written() {
    for (body, late, expected) in [
        (&b""[..], false, Err(Some(Withheld::Denied))),
        (b"{}", false, Err(Some(Withheld::Denied))),
        (b"", true, Err(Some(Withheld::Late))),
    ] {
        let mut world = World::new(1).await;
        world.answers.add_permits(1);
        assert_eq!(world.send("first", b"", check(true)).await, Ok(200), "the settings are known now");
        let under_way = tokio::spawn(world.send("second", b"", check(true)));
        assert_eq!(world.seen.recv().await.as_deref(), Some("DELETE /first"));
        assert_eq!(world.seen.recv().await.as_deref(), Some("DELETE /second"));
        let allowed = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let asked = Arc::clone(&allowed);
        let write_by = Instant::now() + if late { Duration::ZERO } else { Duration::from_secs(60) };
        let waiting_check = SendCheck::new(SendGuard::new(move || asked.load(Ordering::SeqCst)), write_by);
        let waiting = tokio::spawn(world.send("waiting", body, waiting_check.clone()));
        tokio::task::yield_now().await;
        allowed.store(late, Ordering::SeqCst);
        world.answers.add_permits(1);
        let _ = under_way.await;
        assert_eq!(waiting.await.unwrap(), expected);
        assert!(waiting_check.written_at().is_none());
        assert!(world.seen.try_recv().is_err(), "the target saw nothing of it");
    }
}

/// The other side of a connection refuses our certificate as soon as it is read from.
struct Refusing;

impl Connection for Refusing {
    fn connected(&self) -> Connected {
        Connected::new().negotiated_h2()
    }
}

impl Read for Refusing {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, alert)))
    }
}

impl Write for Refusing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Clone)]
struct RefusingConnector(EarlyAlerts);

impl tower_service::Service<http::Uri> for RefusingConnector {
    type Response = GatedIo<Refusing>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<GatedIo<Refusing>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        std::future::ready(Ok(GatedIo::new(Refusing, true, self.0.clone())))
    }
}

/// A machine with much other work: the task of the connection runs before the client goes on.
#[derive(Clone)]
struct AtOnce;

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for AtOnce {
    fn execute(&self, task: F) {
        let mut task = Box::pin(task);
        if task.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending() {
            tokio::spawn(task);
        }
    }
}

#[tokio::test]
async fn an_alert_before_the_connection_can_be_used_is_known() {
    let alerts = EarlyAlerts::default();
    let client = Client::builder(AtOnce).http2_only(true).build(RefusingConnector(alerts.clone()));
    let (mut request, begun) = (Request::new(()), std::time::Instant::now());
    *request.uri_mut() = "http://target/".parse().unwrap();
    let connection = capture_connection(&mut request);
    let request = request.map(|()| GatedBody::new(Bytes::new(), check(true), connection.clone()));
    client.request(request).await.expect_err("the other side refuses us");
    assert!(has_no_connection(&connection), "the client found out before the request was queued");
    assert_eq!(alert(&connection), None);
    assert_eq!(alerts.since(begun), Some(AlertDescription::CertificateRequired));
    assert_eq!(alerts.since(std::time::Instant::now()), None);
}
