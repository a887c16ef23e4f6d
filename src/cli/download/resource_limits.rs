//! How many workers and connections the limits of open files and of memory allow.
//!
//! The needs of a connection are estimates. Where an estimate is too low, or the number of threads is
//! limited, the executors continue with the threads that could be started, and report that.

use std::fs::File;

use anyhow::ensure;
use procession_os::memory::{self, Left};

use super::parallelism::Parallelism;
use crate::cli::{format, stderr};

/// Stack of a thread under a limit of memory, in bytes. A download needs a fraction of it.
pub(super) const STACK: usize = 512 * 1024;

/// The stack of threads where memory is limited, on which the number of workers is reckoned.
pub(in crate::cli) fn stack_under_a_limit() -> Option<usize> {
    memory::is_limited().then_some(STACK)
}

/// Reduces the parallelism to what the limits of this process allow, and reports that on stderr.
///
/// # Errors
///
/// If a limit leaves too little for one connection or one worker: a failed allocation would abort the
/// program without an explanation, and the start of a worker would be retried for half a minute.
pub(super) fn apply(mut parallelism: Parallelism, has_server: bool) -> anyhow::Result<Parallelism> {
    if let Some(files) = limit_of_open_files() {
        let limit = format!("the limit of open files (ulimit -n) is {files}");
        let least = MIN_FREE_DESCRIPTORS[usize::from(parallelism.has_processes())]
            + usize::from(has_server);
        let free = free_descriptors(least, ["/dev/null", "/"]);
        // With fewer than 2 left, a descriptor was missing at the start.
        let missing = usize::from(free < 2);
        ensure!(
            free >= least,
            "{limit}: that is too little for this program, which needs at least {}",
            files.saturating_add(least - free + missing)
        );
        parallelism = report(parallelism, fit_to_files(parallelism, files, has_server), &limit);
    }
    if let Some(left) = memory::left() {
        let limit = format!(
            "the limit of memory (ulimit {}) is {} MiB",
            left.option,
            left.limit / MIB as u64
        );
        ensure!(left.bytes >= MIN_MEMORY, "{limit}: that is too little for this program");
        parallelism = report(parallelism, fit_to_memory(parallelism, left, has_server), &limit);
    }
    Ok(parallelism)
}

/// The number of workers with one task at a time that the limits of this process allow, at most this
/// one; a smaller number is reported on stderr.
pub(in crate::cli) fn possible_workers(workers: usize) -> anyhow::Result<usize> {
    let requested = Parallelism::Processes { workers, connections: workers };
    Ok(apply(requested, false)?.workers())
}

/// Memory that a limit must leave at the start, in bytes.
const MIN_MEMORY: u64 = 24 << 20;

/// Number of descriptors that must be free at the start: without and with worker processes.
const MIN_FREE_DESCRIPTORS: [usize; 2] = [11, 33];

/// Number of free descriptors, counted up to `most`: a parent process may have left some open. The first of
/// the files that is there is opened; a system may lack `/dev`.
fn free_descriptors(most: usize, files: [&str; 2]) -> usize {
    let Some(file) = files.iter().find_map(|file| File::open(file).ok()) else { return 0 };
    let others: Vec<_> = (1..most).map_while(|_| file.try_clone().ok()).collect();
    others.len() + 1
}

/// Reports the possible parallelism on stderr, if it is less than the requested one.
fn report(requested: Parallelism, fitted: Parallelism, limit: &str) -> Parallelism {
    if fitted != requested {
        let workers = match fitted.workers() {
            0 => String::new(),
            workers => format!("{} and ", format::count(workers as u64, "worker")),
        };
        let connections = format::count(fitted.connections() as u64, "connection");
        let are = if fitted.workers() == 0 && fitted.connections() == 1 { "is" } else { "are" };
        stderr::print(format_args!(
            "coordinator: {limit}: no more than {workers}{connections} {are} possible"
        ));
    }
    fitted
}

/// The soft limit of open files, after it was raised to the hard limit; `None` if there is none. A
/// thousand connections need more descriptors than the default of many systems: in this process, in
/// the workers, and for the embedded server.
fn limit_of_open_files() -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // An error leaves the limits unchanged.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    getrlimit(Resource::Nofile).current.map(|files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// What is left of a resource, and what each part of a run takes of it.
struct Budget {
    /// For all workers and connections of this process.
    room: usize,
    each_worker: usize,
    each_connection: usize,
    /// For the server's end of a connection, if the embedded server is in this process.
    served: usize,
    /// How many connections a worker process can have.
    connections_of_worker: usize,
}

/// As much of the parallelism as the budget allows: the most workers that can have a connection each,
/// and then the most connections, at least one.
fn fit(parallelism: Parallelism, budget: &Budget) -> Parallelism {
    let Budget { room, each_worker, each_connection, served, connections_of_worker } = *budget;
    match parallelism {
        Parallelism::Sequential | Parallelism::Hosts { .. } => parallelism,
        Parallelism::Threads { connections } => {
            let most = room / (each_connection + served);
            Parallelism::Threads { connections: connections.min(most).max(1) }
        }
        Parallelism::Processes { workers, connections } => {
            let workers = workers.min(room / (each_worker + served)).max(1);
            let rest = room.saturating_sub(each_worker * workers);
            let here = rest.checked_div(served).unwrap_or(usize::MAX);
            let most = here.min(connections_of_worker.saturating_mul(workers));
            Parallelism::Processes { workers, connections: connections.min(most).max(workers) }
        }
    }
}

fn fit_to_files(parallelism: Parallelism, files: usize, has_server: bool) -> Parallelism {
    /// Standard streams, logs, and files that are open for a moment.
    const OTHERS: usize = 16;
    /// The directory of a pool, and a file in it.
    const POOL: usize = 2;
    /// Files of a worker that are not of a connection.
    const OTHERS_IN_WORKER: usize = 24;
    /// The socket, and the flag that is being saved.
    const EACH_CONNECTION: usize = 2;
    let pool = if matches!(parallelism, Parallelism::Processes { .. }) { POOL } else { 0 };
    let budget = Budget {
        room: files.saturating_sub(OTHERS + pool),
        // Pipes and sockets of a worker in this process.
        each_worker: 12,
        each_connection: EACH_CONNECTION,
        served: usize::from(has_server),
        connections_of_worker: files.saturating_sub(OTHERS_IN_WORKER) / EACH_CONNECTION,
    };
    fit(parallelism, &budget)
}

const MIB: usize = 1 << 20;

/// The same under a limit of memory, which each worker has as well.
fn fit_to_memory(
    parallelism: Parallelism,
    Left { bytes, limit, .. }: Left,
    has_server: bool,
) -> Parallelism {
    /// Memory of the program without workers and connections, temporary allocations included.
    const OTHERS: usize = 32 * MIB;
    const GUARD: usize = 64 * 1024;
    /// A thread with its stack, the buffers of the client and a flag.
    const EACH_CONNECTION: usize = STACK + GUARD + 256 * 1024;
    /// The server's end of a connection, in the embedded server.
    const SERVED: usize = 64 * 1024;
    let usize_of = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let room = usize_of(bytes).saturating_sub(OTHERS + usize_of(memory::reserved(limit)));
    let budget = Budget {
        room,
        // Four threads in this process, and the memory shared with the worker.
        each_worker: 4 * (STACK + GUARD) + 768 * 1024,
        each_connection: EACH_CONNECTION,
        served: if has_server { SERVED } else { 0 },
        // A new worker is about as large as this process is now.
        connections_of_worker: room / EACH_CONNECTION,
    };
    fit(parallelism, &budget)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_descriptors_are_counted_also_where_a_file_is_missing() {
        assert_eq!(free_descriptors(5, ["/dev/null", "/"]), 5);
        assert_eq!(free_descriptors(5, ["/nowhere/null", "/"]), 5);
    }

    #[test]
    fn a_low_limit_of_files_allows_several_workers_with_connections() {
        let requested = Parallelism::Processes { workers: 200, connections: 200 };
        let fits = |files, has_server| fit_to_files(requested, files, has_server);
        assert_eq!(fits(64, true), Parallelism::Processes { workers: 3, connections: 10 });
        assert_eq!(fits(64, false), Parallelism::Processes { workers: 3, connections: 60 });
        assert_eq!(fits(8, true), Parallelism::Processes { workers: 1, connections: 1 });
        assert_eq!(fits(1 << 20, true), requested);
        let requested = Parallelism::Threads { connections: 1_000 };
        assert_eq!(fit_to_files(requested, 64, true), Parallelism::Threads { connections: 16 });
        assert_eq!(fit_to_files(requested, 64, false), Parallelism::Threads { connections: 24 });
        assert_eq!(fit_to_files(Parallelism::Sequential, 3, true), Parallelism::Sequential);
    }

    #[test]
    fn a_limit_of_memory_accounts_for_more_than_connections() {
        let left = |mib: u64| Left { bytes: mib << 20, limit: (mib + 40) << 20, option: "-v" };
        let fits = |parallelism, mib| fit_to_memory(parallelism, left(mib), true);
        let threads = |connections| Parallelism::Threads { connections };
        assert_eq!(fits(threads(676), 24), threads(1));
        assert!((100..676).contains(&fits(threads(676), 350).connections()));
        assert_eq!(fits(threads(676), 2_000), threads(676));
        let processes = |workers, connections| Parallelism::Processes { workers, connections };
        assert_eq!(fits(processes(200, 200), 24), processes(1, 1));
        let some = fits(processes(200, 200), 350);
        assert!((50..200).contains(&some.workers()) && some.connections() >= some.workers());
        assert_eq!(fits(Parallelism::Sequential, 0), Parallelism::Sequential);
    }
}
