//! The command line of `demo` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::contradiction::{self, Contradiction};
use crate::cli::options::Mode;
use crate::cli::value;
use crate::flags::site::Site;

/// Show what the book's chapter on executors shows, in any mode
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator demo flags                   20 flags, one after the other
  coordinator demo flags --mode threads    and all at once
  coordinator demo futures                 futures before and after their tasks
  coordinator demo map                     results in order, while others run
  coordinator demo cpu                     worker processes use all CPUs
  coordinator demo crash                   and outlive a segmentation fault
  coordinator demo hosts                   other hosts, one of which is killed")]
pub(in crate::cli) struct DemoArgs {
    #[command(subcommand)]
    pub demo: Demo,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Demo {
    /// 17.1.1: 20 flags, each printed when it is saved
    Flags(FlagsArgs),
    /// 17.1.3: five flags, three workers, and the states of their futures
    Futures(FuturesArgs),
    /// 17.4: five tasks that wait, and their results in order
    Map(MapArgs),
    /// 17.3: work for the CPU by the number of workers, and downloads, which wait
    Cpu(CpuArgs),
    /// 20 flags, and a segmentation fault in the middle
    Crash(CrashArgs),
    /// 194 flags by two agents over NATS, one of which is killed
    Hosts(HostsDemoArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HostsDemoArgs {
    /// The program nats-server, 2.11 or newer [default: that of the variable NATS_SERVER, or on PATH]
    #[arg(long, value_name = "FILE")]
    pub nats_server: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FlagsArgs {
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
    #[arg(short, long, value_name = "N", value_parser = value::within("--workers N", 1..=1000), allow_negative_numbers = true)]
    pub workers: Option<usize>,
    /// LOCAL, REMOTE, DELAY, ERROR, or a base URL
    #[arg(short, long, value_name = "LABEL|URL", default_value = "DELAY")]
    pub server: Site,
    /// Where flags are saved; made if missing
    #[arg(short, long, value_name = "DIR", default_value = "downloads")]
    pub dest: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FuturesArgs {
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
    #[arg(short, long, value_name = "N", value_parser = value::within("--workers N", 1..=1000), allow_negative_numbers = true)]
    pub workers: Option<usize>,
    /// LOCAL, REMOTE, DELAY, ERROR, or a base URL
    #[arg(short, long, value_name = "LABEL|URL", default_value = "DELAY")]
    pub server: Site,
    /// Where flags are saved; made if missing
    #[arg(short, long, value_name = "DIR", default_value = "downloads")]
    pub dest: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MapArgs {
    /// How to run the tasks: sequential, threads or processes
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "threads",
        hide_possible_values = true
    )]
    pub mode: Mode,
    /// How many at a time [default: 3]
    #[arg(short, long, value_name = "N", value_parser = value::within("--workers N", 1..=1000), allow_negative_numbers = true)]
    pub workers: Option<usize>,
    /// Wait only the Nth part of the book's times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub speed: u32,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CpuArgs {
    /// How to run the jobs: sequential, threads or processes
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "processes",
        hide_possible_values = true
    )]
    pub mode: Mode,
    /// The most workers [default: one per CPU]
    #[arg(short, long, value_name = "N", value_parser = value::within("--workers N", 1..=1000), allow_negative_numbers = true)]
    pub workers: Option<usize>,
    /// How many jobs of each kind
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = value::within("--jobs N", 1..=1000), allow_negative_numbers = true)]
    pub jobs: usize,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CrashArgs {
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
    #[arg(short, long, value_name = "N", value_parser = value::within("--workers N", 1..=1000), allow_negative_numbers = true)]
    pub workers: Option<usize>,
    /// LOCAL, REMOTE, DELAY, ERROR, or a base URL
    #[arg(short, long, value_name = "LABEL|URL", default_value = "DELAY")]
    pub server: Site,
    /// Download into this directory and crash: the demonstration of a mode without processes
    #[arg(long, value_name = "DIR", hide = true)]
    pub victim: Option<PathBuf>,
}

impl Demo {
    /// Checks that no option would have to be ignored.
    pub(super) fn check(&self) -> Result<(), Contradiction> {
        let (mode, workers) = match self {
            Self::Flags(args) => (args.mode, args.workers),
            Self::Futures(args) => (args.mode, args.workers),
            Self::Map(args) => (args.mode, args.workers),
            Self::Cpu(args) => (args.mode, args.workers),
            Self::Crash(args) => (args.mode, args.workers),
            Self::Hosts(_) => return Ok(()),
        };
        contradiction::check_workers(mode, workers)
    }

    /// The names that lead to the demonstration on the command line.
    pub(super) fn command(&self) -> &'static [&'static str] {
        match self {
            Self::Flags(_) => &["demo", "flags"],
            Self::Futures(_) => &["demo", "futures"],
            Self::Map(_) => &["demo", "map"],
            Self::Cpu(_) => &["demo", "cpu"],
            Self::Crash(_) => &["demo", "crash"],
            Self::Hosts(_) => &["demo", "hosts"],
        }
    }
}

/// Default number of workers of the small demonstrations.
pub(super) const WORKERS: usize = 3;
