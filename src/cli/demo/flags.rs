//! 17.1.1 and 17.1.2: the flags of the 20 most populous countries, each printed when it is saved.

use std::time::Instant;

use super::args::FlagsArgs;
use super::tasks::ShowFlag;
use super::{FlagSource, executor, exit, print};
use crate::cli::exit::ProgramExit;
use crate::cli::options::Mode;
use crate::flags::codes::POP20;
use procession::{Executor, Shutdown};

pub(super) fn run(args: FlagsArgs) -> anyhow::Result<ProgramExit> {
    let FlagsArgs { mode, workers, server, dest } = args;
    let workers = workers.unwrap_or_else(|| match mode {
        Mode::Sequential => 1,
        Mode::Threads => POP20.len(),
        Mode::Processes | Mode::Hosts => num_cpus::get(),
    });
    let workers = workers.min(POP20.len());
    let source = FlagSource::open(&server, dest, workers)?;
    let mut codes = POP20;
    if mode != Mode::Sequential {
        codes.sort_unstable();
    }

    let pool = executor(mode, workers, |said| print(format!("{}  ", said.line)))?;
    let began = Instant::now();
    let tasks = codes.map(|code| ShowFlag { download: source.download(code), crashes: false });
    let results: Vec<_> = pool.map(tasks).collect();
    let elapsed = began.elapsed().as_secs_f64();

    print("\n");
    let mut errors = 0;
    for (code, result) in codes.iter().zip(&results) {
        if let Err(error) = result {
            errors += 1;
            print(format!("*** Error for {code}: {error}\n"));
        }
    }
    print(format!("{} flags downloaded in {elapsed:.2}s\n", results.len() - errors));
    pool.shutdown(Shutdown::Wait);
    Ok(exit(errors))
}
