//! A process pool whose workers have all started: for measurements without the start of workers, and
//! for demonstrations.

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;

use crate::workload::Noop;
use procession::{Builder, Executor, PoolEvent, ProcessPool};

/// A worker usually starts in less time.
const USUAL: Duration = Duration::from_secs(1);

/// Maximum time for the start of a worker.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Builds a pool and waits until its workers have started. `on_event` receives all events of the pool
/// but the starts of tasks, whose reports would take longer than many short tasks.
pub(super) fn start(
    builder: Builder,
    workers: usize,
    on_event: impl Fn(&PoolEvent) + Send + Sync + 'static,
) -> anyhow::Result<ProcessPool> {
    let (started, starts) = mpsc::channel();
    let started = Mutex::new(started);
    let pool = builder
        .workers(workers)
        .worker_program_beside("worker")
        .on_event_except_starts(move |event| {
            on_event(event);
            if let (PoolEvent::WorkerStarted { .. }, Ok(started)) = (event, started.lock()) {
                // An error means that all workers have been counted.
                let _ = started.send(());
            }
        })
        .build()?;
    for _ in 0..workers {
        if starts.recv_timeout(USUAL).is_err() {
            // The error says why no worker can start. The task is submitted only in this case, since
            // a pool that has run a short task expects more of them.
            pool.submit(Noop).result()?;
            starts.recv_timeout(START_TIMEOUT).context("not all workers have started")?;
        }
    }
    Ok(pool)
}
