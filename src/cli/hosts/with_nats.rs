//! The feature `hosts`: connections to NATS, the executor of a run, the table of agents, and the removal of a job.

use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use procession::Engine;
use procession_nats::{
    Cluster, ClusterEvent, ConnectSettings, HostLease, HostsOverview, WaitingReason,
};
use serde_json::json;

use super::{NatsArgs, RunsNow};
use crate::cli::bar::RunProgressBar;
use crate::cli::exit::ProgramExit;
use crate::cli::usage_error::UsageError;
use crate::cli::{BUILD, format, stdout};

/// No error: this program was built with the feature.
pub(in crate::cli) fn ensure_built() -> anyhow::Result<()> {
    Ok(())
}

/// The settings of a connection.
pub(in crate::cli) fn settings(nats: &NatsArgs) -> anyhow::Result<ConnectSettings> {
    // All fields, so that a new option cannot be forgotten.
    let NatsArgs { nats: url, credentials, nkey, ca, cert, key, inbox_prefix, prefix } = nats;
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
    if let (Some(cert), Some(key)) = (cert, key) {
        settings = settings.client_certificate(cert, key);
    }
    if let Some(prefix) = inbox_prefix {
        settings = settings.inbox_prefix(prefix);
    }
    if let Some(prefix) = prefix {
        settings = settings.prefix(prefix);
    }
    Ok(settings)
}

/// The executor of a run on other hosts, and a function that says how many tasks these hosts run at a time. Events are
/// printed as lines beside the bar of the run. `retries` is the number of further attempts of a download whose host was
/// lost. If this run is killed, the next run with the same `job` continues it.
pub(in crate::cli) fn cluster(
    nats: Option<&NatsArgs>,
    job: Option<&str>,
    retries: u32,
    bar: &RunProgressBar,
) -> anyhow::Result<(Arc<dyn Engine>, RunsNow)> {
    let nats = nats.context("--nats URL is needed")?;
    let bar = bar.clone();
    let cluster = Arc::new(connect(nats, job, retries, move |line| bar.print_line(line))?);
    let known = Arc::clone(&cluster);
    Ok((cluster, Arc::new(move || run_at_a_time(&known.hosts()))))
}

/// How many tasks of this build the hosts run at a time. Those that a host holds beyond its workers have to wait there.
fn run_at_a_time(hosts: &[HostLease]) -> usize {
    let ours = hosts.iter().filter(|host| host.build == BUILD && !host.is_draining);
    // Any client that may write leases chooses these numbers, so their sum may be too large.
    ours.map(|host| host.slots.min(host.workers)).fold(0, usize::saturating_add)
}

pub(in crate::cli) fn connect(
    nats: &NatsArgs,
    job: Option<&str>,
    retries: u32,
    print: impl Fn(fmt::Arguments<'_>) + Send + Sync + 'static,
) -> anyhow::Result<Cluster> {
    let tell = move |event: &ClusterEvent| {
        if let Some(line) = in_words(event) {
            print(format_args!("coordinator: {line}"));
        }
    };
    let mut builder = Cluster::builder(settings(nats)?)
        .build_id(BUILD)
        .attempts(retries.saturating_add(1))
        .on_event(tell);
    if let Some(job) = job {
        builder = builder.job(job);
    }
    Ok(builder.build()?)
}

fn in_words(event: &ClusterEvent) -> Option<String> {
    Some(match event {
        ClusterEvent::NoHost { build, others } if others.is_empty() => {
            format!("no host takes the tasks: start `coordinator agent` of this build ({build})")
        }
        ClusterEvent::NoHost { build, others } => {
            let others = others.join(", ");
            let others = format::printable(&others);
            format!("no host has this build ({build}); those that there are have {others}")
        }
        ClusterEvent::HostLost { host, tasks } => format!(
            "host {} was lost with {}",
            format::printable(host),
            format::count(*tasks as u64, "flag")
        ),
        ClusterEvent::Broken(error) => error.to_string(),
        _ => return None,
    })
}

/// `coordinator hosts --new-nkey`.
pub(super) fn make_nkey(path: &Path) -> anyhow::Result<ProgramExit> {
    stdout::print(&format!("{}\n", procession_nats::new_nkey(path)?))?;
    Ok(ProgramExit::Success)
}

/// `coordinator hosts --forget`.
pub(super) fn forget(nats: &NatsArgs, job: &str) -> anyhow::Result<ProgramExit> {
    procession_nats::forget(&needed_settings(nats)?, job)?;
    stdout::print(&format!("the servers keep nothing of job {job}\n"))?;
    Ok(ProgramExit::Success)
}

/// The settings of the connection. An error if `--nats` is missing, which `coordinator hosts` needs.
pub(super) fn needed_settings(nats: &NatsArgs) -> anyhow::Result<ConnectSettings> {
    if nats.nats.is_none() {
        let error = "--nats URL is needed, the address of the NATS servers";
        return Err(UsageError::new(&["hosts"], anyhow::anyhow!(error)).into());
    }
    settings(nats)
}

/// `coordinator hosts`.
pub(super) fn show(nats: &NatsArgs, json: bool) -> anyhow::Result<ProgramExit> {
    let overview = procession_nats::overview(&needed_settings(nats)?)?;
    stdout::print(&if json { as_json(&overview)? } else { as_table(&overview) })?;
    Ok(ProgramExit::Success)
}

/// A line for each agent, then one for each build whose tasks wait.
fn as_json(overview: &HostsOverview) -> anyhow::Result<String> {
    let mut text = String::new();
    for host in &overview.hosts {
        writeln!(text, "{}", serde_json::to_string(host)?)?;
    }
    for (build, waiting) in &overview.waiting {
        let oldest = overview.oldest.get(build).map(Duration::as_secs_f64);
        let why = why(overview, build);
        let line = json!({ "build": build, "waiting": waiting, "oldest_s": oldest, "why": why });
        writeln!(text, "{line}")?;
    }
    Ok(text)
}

fn as_table(overview: &HostsOverview) -> String {
    let mut text = format!(
        "{:<24} {:>8} {:>16} {:>9} {:>7}  state\n",
        "host", "pid", "build", "busy", "lease"
    );
    for host in &overview.hosts {
        let HostLease { host, build, pid, busy, slots, lease_ms, is_draining, .. } = host;
        let state = if *is_draining { "draining" } else { "ready" };
        let (busy, lease) = (format!("{busy} of {slots}"), *lease_ms as f64 / 1000.0);
        // Any client that may write leases chooses these texts.
        let (host, build) = (format::printable(host), format::printable(build));
        text += &format!("{host:<24} {pid:>8} {build:>16} {busy:>9} {lease:>5.1} s  {state}\n");
    }
    text += &format!("{}\n", format::count(overview.hosts.len() as u64, "agent"));
    for (build, waiting) in &overview.waiting {
        let oldest = overview
            .oldest
            .get(build)
            .map_or_else(String::new, |oldest| format!(", the oldest for {}", age(*oldest)));
        let (tasks, why) = (format::count(*waiting, "task"), why(overview, build));
        let build = format::printable(build);
        text += &format!("{tasks} of build {build} in the queue{oldest}: {why}\n");
    }
    if overview.waiting.is_empty() {
        text += "nothing waits\n";
    }
    text
}

/// In the unit that a person would choose.
fn age(age: Duration) -> String {
    let seconds = age.as_secs_f64();
    match seconds {
        ..120.0 => format!("{seconds:.1} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

fn why(overview: &HostsOverview, build: &str) -> String {
    match overview.why(build) {
        WaitingReason::NoHost if overview.hosts.is_empty() => "there is no agent".to_owned(),
        WaitingReason::NoHost => "no agent has this build".to_owned(),
        WaitingReason::Draining => "all agents of this build are draining".to_owned(),
        WaitingReason::Busy { slots } => {
            format!("all {} of this build are busy", format::count(slots as u64, "slot"))
        }
        WaitingReason::Free { slots } => format!(
            "{} free, so they are about to be taken, or the agent does not answer",
            match slots {
                1 => "1 slot of this build is".to_owned(),
                more => format!("{more} slots of this build are"),
            }
        ),
        _ => "the agents do not say why".to_owned(),
    }
}
