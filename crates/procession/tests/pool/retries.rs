//! Tasks that are tried again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{
    Executor, Exit, Fault, PoolEvent, ProcessPool, Retries, Shutdown, TaskError, TaskOptions,
};
use rustix::process::Signal;

use crate::harness;
use crate::tasks::{quiet, succeeds_with};
use crate::works::{At, Deed, Nap};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_task_whose_worker_dies_at_first_succeeds_at_its_second_attempt,
        a_task_that_takes_too_long_at_first_succeeds_at_its_second_attempt,
        a_task_that_fails_is_tried_again_only_if_that_is_asked_for,
        a_task_that_always_kills_fails_after_its_attempts,
        all_kinds_of_faults_count_against_the_same_attempts,
        a_task_may_have_retries_of_its_own,
        retries_are_reported_and_counted,
        a_task_that_waits_for_its_next_attempt_can_be_cancelled,
        a_shutdown_that_waits_waits_for_retries_too,
        a_shutdown_that_cancels_does_not,
        in_a_storm_of_kills_every_task_is_done,
    ]
}

fn pool(retries: Retries) -> ProcessPool {
    let timeout = Duration::from_millis(200);
    quiet().workers(2).timeout(timeout).retries(retries).build().expect("a pool")
}

/// For the next attempt to be in no danger of coming during a test.
const LATER: Duration = Duration::from_secs(1000);

fn a_task_whose_worker_dies_at_first_succeeds_at_its_second_attempt() {
    let pool = pool(Retries::times(1));
    assert_eq!(pool.submit(At(vec![Deed::Die])).result(), Ok(2));
}

fn a_task_that_takes_too_long_at_first_succeeds_at_its_second_attempt() {
    let pool = pool(Retries::times(1));
    assert_eq!(pool.submit(At(vec![Deed::Hang])).result(), Ok(2));
}

fn a_task_that_fails_is_tried_again_only_if_that_is_asked_for() {
    let fails_once = || At(vec![Deed::Fail]);
    let pool = pool(Retries::times(1));
    assert!(matches!(pool.submit(fails_once()).result(), Err(TaskError::Failed(_))));
    let terms = TaskOptions::new().retries(Retries::times(1).on_failure(true));
    assert_eq!(pool.submit_with(terms, fails_once()).result(), Ok(2));
}

fn a_task_that_always_kills_fails_after_its_attempts() {
    let pool = pool(Retries::times(2));
    match pool.submit(At(vec![Deed::Die; 10])).result() {
        Err(TaskError::WorkerDied(death)) => {
            assert_eq!(death.attempts, 3);
            assert_eq!(death.exit, Exit::Signal(Signal::ABORT.as_raw()));
            assert!(death.to_string().contains("attempt 3"), "{death}");
        }
        other => panic!("{other:?}"),
    }
    succeeds_with(&pool, 100);
}

fn all_kinds_of_faults_count_against_the_same_attempts() {
    let pool = pool(Retries::times(2).on_failure(true));
    assert_eq!(pool.submit(At(vec![Deed::Die, Deed::Hang])).result(), Ok(3));
    let too_much = pool.submit(At(vec![Deed::Hang, Deed::Die, Deed::Fail])).result();
    assert!(matches!(too_much, Err(TaskError::Failed(_))), "{too_much:?}");
}

fn a_task_may_have_retries_of_its_own() {
    let pool = pool(Retries::none());
    assert!(pool.submit(At(vec![Deed::Die])).result().is_err());
    let terms = TaskOptions::new().retries(Retries::times(1));
    assert_eq!(pool.submit_with(terms, At(vec![Deed::Die])).result(), Ok(2));
}

fn retries_are_reported_and_counted() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let pool = quiet()
        .workers(1)
        .retries(Retries::times(2).on_failure(true))
        .on_event(move |event| {
            if let PoolEvent::TaskRetried { task, fault, attempt, .. } = *event {
                sees.lock().expect("no panics").push((task, fault, attempt));
            }
        })
        .build()
        .expect("a pool");
    let future = pool.submit(At(vec![Deed::Fail, Deed::Die]));
    let id = future.id();
    assert_eq!(future.result(), Ok(3));
    assert_eq!(*seen.lock().expect("no panics"), [(id, Fault::Failure, 2), (id, Fault::Crash, 3)]);
    let stats = pool.stats();
    assert_eq!((stats.retried, stats.respawned, stats.done, stats.failed), (2, 1, 1, 0));
}

fn waiting(pool: &ProcessPool) -> procession::Future<u32> {
    let future = pool.submit(At(vec![Deed::Die; 10]));
    harness::eventually("a first attempt", || pool.stats().retried == 1);
    future
}

fn a_task_that_waits_for_its_next_attempt_can_be_cancelled() {
    let pool = pool(Retries::times(1).backoff(LATER, LATER));
    let future = waiting(&pool);
    assert_eq!(pool.stats().pending, 1);
    assert!(future.cancel());
    assert_eq!(future.result(), Err(TaskError::Cancelled));
    assert_eq!(pool.stats().pending, 0);
}

fn a_shutdown_that_waits_waits_for_retries_too() {
    let pool = pool(Retries::times(1).backoff(Duration::from_millis(300), LATER));
    let future = pool.submit(At(vec![Deed::Die]));
    pool.shutdown(Shutdown::Wait);
    assert_eq!(future.result(), Ok(2));
}

fn a_shutdown_that_cancels_does_not() {
    let pool = pool(Retries::times(1).backoff(LATER, LATER));
    let future = waiting(&pool);
    pool.shutdown(Shutdown::CancelPending);
    assert_eq!(future.result(), Err(TaskError::Cancelled));
}

fn in_a_storm_of_kills_every_task_is_done() {
    let pool = quiet().workers(3).retries(Retries::times(1000)).build().expect("a pool");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let done = pool.stats().done;
                for pid in pool.pids() {
                    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
                    // It may be gone by now.
                    let _ = rustix::process::kill_process(pid.expect("a pid"), Signal::KILL);
                }
                // A pool none of whose workers ever gets ready would rightly break.
                harness::eventually("a task is done", || {
                    pool.stats().done > done || is_over.load(Ordering::Relaxed)
                });
            }
        });
        let futures: Vec<_> = (0..300).map(|_| pool.submit(Nap(2))).collect();
        let results: Vec<_> = futures.into_iter().map(procession::Future::result).collect();
        is_over.store(true, Ordering::Relaxed);
        let failure = results.iter().find(|result| result.is_err());
        assert!(failure.is_none(), "{failure:?}");
    });
    let stats = pool.stats();
    assert_eq!((stats.done, stats.failed), (300, 0));
    assert!(stats.respawned > 10, "{stats:?}");
}
