//! A process pool whose workers have all started: for measurements without the start of workers, and
//! for demonstrations.

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::{download, stderr};
use crate::workload::Noop;
use procession::{Builder, Executor, PoolEvent, ProcessPool};

/// A worker usually starts in less time.
const USUAL: Duration = Duration::from_secs(1);

/// Interval in which the state of the pool is checked while workers start.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Maximum time for the start of a worker.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the system may be short of something before the pool is used with the workers that have
/// started. A pool itself tries for half a minute.
const SHORTAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is reported while workers start.
#[derive(Debug)]
pub(super) enum StartOutcome {
    Done,
    /// The system is short of something.
    Delayed(String),
}

impl StartOutcome {
    pub(super) fn of(event: &PoolEvent) -> Option<Self> {
        match event {
            PoolEvent::WorkerStarted { .. } => Some(Self::Done),
            PoolEvent::WorkerDelayed { reason, .. } => Some(Self::Delayed(reason.clone())),
            _ => None,
        }
    }
}

/// A shortage that keeps workers from starting: its begin, and its latest reason.
#[derive(Debug, Default)]
pub(super) struct Shortage(Option<(Instant, String)>);

impl Shortage {
    pub(super) fn note(&mut self, reason: String) {
        let since = self.0.take().map_or_else(Instant::now, |(since, _)| since);
        self.0 = Some((since, reason));
    }

    /// The reason, if the shortage lasts for too long.
    pub(super) fn lasting(&self) -> Option<&str> {
        let shortage = self.0.as_ref().filter(|(since, _)| since.elapsed() >= SHORTAGE_TIMEOUT);
        shortage.map(|(_, reason)| reason.as_str())
    }
}

/// Builds a pool, of fewer workers where the limits of this process or a shortage allow no more, and
/// waits until its workers have started. `on_event` receives all events of the pool
/// but the starts of tasks, whose reports would take longer than many short tasks.
pub(super) fn start(
    builder: Builder,
    workers: usize,
    on_event: impl Fn(&PoolEvent) + Send + Sync + 'static,
) -> anyhow::Result<ProcessPool> {
    start_boxed(builder, workers, Box::new(on_event))
}

/// The same, compiled once for all kinds of `on_event`.
fn start_boxed(
    builder: Builder,
    workers: usize,
    on_event: Box<dyn Fn(&PoolEvent) + Send + Sync>,
) -> anyhow::Result<ProcessPool> {
    let workers = download::possible_workers(workers)?;
    let (started, starts) = mpsc::channel();
    let started = Mutex::new(started);
    let pool = builder
        .workers(workers)
        .worker_program_beside("worker")
        .on_event_except_starts(move |event| {
            on_event(event);
            if let (Some(start), Ok(started)) = (StartOutcome::of(event), started.lock()) {
                // An error means that all workers have been counted.
                let _ = started.send(start);
            }
        })
        .build()?;
    let (mut ready, mut latest, mut shortage) = (0, Instant::now(), Shortage::default());
    let mut probe = None;
    while ready < workers {
        match starts.recv_timeout(POLL_INTERVAL) {
            Ok(StartOutcome::Done) => (ready, latest) = (ready + 1, Instant::now()),
            Ok(StartOutcome::Delayed(reason)) => shortage.note(reason),
            Err(_) => {}
        }
        match shortage.lasting() {
            Some(why) if ready == 0 => bail!("no worker could be started: {why}"),
            Some(why) => {
                stderr::print(format_args!(
                    "coordinator: only {ready} of {workers} workers could be started: {why}"
                ));
                break;
            }
            None => {}
        }
        if latest.elapsed() >= USUAL {
            // The error says why no worker can start. The task is submitted only in this case, since
            // a pool that has run a short task expects more of them.
            let probe = probe.get_or_insert_with(|| pool.submit(Noop));
            if probe.is_done() && ready == 0 {
                pool.submit(Noop).result()?;
            }
        }
        ensure!(latest.elapsed() < START_TIMEOUT, "not all workers have started");
    }
    Ok(pool)
}
