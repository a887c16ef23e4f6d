//! `coordinator serve`: the flag servers in the foreground, for the book's own scripts, curl and
//! whatever else speaks HTTP.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::{io, process};

use anyhow::Context;

use crate::flag_server::{FlagServer, Kind};

use super::args::Serve;
use super::{Exit, signals, stderr};

/// Serves until a signal comes: that is its regular end.
pub(super) fn run(serve: &Serve) -> anyhow::Result<Exit> {
    let Serve { local_port, delay_port, error_port, host, seed, verbose } = *serve;
    let (signalled, signal) = mpsc::channel();
    signals::watch(move |exit| {
        let _ = signalled.send(exit);
    })
    .context("cannot listen to signals")?;

    let ports = [(Kind::Local, local_port), (Kind::Delay, delay_port), (Kind::Error, error_port)];
    let mut servers = Vec::new();
    for (kind, port) in ports {
        let mut server = FlagServer::builder(kind).addr(SocketAddr::new(host, port)).seed(seed);
        if verbose {
            server = server.on_request(move |access| {
                let delayed = if access.delayed { " (delayed)" } else { "" };
                let (method, path, status) = (access.method, access.path, access.status);
                stderr::say(format_args!("{kind} {method} {path} {status}{delayed}"));
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
    Ok(Exit::Answered)
}
