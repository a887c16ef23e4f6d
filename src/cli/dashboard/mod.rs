//! `--dashboard`: a live page of a run, with the lanes of its timeline.
//!
//! ```text
//!   log files of a run ──────► watch thread ─┐
//!   requests of `serve`,                     ├─► Feed: the history ─► server thread ─► pages
//!   runs of `compare --task` ────────────────┘
//! ```
//!
//! The page shows what is in the logs, so all modes look alike, and a run without a connected page
//! takes no longer. The server listens on loopback only, unless `--dashboard-public` is set as well.

mod feed;
mod server;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;

use self::feed::{Feed, FeedSource};
use self::server::DashboardServer;
use super::run_selection;
use super::stderr;
use procession_journal::{LogEntry, Merge, ReadWarnings};

/// Interval of the search for new log lines.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long pages may take to fetch the end of a history.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The address of the page, as typed.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Dashboard")]
pub(super) struct DashboardArgs {
    /// A live page of the run, on this address or port [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "127.0.0.1:0", value_parser = address)]
    pub dashboard: Option<SocketAddr>,
    /// Let ADDR be one that other machines can reach: they can read the dashboard
    #[arg(long, requires = "dashboard")]
    pub dashboard_public: bool,
}

impl DashboardArgs {
    /// The address to listen on, if there is to be a page.
    pub(super) fn resolve(&self) -> Result<Option<SocketAddr>, AddressError> {
        match self.dashboard {
            Some(addr) if !addr.ip().is_loopback() && !self.dashboard_public => {
                Err(AddressError::NotLoopback(addr.ip()))
            }
            addr => Ok(addr),
        }
    }
}

/// An address that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    #[error(
        "--dashboard ADDR must be of loopback, such as 127.0.0.1, not {0}; if other machines shall \
         reach it, add --dashboard-public"
    )]
    NotLoopback(IpAddr),
    #[error("--dashboard ADDR must be a port or an address: 8080, 127.0.0.1:8080, [::1]:8080")]
    Invalid,
}

fn address(typed: &str) -> Result<SocketAddr, AddressError> {
    let port = || typed.strip_prefix(':').unwrap_or(typed).parse().ok();
    let local = || {
        let rest = typed.strip_prefix("localhost")?;
        if rest.is_empty() { Some(0) } else { rest.strip_prefix(':')?.parse().ok() }
    };
    None.or_else(|| typed.parse().ok())
        .or_else(|| port().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
        .or_else(|| local().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
        .or_else(|| typed.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0)))
        .ok_or(AddressError::Invalid)
}

/// A page that is being served.
pub(super) struct Dashboard {
    feed: Arc<Feed>,
    server: DashboardServer,
    /// The thread that reads the logs.
    watch: Mutex<Option<JoinHandle<()>>>,
    is_over: Arc<AtomicBool>,
}

impl Dashboard {
    /// Starts to serve the page, and prints its URL on stderr.
    pub(super) fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let feed = Arc::new(Feed::new());
        let server = DashboardServer::start(addr, Arc::clone(&feed))
            .with_context(|| format!("cannot open the dashboard on {addr}"))?;
        stderr::print(format_args!("dashboard: {}", url(server.addr())));
        Ok(Self { feed, server, watch: Mutex::default(), is_over: Arc::default() })
    }

    /// Shows the run whose logs are in this directory.
    pub(super) fn watch(&self, logs: &Path) -> anyhow::Result<()> {
        let merge = Merge::open(logs, false)
            .with_context(|| format!("cannot read the logs in {}", logs.display()))?;
        self.read_from(
            &run_selection::name(logs),
            FeedSource::Logs(Box::new(merge), ReadWarnings::default()),
        )
        .context("cannot watch the logs")
    }

    /// Shows the only run that will keep its logs in this directory.
    pub(super) fn expect(&self, name: &str, logs: &Path) -> io::Result<()> {
        self.read_from(name, FeedSource::Expected(logs.to_owned()))
    }

    fn read_from(&self, name: &str, source: FeedSource) -> io::Result<()> {
        self.feed.begin(name, source);
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
    pub(super) fn show_end(&self) {
        self.feed.read_to_the_end();
        let deadline = Instant::now() + END_TIMEOUT;
        while !self.feed.are_viewers_current() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Begins a history without logs, and returns the function that adds its entries.
    pub(super) fn entry_sink(&self, name: &str) -> impl Fn(LogEntry) + Send + Sync + use<> {
        self.feed.begin(name, FeedSource::Direct);
        let feed = Arc::clone(&self.feed);
        move |entry| feed.add(entry)
    }

    /// Waits until the pages have fetched the end of the history, and stops the server.
    pub(super) fn end(mut self) {
        self.is_over.store(true, Ordering::Release);
        let watch = self.watch.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watch) = watch {
            watch.thread().unpark();
            let _ = watch.join();
        }
        self.feed.end();
        let deadline = Instant::now() + END_TIMEOUT;
        while self.feed.viewers() > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.server.stop();
    }
}

/// Reads the logs while pages are connected.
fn keep_reading(feed: &Feed, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        if feed.viewers() > 0 {
            feed.read_available();
        }
        thread::park_timeout(POLL_INTERVAL);
    }
}

fn url(addr: SocketAddr) -> String {
    // Not for the loopback address of IPv6: `localhost` often has only that of IPv4.
    match addr.ip().is_unspecified() || addr.ip() == Ipv4Addr::LOCALHOST {
        true => format!("http://localhost:{}/", addr.port()),
        false => format!("http://{addr}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_several_forms() {
        let parsed = |typed| address(typed).map(|addr| addr.to_string());
        for (typed, addr) in [
            ("8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("localhost", "127.0.0.1:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("0.0.0.0", "0.0.0.0:0"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(parsed(typed).as_deref(), Ok(addr));
        }
        for bad in ["", "br", "localhost:", "99999", "example.org:80"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_url_of_the_page_leads_to_it() {
        let url_of = |addr: &str| url(addr.parse().unwrap());
        assert_eq!(url_of("127.0.0.1:80"), "http://localhost:80/");
        assert_eq!(url_of("0.0.0.0:80"), "http://localhost:80/");
        assert_eq!(url_of("127.0.0.2:80"), "http://127.0.0.2:80/");
        assert_eq!(url_of("[::1]:80"), "http://[::1]:80/");
    }

    #[test]
    fn other_machines_can_reach_it_only_with_both_options() {
        let resolve = |typed, dashboard_public| {
            DashboardArgs { dashboard: Some(address(typed).unwrap()), dashboard_public }.resolve()
        };
        assert!(resolve("127.8.8.8", false).is_ok() && resolve("::1", false).is_ok());
        for public in ["0.0.0.0", "::", "10.0.0.1"] {
            assert!(
                resolve(public, false).unwrap_err().to_string().contains("add --dashboard-public")
            );
            assert!(resolve(public, true).is_ok());
        }
        assert_eq!(DashboardArgs::default().resolve(), Ok(None));
    }
}
