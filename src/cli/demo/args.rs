//! The command line of `demo` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::args::Mode;
use crate::cli::contradictions;
use crate::flags::site::Site;

/// Show what the book's chapter on executors shows, in any mode
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator demo flags                   20 flags, one after the other
  coordinator demo flags --mode threads    and all at once
  coordinator demo futures                 what a future is, before and after
  coordinator demo map                     results in order, while others run
  coordinator demo cpu                     what worker processes are good for
  coordinator demo crash                   and what they are best at")]
pub(in crate::cli) struct Demos {
    #[command(subcommand)]
    pub demo: Demo,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Demo {
    /// 17.1.1: 20 flags, each named when it is there
    Flags(Flags),
    /// 17.1.3: five flags, three workers, and the states of their futures
    Futures(Futures),
    /// 17.4: five tasks that loiter, and their results in order
    Map(Map),
    /// 17.3: work for the CPU by the number of workers, and what waiting has of it
    Cpu(Cpu),
    /// 20 flags, and a segmentation fault in the middle
    Crash(Crash),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// How to run the downloads: sequential, threads or processes
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "sequential",
        hide_possible_values = true
    )]
    pub mode: Mode,
    /// How many at a time [default: 20 threads; one worker process per CPU]
    #[arg(short, long, value_name = "N", value_parser = workers, allow_negative_numbers = true)]
    pub workers: Option<usize>,
    /// LOCAL, REMOTE, DELAY, ERROR, or a base URL
    #[arg(short, long, value_name = "LABEL|URL", default_value = "DELAY")]
    pub server: Site,
    /// Where flags are saved; made if missing
    #[arg(short, long, value_name = "DIR", default_value = "downloads")]
    pub dest: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Futures {
    /// How to run the downloads: sequential, threads or processes
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "threads",
        hide_possible_values = true
    )]
    pub mode: Mode,
    /// How many at a time [default: 3]
    #[arg(short, long, value_name = "N", value_parser = workers, allow_negative_numbers = true)]
    pub workers: Option<usize>,
    /// LOCAL, REMOTE, DELAY, ERROR, or a base URL
    #[arg(short, long, value_name = "LABEL|URL", default_value = "DELAY")]
    pub server: Site,
    /// Where flags are saved; made if missing
    #[arg(short, long, value_name = "DIR", default_value = "downloads")]
    pub dest: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Map {
    /// Where to loiter: sequential, threads or processes
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "threads",
        hide_possible_values = true
    )]
    pub mode: Mode,
    /// How many at a time [default: 3]
    #[arg(short, long, value_name = "N", value_parser = workers, allow_negative_numbers = true)]
    pub workers: Option<usize>,
    /// For the hasty: so many times faster
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub speed: u32,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Cpu {
    /// Where to work: sequential, threads or processes
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "processes",
        hide_possible_values = true
    )]
    pub mode: Mode,
    /// The most workers [default: one per CPU]
    #[arg(short, long, value_name = "N", value_parser = workers, allow_negative_numbers = true)]
    pub workers: Option<usize>,
    /// How many jobs of each kind
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = jobs, allow_negative_numbers = true)]
    pub jobs: usize,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Crash {
    /// How to run the downloads: sequential, threads or processes
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "processes",
        hide_possible_values = true
    )]
    pub mode: Mode,
    /// How many at a time [default: 4 threads; one worker process per CPU]
    #[arg(short, long, value_name = "N", value_parser = workers, allow_negative_numbers = true)]
    pub workers: Option<usize>,
    /// LOCAL, REMOTE, DELAY, ERROR, or a base URL
    #[arg(short, long, value_name = "LABEL|URL", default_value = "DELAY")]
    pub server: Site,
    /// Download into this directory, and die of it: what a mode without processes is shown by
    #[arg(long, value_name = "DIR", hide = true)]
    pub victim: Option<PathBuf>,
}

impl Demo {
    /// What of it would have to be ignored.
    pub(super) fn contradiction(&self) -> Option<String> {
        let (mode, workers) = match self {
            Self::Flags(args) => (args.mode, args.workers),
            Self::Futures(args) => (args.mode, args.workers),
            Self::Map(args) => (args.mode, args.workers),
            Self::Cpu(args) => (args.mode, args.workers),
            Self::Crash(args) => (args.mode, args.workers),
        };
        contradictions::in_demo(mode, workers).err()
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Flags(_) => "flags",
            Self::Futures(_) => "futures",
            Self::Map(_) => "map",
            Self::Cpu(_) => "cpu",
            Self::Crash(_) => "crash",
        }
    }
}

/// How many tasks of the small demonstrations run at a time, where no number is given.
pub(super) const WORKERS: usize = 3;

fn workers(typed: &str) -> Result<usize, String> {
    number("--workers N", typed)
}

fn jobs(typed: &str) -> Result<usize, String> {
    number("--jobs N", typed)
}

fn number(option: &str, typed: &str) -> Result<usize, String> {
    match typed.parse() {
        Ok(number @ 1..=1000) => Ok(number),
        _ => Err(format!("{option} must be 1 to 1000")),
    }
}
