//! Options that contradict each other, so that one of them would be ignored. The error names both and says
//! what to write instead. clap itself refuses two options that never go together; the pairs here contradict
//! each other with some values only.

use std::path::PathBuf;

use super::options::{ColorOption, Mode, SiteArgs};
use crate::flags::site::Site;

/// Two options that contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Contradiction {
    #[error(
        "--max_req {0} contradicts --mode sequential, which has one request at a time: omit one of \
         them, or write --mode threads"
    )]
    RequestsOfSequential(usize),
    #[error(
        "--workers {0} contradicts --mode sequential, which has no worker processes: omit one of \
         them, or write --mode processes"
    )]
    WorkersOfSequential(usize),
    #[error(
        "--workers {0} contradicts --mode threads, which has no worker processes: write --max_req \
         {0} for as many threads, or write --mode processes"
    )]
    WorkersOfThreads(usize),
    #[error(
        "--workers {workers} contradicts --max_req {requests}: a worker without a request has \
         nothing to do: write --max_req {workers} or more, or --workers {requests}"
    )]
    MoreWorkersThanRequests { workers: usize, requests: usize },
    #[error(
        "--verbose contradicts --progress bar: a line for each file stands in place of the bar: omit \
         one of them"
    )]
    VerboseAndBar,
    #[error(
        "--seed {seed} contradicts --server {server}: only the ERROR server that is started for the \
         run has faults to choose: omit --seed, or write --server ERROR"
    )]
    SeedWithoutFaults { seed: u64, server: Site },
    #[error(
        "--workers {0} contradicts --mode sequential, which runs one task at a time: omit one of \
         them, or write --mode threads"
    )]
    TasksOfSequential(usize),
    #[error("this demonstration shows one host: see coordinator demo hosts for --mode hosts")]
    HostsOfDemo,
    #[error(
        "--workers {0} contradicts --mode hosts: each agent has its own number: omit it, or write it there"
    )]
    WorkersOfHosts(usize),
    #[error(
        "--job NAME contradicts {0}: with {0} the same command has other tasks the next time, and could not \
         continue the job: omit one of them"
    )]
    JobOfOtherTasks(&'static str),
    #[error(
        "--job NAME contradicts --server {0}, which is started for this run and has another address the next time, \
         so that the same command could not continue the job: omit --job, or write --server REMOTE or a URL"
    )]
    JobOfOwnServer(Site),
    #[error("--color always contradicts {0}, whose output has no colours: omit one of them")]
    ColorOf(&'static str),
    #[error(
        "--log-dir {} contradicts RUN {run}, which is a path: omit --log-dir, or give the name \
         of the run",
        log_dir.display()
    )]
    LogDirOfPath { log_dir: PathBuf, run: String },
    #[error(
        "--{first}-port {port} contradicts --{second}-port {port}: each server needs a port of its \
         own, or 0 for a free one"
    )]
    SamePort { first: &'static str, second: &'static str, port: u16 },
    #[error("--html FILE and --trace FILE must be written to different places")]
    SameFile,
    #[error("--resume and --retry-failed go on with one run, not with {0} and {1}: name it once")]
    TwoRuns(String, String),
}

/// Checks the choice of a server.
pub(super) fn check_site(args: &SiteArgs) -> Result<(), Contradiction> {
    match args.seed {
        Some(seed) if args.server != Site::Error => {
            Err(Contradiction::SeedWithoutFaults { seed, server: args.server.clone() })
        }
        _ => Ok(()),
    }
}

/// Checks how many tasks of a demonstration run at a time.
pub(super) fn check_workers(mode: Mode, workers: Option<usize>) -> Result<(), Contradiction> {
    match (mode, workers) {
        (Mode::Sequential, Some(workers @ 2..)) => Err(Contradiction::TasksOfSequential(workers)),
        (Mode::Hosts, _) => Err(Contradiction::HostsOfDemo),
        _ => Ok(()),
    }
}

/// Checks the colour of an output; `plain_option` is the option that makes it one without colours.
pub(super) fn check_color(
    color: ColorOption,
    plain_option: Option<&'static str>,
) -> Result<(), Contradiction> {
    match (color, plain_option) {
        (ColorOption::Always, Some(option)) => Err(Contradiction::ColorOf(option)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_would_be_ignored_are_refused() {
        let refused = check_workers(Mode::Sequential, Some(2)).unwrap_err().to_string();
        assert!(refused.contains("--workers 2") && refused.contains("--mode sequential"));
        let refused = check_color(ColorOption::Always, Some("--json")).unwrap_err().to_string();
        assert!(refused.contains("--color always") && refused.contains("--json"), "{refused}");
    }

    #[test]
    fn options_that_agree_are_accepted() {
        assert_eq!(check_workers(Mode::Sequential, Some(1)), Ok(()));
        assert_eq!(check_color(ColorOption::Always, None), Ok(()));
    }
}
