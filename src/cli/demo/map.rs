//! 17.4: `map` gives results in the order of the tasks, each as soon as it is there, while later
//! ones still run.

use super::args::{Map, WORKERS};
use super::tasks::{Loiter, stamped};
use super::{executor, exit, show};
use crate::cli::Exit;
use procession::{Executor, Shutdown};

const TASKS: u32 = 5;

pub(super) fn run(args: Map) -> anyhow::Result<Exit> {
    let Map { mode, workers, speed } = args;
    let workers = workers.unwrap_or(WORKERS);
    let display = |line: std::fmt::Arguments<'_>| show(stamped(line) + "\n");
    // Workers are there before the script starts.
    let pool = executor(mode, workers, |said| show(format!("{}\n", said.line)))?;
    display(format_args!("Script starting."));
    let results = pool.map((0..TASKS).map(|n| Loiter { n, speed }));
    // Unlike the book's, it takes tasks as results are asked for.
    display(format_args!("results: an iterator, which nobody has asked for anything yet"));
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
