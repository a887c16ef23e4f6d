//! The command line of a download as typed: each option's definition and help in one place.

use std::path::PathBuf;
use std::time::Duration;

use super::resume::ResumeArgs;
use crate::cli::contradiction::{self, Contradiction};
use crate::cli::dashboard::DashboardArgs;
use crate::cli::options::{CodeArgs, DisplayArgs, Mode, ProgressOption, SandboxOption, ServerArgs};
use crate::cli::value;

/// The options of a download.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DownloadArgs {
    #[command(flatten)]
    pub codes: CodeArgs,
    #[command(flatten)]
    pub resume: ResumeArgs,
    #[command(flatten)]
    pub server: ServerArgs,

    /// Leave flags alone that are there and have not changed (by ETag and Last-Modified)
    #[arg(long, help_heading = "From where")]
    pub update: bool,

    /// How to run the downloads: sequential, threads or processes
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "processes",
        hide_possible_values = true,
        help_heading = "How"
    )]
    pub mode: Mode,
    /// Maximum number of concurrent requests [default: one per worker process; 30 threads; 1 sequential]
    #[arg(short, long = "max_req", alias = "max-req", value_name = "CONCURRENT", value_parser = value::positive("--max_req CONCURRENT"), allow_negative_numbers = true, help_heading = "How")]
    pub max_req: Option<usize>,
    /// Timeout of one flag, in seconds, retries included; then its worker is killed and replaced
    #[arg(long, value_name = "SECS", value_parser = value::seconds("--task-timeout SECS"), allow_negative_numbers = true, help_heading = "How")]
    pub task_timeout: Option<Duration>,
    /// Replace a worker process after N flags
    #[arg(long, value_name = "N", value_parser = value::positive("--max-tasks-per-worker N"), allow_negative_numbers = true, help_heading = "How")]
    pub max_tasks_per_worker: Option<usize>,
    /// Sandbox of the worker processes; basic and strict allow them the network, the destination and
    /// their log (Linux only)
    #[arg(long, value_enum, ignore_case = true, default_value = "none", help_heading = "How")]
    pub sandbox: SandboxOption,
    /// Worker processes [default: one per CPU]
    #[arg(short, long, value_name = "N", value_parser = value::positive("--workers N"), allow_negative_numbers = true, help_heading = "How")]
    pub workers: Option<usize>,

    /// Where flags are saved; made if missing
    #[arg(short, long, value_name = "DIR", default_value = "downloads", help_heading = "Output")]
    pub dest: PathBuf,
    #[command(flatten)]
    pub dashboard: DashboardArgs,
    /// A line for each flag instead of the bar
    #[arg(short, long, conflicts_with = "json", help_heading = "Output")]
    pub verbose: bool,
    /// A line of JSON for each flag, as it completes, then a summary
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    #[command(flatten)]
    pub display: DisplayArgs,
    /// Exit with 1 if a flag was not found
    #[arg(long, help_heading = "Output")]
    pub fail_on_missing: bool,
    /// Directory of the logs, one file for each process of a run [default: logs]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub log_dir: Option<PathBuf>,
    /// Number of runs whose logs are kept, this one included; older logs are removed, except those
    /// of up to 3 unfinished runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value::positive("--keep-runs N"), allow_negative_numbers = true, help_heading = "Output")]
    pub keep_runs: usize,
    /// Keep no logs
    #[arg(long, conflicts_with_all = ["log_dir", "keep_runs"], help_heading = "Output")]
    pub no_logs: bool,
}

impl DownloadArgs {
    /// Checks that no option would have to be ignored.
    pub(super) fn check(&self) -> Result<(), Contradiction> {
        match (self.mode, self.workers, self.max_req) {
            (Mode::Sequential, _, Some(requests @ 2..)) => {
                return Err(Contradiction::RequestsOfSequential(requests));
            }
            (Mode::Sequential, Some(workers), _) => {
                return Err(Contradiction::WorkersOfSequential(workers));
            }
            (Mode::Threads, Some(workers), _) => {
                return Err(Contradiction::WorkersOfThreads(workers));
            }
            (Mode::Processes, Some(workers), Some(requests)) if workers > requests => {
                return Err(Contradiction::MoreWorkersThanRequests { workers, requests });
            }
            _ => {}
        }
        if self.verbose && self.display.progress == ProgressOption::Bar {
            return Err(Contradiction::VerboseAndBar);
        }
        contradiction::check_server(&self.server)
    }

    /// The arguments of `coordinator ARGS`.
    #[cfg(test)]
    pub(super) fn typed(args: &[&str]) -> Self {
        #[derive(clap::Parser)]
        struct DownloadCommand {
            #[command(flatten)]
            args: DownloadArgs,
        }
        let args = [&["coordinator"], args].concat();
        <DownloadCommand as clap::Parser>::parse_from(args).args
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::site::Site;

    #[test]
    fn both_spellings_and_any_case_are_accepted() {
        let typed = DownloadArgs::typed(&["--max-req", "3", "--mode", "Thread", "-s", "delay"]);
        assert_eq!(
            (typed.max_req, typed.mode, typed.server.server),
            (Some(3), Mode::Threads, Site::Delay)
        );
        assert_eq!(DownloadArgs::typed(&["--max_req", "7"]).max_req, Some(7));
    }

    fn refused(args: &[&str]) -> Option<Contradiction> {
        DownloadArgs::typed(args).check().err()
    }

    #[test]
    fn options_that_would_be_ignored_are_refused_with_both_names() {
        for (args, one, other) in [
            (&["-m", "5", "--mode", "sequential"][..], "--max_req 5", "--mode sequential"),
            (&["-w", "3", "--mode", "threads"], "--workers 3", "--mode threads"),
            (&["-w", "1", "--mode", "sequential"], "--workers 1", "--mode sequential"),
            (&["-w", "9", "-m", "3"], "--workers 9", "--max_req 3"),
            (&["-v", "--progress", "bar"], "--verbose", "--progress bar"),
            (&["--seed", "3"], "--seed 3", "--server LOCAL"),
            (&["--seed", "3", "-s", "http://h/flags"], "--seed 3", "--server http://h/flags"),
        ] {
            let message = refused(args).unwrap_or_else(|| panic!("{args:?}")).to_string();
            assert!(message.contains(one) && message.contains(other), "{message}");
        }
    }

    #[test]
    fn options_that_agree_are_accepted() {
        for args in [
            &["-m", "1", "--mode", "sequential"][..],
            &["-m", "5", "--mode", "threads"],
            &["-w", "3", "-m", "9"],
            &["-v", "--progress", "none"],
            &["--json", "--progress", "bar"],
            &["--seed", "3", "-s", "error"],
        ] {
            assert_eq!(refused(args), None, "{args:?}");
        }
    }
}
