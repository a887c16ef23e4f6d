//! The command line of `compare` as typed.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::mode::Mode;
use crate::cli::args::{Color, Origin, Progress, Which};
use crate::cli::dashboard::DashboardArgs;

/// What `--help` shows below the options.
const EXAMPLES: &str = "\
Examples:
  coordinator compare --all -s DELAY --modes threads:30,processes,processes:2x15
  coordinator compare br cn us --runs 20 --reference threads
  coordinator compare --all --export flags.html --export flags.csv
  coordinator compare --task primes            what workers do for the CPU
  coordinator compare --task python --jobs 20  and what the GIL costs

Modes:
  sequential, threads, threads:30, processes, processes:2, processes:2x15
  (2 worker processes of 15 threads each); with --task sha, noop or python
  also python-sequential, python-threads:N and python-processes:N

What is measured:
  The modes run in turn: A B C, A B C, and so on; warm-up runs are not counted.
  A run is a process of its own, with a destination of its own; all runs ask
  one server. Its time is that of the whole process; with --task, that from
  the first job to the last result, in a pool that stands. CPU: of the process
  and of all its workers. RSS: the most resident memory of these together, as
  the sum of their peaks; pages that they share count in each. In the chart a
  bar is full up to the fastest run and light up to the mean; its whisker ends
  at the slowest. With --dashboard, runs of flags keep logs, and a page that is
  open has its share of the CPUs: look for the pleasure of it, measure without.

  A mode is called faster, slower or as fast (within 10 %) than the reference
  only if the 95 % confidence interval of the ratio of their means says so;
  else it cannot be told, as always with --runs 1. Runs are compared round by
  round, so what disturbs all modes of a round does not count.

Exit status:
  0 measured, 1 runs did not bring the same, or broke off, 2 usage,
  3 could not work at all, 130 interrupted by Ctrl-C, 143 by SIGTERM,
  129 by SIGHUP, 131 by SIGQUIT, 141 the reader of standard output closed it";

/// Compare the modes: run the same job in each, in turn, and tell what it takes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub origin: Origin,

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
    pub task: Option<Task>,
    /// How many jobs [default: 40; 20000 of noop]
    #[arg(long, value_name = "N", value_parser = jobs, allow_negative_numbers = true, help_heading = "Other work")]
    pub jobs: Option<usize>,
    /// Of each job: bytes (32M of sha, 4M of arcfour), digits (16 of primes) or ms (50 of sleep)
    #[arg(long, value_name = "SIZE", value_parser = size, allow_negative_numbers = true, help_heading = "Other work")]
    pub size: Option<u64>,

    /// The modes [default: sequential,threads,processes; with --task, each with 1 to --workers]
    #[arg(
        long,
        value_name = "MODE,...",
        value_delimiter = ',',
        num_args = 1,
        help_heading = "How"
    )]
    pub(super) modes: Vec<Mode>,
    /// What the others are compared with [default: the first of the modes]
    #[arg(long, value_name = "MODE", help_heading = "How")]
    pub(super) reference: Option<Mode>,
    /// Runs of each mode that count
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = runs, allow_negative_numbers = true, help_heading = "How")]
    pub runs: usize,
    /// Runs of each mode before these
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = warmup, allow_negative_numbers = true, help_heading = "How")]
    pub warmup: usize,
    /// Worker processes of `processes`; with --task, the most workers [default: one per CPU]
    #[arg(short, long, value_name = "N", value_parser = workers, allow_negative_numbers = true, help_heading = "How")]
    pub workers: Option<usize>,

    /// Write the result to FILE.md, .json, .csv, .html or .svg, too
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub export: Vec<PathBuf>,
    #[command(flatten)]
    pub dashboard: DashboardArgs,
    /// Whether to tell the progress: auto (if stderr is a terminal that can), bar or none
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

    /// Run the task once, in the one mode, and tell what it took: what a measured run is
    #[arg(long, hide = true, requires = "task")]
    pub once: bool,
}

/// The names of `--task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Task {
    Sha,
    Arcfour,
    Primes,
    Sleep,
    Noop,
    Python,
}

impl ValueEnum for Task {
    fn value_variants<'a>() -> &'a [Self] {
        use Task::{Arcfour, Noop, Primes, Python, Sha, Sleep};
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

fn whole(option: &str, typed: &str, least: usize, most: usize) -> Result<usize, String> {
    match typed.parse() {
        Ok(number) if number < least => Err(format!("{option} must be >= {least}")),
        Ok(number) if number > most => Err(format!("{option} must be <= {most}")),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("{option} must be a whole number >= {least}")),
    }
}

fn jobs(typed: &str) -> Result<usize, String> {
    whole("--jobs N", typed, 1, 10_000_000)
}

fn runs(typed: &str) -> Result<usize, String> {
    whole("--runs N", typed, 1, 1_000_000)
}

fn warmup(typed: &str) -> Result<usize, String> {
    whole("--warmup N", typed, 0, 1_000_000)
}

fn workers(typed: &str) -> Result<usize, String> {
    whole("--workers N", typed, 1, 1000)
}

/// A number, which may end in k, M or G for powers of 1024.
fn size(typed: &str) -> Result<u64, String> {
    let lower = typed.to_ascii_lowercase();
    let (number, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        _ => (&lower[..], 0),
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    size.ok_or_else(|| "--size SIZE must be a whole number, with k, M or G for more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_be_told_in_short() {
        assert_eq!(size("14"), Ok(14));
        assert_eq!((size("8k"), size("4M"), size("1g")), (Ok(8 << 10), Ok(4 << 20), Ok(1 << 30)));
        for odd in ["", "k", "-1", "1.5", "4MB", "99999999999G", "é"] {
            assert!(size(odd).is_err(), "{odd}");
        }
    }
}
