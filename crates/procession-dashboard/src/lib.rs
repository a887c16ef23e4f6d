//! A live page of a run, with the lanes of its timeline, and `/metrics` for Prometheus.
//!
//! ```text
//!   journal of a run ────────► watch thread ─┐
//!   entries of the program ──────────────────┼─► Feed: the history ─► server thread ─► pages, /metrics
//!   gauges of a pool, once a second ─────────┘
//! ```
//!
//! The page shows what is in the journal, so all programs look alike, and a run without a connected page
//! takes no longer. It needs no network. Short tasks share a bar of a page from a number of bars on:
//! [`MAX_SPANS`](procession_journal::MAX_SPANS). A server that listens on a loopback address
//! refuses requests for other host names.

mod feed;
mod gauges;
mod metrics;
pub mod page;
mod picture;
mod server;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use procession_journal::{LogEntry, Merge, ReadWarnings};

use self::feed::{Feed, FeedSource};
pub use self::gauges::{DurationGauge, Gauges, WorkerGauge};
pub use self::picture::Picture;
use self::server::DashboardServer;
#[doc(hidden)]
pub use self::server::serve;

/// Interval of the search for new log lines.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The longest interval between samples of gauges. In the first 50 seconds of a page the interval is shorter, so that a
/// short run has charts, too.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// How long pages may take to fetch the end of a history.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// How long lines are read for a page in a file, while processes go on to write them.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A page that is being served.
///
/// ```
/// use procession_dashboard::{Dashboard, Gauges};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sample = || Gauges { slots: 2, running: 1, ..Gauges::default() };
/// let dashboard = Dashboard::open_for_pool("127.0.0.1:0".parse()?, "my pool", sample)?;
/// println!("{} at port {}", dashboard.url(), dashboard.addr().port());
/// let page = dashboard.still()?; // one file, which makes no requests
/// assert!(page.contains("my pool"));
/// dashboard.end();
/// # Ok(()) }
/// ```
///
/// A page of a run that keeps a journal:
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use procession_dashboard::Dashboard;
/// let dashboard = Dashboard::open("127.0.0.1:8080".parse()?)?;
/// dashboard.watch("my run", "logs/latest".as_ref())?;
/// // … until the run has ended:
/// dashboard.show_end();
/// dashboard.end();
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Dashboard {
    feed: Arc<Feed>,
    server: DashboardServer,
    /// The thread that reads the logs and takes samples.
    watch: Mutex<Option<JoinHandle<()>>>,
    is_over: Arc<AtomicBool>,
}

impl Dashboard {
    /// Starts to serve the page on this address; with port 0, on a free one.
    ///
    /// # Errors
    ///
    /// Those of the system: the address is in use, say.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        Self::start(addr, Feed::new(None))
    }

    /// The same for a pool. `sample` is called once a second, and for each request of `/metrics`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_for_pool(
        addr: SocketAddr,
        name: &str,
        sample: impl Fn() -> Gauges + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let dashboard = Self::start(addr, Feed::new(Some(Box::new(sample))))?;
        dashboard.feed.begin(name, FeedSource::Direct);
        dashboard.feed.take_sample();
        dashboard.start_watch()?;
        Ok(dashboard)
    }

    fn start(addr: SocketAddr, feed: Feed) -> io::Result<Self> {
        let feed = Arc::new(feed);
        let server = DashboardServer::start(addr, Arc::clone(&feed))?;
        Ok(Self { feed, server, watch: Mutex::default(), is_over: Arc::default() })
    }

    /// The address of the server.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The URL of the page.
    pub fn url(&self) -> String {
        url(self.addr())
    }

    /// Shows the run whose journal is in this directory.
    ///
    /// # Errors
    ///
    /// Those of the system: the directory cannot be read, say.
    pub fn watch(&self, name: &str, logs: &Path) -> io::Result<()> {
        let merge = Merge::open(logs, false)?;
        let source = FeedSource::Logs(Box::new(merge), ReadWarnings::default());
        self.read_from(name, source)
    }

    /// Shows the only run that will keep its journal in this directory.
    ///
    /// # Errors
    ///
    /// That of the system that refuses a thread.
    pub fn expect(&self, name: &str, logs: &Path) -> io::Result<()> {
        self.read_from(name, FeedSource::Expected(logs.to_owned()))
    }

    fn read_from(&self, name: &str, source: FeedSource) -> io::Result<()> {
        self.feed.begin(name, source);
        self.start_watch()
    }

    fn start_watch(&self) -> io::Result<()> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.is_none() {
            let (feed, is_over) = (Arc::clone(&self.feed), Arc::clone(&self.is_over));
            let thread = thread::Builder::new().name("dashboard".to_owned());
            *watch = Some(thread.spawn(move || keep_reading(&feed, &is_over))?);
        }
        Ok(())
    }

    /// Reads the logs of a run that has ended to their end, and waits until the pages show it: the
    /// logs may be removed afterwards.
    pub fn show_end(&self) {
        self.feed.read_to_the_end();
        let deadline = Instant::now() + END_TIMEOUT;
        while !self.feed.are_viewers_current() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Begins a history without logs, and returns the function that adds its entries.
    pub fn entry_sink(&self, name: &str) -> impl Fn(LogEntry) + Send + Sync + use<> {
        self.feed.begin(name, FeedSource::Direct);
        let feed = Arc::clone(&self.feed);
        move |entry| feed.add(entry)
    }

    /// The page as it is now, for a file: it makes no requests.
    ///
    /// # Errors
    ///
    /// None that is known: the page is text and numbers.
    pub fn still(&self) -> serde_json::Result<String> {
        self.feed.read_until(Instant::now() + READ_TIMEOUT);
        // The last sample may be a second old, and the pool may have ended since then.
        self.feed.take_sample();
        page::still(&self.feed.picture())
    }

    /// Waits until the pages have fetched the end of the history, at most for a second, and stops the
    /// server.
    pub fn end(mut self) {
        self.stop_watch();
        self.feed.end();
        let deadline = Instant::now() + END_TIMEOUT;
        while self.feed.viewers() > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.server.stop();
    }

    fn stop_watch(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let watch = self.watch.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watch) = watch {
            watch.thread().unpark();
            let _ = watch.join();
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.stop_watch();
    }
}

/// Reads the logs while pages are connected, and takes samples.
fn keep_reading(feed: &Feed, is_over: &AtomicBool) {
    let began = Instant::now();
    let mut sampled = began;
    while !is_over.load(Ordering::Acquire) {
        let mut has_more = false;
        if feed.viewers() > 0 {
            has_more = feed.read_some();
        }
        if sampled.elapsed() >= sample_interval(began.elapsed()) {
            feed.take_sample();
            // After it: it may have waited for a lock.
            sampled = Instant::now();
        }
        // The pages get the lock in between.
        thread::park_timeout(if has_more { POLL_INTERVAL / 50 } else { POLL_INTERVAL });
    }
}

/// The interval of samples at this age of the page.
fn sample_interval(age: Duration) -> Duration {
    (age / 50).clamp(POLL_INTERVAL, SAMPLE_INTERVAL)
}

fn url(addr: SocketAddr) -> String {
    // Not for the loopback address of IPv6: `localhost` often has only that of IPv4.
    match addr.ip().is_unspecified() || addr.ip() == Ipv4Addr::LOCALHOST {
        true => format!("http://localhost:{}/", addr.port()),
        false => format!("http://{addr}/"),
    }
}

#[cfg(test)]
mod tests;
