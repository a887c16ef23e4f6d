//! The other side of [`Labour`](super::labour::Labour): runs the jobs once in one mode, in a pool
//! that stands before the clock starts, and tells what it took.

use std::io::Write;

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::cli::Exit;
use crate::cli::muster::muster;
use crate::workload::{Noop, Work, hex};
use procession::{Engine, Executor, PrivateDir, Sequential, Shutdown, ThreadPool};

use super::labour::Told;
use super::mode::{Crew, Mode, Size};

pub(super) fn run(work: Work, jobs: usize, size: u64, mode: Mode) -> anyhow::Result<Exit> {
    let _sockets = PrivateDir::create();
    let engine = start(mode)?;
    let (results, took) = work.run(&*engine, jobs, size);
    let mut hasher = Sha256::new();
    let (mut ok, mut error, mut first_error) = (0, 0, None);
    for result in results {
        match result {
            Ok(output) => {
                ok += 1;
                hasher.update(output + "\n");
            }
            Err(failure) => {
                error += 1;
                first_error.get_or_insert_with(|| failure.to_string());
            }
        }
    }
    engine.shutdown(Shutdown::Wait);
    let digest = hex(&hasher.finalize());
    let told = Told { seconds: took.as_secs_f64(), ok, error, digest, first_error };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&told)?).context("cannot tell")?;
    Ok(Exit::Answered)
}

fn start(mode: Mode) -> anyhow::Result<Box<dyn Engine>> {
    Ok(match mode.crew {
        Crew::Sequential => Box::new(Sequential::new()),
        Crew::Threads(threads) => {
            let pool = ThreadPool::new(threads.unwrap_or(1));
            pool.map((0..100).map(|_| Noop)).for_each(drop);
            Box::new(pool)
        }
        Crew::Processes(size) => {
            let Size { workers, threads } = size.unwrap_or(Size { workers: 1, threads: 1 });
            let builder = crate::cli::pool().concurrency(workers * threads);
            Box::new(muster(builder, workers, |_| {})?)
        }
    })
}
