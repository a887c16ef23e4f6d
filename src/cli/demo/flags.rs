//! 17.1.1 and 17.1.2: the flags of the 20 most populous countries, each named when it is there.

use std::time::Instant;

use super::args::Flags;
use super::tasks::ShowFlag;
use super::{Source, executor, exit, show};
use crate::cli::Exit;
use crate::cli::args::Mode;
use crate::flags::codes::POP20;
use procession::{Executor, Shutdown};

pub(super) fn run(args: Flags) -> anyhow::Result<Exit> {
    let Flags { mode, workers, server, dest } = args;
    let workers = workers.unwrap_or_else(|| match mode {
        Mode::Sequential => 1,
        Mode::Threads => POP20.len(),
        Mode::Processes => num_cpus::get(),
    });
    let workers = workers.min(POP20.len());
    let source = Source::open(&server, dest, workers)?;
    let mut codes = POP20;
    if mode != Mode::Sequential {
        codes.sort_unstable();
    }

    let pool = executor(mode, workers, |said| show(format!("{}  ", said.line)))?;
    let began = Instant::now();
    let tasks = codes.map(|code| ShowFlag { download: source.download(code), crashes: false });
    let results: Vec<_> = pool.map(tasks).collect();
    let elapsed = began.elapsed().as_secs_f64();

    show("\n");
    let mut errors = 0;
    for (code, result) in codes.iter().zip(&results) {
        if let Err(error) = result {
            errors += 1;
            show(format!("*** Error for {code}: {error}\n"));
        }
    }
    show(format!("{} flags downloaded in {elapsed:.2}s\n", results.len() - errors));
    pool.shutdown(Shutdown::Wait);
    Ok(exit(errors))
}
