//! The measured process of a [`TaskJob`](super::task_job::TaskJob): runs the jobs once in one mode, in a
//! pool whose workers have started, and prints the measurement.

use std::io::Write;

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::cli::exit::ProgramExit;
use crate::cli::warm_pool;
use crate::workload::{Noop, WorkKind, hex};
use procession::{Engine, Executor, PrivateDir, Sequential, Shutdown, ThreadPool};

use super::mode::{ExecutorSpec, MeasuredMode, PoolSize};
use super::plan::PlanError;
use super::task_job::Measurement;

pub(super) fn run(
    work: WorkKind,
    jobs: usize,
    size: u64,
    mode: MeasuredMode,
) -> anyhow::Result<ProgramExit> {
    let _sockets = PrivateDir::create_in_memory();
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
    let measurement = Measurement { seconds: took.as_secs_f64(), ok, error, digest, first_error };
    let json = serde_json::to_string(&measurement)?;
    writeln!(std::io::stdout(), "{json}").context("cannot print the measurement")?;
    Ok(ProgramExit::Success)
}

fn start(mode: MeasuredMode) -> anyhow::Result<Box<dyn Engine>> {
    Ok(match mode.executor {
        ExecutorSpec::Sequential => Box::new(Sequential::new()),
        ExecutorSpec::Threads(threads) => {
            let pool = ThreadPool::new(threads.unwrap_or(1));
            pool.map((0..100).map(|_| Noop)).for_each(drop);
            Box::new(pool)
        }
        ExecutorSpec::Processes(size) => {
            let PoolSize { workers, threads } = size.unwrap_or(PoolSize { workers: 1, threads: 1 });
            let builder = crate::cli::pool().concurrency(workers * threads);
            Box::new(warm_pool::start(builder, workers, |_| {})?)
        }
        ExecutorSpec::Hosts => anyhow::bail!("{}", PlanError::HostsDoNoTask),
    })
}
