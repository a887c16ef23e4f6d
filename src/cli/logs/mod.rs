//! `coordinator logs`: what every process of a run wrote down, in one view.
//!
//! ```text
//!   merge ─► filter ─► line   (by default, and -f)
//!   story ─► summary          (--summary)
//!   runs  ─► list             (--list)
//! ```

mod filter;
mod line;
mod list;
mod show;
mod since;
mod summary;

use super::args::Color;
use super::stderr;
use super::which_run::WhichRun;
use super::{Exit, contradictions, usage_error};
use procession_journal::ReadWarnings;

use since::Since;

/// Which lines of which run, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coordinator logs                      the latest run, all processes merged by time
  coordinator logs -f                   … and what is added, until the run ends
  coordinator logs --list               all runs
  coordinator logs --summary            a table of the workers, the errors, the slowest tasks
  coordinator logs --status error -n 5  the last five flags that failed
  coordinator logs --code BR --code KE  what became of these, from their beginning
  coordinator logs --worker 1 --level debug --since +1.5s
  coordinator logs 4711 --json | jq .event

RUN may be a part of a name that no other run has, such as the process id at its end.
--since takes a time (23:49:33, 2026-11-22T23:49:33), how long ago (30s, 5m), or, with +, how long
after the run began.")]
pub(super) struct Logs {
    #[command(flatten)]
    pub which: WhichRun,
    /// All runs: when, how, what they came to
    #[arg(long, conflicts_with_all = ["run", "follow", "summary", "json", "lines"], conflicts_with_all = FILTERS)]
    pub list: bool,
    /// What each process did, the errors by their cause, the slowest tasks
    #[arg(long, conflicts_with_all = ["follow", "lines"], conflicts_with_all = FILTERS)]
    pub summary: bool,
    /// Show what is added, until the run ends; wait for one if there is none yet
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long = "lines", value_name = "LINES", value_parser = filter::lines, allow_negative_numbers = true)]
    pub lines: Option<usize>,
    /// The lines as they were written (with --summary: the numbers), in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Whether to use colour: auto, always or never
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub color: Color,
}

/// Which lines are wanted.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which lines")]
pub(super) struct FilterArgs {
    /// Only what worker N wrote, or the coordinator of it
    #[arg(long, value_name = "N", value_parser = filter::worker, allow_negative_numbers = true)]
    pub worker: Vec<usize>,
    /// The same by process id
    #[arg(long, value_name = "PID", value_parser = filter::pid, allow_negative_numbers = true)]
    pub pid: Vec<u32>,
    /// Only what is about this flag; may be given several times
    #[arg(long, value_name = "CC", value_delimiter = ',', value_parser = filter::code)]
    pub code: Vec<String>,
    /// Only flags that ended so: ok, not_found, error or not_done
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = filter::status)]
    pub status: Vec<String>,
    /// Only what matters so much: debug, info, warn or error [default: info; debug with --code and --json]
    #[arg(long, value_name = "LEVEL", value_parser = filter::level)]
    pub level: Option<procession_journal::Level>,
    /// Only what happened since then
    #[arg(long, value_name = "WHEN", value_parser = since::parse)]
    pub since: Option<Since>,
}

/// What chooses lines has nothing to choose where whole runs are told.
const FILTERS: [&str; 6] = ["worker", "pid", "code", "status", "level", "since"];

/// Runs the command.
pub(super) fn run(args: &Logs) -> anyhow::Result<Exit> {
    let colourless = args.json.then_some("--json");
    let contradiction =
        contradictions::in_color(args.color, colourless).and_then(|()| args.which.check());
    if let Err(why) = contradiction {
        return usage_error(Some(&["logs"]), why);
    }
    if args.list {
        list::run(args.which.log_dir(), args.color)?;
    } else if args.summary {
        summary::run(&args.which.find()?, args.json, args.color)?;
    } else {
        let path = match args.follow && args.which.run.is_none() {
            true => show::await_a_run(args.which.log_dir())?,
            false => args.which.find()?,
        };
        show::run(&path, args)?;
    }
    Ok(Exit::Answered)
}

/// Says what is wrong with the logs.
pub(super) fn tell(warnings: &ReadWarnings) {
    for trouble in warnings.lines() {
        stderr::say(format_args!("coordinator: {}", super::words::printable(&trouble)));
    }
}
