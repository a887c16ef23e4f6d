//! `coordinator logs`: the logs of all processes of a run.
//!
//! ```text
//!   merge ─► filter ─► line   (by default, and -f)
//!   history ─► summary        (--summary)
//!   runs    ─► list           (--list)
//! ```

mod filter;
mod line;
mod list;
mod show;
mod since;
mod summary;

use std::path::PathBuf;

use super::contradiction;
use super::exit::ProgramExit;
use super::format::printable;
use super::options::ColorArgs;
use super::run_selection::RunSelectionArgs;
use super::usage_error::UsageError;
use super::{stderr, value};
use procession_journal::ReadWarnings;

use since::Since;

/// Show the logs of all processes of a run
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coordinator logs                      the latest run, processes merged by time
  coordinator logs -f                   and what is added, until the run ends
  coordinator logs --list               all runs
  coordinator logs --summary            the workers, errors and slowest tasks
  coordinator logs --status error -n 5  the last five files that failed
  coordinator logs --code BR --code KE  all lines about these two flags
  coordinator logs --worker 1 --level debug --since +1.5s
  coordinator logs 4711 --json | jq .event

RUN may be a part of a name that no other run has, such as the process id at its
end. --since takes a time (23:49:33, 2026-11-22T23:49:33), how long ago (30s,
5m), or, with +, how long after the run began.")]
pub(super) struct LogsArgs {
    #[command(flatten)]
    pub run: RunSelectionArgs,
    /// All runs: when, how, and their results
    #[arg(long, conflicts_with_all = ["run", "follow", "summary"], conflicts_with_all = FILTERS)]
    pub list: bool,
    /// A table of the processes, the errors by cause, and the slowest tasks
    #[arg(long, conflicts_with_all = ["follow"], conflicts_with_all = FILTERS)]
    pub summary: bool,
    /// Also show lines that are added, until the run ends; wait for a run if there is none yet
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines; with --list, the N newest runs; with --summary, the N slowest tasks, and N
    /// of each cause of errors
    #[arg(short = 'n', long = "lines", value_name = "LINES", value_parser = value::unsigned::<usize>("-n LINES"), allow_negative_numbers = true)]
    pub lines: Option<usize>,
    /// The lines as they were written (with --summary, the numbers; with --list, a line a run), in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub color: ColorArgs,
}

/// Which lines.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which lines")]
pub(super) struct FilterArgs {
    /// Only lines of worker N, and lines of the coordinator about it
    #[arg(long, value_name = "N", value_parser = value::unsigned::<usize>("--worker N"), allow_negative_numbers = true)]
    pub worker: Vec<usize>,
    /// The same by process id
    #[arg(long, value_name = "PID", value_parser = value::unsigned::<u32>("--pid PID"), allow_negative_numbers = true)]
    pub pid: Vec<u32>,
    /// Only what is about this flag or file; may be given several times
    #[arg(long, value_name = "CC|FILE", value_delimiter = ',', value_parser = filter::code)]
    pub code: Vec<String>,
    /// Only lines about tasks with this id, label or name, in the logs of any program
    #[arg(long, value_name = "TASK")]
    pub task: Vec<String>,
    /// Only files with this status: ok, not_found, error or not_done
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = value::suggesting(filter::status, &["ok", "not_found", "error", "not_done"]), hide_possible_values = true)]
    pub status: Vec<String>,
    /// Minimum level: debug, info, warn or error [default: info; debug with --code, --task and --json]
    #[arg(long, value_name = "LEVEL", value_parser = value::suggesting(filter::level, &["debug", "info", "warn", "error"]), hide_possible_values = true)]
    pub level: Option<procession_journal::Level>,
    /// Only lines from this time on
    #[arg(long, value_name = "WHEN", value_parser = since::parse)]
    pub since: Option<Since>,
}

/// The options that filter lines, which contradict the views of whole runs.
const FILTERS: [&str; 7] = ["worker", "pid", "code", "task", "status", "level", "since"];

/// Runs the command.
pub(super) fn run(args: LogsArgs) -> anyhow::Result<ProgramExit> {
    contradiction::check_color(args.color.color, args.json.then_some("--json"))
        .and_then(|()| args.run.check())
        .map_err(|error| UsageError::new(&["logs"], error))?;
    if args.list {
        list::run(args.run.log_dir(), args.lines, args.json, args.color.color)?;
    } else if args.summary {
        summary::run(&args.run.find()?, args.lines, args.json, args.color.color)?;
    } else {
        let path: PathBuf = match args.follow && args.run.run.is_none() {
            true => show::await_run(args.run.log_dir())?,
            false => args.run.find()?,
        };
        show::run(&path, &args)?;
    }
    Ok(ProgramExit::Success)
}

/// Prints the warnings about logs on stderr.
pub(super) fn print_warnings(warnings: &ReadWarnings) {
    for warning in warnings.lines() {
        stderr::print(format_args!("coordinator: {}", printable(&warning)));
    }
}
