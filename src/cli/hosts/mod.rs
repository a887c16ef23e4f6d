//! Other hosts: how their agents are reached, and `coordinator hosts`, which shows them, fetches their logs and removes
//! jobs. Without the feature `hosts` the commands are there and say how to get it.

#[cfg(feature = "hosts")]
mod fetched_logs;
#[cfg(feature = "hosts")]
mod with_nats;
#[cfg(not(feature = "hosts"))]
mod without;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use super::exit::ProgramExit;
#[cfg(feature = "hosts")]
pub(super) use with_nats::{cluster, connect, ensure_built, settings};
#[cfg(not(feature = "hosts"))]
pub(super) use without::{cluster, ensure_built, missing};

/// The heading of the options.
pub(super) const HEADING: &str = match cfg!(feature = "hosts") {
    true => "Other hosts",
    false => "Other hosts (only in a build with the feature hosts)",
};

/// How many tasks of this build the known agents run at a time at present.
pub(super) type RunsNow = Arc<dyn Fn() -> usize + Send + Sync>;

/// Where the NATS servers are, and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(super) struct NatsArgs {
    /// Addresses of the NATS servers, with commas between them
    #[arg(long, value_name = "URL", help_heading = HEADING)]
    pub nats: Option<String>,
    /// File of credentials (.creds)
    #[arg(long, value_name = "FILE", requires = "nats", help_heading = HEADING)]
    pub credentials: Option<PathBuf>,
    /// File with the seed of an nkey
    #[arg(
        long,
        value_name = "FILE",
        requires = "nats",
        conflicts_with = "credentials",
        help_heading = HEADING
    )]
    pub nkey: Option<PathBuf>,
    /// Certificate of the authority that signed those of the NATS servers (PEM)
    #[arg(long, value_name = "FILE", requires = "nats", help_heading = HEADING)]
    pub ca: Option<PathBuf>,
    /// Certificate by which the servers know this program (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["nats", "key"], help_heading = HEADING)]
    pub cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = HEADING)]
    pub key: Option<PathBuf>,
    /// What the subjects of answers begin with, if the servers demand one [default: _INBOX]
    #[arg(long, value_name = "NAME", requires = "nats", help_heading = HEADING)]
    pub inbox_prefix: Option<String>,
    /// What the names of streams and subjects begin with [default: procession]
    #[arg(long, value_name = "NAME", requires = "nats", help_heading = HEADING)]
    pub prefix: Option<String>,
}

impl NatsArgs {
    /// The same as arguments of another coordinator.
    pub(super) fn to_arguments(&self) -> Vec<OsString> {
        // All fields, so that a new option cannot be forgotten.
        let Self { nats, credentials, nkey, ca, cert, key, inbox_prefix, prefix } = self;
        let texts = [("--nats", nats), ("--inbox-prefix", inbox_prefix), ("--prefix", prefix)];
        let files = [
            ("--credentials", credentials),
            ("--nkey", nkey),
            ("--ca", ca),
            ("--cert", cert),
            ("--key", key),
        ];
        let texts =
            texts.into_iter().filter_map(|(option, text)| Some((option, text.as_ref()?.into())));
        let files =
            files.into_iter().filter_map(|(option, file)| Some((option, file.as_ref()?.into())));
        texts
            .chain(files)
            .flat_map(|(option, value): (_, OsString)| [option.into(), value])
            .collect()
    }

    /// With this address, and no more.
    #[cfg(feature = "hosts")]
    pub(super) fn at(url: String) -> Self {
        Self {
            nats: Some(url),
            credentials: None,
            nkey: None,
            ca: None,
            cert: None,
            key: None,
            inbox_prefix: None,
            prefix: None,
        }
    }
}

/// Show the agents of other hosts, and the tasks that wait for them
#[derive(Debug, clap::Args)]
pub(super) struct HostsArgs {
    #[command(flatten)]
    nats: NatsArgs,
    /// A line of JSON for each agent
    #[arg(long)]
    json: bool,
    /// Fetch the logs of the agents that keep logs (`agent --logs`): a new directory in DIR for each agent
    #[arg(long, value_name = "DIR", conflicts_with = "json")]
    logs: Option<PathBuf>,
    /// Remove what the servers keep of this job (`--job NAME` of a run), on which no coordinator works
    #[arg(long, value_name = "NAME", conflicts_with_all = ["json", "logs"])]
    forget: Option<String>,
    /// Only make a key for the option --nkey, in this new file, and print its public part for the servers
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nats", "json", "logs", "forget"])]
    new_nkey: Option<PathBuf>,
}

#[cfg(feature = "hosts")]
pub(super) fn run(args: HostsArgs) -> anyhow::Result<ProgramExit> {
    let HostsArgs { nats, json, logs, forget, new_nkey } = args;
    match (new_nkey, logs, forget) {
        (Some(path), ..) => with_nats::make_nkey(&path),
        (None, Some(dir), _) => fetched_logs::fetch(&nats, &dir),
        (None, None, Some(job)) => with_nats::forget(&nats, &job),
        (None, None, None) => with_nats::show(&nats, json),
    }
}

#[cfg(not(feature = "hosts"))]
pub(super) fn run(args: HostsArgs) -> anyhow::Result<ProgramExit> {
    let HostsArgs { nats: _, json: _, logs: _, forget: _, new_nkey: _ } = args;
    Err(missing())
}
