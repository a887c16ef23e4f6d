//! The HTTP server of the page and its events, in a thread of its own.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::Stream;
use futures_util::future::{Either, select};
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::feed::Feed;
use crate::metrics;
use crate::page;

/// Minimum time between two updates of a page.
const MIN_INTERVAL: Duration = Duration::from_millis(200);

/// A pause is at least this many times as long as the update before it took: the updates of a long history
/// use a tenth of a CPU.
const PAUSE_FACTOR: u32 = 9;

/// The longest of these pauses, however long an update took, on a busy machine say.
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// Maximum time between two updates of a page while tasks run.
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// A server that runs until it is stopped.
#[derive(Debug)]
pub(crate) struct DashboardServer {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DashboardServer {
    pub(crate) fn start(addr: SocketAddr, feed: Arc<Feed>) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(addr))?;
        let addr = listener.local_addr()?;
        let hosts = AllowedHosts(addr.ip());
        let app = Router::new()
            .route("/", get(front_page))
            .route("/events", get(events))
            .route("/metrics", get(metrics_page))
            .layer(middleware::from_fn_with_state(hosts, check_host))
            .with_state(feed);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread =
            thread::Builder::new().name("dashboard server".to_owned()).spawn(move || {
                runtime.spawn(serve(listener, app));
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self { addr, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops the server and closes all connections.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for DashboardServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Answers requests until it is dropped, and each at once: without [`TcpStream::set_nodelay`] the second half of an
/// answer could wait until the client acknowledges the first.
///
/// Another embedded server of a program may use it, too: the code of HTTP, which is generic, is then compiled once.
///
/// [`TcpStream::set_nodelay`]: tokio::net::TcpStream::set_nodelay
pub fn serve(
    listener: TcpListener,
    app: Router,
) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
    // If it fails, the client has already gone.
    let listener = listener.tap_io(|client| drop(client.set_nodelay(true)));
    Box::pin(axum::serve(listener, app).into_future())
}

/// The host names that requests may have.
#[derive(Clone, Copy)]
struct AllowedHosts(IpAddr);

impl AllowedHosts {
    /// Refuses other host names if the address is loopback. A page of another site could let its host
    /// name point to this machine and read the dashboard through a browser here (DNS rebinding).
    fn allow(self, headers: &HeaderMap) -> bool {
        if !self.0.is_loopback() {
            return true;
        }
        let host =
            headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => host,
        };
        let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

async fn check_host(State(hosts): State<AllowedHosts>, request: Request, next: Next) -> Response {
    if !hosts.allow(request.headers()) {
        return (StatusCode::FORBIDDEN, "This page is for this machine only.\n").into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, header::HeaderValue::from_static("DENY"));
    response
}

/// The page, with the present history.
async fn front_page(State(feed): State<Arc<Feed>>) -> Response {
    feed.read_some();
    match page::live(&feed.picture()) {
        Ok(page) => Html(page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The numbers of the pool.
async fn metrics_page(State(feed): State<Arc<Feed>>) -> Response {
    match feed.gauges() {
        Some(gauges) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&gauges))
            .into_response(),
        None => (StatusCode::NOT_FOUND, "This page shows no pool.\n").into_response(),
    }
}

/// The stream of updates, until the client disconnects.
async fn events(State(feed): State<Arc<Feed>>) -> impl IntoResponse {
    let (sender, receiver) = mpsc::channel::<Event>(1);
    tokio::spawn(async move {
        let viewer = feed.viewer();
        feed.read_some();
        let mut changes = feed.changes();
        let mut position = None;
        loop {
            // Marked before the feed is read, so that no change is missed.
            changes.mark_unchanged();
            let began = Instant::now();
            let update = feed.update(position);
            let pause = (began.elapsed() * PAUSE_FACTOR).clamp(MIN_INTERVAL, MAX_PAUSE);
            if let Some((json, now)) = update {
                if sender.send(Event::default().event("picture").data(json)).await.is_err() {
                    return;
                }
                position = Some(now);
                viewer.advance(now);
                if now.is_end() {
                    let _ = sender.send(Event::default().event("end").data("{}")).await;
                    // Until the client has fetched it or disconnects.
                    sender.closed().await;
                    return;
                }
            }
            let changed = timeout(MAX_INTERVAL, changes.changed());
            match select(pin!(changed), pin!(sender.closed())).await {
                Either::Left((Ok(Ok(())) | Err(_), _)) => {}
                Either::Left((Ok(Err(_)), _)) | Either::Right(_) => return,
            }
            sleep(pause).await;
        }
    });
    Sse::new(stream(receiver)).keep_alive(KeepAlive::default())
}

fn stream(receiver: mpsc::Receiver<Event>) -> impl Stream<Item = Result<Event, Infallible>> {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|event| (Ok(event), receiver))
    })
}
