//! 17.4: `map` returns results in the order of the tasks, each as soon as it is available, while later
//! tasks run.

use super::args::{MapArgs, WORKERS};
use super::tasks::{Loiter, stamped};
use super::{executor, exit, print};
use crate::cli::exit::ProgramExit;
use procession::{Executor, Shutdown};

const TASKS: u32 = 5;

pub(super) fn run(args: MapArgs) -> anyhow::Result<ProgramExit> {
    let MapArgs { mode, workers, speed } = args;
    let workers = workers.unwrap_or(WORKERS);
    let display = |line: std::fmt::Arguments<'_>| print(stamped(line) + "\n");
    // The workers start before the script does.
    let pool = executor(mode, workers, |said| print(format!("{}\n", said.line)))?;
    display(format_args!("Script starting."));
    let results = pool.map((0..TASKS).map(|n| Loiter { n, speed }));
    // Unlike the book's `map`, this one takes tasks as results are requested.
    display(format_args!("results: an iterator, of which no result has been requested yet"));
    display(format_args!("Waiting for individual results:"));
    let mut errors = 0;
    for (i, result) in results.enumerate() {
        match result {
            Ok(result) => display(format_args!("result {i}: {result}")),
            Err(error) => {
                errors += 1;
                display(format_args!("result {i}: {error}"));
            }
        }
    }
    pool.shutdown(Shutdown::Wait);
    Ok(exit(errors))
}
