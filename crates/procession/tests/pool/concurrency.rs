//! How many tasks run at the same time, and where.

use std::collections::HashSet;

use libtest_mimic::Trial;
use procession::{Executor, FutureState, TaskError};
use rustix::process::Signal;

use crate::harness::{self, Gate, eventually};
use crate::tasks::{
    Bad, Echo, Ending, Length, Meet, MeetWith, Overlap, Pass, Pid, await_workers, pool, quiet,
    succeeds_with,
};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        as_many_tasks_as_workers_run_at_the_same_time,
        with_more_concurrency_than_workers_each_runs_several_tasks,
        never_more_tasks_than_asked_for_run_at_the_same_time,
        with_less_concurrency_than_workers_only_so_many_are_started,
        a_crash_costs_only_what_ran_in_that_worker,
        short_tasks_behind_a_long_one_go_to_an_idle_worker,
        short_tasks_behind_many_long_ones_go_to_an_idle_worker,
        many_large_tasks_at_a_time_in_one_worker,
        large_tasks_for_a_worker_that_is_stopped_hold_nobody_up,
    ]
}

fn as_many_tasks_as_workers_run_at_the_same_time() {
    let pool = pool(3);
    let gate = Gate::new();
    let pids: Result<HashSet<_>, _> = pool.map((0..3).map(|_| Meet(gate.path(), 3))).collect();
    assert_eq!(pids.expect("outputs").len(), 3);
}

fn with_more_concurrency_than_workers_each_runs_several_tasks() {
    let pool = quiet().workers(2).concurrency(7).build().expect("a pool");
    await_workers(&pool);
    let gate = Gate::new();
    let pids = pool.map((0..7).map(|_| Meet(gate.path(), 7))).collect::<Result<Vec<_>, _>>();
    let pids = pids.expect("outputs");
    let count = |pid| pids.iter().filter(|&&p| p == pid).count();
    let mut counts: Vec<_> = pool.pids().into_iter().map(count).collect();
    counts.sort_unstable();
    assert_eq!(counts, [3, 4]);
}

fn never_more_tasks_than_asked_for_run_at_the_same_time() {
    for (workers, concurrency) in [(2, 2), (2, 5), (1, 3), (3, 2)] {
        let pool = quiet().workers(workers).concurrency(concurrency).build().expect("a pool");
        let gate = Gate::new();
        let seen = pool.map((0..60).map(|_| Overlap(gate.path())));
        let most = seen.map(|seen| seen.expect("a count")).max();
        assert!(most <= Some(concurrency), "{most:?} at once, not {concurrency}");
    }
}

fn with_less_concurrency_than_workers_only_so_many_are_started() {
    let pool = quiet().workers(8).concurrency(2).build().expect("a pool");
    assert_eq!(pool.workers(), 2);
    await_workers(&pool);
    succeeds_with(&pool, 20);
    assert_eq!(pool.pids().len(), 2);
}

fn a_crash_costs_only_what_ran_in_that_worker() {
    let pool = quiet().workers(2).concurrency(4).build().expect("a pool");
    await_workers(&pool);
    let gate = Gate::new();
    let running: Vec<_> = (0..3).map(|_| pool.submit(Pass(gate.path()))).collect();
    gate.await_arrivals(3);
    let Err(TaskError::WorkerDied(death)) = pool.submit(Bad(Ending::Segfault)).result() else {
        panic!("a crash without a death");
    };
    gate.open();
    let mut lost = 0;
    for future in running {
        match future.result() {
            Ok(pid) => assert_ne!(pid, death.pid),
            Err(TaskError::WorkerDied(other)) => {
                assert_eq!(other.pid, death.pid);
                lost += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(lost, 1);
    await_workers(&pool);
    succeeds_with(&pool, 100);
}

fn short_tasks_behind_a_long_one_go_to_an_idle_worker() {
    let pool = pool(2);
    succeeds_with(&pool, 500);
    for _ in 0..5 {
        let gate = Gate::new();
        let echo = |n: usize| pool.submit(Echo(n.to_string()));
        let before: Vec<_> = (0..20).map(echo).collect();
        let long = pool.submit(Pass(gate.path()));
        let behind: Vec<_> = (0..100).map(echo).collect();
        for future in before.into_iter().chain(behind) {
            future.result().expect("an output");
        }
        assert_eq!(long.state(), FutureState::Running);
        gate.open();
        long.result().expect("an output");
    }
}

fn short_tasks_behind_many_long_ones_go_to_an_idle_worker() {
    let pool = quiet().workers(2).concurrency(6).build().expect("a pool");
    await_workers(&pool);
    succeeds_with(&pool, 500);
    let gate = Gate::new();
    let mut long = Vec::new();
    let mut short = Vec::new();
    for n in 0..100 {
        if n % 20 == 5 {
            long.push(pool.submit(Pass(gate.path())));
        }
        short.push(pool.submit(Echo(n.to_string())));
    }
    for future in short {
        future.result().expect("an output");
    }
    assert!(long.iter().all(|future| future.state() == FutureState::Running));
    gate.open();
    assert!(long.into_iter().all(|future| future.result().is_ok()));
}

fn many_large_tasks_at_a_time_in_one_worker() {
    let pool = quiet().workers(1).concurrency(100).build().expect("a pool");
    let gate = Gate::new();
    let meet = (0..100).map(|_| MeetWith(gate.path(), 100, "x".repeat(100_000)));
    let lengths: Result<Vec<_>, _> = pool.map(meet).collect();
    assert_eq!(lengths, Ok(vec![100_000; 100]));
}

/// What a process does not read must not hold up whoever sends, or kills.
fn large_tasks_for_a_worker_that_is_stopped_hold_nobody_up() {
    let pool = quiet().workers(1).concurrency(16).build().expect("a pool");
    let stopped = pool.submit(Pid()).result().expect("a pid");
    harness::stop(stopped);
    let futures: Vec<_> = (0..64).map(|_| pool.submit(Length("x".repeat(60_000)))).collect();
    eventually("tasks in the worker", || futures[15].state() == FutureState::Running);
    let later = pool.submit(Length("x".repeat(60_000)));
    assert_eq!(later.state(), FutureState::Pending);
    harness::signal(stopped, Signal::KILL);
    // None of them had begun, so none is lost.
    for future in futures.into_iter().chain([later]) {
        assert_eq!(future.result(), Ok(60_000));
    }
}
