//! The executor of a run.

use std::io;
use std::path::Path;
use std::sync::Arc;

use procession::{Builder, Engine, Executor, Recycling, Retries, Sequential, Shutdown, ThreadPool};

use super::parallelism::Parallelism;
use super::resource_limits;
use super::sandbox;
use super::settings::WorkerSettings;
use super::submitter::MostInFlight;
use crate::cli::bar::RunProgressBar;
use crate::cli::hosts::{self, RunsNow};
use crate::cli::run_log::{self, PoolLog, SubmittedCodes, WorkerOutput};
use crate::cli::stderr;

/// The most tasks that wait in the pool: a list may have millions of URLs.
const MAX_PENDING: usize = 10_000;

/// A started executor.
pub(super) struct RunExecutor {
    pub engine: Arc<dyn Engine>,
    parallelism: Parallelism,
    /// The same executor, if it is a pool of threads.
    threads: Option<Arc<ThreadPool>>,
    /// How many tasks other hosts run at a time, if they run them.
    runs_now: Option<RunsNow>,
}

impl RunExecutor {
    pub(super) fn start(
        parallelism: Parallelism,
        retries: u32,
        workers: WorkerSettings,
        log_dir: Option<&Path>,
        written: &[&Path],
        submitted: &SubmittedCodes,
        bar: &RunProgressBar,
    ) -> anyhow::Result<Self> {
        let stack = resource_limits::stack_under_a_limit();
        let (mut threads, mut runs_now) = (None, None);
        let engine: Arc<dyn Engine> = match parallelism {
            Parallelism::Sequential => Arc::new(Sequential::new()),
            Parallelism::Threads { connections } => {
                let pool = ThreadPool::new(connections);
                let pool = Arc::new(match stack {
                    Some(bytes) => pool.stack_size(bytes),
                    None => pool,
                });
                threads = Some(Arc::clone(&pool));
                pool
            }
            Parallelism::Processes { workers: count, connections } => {
                let output = Arc::new(WorkerOutput::new(log_dir, bar.clone()));
                let pool = || {
                    let events = PoolLog::new(submitted.clone(), Arc::clone(&output), bar.clone());
                    let output = Arc::clone(&output);
                    let pool = crate::cli::pool()
                        .workers(count)
                        .concurrency(connections)
                        .worker_program_beside("worker")
                        .retries(Retries::times(retries))
                        .max_pending(MAX_PENDING)
                        .on_event(move |event| events.record(event))
                        .on_output(move |line| output.record(line));
                    with_settings(pool, &workers, log_dir)
                };
                Arc::new(sandbox::build(pool, workers.sandbox, written)?)
            }
            Parallelism::Hosts { .. } => {
                let (nats, job) = (workers.nats.as_ref(), workers.job.as_deref());
                let (engine, runs) = hosts::cluster(nats, job, retries, bar)?;
                runs_now = Some(runs);
                engine
            }
        };
        Ok(Self { engine, parallelism, threads, runs_now })
    }

    /// The most tasks that run at a time.
    pub(super) fn most_in_flight(&self) -> MostInFlight {
        match &self.runs_now {
            Some(runs) => MostInFlight::Now(Arc::clone(runs)),
            None => MostInFlight::Fixed(self.parallelism.connections()),
        }
    }

    /// Ends the executor: at once if tasks are to be abandoned.
    pub(super) fn end(self, is_abandoned: bool) {
        if let Some(shortage) = self.threads.as_ref().and_then(|pool| pool.shortage()) {
            stderr::print(format_args!("coordinator: {shortage}"));
        }
        match (is_abandoned, self.parallelism.can_kill()) {
            (false, _) => self.engine.shutdown(Shutdown::Wait),
            (true, true) => self.engine.shutdown(Shutdown::Kill),
            // Threads cannot be stopped, and to drop the executor is to wait for them. They end with
            // the process, which is about to end.
            (true, false) => std::mem::forget(self),
        }
    }
}

/// The settings of the pool that are not always there.
fn with_settings(
    mut pool: Builder,
    workers: &WorkerSettings,
    log_dir: Option<&Path>,
) -> io::Result<Builder> {
    if let Some(timeout) = workers.task_timeout {
        pool = pool.timeout(timeout);
    }
    if let Some(tasks) = workers.max_tasks {
        pool = pool.recycling(Recycling::never().after_tasks(tasks));
    }
    if let Some(dir) = log_dir {
        pool = pool.worker_env(run_log::DIRECTORY_VARIABLE, std::path::absolute(dir)?);
    }
    Ok(pool)
}
