//! A process pool all of whose workers are there before anything is asked of them: for whoever
//! measures the work and not its beginning, or shows what workers do.

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;

use crate::workload::Noop;
use procession::{Builder, Executor, PoolEvent, ProcessPool};

/// A worker is there in less time than this, if all is well.
const USUAL: Duration = Duration::from_secs(1);

/// How long they may take at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// Builds the pool with so many workers and waits for them. `told` hears of all that happens in
/// it, but of the starts of tasks: to tell of each would cost more than many a short one.
pub(super) fn muster(
    builder: Builder,
    workers: usize,
    told: impl Fn(&PoolEvent) + Send + Sync + 'static,
) -> anyhow::Result<ProcessPool> {
    let (started, starts) = mpsc::channel();
    let started = Mutex::new(started);
    let pool = builder
        .workers(workers)
        .worker_program_beside("worker")
        .on_event_except_starts(move |event| {
            told(event);
            if let (PoolEvent::WorkerStarted { .. }, Ok(started)) = (event, started.lock()) {
                // Later on, nobody counts them.
                let _ = started.send(());
            }
        })
        .build()?;
    for _ in 0..workers {
        if starts.recv_timeout(USUAL).is_err() {
            // Tells what is wrong if none of them can start. Only then is it asked, since a pool
            // that has seen a short task expects more of them.
            pool.submit(Noop).result()?;
            starts.recv_timeout(PATIENCE).context("not all workers have started")?;
        }
    }
    Ok(pool)
}
