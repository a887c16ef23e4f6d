//! Workers that are started in advance and take over when another one ends.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{
    Builder, Executor, PoolEvent, ProcessPool, Recycling, Shutdown, TaskError, TaskOptions,
};
use rustix::process::Signal;

use crate::harness::{Gate, eventually, is_alive, signal};
use crate::tasks::{Bad, Ending, Meet, Overlap, Pass, Pid, quiet, succeeds_with};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_spare_that_was_ready_before_the_crash_runs_the_next_task,
        spares_are_promoted_one_after_the_other_while_workers_are_killed,
        there_are_never_more_processes_than_workers_and_spares,
        a_killed_spare_is_replaced_and_costs_no_task,
        recycled_workers_are_replaced_by_spares,
        a_worker_that_is_killed_for_its_timeout_is_replaced_by_a_spare,
        a_spare_is_the_first_worker_of_a_pool_that_starts_none_in_advance,
        each_spare_runs_the_initializer_before_it_stands_by,
        spares_run_no_tasks_beside_the_workers,
        spares_keep_to_the_concurrency_of_the_pool,
        a_shutdown_ends_the_spares_too,
    ]
}

/// A pool with this many workers and spares, all of them ready.
#[track_caller]
fn ready(builder: Builder, workers: usize, spares: usize) -> ProcessPool {
    let pool = builder.workers(workers).spares(spares).build().expect("a pool");
    await_spares(&pool, spares);
    assert_eq!((pool.workers(), pool.pids().len()), (workers, workers + spares));
    pool
}

#[track_caller]
fn await_spares(pool: &ProcessPool, spares: usize) {
    eventually("all spares", || pool.stats().spares == spares);
}

fn a_spare_that_was_ready_before_the_crash_runs_the_next_task() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&events);
    let note = move |event: &PoolEvent| notes.lock().expect("no panic").push(event.clone());
    let pool = ready(quiet().on_event(note), 1, 1);
    let pids = pool.pids();
    assert_eq!(pool.submit(Pid()).result(), Ok(pids[0]));
    let crash = pool.submit(Bad(Ending::Kill)).result();
    assert!(matches!(crash, Err(TaskError::WorkerDied(_))), "{crash:?}");
    assert_eq!(pool.submit(Pid()).result(), Ok(pids[1]));
    assert_eq!(pool.stats().promoted, 1);
    let promotion = PoolEvent::SparePromoted { worker: 1, pid: pids[1], replaces: 0 };
    eventually("the event", || events.lock().expect("no panic").contains(&promotion));
    // The next process of the first worker is the spare.
    await_spares(&pool, 1);
    let next = pool.pids();
    assert!(next[0] != pids[0] && next[1] == pids[1], "{pids:?} {next:?}");
    assert_eq!(pool.submit(Pid()).result(), Ok(pids[1]));
}

fn spares_are_promoted_one_after_the_other_while_workers_are_killed() {
    let pool = ready(quiet(), 1, 1);
    let mut seen = HashSet::new();
    for round in 1..=10 {
        let at_work = pool.submit(Pid()).result().expect("a pid");
        assert!(seen.insert(at_work), "round {round}");
        signal(at_work, Signal::KILL);
        // Its end is known when the spare was promoted.
        eventually("a promotion", || pool.stats().promoted == round);
        await_spares(&pool, 1);
    }
    assert_eq!(pool.stats().respawned, 10);
}

fn there_are_never_more_processes_than_workers_and_spares() {
    let pool = ready(quiet(), 2, 2);
    let endings = [Ending::Kill, Ending::None, Ending::Abort, Ending::None, Ending::Exit(3)];
    let futures: Vec<_> =
        (0..10).flat_map(|_| endings.clone()).map(|ending| pool.submit(Bad(ending))).collect();
    let mut most = 0;
    eventually("the end of all tasks", || {
        most = most.max(pool.pids().len());
        futures.iter().all(|future| future.is_done())
    });
    assert!((1..=4).contains(&most), "{most} processes");
    let results = futures.into_iter().map(|future| future.result());
    assert_eq!(results.filter(Result::is_ok).count(), 20);
    succeeds_with(&pool, 20);
    await_spares(&pool, 2);
    assert_eq!(pool.pids().len(), 4);
}

fn a_killed_spare_is_replaced_and_costs_no_task() {
    let pool = ready(quiet(), 1, 1);
    let at_work = pool.submit(Pid()).result().expect("a pid");
    for _ in 0..20 {
        let spare = *pool.pids().iter().find(|pid| **pid != at_work).expect("a spare");
        signal(spare, Signal::KILL);
        eventually("another spare", || {
            let pids = pool.pids();
            pool.stats().spares == 1 && pids.len() == 2 && !pids.contains(&spare)
        });
        assert_eq!(pool.submit(Pid()).result(), Ok(at_work));
    }
    assert_eq!(pool.stats().promoted, 0);
}

fn recycled_workers_are_replaced_by_spares() {
    let recycling = Recycling::never().after_tasks(1);
    let pool = ready(quiet().recycling(recycling), 1, 1);
    let first = pool.pids();
    let mut pids = Vec::new();
    for _ in 0..10 {
        pids.push(pool.submit(Pid()).result().expect("a pid"));
        assert!(pool.pids().len() <= 2, "{:?}", pool.pids());
    }
    assert_eq!(pids[..2], first);
    assert_eq!(pids.iter().collect::<HashSet<_>>().len(), 10, "{pids:?}");
    assert!(pool.stats().promoted >= 1);
}

fn a_worker_that_is_killed_for_its_timeout_is_replaced_by_a_spare() {
    let gate = Gate::new();
    let pool = ready(quiet(), 1, 1);
    let pids = pool.pids();
    let timeout = TaskOptions::new().timeout(Duration::from_millis(100));
    let late = pool.submit_with(timeout, Pass(gate.path()));
    let next = pool.submit(Pid());
    assert!(matches!(late.result(), Err(TaskError::TimedOut { .. })));
    assert_eq!(next.result(), Ok(pids[1]));
}

fn a_spare_is_the_first_worker_of_a_pool_that_starts_none_in_advance() {
    let pool = quiet().workers(2).min_workers(0).spares(1).build().expect("a pool");
    await_spares(&pool, 1);
    let spare = pool.pids();
    assert_eq!(spare.len(), 1);
    assert_eq!(pool.submit(Pid()).result(), Ok(spare[0]));
    await_spares(&pool, 1);
    assert_eq!(pool.pids().len(), 2);
}

fn each_spare_runs_the_initializer_before_it_stands_by() {
    let gate = Gate::new();
    let pool = quiet().workers(1).spares(2).initializer(Pass(gate.path()));
    let pool = pool.build().expect("a pool");
    // The workers come first: no spare starts beside them.
    gate.await_arrivals(1);
    assert_eq!(pool.pids().len(), 1);
    gate.open();
    await_spares(&pool, 2);
    assert_eq!(gate.arrivals(), 3);
    assert!(pool.submit(Bad(Ending::Abort)).result().is_err());
    await_spares(&pool, 2);
    assert_eq!(gate.arrivals(), 4);
}

fn spares_run_no_tasks_beside_the_workers() {
    let gate = Gate::new();
    let pool = ready(quiet(), 2, 2);
    let most = pool.map((0..200).map(|_| Overlap(gate.path()))).map(|here| here.expect("a number"));
    assert!(most.max().is_some_and(|most| most <= 2));
}

fn spares_keep_to_the_concurrency_of_the_pool() {
    // One worker runs two tasks at a time, the other one. The spare has two threads.
    let pool = ready(quiet().concurrency(3), 2, 1);
    for _ in 0..3 {
        let meeting = Gate::new();
        let all: Vec<_> = (0..3).map(|_| pool.submit(Meet(meeting.path(), 3))).collect();
        assert!(all.into_iter().all(|one| one.result().is_ok()));
        let visits = Gate::new();
        let most = pool.map((0..100).map(|_| Overlap(visits.path())));
        assert!(most.map(|here| here.expect("a number")).max().is_some_and(|most| most <= 3));
        assert!(pool.submit(Bad(Ending::Abort)).result().is_err());
        await_spares(&pool, 1);
    }
    assert_eq!(pool.stats().promoted, 3);
}

fn a_shutdown_ends_the_spares_too() {
    for how in [Shutdown::Wait, Shutdown::CancelPending, Shutdown::Kill] {
        for is_ready in [true, false] {
            let pool = quiet().workers(1).spares(2).build().expect("a pool");
            let future = pool.submit(Pid());
            if is_ready {
                await_spares(&pool, 2);
            }
            let pids = pool.pids();
            pool.shutdown(how);
            assert!(future.is_done());
            assert!(!pids.into_iter().any(is_alive), "{how:?}");
            assert!(pool.pids().is_empty());
        }
    }
}
