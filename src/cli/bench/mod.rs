//! `coordinator bench`: what tasks cost on this machine in each mode, as a table or as JSON, and
//! from which length of a task on processes cost next to nothing.
//!
//! ```text
//!   args ──► measure ──► figures ──► table or JSON
//!               │ uses the executors as anybody would; tasks: what they run
//! ```

mod args;
mod figures;
mod interrupt;
mod measure;
mod table;
mod tasks;

use std::io::{self, IsTerminal};

use anyhow::{Context, bail};
use console::Term;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(super) use self::args::Bench;
use self::interrupt::{Ended, Interrupt};
use self::measure::{Measuring, Scale};
pub(super) use self::tasks::add_to;
use super::{Exit, signals, stderr, stdout};
use procession::PrivateDir;

/// Where nobody can say how wide the lines may be.
const COLUMNS: usize = 80;

/// Measures and tells.
pub(super) fn run(bench: &Bench) -> anyhow::Result<Exit> {
    let Bench { json, quick, workers } = *bench;
    let interrupt = Interrupt::default();
    let signalled = interrupt.clone();
    signals::watch(move |exit| signalled.set(exit)).context("cannot listen to signals")?;
    // Kept until the last pool has ended. Without one it goes as well.
    let _sockets = PrivateDir::create();
    let scale = if quick { Scale::QUICK } else { Scale::FULL };
    let workers = workers.unwrap_or_else(num_cpus::get);
    make_room_for(workers)?;
    let figures = match Measuring::new(workers, scale, interrupt).all() {
        Ok(figures) => figures,
        Err(Ended::Interrupted(exit)) => {
            stderr::say(format_args!("coordinator: interrupted: there are no figures"));
            return Ok(exit);
        }
        Err(Ended::Failed(error)) => return Err(error).context("cannot measure"),
    };
    let text = match json {
        true => serde_json::to_string(&figures)? + "\n",
        false => table::of(&figures, columns()),
    };
    stdout::print(&text)?;
    Ok(Exit::Answered)
}

/// Each worker takes its pipes and channels, of which some systems allow few by default.
fn make_room_for(workers: usize) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // The limits are as before if this is refused.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let needed = workers.saturating_mul(12).saturating_add(16);
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < needed as u64 => {
            bail!("the limit of open files (ulimit -n) is too low for {workers} workers: {files}")
        }
        _ => Ok(()),
    }
}

fn columns() -> usize {
    let columns = io::stdout().is_terminal().then(|| Term::stdout().size_checked()).flatten();
    columns.map_or(COLUMNS, |(_, columns)| columns.into())
}
