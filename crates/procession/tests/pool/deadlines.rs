//! Tasks that take too long.

use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, ProcessPool, TaskError, TaskOptions};

use crate::harness::{self, Gate, is_alive};
use crate::tasks::{Echo, Pass, assert_timed_out, await_workers, quiet, succeeds_with};
use crate::works::{Hang, Nap};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_task_that_sleeps_for_ever_is_ended,
        a_task_that_ignores_sigterm_is_ended,
        a_task_that_spins_is_ended,
        a_task_that_stops_its_process_is_ended,
        the_time_counts_from_the_start_of_the_task,
        a_task_may_have_a_timeout_of_its_own,
        a_task_may_be_freed_from_the_timeout_of_the_pool,
        tasks_that_were_sent_ahead_of_a_deadline_run_elsewhere,
        others_in_the_same_worker_die_with_it_and_say_why,
        a_worker_that_is_stopped_from_outside_is_replaced_at_the_deadline,
        a_callback_that_takes_long_costs_nobody_its_worker,
    ]
}

const SHORT: Duration = Duration::from_millis(100);

fn pool(timeout: Duration) -> ProcessPool {
    let pool = quiet().workers(1).timeout(timeout).build().expect("a pool");
    await_workers(&pool);
    pool
}

fn is_ended(task: Hang) {
    let pool = pool(SHORT);
    let pid = pool.pids()[0];
    let next = TaskOptions::new().no_timeout();
    let hangs = pool.submit(task);
    let follows = pool.submit_with(next, Echo("next".to_owned()));
    assert_timed_out(hangs.result(), SHORT);
    assert_eq!(follows.result(), Ok("next".to_owned()));
    assert!(!is_alive(pid));
    assert!(!pool.pids().contains(&pid));
}

fn a_task_that_sleeps_for_ever_is_ended() {
    is_ended(Hang::Asleep);
}

fn a_task_that_ignores_sigterm_is_ended() {
    is_ended(Hang::DeafToSigterm);
}

fn a_task_that_spins_is_ended() {
    is_ended(Hang::Spinning);
}

fn a_task_that_stops_its_process_is_ended() {
    is_ended(Hang::Stopped);
}

fn the_time_counts_from_the_start_of_the_task() {
    let pool = pool(Duration::from_secs(5));
    // The last one is submitted long before its time has passed, and done long after.
    let futures: Vec<_> = (0..15).map(|_| pool.submit(Nap(400))).collect();
    for future in futures {
        assert!(future.result().is_ok());
    }
}

fn a_task_may_have_a_timeout_of_its_own() {
    let pool = quiet().workers(1).build().expect("a pool");
    let hangs = pool.submit_with(TaskOptions::new().timeout(SHORT), Hang::Asleep);
    assert_timed_out(hangs.result(), SHORT);
    succeeds_with(&pool, 10);
}

fn a_task_may_be_freed_from_the_timeout_of_the_pool() {
    let pool = pool(SHORT);
    let patient = pool.submit_with(TaskOptions::new().no_timeout(), Nap(500));
    assert!(patient.result().is_ok());
}

fn tasks_that_were_sent_ahead_of_a_deadline_run_elsewhere() {
    let pool = quiet().workers(1).build().expect("a pool");
    // So many short ones that the pool takes to sending them ahead.
    succeeds_with(&pool, 200);
    let hangs = pool.submit_with(TaskOptions::new().timeout(SHORT), Hang::Asleep);
    let behind: Vec<_> = (0..20).map(|n| pool.submit(Echo(n.to_string()))).collect();
    assert_timed_out(hangs.result(), SHORT);
    for (n, future) in behind.into_iter().enumerate() {
        assert_eq!(future.result(), Ok(n.to_string()));
    }
}

fn others_in_the_same_worker_die_with_it_and_say_why() {
    let pool = quiet().workers(1).concurrency(2).build().expect("a pool");
    // What has not begun when the deadline is over is taken back, and not lost.
    let (gate, timeout) = (Gate::new(), Duration::from_secs(1));
    let innocent = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let culprit = pool.submit_with(TaskOptions::new().timeout(timeout), Hang::Asleep);
    assert_timed_out(culprit.result(), timeout);
    match innocent.result() {
        Err(TaskError::WorkerDied(death)) => {
            assert!(death.is_collateral);
            assert!(death.to_string().contains("another task"), "{death}");
        }
        other => panic!("{other:?}"),
    }
    succeeds_with(&pool, 10);
}

fn a_callback_that_takes_long_costs_nobody_its_worker() {
    let timeout = Duration::from_millis(500);
    let pool = quiet().workers(1).timeout(timeout).build().expect("a pool");
    let futures: Vec<_> = (0..20)
        .map(|n| {
            let future = pool.submit(Nap(1));
            if n % 5 == 0 {
                future.on_done(move |_| thread::sleep(timeout * 3 / 2));
            }
            future
        })
        .collect();
    assert!(futures.into_iter().all(|future| future.result().is_ok()));
    assert_eq!(pool.stats().respawned, 0);
}

fn a_worker_that_is_stopped_from_outside_is_replaced_at_the_deadline() {
    let pool = pool(Duration::from_millis(500));
    succeeds_with(&pool, 1);
    let pid = pool.pids()[0];
    harness::stop(pid);
    // It never begins there, so another worker gets it, and that costs it no attempt.
    assert_eq!(pool.submit(Echo("moved".to_owned())).result(), Ok("moved".to_owned()));
    assert!(!pool.pids().contains(&pid));
    succeeds_with(&pool, 10);
}
