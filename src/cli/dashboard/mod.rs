//! `--dashboard`: a live page of a run: the lanes of its timeline, as they grow.
//!
//! ```text
//!   log files of a run ──────► watch thread ─┐
//!   requests of `serve`,                     ├─► Feed: the story so far ─► server thread ─► pages
//!   runs of `compare --task` ────────────────┘
//! ```
//!
//! It tells what the logs tell, so it shows every mode alike, and a run is none the slower for it
//! as long as nobody looks. Must never listen on anything but loopback unless told twice.

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

use self::feed::{Feed, Source};
use self::server::Server;
use super::stderr;
use super::which_run;
use procession_journal::{LogEntry, Merge, ReadWarnings};

/// How often it is looked for something new.
const GLANCE: Duration = Duration::from_millis(100);

/// How long pages may take to fetch the end of the story.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where the page is, as typed.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Dashboard")]
pub(super) struct DashboardArgs {
    /// A live page of the run, on this address or port [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "127.0.0.1:0", value_parser = address)]
    pub dashboard: Option<SocketAddr>,
    /// Let ADDR be one that other machines can reach: they see what this one does
    #[arg(long, requires = "dashboard")]
    pub dashboard_public: bool,
}

impl DashboardArgs {
    /// Where to listen, if at all; or why not there.
    pub(super) fn resolve(&self) -> Result<Option<SocketAddr>, String> {
        match self.dashboard {
            Some(addr) if !addr.ip().is_loopback() && !self.dashboard_public => Err(format!(
                "--dashboard ADDR must be of loopback, such as 127.0.0.1, not {}; if other \
                 machines shall reach it, add --dashboard-public",
                addr.ip()
            )),
            addr => Ok(addr),
        }
    }
}

fn address(typed: &str) -> Result<SocketAddr, String> {
    let port = || typed.strip_prefix(':').unwrap_or(typed).parse().ok();
    let local = || {
        let rest = typed.strip_prefix("localhost")?;
        if rest.is_empty() { Some(0) } else { rest.strip_prefix(':')?.parse().ok() }
    };
    None.or_else(|| typed.parse().ok())
        .or_else(|| port().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
        .or_else(|| local().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
        .or_else(|| typed.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0)))
        .ok_or_else(|| {
            "--dashboard ADDR must be a port or an address: 8080, 127.0.0.1:8080, [::1]:8080"
                .to_owned()
        })
}

/// A page that is served until it is ended.
pub(super) struct Dashboard {
    feed: Arc<Feed>,
    server: Server,
    /// Looks for something new.
    watch: Mutex<Option<JoinHandle<()>>>,
    is_over: Arc<AtomicBool>,
}

impl Dashboard {
    /// Begins to serve the page, and says where on stderr.
    pub(super) fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let feed = Arc::new(Feed::new());
        let server = Server::start(addr, Arc::clone(&feed))
            .with_context(|| format!("cannot open the dashboard on {addr}"))?;
        stderr::say(format_args!("dashboard: {}", url(server.addr())));
        Ok(Self { feed, server, watch: Mutex::default(), is_over: Arc::default() })
    }

    /// Shows the run whose logs lie there, in place of what was shown before.
    pub(super) fn watch(&self, logs: &Path) -> anyhow::Result<()> {
        let merge = Merge::open(logs, false)
            .with_context(|| format!("cannot read the logs in {}", logs.display()))?;
        self.read_from(
            &which_run::name(logs),
            Source::Logs(Box::new(merge), ReadWarnings::default()),
        )
        .context("cannot watch the logs")
    }

    /// The same for a run that will keep its logs in this directory, and is the only one to do so.
    pub(super) fn expect(&self, name: &str, logs: &Path) -> io::Result<()> {
        self.read_from(name, Source::Expected(logs.to_owned()))
    }

    fn read_from(&self, name: &str, source: Source) -> io::Result<()> {
        self.feed.begin(name, source);
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.is_none() {
            let (feed, is_over) = (Arc::clone(&self.feed), Arc::clone(&self.is_over));
            let thread = thread::Builder::new().name("dashboard".to_owned());
            *watch = Some(thread.spawn(move || keep_reading(&feed, &is_over))?);
        }
        Ok(())
    }

    /// Shows all that the logs tell of a run that has ended, before they are removed, and lets
    /// pages see it before another one begins.
    pub(super) fn show_the_end(&self) {
        self.feed.read_to_the_end();
        let deadline = Instant::now() + FAREWELL;
        while !self.feed.is_told_to_all() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tells something that is in no log.
    pub(super) fn teller(&self, name: &str) -> impl Fn(LogEntry) + Send + Sync + use<> {
        self.feed.begin(name, Source::Told);
        let feed = Arc::clone(&self.feed);
        move |entry| feed.tell(entry)
    }

    /// Lets the pages fetch the end of the story, and closes.
    pub(super) fn end(mut self) {
        self.is_over.store(true, Ordering::Release);
        let watch = self.watch.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watch) = watch {
            watch.thread().unpark();
            let _ = watch.join();
        }
        self.feed.end();
        let deadline = Instant::now() + FAREWELL;
        while self.feed.viewers() > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.server.stop();
    }
}

/// Reads the logs as long as somebody looks.
fn keep_reading(feed: &Feed, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        if feed.viewers() > 0 {
            feed.catch_up();
        }
        thread::park_timeout(GLANCE);
    }
}

fn url(addr: SocketAddr) -> String {
    // Not for that of IPv6: the name often means the other one alone.
    match addr.ip().is_unspecified() || addr.ip() == Ipv4Addr::LOCALHOST {
        true => format!("http://localhost:{}/", addr.port()),
        false => format!("http://{addr}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_people_say_it() {
        let taken = |typed| address(typed).map(|addr| addr.to_string());
        for (typed, addr) in [
            ("8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("localhost", "127.0.0.1:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("0.0.0.0", "0.0.0.0:0"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(taken(typed).as_deref(), Ok(addr));
        }
        for bad in ["", "br", "localhost:", "99999", "example.org:80"] {
            assert!(taken(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_page_is_told_by_an_address_that_leads_there() {
        let told = |addr: &str| url(addr.parse().unwrap());
        assert_eq!(told("127.0.0.1:80"), "http://localhost:80/");
        assert_eq!(told("0.0.0.0:80"), "http://localhost:80/");
        assert_eq!(told("127.0.0.2:80"), "http://127.0.0.2:80/");
        assert_eq!(told("[::1]:80"), "http://[::1]:80/");
    }

    #[test]
    fn other_machines_see_it_only_if_told_twice() {
        let resolve = |typed, dashboard_public| {
            DashboardArgs { dashboard: Some(address(typed).unwrap()), dashboard_public }.resolve()
        };
        assert!(resolve("127.8.8.8", false).is_ok() && resolve("::1", false).is_ok());
        for public in ["0.0.0.0", "::", "10.0.0.1"] {
            assert!(resolve(public, false).unwrap_err().contains("add --dashboard-public"));
            assert!(resolve(public, true).is_ok());
        }
        assert_eq!(DashboardArgs::default().resolve(), Ok(None));
    }
}
