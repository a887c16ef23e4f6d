//! The command line as typed: each option's definition and help in one place.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use super::{compare, demo};
use crate::flag_server::DEFAULT_SEED;
use crate::flags::site::Site;

use super::bench::Bench;

/// What `--help` shows below the options.
const EXAMPLES: &str = "\
Examples:
  coordinator --all                        all flags, one worker process per CPU
  coordinator br cn B                      Brazil, China and BA to BZ
  coordinator -e -s ERROR -v               all codes, from a server that fails
  coordinator -a -s DELAY --mode threads   30 at a time, on threads
  coordinator -a -s DELAY -m 30            30 at a time, in worker processes
  coordinator -a --json | jq .status       a line of JSON for each flag
  coordinator --resume                     what the newest unfinished run left
  coordinator -a --update                  only what has changed

Exit status:
  0 all answered, 1 some errors, 2 usage, 3 could not work at all,
  130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP, 131 by SIGQUIT,
  141 the reader of standard output closed it before the end

The first signal lets requests in flight end for 2 s; a second one, at least
0.2 s later, ends the program at once.";

/// Downloads the flags of countries: by default the 20 most populous ones, into ./downloads.
#[derive(Debug, Parser)]
#[command(
    name = "coordinator",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_help_heading = "Other commands",
    disable_help_subcommand = true
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub download: Download,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the flag servers LOCAL, DELAY and ERROR until Ctrl-C
    Serve(Serve),
    /// Measure what tasks cost on this machine, in each mode
    Bench(Bench),
    /// Show what every process of a run wrote down
    Logs(super::logs::Logs),
    /// Draw what ran where and when: in the terminal, as a page, or as a trace
    Timeline(super::timeline::Timeline),
    Compare(Box<compare::args::Args>),
    Demo(demo::args::Demos),
    /// Print a completion script for a shell
    Completions {
        /// The shell that will read it
        shell: clap_complete::Shell,
    },
}

/// Which flags, from where, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Download {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub resume: super::resume::Resume,
    #[command(flatten)]
    pub origin: Origin,

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
    /// Most concurrent requests [default: one per worker process; 30 threads; 1 sequential]
    #[arg(short, long = "max_req", alias = "max-req", value_name = "CONCURRENT", value_parser = max_req, allow_negative_numbers = true, help_heading = "How")]
    pub max_req: Option<usize>,
    /// Most seconds for one flag, retries included; then its worker is killed and replaced
    #[arg(long, value_name = "SECS", value_parser = task_timeout, allow_negative_numbers = true, help_heading = "How")]
    pub task_timeout: Option<Duration>,
    /// Replace a worker process after N flags
    #[arg(long, value_name = "N", value_parser = max_tasks, allow_negative_numbers = true, help_heading = "How")]
    pub max_tasks_per_worker: Option<usize>,
    /// Worker processes [default: one per CPU]
    #[arg(short, long, value_name = "N", value_parser = workers, allow_negative_numbers = true, help_heading = "How")]
    pub workers: Option<usize>,

    /// Where flags are saved; made if missing
    #[arg(short, long, value_name = "DIR", default_value = "downloads", help_heading = "Output")]
    pub dest: PathBuf,
    #[command(flatten)]
    pub dashboard: super::dashboard::DashboardArgs,
    /// A line for each flag instead of the bar
    #[arg(short, long, conflicts_with = "json", help_heading = "Output")]
    pub verbose: bool,
    /// A line of JSON for each flag, as it completes, then a summary
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Whether to draw a progress bar: auto (if stderr is a terminal that can), bar or none
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Output"
    )]
    pub progress: Progress,
    /// Whether to use colour: auto (if the terminal can, and NO_COLOR is not set), always or never
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Output"
    )]
    pub color: Color,
    /// Exit with 1 if a flag was not found
    #[arg(long, help_heading = "Output")]
    pub fail_on_missing: bool,
    /// Where each process keeps its log [default: logs]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub log_dir: Option<PathBuf>,
    /// The logs of how many runs are kept, this one included; older ones are removed, but for up
    /// to 3 unfinished ones
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = keep_runs, allow_negative_numbers = true, help_heading = "Output")]
    pub keep_runs: usize,
    /// Keep no logs
    #[arg(long, conflicts_with_all = ["log_dir", "keep_runs"], help_heading = "Output")]
    pub no_logs: bool,
}

/// Which flags.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Country code or first letter, any case (B for BA to BZ)
    #[arg(value_name = "CC")]
    pub cc: Vec<String>,
    /// All available flags: 194 codes, AD to ZW
    #[arg(short, long, conflicts_with_all = ["cc", "every", "codes_file"], help_heading = "Which flags")]
    pub all: bool,
    /// Every possible code: 676, AA to ZZ
    #[arg(short, long, conflicts_with_all = ["cc", "codes_file"], help_heading = "Which flags")]
    pub every: bool,
    /// The codes in this file, or on standard input if it is `-`
    #[arg(long, value_name = "FILE", help_heading = "Which flags")]
    pub codes_file: Option<PathBuf>,
    /// Only the first N, after sorting
    #[arg(short, long, value_name = "N", value_parser = limit, allow_negative_numbers = true, help_heading = "Which flags")]
    pub limit: Option<usize>,
}

/// From where.
#[derive(Debug, clap::Args)]
pub(super) struct Origin {
    /// LOCAL, REMOTE, DELAY, ERROR, or a base URL
    #[arg(
        short,
        long,
        value_name = "LABEL|URL",
        default_value = "LOCAL",
        help_heading = "From where"
    )]
    pub server: Site,
    /// Which faults the ERROR server shows [default: the same ones each time]
    #[arg(long, value_name = "N", value_parser = seed, allow_negative_numbers = true, help_heading = "From where")]
    pub seed: Option<u64>,
    /// Most seconds for one request, from connecting to the last byte
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = timeout, allow_negative_numbers = true, help_heading = "From where")]
    pub timeout: Duration,
    /// Further tries after connection errors, timeouts, HTTP 429 and 5xx
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = retries, allow_negative_numbers = true, help_heading = "From where")]
    pub retries: u32,
}

/// The style of execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// One after the other
    Sequential,
    /// On threads of one process
    #[value(alias = "thread")]
    Threads,
    /// In worker processes
    #[value(alias = "process")]
    Processes,
}

impl Mode {
    /// Its name, as reports and logs have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Threads => "threads",
            Self::Processes => "processes",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Progress {
    /// If stderr is a terminal that can
    Auto,
    /// In any case
    Bar,
    /// Never
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// If the terminal can, and NO_COLOR is not set
    Auto,
    /// In any case
    Always,
    /// Never
    Never,
}

/// Where to serve.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coordinator serve &
  curl -O http://localhost:8001/flags/br/br.gif
  coordinator serve --local-port 0 -v      a free port, and a line for each request

The ports are those of the book's examples, so its own scripts find the servers.
Ctrl-C and SIGTERM end them, with exit status 0.")]
pub(super) struct Serve {
    /// Port of LOCAL, which answers at once; 0 for a free one
    #[arg(long, value_name = "PORT", default_value_t = 8001)]
    pub local_port: u16,
    /// Port of DELAY, which answers after half a second
    #[arg(long, value_name = "PORT", default_value_t = 8002)]
    pub delay_port: u16,
    /// Port of ERROR, which delays half of its answers and fails a quarter of them
    #[arg(long, value_name = "PORT", default_value_t = 8003)]
    pub error_port: u16,
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Which faults ERROR shows
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SEED, value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,
    /// A line for each request, on stderr
    #[arg(short, long)]
    pub verbose: bool,
    #[command(flatten)]
    pub dashboard: super::dashboard::DashboardArgs,
}

impl Download {
    /// What stands when nothing was typed.
    #[cfg(test)]
    pub(super) fn typed(args: &[&str]) -> Self {
        Args::parse_from([&["coordinator"], args].concat()).download
    }
}

pub(super) fn at_least_one(option: &str, typed: &str) -> Result<usize, String> {
    match typed.parse() {
        Ok(0) => Err(format!("{option} must be >= 1")),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("{option} must be a whole number >= 1")),
    }
}

fn max_req(typed: &str) -> Result<usize, String> {
    at_least_one("--max_req CONCURRENT", typed)
}

fn limit(typed: &str) -> Result<usize, String> {
    at_least_one("--limit N", typed)
}

fn workers(typed: &str) -> Result<usize, String> {
    at_least_one("--workers N", typed)
}

fn keep_runs(typed: &str) -> Result<usize, String> {
    at_least_one("--keep-runs N", typed)
}

fn retries(typed: &str) -> Result<u32, String> {
    typed.parse().map_err(|_| "--retries N must be a whole number >= 0".to_owned())
}

fn seed(typed: &str) -> Result<u64, String> {
    typed.parse().map_err(|_| "--seed N must be a whole number >= 0".to_owned())
}

fn max_tasks(typed: &str) -> Result<usize, String> {
    at_least_one("--max-tasks-per-worker N", typed)
}

fn timeout(typed: &str) -> Result<Duration, String> {
    seconds("--timeout SECS", typed)
}

fn task_timeout(typed: &str) -> Result<Duration, String> {
    seconds("--task-timeout SECS", typed)
}

fn seconds(option: &str, typed: &str) -> Result<Duration, String> {
    let seconds = typed.parse().ok().filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|timeout| !timeout.is_zero())
        .ok_or_else(|| format!("{option} must be a number of seconds > 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn both_spellings_and_any_case_are_taken() {
        let typed = Download::typed(&["--max-req", "3", "--mode", "Thread", "-s", "delay"]);
        assert_eq!(
            (typed.max_req, typed.mode, typed.origin.server),
            (Some(3), Mode::Threads, Site::Delay)
        );
        assert_eq!(Download::typed(&["--max_req", "7"]).max_req, Some(7));
    }

    #[test]
    fn usage_errors_name_the_option_and_what_it_takes() {
        let refused = |args: &[&str]| {
            let args = [&["coordinator"], args].concat();
            Args::try_parse_from(args).expect_err("refused").to_string()
        };
        assert!(refused(&["-m", "0"]).contains("--max_req CONCURRENT must be >= 1"));
        assert!(refused(&["-l", "0"]).contains("--limit N must be >= 1"));
        assert!(refused(&["--workers", "0"]).contains("--workers N must be >= 1"));
        assert!(refused(&["-w", "-3"]).contains("--workers N must be a whole number >= 1"));
        assert!(refused(&["--retries", "-1"]).contains("--retries N must be a whole number >= 0"));
        assert!(refused(&["--seed", "x"]).contains("--seed N must be a whole number >= 0"));
        assert!(refused(&["--timeout", "nan"]).contains("--timeout SECS must be"));
        assert!(refused(&["-s", "nowhere"]).contains("--server LABEL must be one of"));
    }
}
