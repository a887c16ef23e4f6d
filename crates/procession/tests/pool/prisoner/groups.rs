//! The layers `cgroup`, `cgroup.threads` and `cgroup.memory`. Without a control group that was delegated to this
//! program, most of it is skipped.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::{env, process, thread, time::Duration};

use procession::{
    Context, Executor, Exit, Failure, PoolError, ProcessPool, Sandbox, SandboxReport, Shutdown,
    Task, TaskError,
};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::pool;
use super::spaces::Bomb;
use crate::harness::{self, is_alive, skip};
use crate::program::{self, start_and_hear_workers};
use crate::tasks::{Bad, Ending, Pid, quiet, succeeds_with};

/// Leaves a process in a session of its own. The output is its id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Leave();

impl Task for Leave {
    const NAME: &'static str = "leave a process";
    type Output = u32;

    fn run(self, _: &Context) -> Result<u32, Failure> {
        // SAFETY: the copy makes system calls with numbers alone, and never returns.
        match unsafe { libc::fork() } {
            0 => unsafe {
                libc::setsid();
                libc::prctl(libc::PR_SET_PDEATHSIG, 0);
                (0..3).for_each(|stream| _ = libc::close(stream));
                // Not for ever, where no group ends it.
                libc::sleep(120);
                libc::_exit(0)
            },
            pid => Ok(pid.unsigned_abs()),
        }
    }
}

/// Makes memory files of this length, in bytes, each with all of its pages, until there is this number of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hoard(usize, usize);

impl Task for Hoard {
    const NAME: &'static str = "hoard";
    type Output = usize;

    fn run(self, _: &Context) -> Result<usize, Failure> {
        let Self(len, number) = self;
        let bytes = vec![1; 1 << 20];
        let make = || {
            let file = memfd_create("hoard", MemfdFlags::CLOEXEC)?;
            ftruncate(&file, len as u64)?;
            (0..len >> 20).try_for_each(|at| {
                rustix::io::pwrite(&file, &bytes, (at as u64) << 20).map(drop)
            })?;
            Ok::<_, rustix::io::Errno>(file)
        };
        let files: Result<Vec<_>, _> = (0..number).map(|_| make()).collect();
        Ok(files?.len())
    }
}

/// The groups of these processes, as paths from the top.
fn groups(pids: &[u32]) -> Vec<String> {
    let group = |pid: &u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        group.expect("groups of version 2").to_owned()
    };
    pids.iter().map(group).collect()
}

fn is_there(group: &str) -> bool {
    let tops = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    tops.map(|top| Path::new(top).join(group)).iter().any(|path| path.exists())
}

fn of_the_pool(group: &str) -> &str {
    group.rsplit_once('/').expect("a group in a group").0
}

fn missing(report: &SandboxReport, name: &str) -> Option<String> {
    let mut layers = report.layers().iter().filter(|layer| layer.layer == name);
    layers.next().and_then(|layer| layer.missing.clone())
}

/// A pool whose workers have this layer, or the test is skipped.
fn pool_with(layer: &str, sandbox: Sandbox) -> ProcessPool {
    let pool = pool(sandbox);
    let report = pool.sandbox_report().expect("a report");
    assert!(report.layers().iter().any(|there| there.layer == layer), "{report}");
    match missing(&report, layer) {
        Some(why) => skip(&format!("{layer}: {why}")),
        None => pool,
    }
}

pub(super) fn each_worker_has_a_control_group_until_its_end() {
    let pool = pool_with("cgroup", Sandbox::strict());
    let pids = pool.pids();
    let its = groups(&pids);
    assert!(its[0] != its[1] && of_the_pool(&its[0]) == of_the_pool(&its[1]), "{its:?}");
    assert!(its.iter().all(|group| is_there(group)), "{its:?}");
    assert!(pool.submit(Bad(Ending::Abort)).result().is_err());
    succeeds_with(&pool, 20);
    assert_eq!(its.iter().filter(|group| is_there(group)).count(), 1, "{its:?}");
    pool.shutdown(Shutdown::Wait);
    assert!(!its.iter().any(|group| is_there(group)), "{its:?}");
    drop(pool);
    assert!(!is_there(of_the_pool(&its[0])), "{its:?}");
}

pub(super) fn copies_of_a_template_have_control_groups() {
    drop(pool_with("cgroup", Sandbox::strict()));
    let pool = quiet().workers(2).sandbox(Sandbox::strict()).preload(Pid()).build();
    let pool = pool.expect("a pool");
    succeeds_with(&pool, 20);
    crate::tasks::await_workers(&pool);
    let its = groups(&pool.pids());
    assert!(its[0] != its[1] && of_the_pool(&its[0]) == of_the_pool(&its[1]), "{its:?}");
    pool.shutdown(Shutdown::Wait);
    assert!(!its.iter().any(|group| is_there(group)), "{its:?}");
}

pub(super) fn a_process_that_has_left_its_worker_ends_with_it() {
    let pool = pool_with("cgroup", Sandbox::basic());
    for ending in [Ending::Abort, Ending::Exit(0)] {
        let worker = quiet().workers(1).sandbox(Sandbox::basic()).build().expect("a pool");
        let left = worker.submit(Leave()).result().expect("a process");
        assert!(is_alive(left));
        assert!(worker.submit(Bad(ending)).result().is_err());
        // The end of the worker is reported after that of all its processes.
        assert!(!is_alive(left));
    }
    let left = [(); 2].map(|()| pool.submit(Leave()).result().expect("a process"));
    pool.shutdown(Shutdown::Kill);
    assert!(!left.iter().any(|&left| is_alive(left)));
}

const VARIABLE: &str = "PROCESSION_TEST_GROUPS";

pub(super) fn play_if_asked() {
    match env::var(VARIABLE).as_deref() {
        Ok("leaves") => {
            let pool = quiet().workers(1).sandbox(Sandbox::basic()).build().expect("a pool");
            let left = pool.submit(Leave()).result().expect("a process");
            println!("{left}");
            println!("ready");
            thread::sleep(Duration::from_secs(120));
        }
        Ok("sweeps") => {
            drop(pool(Sandbox::strict()));
            println!("it works");
        }
        Ok("becomes another user") => {
            let pool = pool(Sandbox::basic());
            let report = || pool.sandbox_report().expect("a report");
            assert_eq!(missing(&report(), "cgroup"), None);
            // SAFETY: they change numbers of this process alone.
            unsafe { assert_eq!((libc::setgid(65534), libc::setuid(65534)), (0, 0)) };
            assert!(pool.submit(Bad(Ending::Abort)).result().is_err());
            succeeds_with(&pool, 20);
            harness::eventually("a report", || missing(&report(), "cgroup").is_some());
            println!("it works");
        }
        _ => return,
    }
    process::exit(0);
}

pub(super) fn what_a_killed_program_has_left_in_control_groups_is_ended_by_the_next_one() {
    drop(pool_with("cgroup", Sandbox::basic()));
    let command = || program::command("nothing else");
    let (mut program, left) =
        start_and_hear_workers(command().env(VARIABLE, "leaves").stderr(Stdio::null()));
    let its = groups(&left);
    harness::signal(program.id(), Signal::KILL);
    program.wait().expect("an end");
    // A sweep of another test may come first.
    program::assert_works(command().env(VARIABLE, "sweeps"));
    assert!(!is_alive(left[0]) && !is_there(of_the_pool(&its[0])), "{its:?}");
}

pub(super) fn a_program_that_becomes_another_user_goes_on_without_control_groups() {
    drop(pool_with("cgroup", Sandbox::basic()));
    if !rustix::process::geteuid().is_root() {
        skip("only a superuser can become another user");
    }
    program::assert_works(program::command("nothing else").env(VARIABLE, "becomes another user"));
}

pub(super) fn threads_are_bounded_by_a_control_group() {
    const MOST: usize = 1_024;
    // Also if this program runs as root: the layer `namespaces` does not bound the threads of root.
    for sandbox in [Sandbox::basic(), Sandbox::strict()] {
        let pool = pool_with("cgroup.threads", sandbox);
        let started = pool.submit(Bomb(2 * MOST)).result().expect("an output");
        assert!((MOST / 2..MOST).contains(&started), "{started} threads");
    }
}

pub(super) fn all_memory_is_bounded_by_a_control_group_or_the_pool_is_refused() {
    const MOST: u64 = 256 << 20;
    drop(pool(Sandbox::strict()));
    let sandbox = || Sandbox::strict().total_memory(MOST);
    let built = quiet().workers(1).sandbox(sandbox()).build();
    let pool = match built {
        Ok(pool) => pool,
        Err(PoolError::SandboxUnavailable { layer, why }) => {
            assert_eq!(layer, "cgroup.memory");
            let pool = pool_without(sandbox().best_effort());
            let report = pool.sandbox_report().expect("a report");
            assert_eq!(missing(&report, "cgroup.memory"), Some(why.clone()));
            assert!(!report.is_complete(), "{report}");
            skip(&format!("{layer}: {why}"));
        }
        Err(other) => panic!("{other}"),
    };
    // 16 MiB each. The limits of a process bound none of them.
    assert_eq!(pool.submit(Hoard(16 << 20, 10)).result(), Ok(10));
    match pool.submit(Hoard(16 << 20, 64)).result() {
        Err(TaskError::WorkerDied(death)) => {
            let expected = format!("memory: more than {MOST} bytes");
            assert_eq!(death.exit, Exit::Signal(Signal::KILL.as_raw()));
            assert_eq!(death.violation.as_deref(), Some(&*expected));
            assert!(death.to_string().contains(&format!("by its sandbox ({expected})")), "{death}");
        }
        other => panic!("{other:?}"),
    }
    succeeds_with(&pool, 20);
}

fn pool_without(sandbox: Sandbox) -> ProcessPool {
    let pool = quiet().workers(1).sandbox(sandbox).build().expect("a pool");
    succeeds_with(&pool, 20);
    pool
}
