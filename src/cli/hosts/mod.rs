//! Other hosts: how their agents are reached, and `coordinator hosts`, which shows them. Without the feature
//! `hosts` the commands are there and say how to get it.

#[cfg(feature = "hosts")]
mod with_nats;
#[cfg(not(feature = "hosts"))]
mod without;

use std::path::PathBuf;

use super::exit::ProgramExit;
#[cfg(feature = "hosts")]
pub(super) use with_nats::{cluster, connect, settings};
#[cfg(not(feature = "hosts"))]
pub(super) use without::{cluster, missing};

/// Where the NATS servers are, and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(super) struct NatsArgs {
    /// Addresses of the NATS servers, with commas between them
    #[arg(long, value_name = "URL", help_heading = "Other hosts")]
    pub nats: Option<String>,
    /// File of credentials (.creds)
    #[arg(long, value_name = "FILE", requires = "nats", help_heading = "Other hosts")]
    pub credentials: Option<PathBuf>,
    /// File with the seed of an nkey
    #[arg(
        long,
        value_name = "FILE",
        requires = "nats",
        conflicts_with = "credentials",
        help_heading = "Other hosts"
    )]
    pub nkey: Option<PathBuf>,
    /// Certificate of the authority that signed those of the NATS servers (PEM)
    #[arg(long, value_name = "FILE", requires = "nats", help_heading = "Other hosts")]
    pub ca: Option<PathBuf>,
    /// What the names of streams and subjects begin with [default: procession]
    #[arg(long, value_name = "NAME", requires = "nats", help_heading = "Other hosts")]
    pub prefix: Option<String>,
}

/// Show the agents of other hosts, and what waits for them
#[derive(Debug, clap::Args)]
pub(super) struct HostsArgs {
    #[command(flatten)]
    nats: NatsArgs,
    /// A line of JSON for each agent
    #[arg(long)]
    json: bool,
}

#[cfg(feature = "hosts")]
pub(super) fn run(args: HostsArgs) -> anyhow::Result<ProgramExit> {
    with_nats::show(&args.nats, args.json)
}

#[cfg(not(feature = "hosts"))]
pub(super) fn run(args: HostsArgs) -> anyhow::Result<ProgramExit> {
    let HostsArgs { nats: _, json: _ } = args;
    Err(missing())
}
