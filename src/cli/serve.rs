//! `coordinator serve`: the flag servers in the foreground, for the book's own scripts, curl and
//! whatever else speaks HTTP.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::{io, process};

use anyhow::Context;
use serde_json::Map;

use crate::flag_server::{Access, FlagServer, Kind};
use crate::flags::outcome::milliseconds;
use procession_journal::entry::now;
use procession_journal::{Level, LogEntry, LogEvent, ProcessKind, TaskEnd};

use super::args::Serve;
use super::dashboard::Dashboard;
use super::{Exit, settings, signals, stderr};

/// Serves until a signal comes: that is its regular end.
pub(super) fn run(serve: &Serve) -> anyhow::Result<Exit> {
    let Serve { local_port, delay_port, error_port, host, seed, verbose, dashboard } = serve;
    let dashboard = match dashboard.resolve() {
        Ok(addr) => addr.map(Dashboard::open).transpose()?,
        Err(why) => {
            return super::usage_error(Some(&["serve"]), settings::UsageError::Dashboard(why));
        }
    };
    let ports = [("local", *local_port), ("delay", *delay_port), ("error", *error_port)];
    for (n, (name, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports[..n].iter().find(|(_, other)| *port != 0 && other == port) {
            let why = format!(
                "--{other}-port {port} contradicts --{name}-port {port}: each server needs a port \
                 of its own, or 0 for a free one"
            );
            return super::usage_error(Some(&["serve"]), why);
        }
    }
    let (signalled, signal) = mpsc::channel();
    signals::watch(move |exit| {
        let _ = signalled.send(exit);
    })
    .context("cannot listen to signals")?;

    let tell = dashboard.as_ref().map(|dashboard| Arc::new(dashboard.teller("coordinator serve")));
    let ports =
        [(Kind::Local, *local_port), (Kind::Delay, *delay_port), (Kind::Error, *error_port)];
    let mut servers = Vec::new();
    for (kind, port) in ports {
        let mut server = FlagServer::builder(kind).addr(SocketAddr::new(*host, port)).seed(*seed);
        if *verbose || tell.is_some() {
            let (verbose, tell) = (*verbose, tell.clone());
            server = server.on_request(move |access| {
                if verbose {
                    say(kind, access);
                }
                if let Some(tell) = &tell {
                    tell(as_entry(kind, access));
                }
            });
        }
        servers.push((kind, server.start()?));
    }
    let mut out = io::stdout().lock();
    let shown = servers
        .iter()
        .try_for_each(|(kind, server)| writeln!(out, "{kind} site: {}", server.shown_url()))
        .and_then(|()| out.flush());
    if let Err(error) = shown
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(error).context("cannot tell the addresses");
    }
    stderr::say(format_args!("serving as process {}; Ctrl-C ends", process::id()));
    let _ = signal.recv();
    drop(servers);
    if let Some(dashboard) = dashboard {
        dashboard.end();
    }
    Ok(Exit::Answered)
}

fn say(kind: Kind, access: &Access<'_>) {
    let delayed = if access.delayed { " (delayed)" } else { "" };
    let (method, path, status) = (access.method, access.path, access.status);
    stderr::say(format_args!("{kind} {method} {path} {status}{delayed}"));
}

/// A request as the dashboard draws it: as a task of its server.
fn as_entry(kind: Kind, access: &Access<'_>) -> LogEntry {
    let Access { method: _, path, status, delayed: _, took } = *access;
    let cc = path.strip_prefix("/flags/").and_then(|path| path.split_once('/'));
    let (what, error) = match status {
        200..400 => ("ok", None),
        404 => ("not_found", None),
        status => ("error", Some(format!("HTTP {status}"))),
    };
    let event = LogEvent::Task(TaskEnd {
        code: cc.map_or_else(|| path.to_owned(), |(cc, _)| cc.to_uppercase()),
        status: what.to_owned(),
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
        event,
        extra: Map::new(),
    }
}
