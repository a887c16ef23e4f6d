//! `coordinator agent`: runs the downloads of coordinators on other hosts.

use std::path::PathBuf;
use std::time::Duration;

use super::exit::ProgramExit;
use super::hosts::NatsArgs;
use super::value;

/// Run the downloads of coordinators on other hosts, until SIGTERM or Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coordinator agent --nats nats://10.0.0.5:4222
  coordinator -a --mode hosts --nats nats://10.0.0.5:4222 -s https://a.b/flags

The coordinators and agents must be of one build. An agent saves flags where its
coordinator says, on its own host: share that directory between them.
After the first signal the agent takes no more downloads, finishes those that
it has, and ends. A second signal ends it at once.")]
pub(super) struct AgentArgs {
    #[command(flatten)]
    nats: NatsArgs,
    /// Worker processes [default: one per CPU]
    #[arg(short, long, value_name = "N", value_parser = value::positive("--workers N"), allow_negative_numbers = true)]
    workers: Option<usize>,
    /// Downloads that it holds at most, those that wait for a worker included [default: one per worker]
    #[arg(long, value_name = "N", value_parser = value::positive("--slots N"), allow_negative_numbers = true)]
    slots: Option<usize>,
    /// Seconds for which it goes on while the servers do not answer; then it ends its downloads
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = value::seconds("--lease SECS"), allow_negative_numbers = true)]
    lease: Duration,
    /// Write the log of each process to a new directory in DIR, which `coordinator hosts --logs` can fetch
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Name of this host, for people [default: that of the system]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

#[cfg(not(feature = "hosts"))]
pub(super) fn run(args: AgentArgs) -> anyhow::Result<ProgramExit> {
    let AgentArgs { nats: _, workers: _, slots: _, lease: _, logs: _, host: _ } = args;
    Err(super::hosts::missing())
}

#[cfg(feature = "hosts")]
pub(super) fn run(args: AgentArgs) -> anyhow::Result<ProgramExit> {
    use procession::{Executor, Shutdown};
    use procession_nats::Agent;

    use super::usage_error::UsageError;
    use super::{BUILD, format, registry, stderr};
    use crate::files::task::HOST_VARIABLE;

    let AgentArgs { nats, workers, slots, lease, logs, host } = args;
    if nats.nats.is_none() {
        let error = "--nats URL is needed, the address of the NATS servers";
        return Err(UsageError::new(&["agent"], anyhow::anyhow!(error)).into());
    }
    // Its name is in the outcomes of the downloads.
    let host =
        host.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let mut pool = super::pool()
        .worker_env(HOST_VARIABLE, &host)
        .workers(workers.unwrap_or_else(num_cpus::get))
        .worker_program_beside("worker")
        .on_output(|line| stderr::print(format_args!("worker {}: {}", line.worker, line.line)));
    if let Some(dir) = &logs {
        pool = pool.journal(dir);
    }
    let pool = pool.build()?;
    let mut builder =
        Agent::builder(super::hosts::settings(&nats)?, registry()).build_id(BUILD).lease(lease);
    builder = builder.host_name(&host);
    if let Some(slots) = slots {
        builder = builder.slots(slots);
    }
    if let Some(dir) = logs {
        builder = builder.logs(dir);
    }
    let agent = builder.start(pool)?;
    agent.drain_on_signals();
    let lease = agent.lease();
    stderr::print(format_args!(
        "coordinator: agent {} with {} takes tasks of build {BUILD}",
        lease.host,
        format::count(lease.workers as u64, "worker")
    ));
    let end = agent.wait();
    agent.pool().shutdown(Shutdown::Wait);
    end?;
    Ok(ProgramExit::Success)
}
