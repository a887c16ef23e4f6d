//! `--dashboard`: a live page of a run, with the lanes of its timeline.
//!
//! The page shows what is in the logs, so all modes look alike, and a run without a connected page
//! takes no longer. The server listens on loopback only, unless `--dashboard-public` is set as well.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context;

use super::run_selection;
use super::stderr;
use procession_journal::LogEntry;

/// The address of the page, as typed.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Dashboard")]
pub(super) struct DashboardArgs {
    /// A live page of the run, on this address or port [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "127.0.0.1:0", value_parser = address)]
    pub dashboard: Option<SocketAddr>,
    /// Allow an ADDR that other machines can reach; they can then read the dashboard
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
pub(super) struct RunDashboard(procession_dashboard::Dashboard);

impl RunDashboard {
    /// Starts to serve the page, and prints its URL on stderr.
    pub(super) fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let dashboard = procession_dashboard::Dashboard::open(addr)
            .with_context(|| format!("cannot open the dashboard on {addr}"))?;
        stderr::print(format_args!("dashboard: {}", dashboard.url()));
        Ok(Self(dashboard))
    }

    /// Shows the run whose logs are in this directory.
    pub(super) fn watch(&self, logs: &Path) -> anyhow::Result<()> {
        self.0
            .watch(&run_selection::name(logs), logs)
            .with_context(|| format!("cannot watch the logs in {}", logs.display()))
    }

    /// Shows the only run that will keep its logs in this directory.
    pub(super) fn expect(&self, name: &str, logs: &Path) -> io::Result<()> {
        self.0.expect(name, logs)
    }

    /// Reads the logs of a run that has ended to their end, and waits until the pages show it: the
    /// logs may be removed afterwards.
    pub(super) fn show_end(&self) {
        self.0.show_end();
    }

    /// Begins a history without logs, and returns the function that adds its entries.
    pub(super) fn entry_sink(&self, name: &str) -> impl Fn(LogEntry) + Send + Sync + use<> {
        self.0.entry_sink(name)
    }

    /// Waits until the pages have fetched the end of the history, and stops the server.
    pub(super) fn end(self) {
        self.0.end();
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
