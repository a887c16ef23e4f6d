//! The feature `hosts`: connections to NATS, and the table of agents.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::Context;
use procession::Engine;
use procession_nats::{Cluster, ClusterEvent, ConnectSettings, HostLease};

use super::NatsArgs;
use crate::cli::exit::ProgramExit;
use crate::cli::usage_error::UsageError;
use crate::cli::{BUILD, format, stderr, stdout};

/// The settings of a connection.
pub(in crate::cli) fn settings(nats: &NatsArgs) -> anyhow::Result<ConnectSettings> {
    // All fields, so that a new option cannot be forgotten.
    let NatsArgs { nats: url, credentials, nkey, ca, prefix } = nats;
    let url = url.as_ref().context("--nats URL is needed, the address of the NATS servers")?;
    let mut settings = ConnectSettings::new(url);
    if let Some(path) = credentials {
        settings = settings.credentials(path);
    }
    if let Some(path) = nkey {
        settings = settings.nkey(path);
    }
    if let Some(path) = ca {
        settings = settings.root_certificate(path);
    }
    if let Some(prefix) = prefix {
        settings = settings.prefix(prefix);
    }
    Ok(settings)
}

/// The executor of a run on other hosts. `retries` counts the further attempts of a flag whose host was lost.
pub(in crate::cli) fn cluster(
    nats: Option<&NatsArgs>,
    retries: u32,
) -> anyhow::Result<Arc<dyn Engine>> {
    let nats = nats.context("--nats URL is needed")?;
    Ok(Arc::new(connect(nats, retries)?))
}

pub(in crate::cli) fn connect(nats: &NatsArgs, retries: u32) -> anyhow::Result<Cluster> {
    let cluster = Cluster::builder(settings(nats)?)
        .build_id(BUILD)
        .attempts(retries.saturating_add(1))
        .on_event(tell)
        .build()?;
    Ok(cluster)
}

fn tell(event: &ClusterEvent) {
    match event {
        ClusterEvent::NoHost { build, others } if others.is_empty() => stderr::print(format_args!(
            "coordinator: no host takes the tasks: start `coordinator agent` of this build ({build})"
        )),
        ClusterEvent::NoHost { build, others } => stderr::print(format_args!(
            "coordinator: no host has this build ({build}); those that there are have {}",
            others.join(", ")
        )),
        ClusterEvent::HostLost { host, tasks } => stderr::print(format_args!(
            "coordinator: host {host} was lost with {}",
            format::count(*tasks as u64, "flag")
        )),
        ClusterEvent::Broken(error) => stderr::print(format_args!("coordinator: {error}")),
        _ => {}
    }
}

/// `coordinator hosts`.
pub(super) fn show(nats: &NatsArgs, json: bool) -> anyhow::Result<ProgramExit> {
    if nats.nats.is_none() {
        let error = "--nats URL is needed, the address of the NATS servers";
        return Err(UsageError::new(&["hosts"], anyhow::anyhow!(error)).into());
    }
    let overview = procession_nats::overview(&settings(nats)?)?;
    let mut text = String::new();
    if json {
        for host in &overview.hosts {
            writeln!(text, "{}", serde_json::to_string(host)?)?;
        }
        stdout::print(&text)?;
        return Ok(ProgramExit::Success);
    }
    writeln!(
        text,
        "{:<24} {:>8} {:>16} {:>9} {:>7}  state",
        "host", "pid", "build", "busy", "lease"
    )?;
    for host in &overview.hosts {
        let HostLease { host, build, pid, busy, slots, lease_ms, is_draining, .. } = host;
        let state = if *is_draining { "draining" } else { "ready" };
        let (busy, lease) = (format!("{busy} of {slots}"), *lease_ms as f64 / 1000.0);
        writeln!(text, "{host:<24} {pid:>8} {build:>16} {busy:>9} {lease:>5.1} s  {state}")?;
    }
    writeln!(text, "{}", format::count(overview.hosts.len() as u64, "agent"))?;
    for (build, waiting) in &overview.waiting {
        let has_host = overview.hosts.iter().any(|host| host.build == *build);
        let why = if has_host { "" } else { ": no agent has this build" };
        writeln!(text, "{} of build {build} in the queue{why}", format::count(*waiting, "task"))?;
    }
    stdout::print(&text)?;
    Ok(ProgramExit::Success)
}
