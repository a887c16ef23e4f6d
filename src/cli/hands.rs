//! Whose hands do the work: the executor of a run, and how many connections it may have.

use std::path::Path;
use std::sync::Arc;

use crate::executor::{
    Engine, Executor, ProcessPool, Recycling, Retries, Sequential, Shutdown, ThreadPool,
};

use super::bar::Bar;
use super::run_log::{self, PoolLog, Submitted, WorkerOutput};
use super::settings::{Crew, WorkerSettings};
use super::stderr;

/// Starts the executor.
pub(super) fn start(
    crew: Crew,
    terms: WorkerSettings,
    log_dir: Option<&Path>,
    submitted: &Submitted,
    bar: &Bar,
) -> anyhow::Result<Arc<dyn Engine>> {
    Ok(match crew {
        Crew::Sequential => Arc::new(Sequential::new()),
        Crew::Threads { connections } => Arc::new(ThreadPool::new(connections)),
        Crew::Processes { workers, connections } => {
            let output = WorkerOutput::new(log_dir, bar.clone());
            let events = PoolLog::new(submitted.clone(), bar.clone());
            let mut pool = ProcessPool::builder()
                .workers(workers)
                .concurrency(connections)
                .worker_program_beside("worker")
                .retries(Retries::times(terms.retries))
                .recycling(Recycling { after_tasks: terms.max_tasks, ..Recycling::never() })
                .on_event(move |event| events.record(event))
                .on_output(move |line| output.record(line));
            if let Some(timeout) = terms.task_timeout {
                pool = pool.timeout(timeout);
            }
            if let Some(dir) = log_dir {
                pool = pool.worker_env(run_log::DIRECTORY_VARIABLE, std::path::absolute(dir)?);
            }
            Arc::new(pool.build()?)
        }
    })
}

/// Ends it: at once, if it has been given up.
pub(super) fn end(executor: Arc<dyn Engine>, crew: Crew, is_abandoned: bool) {
    match (is_abandoned, crew) {
        (false, _) => executor.shutdown(Shutdown::Wait),
        (true, Crew::Processes { .. }) => executor.shutdown(Shutdown::Kill),
        // Threads cannot be stopped, and to drop the executor would be to wait for them. They end
        // with the process, which is about to.
        (true, Crew::Sequential | Crew::Threads { .. }) => std::mem::forget(executor),
    }
}

/// The crew with no more connections than the limit of open files allows, and says so if these are
/// fewer than it had.
pub(super) fn within_the_limit_of_open_files(crew: Crew, has_server: bool) -> Crew {
    let most = most_connections(crew, has_server);
    if most >= crew.connections() {
        return crew;
    }
    let limit = "the limit of open files (ulimit -n) is too low for more connections";
    stderr::say(format_args!("coordinator: {limit} than {most}"));
    crew.with_at_most(most)
}

/// How many connections the limit of open files allows, after it was raised as far as it may be.
/// A thousand connections need more descriptors than many systems give by default: here, in the
/// workers, and for the embedded server, which has the other end of each.
fn most_connections(crew: Crew, has_server: bool) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // The limits are as before if this is refused.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return usize::MAX };
    // For each connection: its socket, the flag that is being saved, and, where the embedded server
    // is in the same process, the other end. For each worker: its pipes and channels. Both with
    // some room for the rest.
    let (fixed, for_each) = match crew.workers() {
        0 => (16, 2 + usize::from(has_server)),
        workers => (16 + 12 * workers, usize::from(has_server)),
    };
    let here = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(fixed);
    let here = here.checked_div(for_each).unwrap_or(usize::MAX);
    let in_workers = match crew.workers() {
        0 => usize::MAX,
        workers => usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(24) / 2 * workers,
    };
    here.min(in_workers).max(1)
}
