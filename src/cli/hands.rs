//! Whose hands do the work: the executor of a run, and how many connections it may have.

use std::path::Path;
use std::sync::Arc;

use crate::executor::{
    Engine, Executor, ProcessPool, Recycling, Retries, Sequential, Shutdown, ThreadPool,
};

use super::bar::Bar;
use super::run_log::{self, PoolLog, Submitted, WorkerOutput};
use super::settings::{Crew, WorkerSettings};
use super::{stderr, words};

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

/// Reduces the crew to what the limit of open files allows, and says so on standard error.
pub(super) fn within_the_limit_of_open_files(crew: Crew, has_server: bool) -> Crew {
    let Some(files) = limit_of_open_files() else { return crew };
    let fitted = fitted(crew, files, has_server);
    if fitted != crew {
        let workers = match fitted.workers() {
            0 => String::new(),
            workers => format!("{} and ", words::count(workers as u64, "worker")),
        };
        let connections = words::count(fitted.connections() as u64, "connection");
        stderr::say(format_args!(
            "coordinator: the limit of open files (ulimit -n) is {files}: no more than \
             {workers}{connections} are possible"
        ));
    }
    fitted
}

/// The limit, after it was raised as far as it may be; none if there is none. A thousand connections
/// need more descriptors than many systems give by default: here, in the workers, and for the
/// embedded server, which has the other end of each.
fn limit_of_open_files() -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // The limits are as before if this is refused.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    getrlimit(Resource::Nofile).current.map(|files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// As many workers as can have a connection each, and then as many connections as there is room for.
fn fitted(crew: Crew, files: usize, has_server: bool) -> Crew {
    /// Standard streams, logs, and what is open for a moment.
    const OTHERS: usize = 16;
    /// Its pipes and channels.
    const EACH_WORKER: usize = 12;
    /// In a worker.
    const OTHERS_IN_WORKER: usize = 24;
    /// Its socket, and the flag that is being saved.
    const EACH_CONNECTION: usize = 2;
    let room = files.saturating_sub(OTHERS);
    // The other end of a connection, where the embedded server is in this process.
    let served = usize::from(has_server);
    match crew {
        Crew::Sequential => crew,
        Crew::Threads { connections } => {
            let most = room / (EACH_CONNECTION + served);
            Crew::Threads { connections: connections.min(most).max(1) }
        }
        Crew::Processes { workers, connections } => {
            let workers = workers.min(room / (EACH_WORKER + served)).max(1);
            let rest = room.saturating_sub(EACH_WORKER * workers);
            let here = rest.checked_div(served).unwrap_or(usize::MAX);
            let in_each = files.saturating_sub(OTHERS_IN_WORKER) / EACH_CONNECTION;
            let most = here.min(in_each.saturating_mul(workers));
            Crew::Processes { workers, connections: connections.min(most).max(workers) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_leaves_room_for_several_workers_with_connections() {
        let asked = Crew::Processes { workers: 200, connections: 200 };
        let fits = |files, has_server| fitted(asked, files, has_server);
        assert_eq!(fits(64, true), Crew::Processes { workers: 3, connections: 12 });
        assert_eq!(fits(64, false), Crew::Processes { workers: 4, connections: 80 });
        assert_eq!(fits(8, true), Crew::Processes { workers: 1, connections: 1 });
        assert_eq!(fits(1 << 20, true), asked);
        let asked = Crew::Threads { connections: 1_000 };
        assert_eq!(fitted(asked, 64, true), Crew::Threads { connections: 16 });
        assert_eq!(fitted(asked, 64, false), Crew::Threads { connections: 24 });
        assert_eq!(fitted(Crew::Sequential, 3, true), Crew::Sequential);
    }
}
