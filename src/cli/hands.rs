//! Whose hands do the work: the executor of a run, and how many connections it may have under the
//! limits of open files and of memory.
//!
//! How much a connection takes is estimated here. Where the estimate is wrong, or the number of
//! threads is limited, the executors go on with the threads that could be started, and that is said.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use procession::{Engine, Executor, Recycling, Retries, Sequential, Shutdown, ThreadPool};
use procession_os::memory::{self, Left};

use super::bar::Bar;
use super::run_log::{self, PoolLog, Submitted, WorkerOutput};
use super::settings::{Crew, WorkerSettings};
use super::{stderr, words};

/// The executor of a run.
pub(super) struct Hands {
    pub engine: Arc<dyn Engine>,
    /// The same, where it is one of threads.
    threads: Option<Arc<ThreadPool>>,
}

/// The stack of a thread under a limit of memory, in bytes. A download needs a fraction of it.
const STACK: usize = 512 * 1024;

/// Starts the executor.
pub(super) fn start(
    crew: Crew,
    terms: WorkerSettings,
    log_dir: Option<&Path>,
    submitted: &Submitted,
    bar: &Bar,
) -> anyhow::Result<Hands> {
    let stack = memory::is_limited().then_some(STACK);
    let engine: Arc<dyn Engine> = match crew {
        Crew::Sequential => Arc::new(Sequential::new()),
        Crew::Threads { connections } => {
            let pool = ThreadPool::new(connections);
            let pool = Arc::new(match stack {
                Some(bytes) => pool.stack_size(bytes),
                None => pool,
            });
            return Ok(Hands { engine: Arc::clone(&pool) as Arc<dyn Engine>, threads: Some(pool) });
        }
        Crew::Processes { workers, connections } => {
            let output = WorkerOutput::new(log_dir, bar.clone());
            let events = PoolLog::new(submitted.clone(), bar.clone());
            let mut pool = crate::cli::pool()
                .workers(workers)
                .concurrency(connections)
                .worker_program_beside("worker")
                .retries(Retries::times(terms.retries))
                .on_event(move |event| events.record(event))
                .on_output(move |line| output.record(line));
            if let Some(timeout) = terms.task_timeout {
                pool = pool.timeout(timeout);
            }
            if let Some(tasks) = terms.max_tasks {
                pool = pool.recycling(Recycling::never().after_tasks(tasks));
            }
            if let Some(dir) = log_dir {
                pool = pool.worker_env(run_log::DIRECTORY_VARIABLE, std::path::absolute(dir)?);
            }
            if let Some(bytes) = stack {
                pool = pool.stack_size(bytes);
            }
            Arc::new(pool.build()?)
        }
    };
    Ok(Hands { engine, threads: None })
}

/// Ends it: at once, if it has been given up.
pub(super) fn end(hands: Hands, crew: Crew, is_abandoned: bool) {
    if let Some(told) = hands.threads.as_ref().and_then(|pool| pool.shortage()) {
        stderr::say(format_args!("coordinator: {told}"));
    }
    match (is_abandoned, crew) {
        (false, _) => hands.engine.shutdown(Shutdown::Wait),
        (true, Crew::Processes { .. }) => hands.engine.shutdown(Shutdown::Kill),
        // Threads cannot be stopped, and to drop the executor would be to wait for them. They end
        // with the process, which is about to.
        (true, Crew::Sequential | Crew::Threads { .. }) => std::mem::forget(hands),
    }
}

/// Reduces the crew to what the limits of this process allow, and says so on standard error.
///
/// # Errors
///
/// If a limit leaves too little for even one connection, or one worker: an allocation that fails would
/// end the program without a word of what to do, and a worker that cannot be started is tried again
/// for half a minute.
pub(super) fn within_the_limits(mut crew: Crew, has_server: bool) -> anyhow::Result<Crew> {
    if let Some(files) = limit_of_open_files() {
        let limit = format!("the limit of open files (ulimit -n) is {files}");
        let least = LEAST_FREE[usize::from(matches!(crew, Crew::Processes { .. }))]
            + usize::from(has_server);
        let free = free_descriptors(least);
        // Where hardly any is left, something at the start has gone without one.
        let without = usize::from(free < 2);
        ensure!(
            free >= least,
            "{limit}: that is too little for this program, which needs at least {}",
            files.saturating_add(least - free + without)
        );
        crew = told(crew, fitted_to_files(crew, files, has_server), &limit);
    }
    if let Some(left) = memory::left() {
        let limit = format!(
            "the limit of memory (ulimit {}) is {} MiB",
            left.option,
            left.limit / MIB as u64
        );
        ensure!(left.bytes >= LEAST, "{limit}: that is too little for this program");
        crew = told(crew, fitted_to_memory(crew, left, has_server), &limit);
    }
    Ok(crew)
}

/// What a limit of memory must leave at the start, in bytes.
const LEAST: u64 = 24 << 20;

/// How many descriptors must be free at the start: for threads or none, and for a worker process.
const LEAST_FREE: [usize; 2] = [11, 29];

/// How many descriptors are free, counted up to `most`: other programs may have left some open here.
fn free_descriptors(most: usize) -> usize {
    let Ok(file) = File::open("/dev/null") else { return 0 };
    let others: Vec<_> = (1..most).map_while(|_| file.try_clone().ok()).collect();
    others.len() + 1
}

/// Says what is possible, if that is less than what was asked for.
fn told(asked: Crew, fitted: Crew, limit: &str) -> Crew {
    if fitted != asked {
        let workers = match fitted.workers() {
            0 => String::new(),
            workers => format!("{} and ", words::count(workers as u64, "worker")),
        };
        let connections = words::count(fitted.connections() as u64, "connection");
        let are = if fitted.workers() == 0 && fitted.connections() == 1 { "is" } else { "are" };
        stderr::say(format_args!(
            "coordinator: {limit}: no more than {workers}{connections} {are} possible"
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
fn fitted_to_files(crew: Crew, files: usize, has_server: bool) -> Crew {
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

const MIB: usize = 1 << 20;

/// The same under a limit of memory, which each worker has as well.
fn fitted_to_memory(crew: Crew, Left { bytes, limit, .. }: Left, has_server: bool) -> Crew {
    /// What the programs need besides, which includes what may be asked for at once while all threads
    /// run.
    const OTHERS: usize = 32 * MIB;
    /// Its four threads here, and the memory that is shared with it.
    const EACH_WORKER: usize = 4 * (STACK + GUARD) + 768 * 1024;
    const GUARD: usize = 64 * 1024;
    /// A thread with its stack, the client's buffers and a flag.
    const EACH_CONNECTION: usize = STACK + GUARD + 256 * 1024;
    /// Its other end, in the embedded server.
    const SERVED: usize = 64 * 1024;
    let usize_of = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let room = usize_of(bytes).saturating_sub(OTHERS + usize_of(memory::reserved(limit)));
    let served = if has_server { SERVED } else { 0 };
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
            // A worker begins about as large as this process is now.
            let in_each = room / EACH_CONNECTION;
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
        let fits = |files, has_server| fitted_to_files(asked, files, has_server);
        assert_eq!(fits(64, true), Crew::Processes { workers: 3, connections: 12 });
        assert_eq!(fits(64, false), Crew::Processes { workers: 4, connections: 80 });
        assert_eq!(fits(8, true), Crew::Processes { workers: 1, connections: 1 });
        assert_eq!(fits(1 << 20, true), asked);
        let asked = Crew::Threads { connections: 1_000 };
        assert_eq!(fitted_to_files(asked, 64, true), Crew::Threads { connections: 16 });
        assert_eq!(fitted_to_files(asked, 64, false), Crew::Threads { connections: 24 });
        assert_eq!(fitted_to_files(Crew::Sequential, 3, true), Crew::Sequential);
    }

    #[test]
    fn a_limit_of_memory_leaves_room_for_what_is_not_a_connection() {
        let left = |mib: u64| Left { bytes: mib << 20, limit: (mib + 40) << 20, option: "-v" };
        let fits = |crew, mib| fitted_to_memory(crew, left(mib), true);
        let threads = |connections| Crew::Threads { connections };
        assert_eq!(fits(threads(676), 24), threads(1));
        assert!((100..676).contains(&fits(threads(676), 350).connections()));
        assert_eq!(fits(threads(676), 2_000), threads(676));
        let processes = |workers, connections| Crew::Processes { workers, connections };
        assert_eq!(fits(processes(200, 200), 24), processes(1, 1));
        let some = fits(processes(200, 200), 350);
        assert!((50..200).contains(&some.workers()) && some.connections() >= some.workers());
        assert_eq!(fits(Crew::Sequential, 0), Crew::Sequential);
    }
}
