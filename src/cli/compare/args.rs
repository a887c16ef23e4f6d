//! The command line of `compare` as typed.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::mode::MeasuredMode;
use crate::cli::dashboard::DashboardArgs;
use crate::cli::hosts::NatsArgs;
use crate::cli::options::{CodeArgs, DisplayArgs, RequestArgs, SiteArgs};
use crate::cli::value;

/// Text of `--help` below the options.
const EXAMPLES: &str = "\
Examples:
  coordinator compare --all -s DELAY --modes threads:30,processes,processes:2x15
  coordinator compare br cn us --runs 20 --reference threads
  coordinator compare --all --export flags.html --export flags.csv
  coordinator compare --task primes            work for the CPU, 1 worker to all
  coordinator compare --task python --jobs 20  the same in CPython, with its GIL

Modes:
  sequential, threads, threads:30, processes, processes:2, processes:2x15
  (2 worker processes of 15 threads each), hosts (the agents of --nats URL,
  which must see the same server and directories); with --task sha, noop or
  python also python-sequential, python-threads:N and python-processes:N

What is measured:
  The modes run in turn: A B C, A B C, and so on; warm-up runs are not counted.
  A run is a process of its own, with a destination of its own; all runs ask
  one server. Its time is that of the whole process; with --task, that from
  the first job to the last result, after the workers have started. CPU: of the
  process and of all its workers. RSS: the most resident memory of these
  together, as the sum of their peaks; pages that they share count in each. In
  the chart a bar is full up to the fastest run and light up to the mean; its
  whisker ends at the slowest. With --dashboard, runs of flags keep logs, and an
  open page takes CPU time: do not use --dashboard for measurements.

  A mode is called faster, slower or as fast (within 10 %) than the reference
  only if the 95 % confidence interval of the ratio of their means says so;
  else it cannot be told, as always with --runs 1. Runs are compared round by
  round, so what disturbs all modes of a round does not count.

Exit code:
  0 measured, 1 results differ, or a run broke off, 2 usage,
  3 could not work at all, 130 interrupted by Ctrl-C, 143 by SIGTERM,
  129 by SIGHUP, 131 by SIGQUIT, 141 the reader of standard output closed it";

/// Compare the modes: run the same job in each, in turn, and report times, CPU time and memory
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct CompareArgs {
    #[command(flatten)]
    pub codes: CodeArgs,
    #[command(flatten)]
    pub site: SiteArgs,
    #[command(flatten)]
    pub request: RequestArgs,

    /// Compare other work than flags: sha, arcfour, primes, sleep, noop, or python (sha in CPython
    /// as well)
    #[arg(
        long,
        value_name = "NAME",
        ignore_case = true,
        hide_possible_values = true,
        conflicts_with_all = [
            "cc", "all", "every", "codes_file", "limit", "server", "seed", "timeout", "retries",
        ],
        help_heading = "Other work"
    )]
    pub task: Option<TaskName>,
    /// Number of jobs [default: 40; 20000 of noop]
    #[arg(long, value_name = "N", value_parser = value::whole("--jobs N", 1..=10_000_000), allow_negative_numbers = true, help_heading = "Other work")]
    pub jobs: Option<usize>,
    /// Size of each job: bytes of sha (32M) and arcfour (4M), digits of primes (16), ms of sleep (50)
    #[arg(long, value_name = "SIZE", value_parser = value::size("--size SIZE"), allow_negative_numbers = true, help_heading = "Other work")]
    pub size: Option<u64>,

    /// The modes [default: sequential,threads,processes; with --task, each with 1 to --workers]
    #[arg(
        long,
        value_name = "MODE,...",
        value_delimiter = ',',
        num_args = 1,
        help_heading = "How"
    )]
    pub(super) modes: Vec<MeasuredMode>,
    /// The mode that the others are compared with [default: the first]
    #[arg(long, value_name = "MODE", help_heading = "How")]
    pub(super) reference: Option<MeasuredMode>,
    /// Measured runs of each mode
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = value::whole("--runs N", 1..=1_000_000), allow_negative_numbers = true, help_heading = "How")]
    pub runs: usize,
    /// Runs of each mode before the measured ones; they do not count
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value::whole("--warmup N", 0..=1_000_000), allow_negative_numbers = true, help_heading = "How")]
    pub warmup: usize,
    /// Worker processes of `processes`; with --task, the most workers [default: one per CPU]
    #[arg(short, long, value_name = "N", value_parser = value::whole("--workers N", 1..=1000), allow_negative_numbers = true, help_heading = "How")]
    pub workers: Option<usize>,

    /// Write the result to FILE.md, .json, .csv, .html or .svg, too
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub export: Vec<PathBuf>,
    #[command(flatten)]
    pub dashboard: DashboardArgs,
    #[command(flatten)]
    pub display: DisplayArgs,
    #[command(flatten)]
    pub nats: NatsArgs,

    /// Run the task once, in the one mode, and print the measurement: what a measured run does
    #[arg(long, hide = true, requires = "task")]
    pub once: bool,
}

/// The values of `--task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum TaskName {
    Sha,
    Arcfour,
    Primes,
    Sleep,
    Noop,
    Python,
}

impl ValueEnum for TaskName {
    fn value_variants<'a>() -> &'a [Self] {
        use TaskName::{Arcfour, Noop, Primes, Python, Sha, Sleep};
        &[Sha, Arcfour, Primes, Sleep, Noop, Python]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Sha => "sha",
            Self::Arcfour => "arcfour",
            Self::Primes => "primes",
            Self::Sleep => "sleep",
            Self::Noop => "noop",
            Self::Python => "python",
        }))
    }
}
