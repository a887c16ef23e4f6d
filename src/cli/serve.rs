//! `coordinator serve`: the flag servers in the foreground, for the book's scripts, curl and any other
//! HTTP client.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::{io, process};

use anyhow::Context;
use serde_json::Map;

use procession_journal::now;
use procession_journal::{Level, LogEntry, LogEvent, ProcessKind, TaskEnd};

use super::contradiction::Contradiction;
use super::dashboard::{DashboardArgs, RunDashboard};
use super::exit::ProgramExit;
use super::usage_error::UsageError;
use super::{signals, stderr, value};
use crate::files::outcome::milliseconds;
use crate::flag_server::{DEFAULT_SEED, FlagServer, RequestInfo, ServerKind, StartError};

/// Run the flag servers LOCAL, DELAY and ERROR until Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coordinator serve &
  curl -O http://localhost:8001/flags/br/br.gif
  coordinator serve --local-port 0 -v      a free port; a line for each request

The ports are those of the book's examples, so its own scripts find the servers.
Ctrl-C and SIGTERM end them, with exit code 0.")]
pub(super) struct ServeArgs {
    /// Port of LOCAL, which answers at once; 0 for a free one
    #[arg(long, value_name = "PORT", default_value_t = 8001)]
    local_port: u16,
    /// Port of DELAY, which answers after half a second
    #[arg(long, value_name = "PORT", default_value_t = 8002)]
    delay_port: u16,
    /// Port of ERROR, which delays half of its answers and fails a quarter of them
    #[arg(long, value_name = "PORT", default_value_t = 8003)]
    error_port: u16,
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Seed of the faults of ERROR
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SEED, value_parser = value::unsigned::<u64>("--seed N"), allow_negative_numbers = true)]
    seed: u64,
    /// A line for each request, on stderr
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    dashboard: DashboardArgs,
}

impl ServeArgs {
    fn ports(&self) -> [(ServerKind, &'static str, u16); 3] {
        [
            (ServerKind::Local, "local", self.local_port),
            (ServerKind::Delay, "delay", self.delay_port),
            (ServerKind::Error, "error", self.error_port),
        ]
    }

    /// Checks that no two servers have the same port.
    fn check_ports(&self) -> Result<(), Contradiction> {
        let ports = self.ports();
        for (n, &(_, second, port)) in ports.iter().enumerate() {
            let same = ports[..n].iter().find(|(.., other)| port != 0 && *other == port);
            if let Some(&(_, first, _)) = same {
                return Err(Contradiction::SamePort { first, second, port });
            }
        }
        Ok(())
    }
}

/// Serves until a signal comes: that is the regular end.
pub(super) fn run(args: ServeArgs) -> anyhow::Result<ProgramExit> {
    let usage_error =
        |error: Box<dyn std::error::Error + Send + Sync>| UsageError::new(&["serve"], error);
    let address = args.dashboard.resolve().map_err(|error| usage_error(error.into()))?;
    let dashboard = address.map(RunDashboard::open).transpose()?;
    args.check_ports().map_err(|error| usage_error(error.into()))?;
    let (signals, signal) = mpsc::channel();
    signals::watch(move |exit| {
        let _ = signals.send(exit);
    })
    .context("cannot listen to signals")?;
    let servers = start_servers(&args, dashboard.as_ref())?;
    let mut out = io::stdout().lock();
    let printed = servers
        .iter()
        .try_for_each(|(kind, server)| writeln!(out, "{kind} site: {}", server.shown_url()))
        .and_then(|()| out.flush());
    if let Err(error) = printed
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(error).context("cannot print the addresses");
    }
    stderr::print(format_args!("serving as process {}; Ctrl-C ends", process::id()));
    let _ = signal.recv();
    drop(servers);
    if let Some(dashboard) = dashboard {
        dashboard.end();
    }
    Ok(ProgramExit::Success)
}

fn start_servers(
    args: &ServeArgs,
    dashboard: Option<&RunDashboard>,
) -> Result<Vec<(ServerKind, FlagServer)>, StartError> {
    let show = dashboard.map(|dashboard| Arc::new(dashboard.entry_sink("coordinator serve")));
    let mut servers = Vec::new();
    for (kind, _, port) in args.ports() {
        let address = SocketAddr::new(args.host, port);
        let mut server = FlagServer::builder(kind).addr(address).seed(args.seed);
        if args.verbose || show.is_some() {
            let (verbose, show) = (args.verbose, show.clone());
            server = server.on_request(move |request| {
                if verbose {
                    print_request(kind, request);
                }
                if let Some(show) = &show {
                    show(as_entry(kind, request));
                }
            });
        }
        servers.push((kind, server.start()?));
    }
    Ok(servers)
}

fn print_request(kind: ServerKind, request: &RequestInfo<'_>) {
    let delayed = if request.delayed { " (delayed)" } else { "" };
    let (method, path, status) = (request.method, request.path, request.status);
    stderr::print(format_args!("{kind} {method} {path} {status}{delayed}"));
}

/// A request as the dashboard draws it: as a task of its server.
fn as_entry(kind: ServerKind, request: &RequestInfo<'_>) -> LogEntry {
    let RequestInfo { method: _, path, status, delayed: _, took } = *request;
    let cc = path.strip_prefix("/flags/").and_then(|path| path.split_once('/'));
    let (name, error) = match status {
        200..400 => ("ok", None),
        404 => ("not_found", None),
        status => ("error", Some(format!("HTTP {status}"))),
    };
    let event = LogEvent::Task(TaskEnd {
        code: cc.map_or_else(|| path.to_owned(), |(cc, _)| cc.to_uppercase()),
        status: name.to_owned(),
        http: Some(status),
        unchanged: status == 304,
        elapsed_ms: milliseconds(took),
        attempt: 1,
        error,
        ..TaskEnd::default()
    });
    LogEntry {
        ts: now(),
        level: Level::Info,
        process: ProcessKind::Other(kind.to_string()),
        worker: None,
        pid: process::id(),
        own_cpu_s: None,
        event,
        extra: Map::new(),
    }
}
