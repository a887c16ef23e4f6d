//! `coordinator bench`: what tasks cost on this machine in each mode, as a table or as JSON, and the
//! length of a task from which processes cost little.
//!
//! ```text
//!   args ──► measure ──► figures ──► table or JSON
//!               │ uses the executors through their public interface; tasks: what they run
//! ```

mod args;
mod error;
mod figures;
mod measure;
mod table;
mod tasks;

use std::io::{self, IsTerminal};

use anyhow::Context;
use console::Term;

pub(super) use self::args::BenchArgs;
use self::error::{BenchError, Interrupt};
use self::measure::{Benchmark, Effort};
pub(super) use self::tasks::add_to;
use super::exit::ProgramExit;
use super::{download, prose, signals, stderr, stdout};
use procession::PrivateDir;

/// Width of the lines where there is no terminal.
const COLUMNS: usize = 80;

/// Measures and prints the results.
pub(super) fn run(args: BenchArgs) -> anyhow::Result<ProgramExit> {
    let BenchArgs { json, quick, workers } = args;
    let interrupt = Interrupt::default();
    let signalled = interrupt.clone();
    signals::watch(move |exit| signalled.set(exit)).context("cannot listen to signals")?;
    // The directory of the pools' sockets; pools work without it as well.
    let _sockets = PrivateDir::create_in_memory();
    let effort = if quick { Effort::QUICK } else { Effort::FULL };
    let workers = workers.unwrap_or_else(num_cpus::get);
    let workers = download::possible_workers(workers)?;
    let figures = match Benchmark::new(workers, effort, interrupt).run() {
        Ok(figures) => figures,
        Err(BenchError::Interrupted(exit)) => {
            stderr::print(format_args!("coordinator: interrupted: there are no figures"));
            return Ok(exit);
        }
        Err(BenchError::Failed(error)) => return Err(error).context("cannot measure"),
    };
    let text = match json {
        true => serde_json::to_string(&figures)? + "\n",
        false => {
            prose::fit(&table::of(&figures, columns()), stdout::width(), stdout::has_unicode())
        }
    };
    stdout::print(&text)?;
    Ok(ProgramExit::Success)
}

fn columns() -> usize {
    let columns = io::stdout().is_terminal().then(|| Term::stdout().size_checked()).flatten();
    columns.map_or(COLUMNS, |(_, columns)| columns.into())
}
