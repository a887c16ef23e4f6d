//! Tasks that are asked to stop, and the time that they have until they are ended.

use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Builder, Executor, FutureState, ProcessPool, Retries, TaskError, TaskOptions};

use crate::harness::Gate;
use crate::tasks::{
    AtStop, Echo, Pass, UntilStopped, assert_timed_out, await_workers, quiet, succeeds_with,
    warm_up,
};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_cancelled_task_returns_what_it_has_and_keeps_its_worker,
        a_cancelled_task_that_does_not_stop_is_ended_after_its_grace_period,
        a_task_past_its_timeout_returns_what_it_has,
        a_task_past_its_timeout_and_its_grace_period_has_timed_out,
        a_task_that_was_cancelled_is_not_tried_again,
        a_task_past_its_timeout_that_fails_is_tried_again,
        a_task_that_has_not_begun_is_cancelled_at_once,
        a_task_without_a_grace_period_is_not_asked,
        a_task_beside_others_is_asked_and_not_ended,
        each_task_of_a_map_is_asked_at_its_own_timeout,
        the_next_task_of_a_worker_is_not_asked,
    ]
}

const SHORT: Duration = Duration::from_millis(100);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

fn pool(builder: Builder) -> ProcessPool {
    let pool = builder.workers(1).build().expect("a pool");
    await_workers(&pool);
    pool
}

fn a_cancelled_task_returns_what_it_has_and_keeps_its_worker() {
    let (pool, gate) = (pool(quiet().grace(LONG)), Gate::new());
    let pids = pool.pids();
    let future = pool.submit(UntilStopped(gate.path(), AtStop::Return));
    gate.await_arrivals(1);
    assert!(future.cancel());
    assert_eq!(future.result(), Ok(1));
    let fails = pool.submit(UntilStopped(gate.path(), AtStop::Fail));
    gate.await_arrivals(2);
    assert!(fails.cancel());
    assert!(matches!(fails.result(), Err(TaskError::Failed(_))));
    assert_eq!(pool.pids(), pids);
    succeeds_with(&pool, 10);
}

fn a_cancelled_task_that_does_not_stop_is_ended_after_its_grace_period() {
    let (pool, gate) = (pool(quiet().grace(SHORT)), Gate::new());
    let pids = pool.pids();
    let future = pool.submit(UntilStopped(gate.path(), AtStop::Ignore));
    gate.await_arrivals(1);
    assert!(future.cancel());
    assert_eq!(future.state(), FutureState::Running);
    assert_eq!(future.result(), Err(TaskError::Cancelled));
    succeeds_with(&pool, 10);
    assert_ne!(pool.pids(), pids);
}

fn a_task_past_its_timeout_returns_what_it_has() {
    let (pool, gate) = (pool(quiet().timeout(SHORT).grace(LONG)), Gate::new());
    let pids = pool.pids();
    assert_eq!(pool.submit(UntilStopped(gate.path(), AtStop::Return)).result(), Ok(1));
    assert_eq!(pool.pids(), pids);
}

fn a_task_past_its_timeout_and_its_grace_period_has_timed_out() {
    let (pool, gate) = (pool(quiet().timeout(SHORT).grace(2 * SHORT)), Gate::new());
    let result = pool.submit(UntilStopped(gate.path(), AtStop::Ignore)).result();
    assert_timed_out(result, SHORT);
    succeeds_with(&pool, 10);
}

fn a_task_that_was_cancelled_is_not_tried_again() {
    let retries = Retries::times(3).on_failure(true);
    let (pool, gate) = (pool(quiet().grace(LONG).retries(retries)), Gate::new());
    let fails = pool.submit(UntilStopped(gate.path(), AtStop::Fail));
    gate.await_arrivals(1);
    assert!(fails.cancel());
    assert!(matches!(fails.result(), Err(TaskError::Failed(_))));
    let dies = pool.submit(UntilStopped(gate.path(), AtStop::Abort));
    gate.await_arrivals(2);
    assert!(dies.cancel());
    match dies.result() {
        Err(TaskError::WorkerDied(death)) => assert_eq!(death.attempts, 1),
        other => panic!("{other:?}"),
    }
    succeeds_with(&pool, 10);
    assert_eq!(gate.arrivals(), 2);
}

fn a_task_past_its_timeout_that_fails_is_tried_again() {
    let retries = Retries::times(1).on_failure(true);
    let (pool, gate) = (pool(quiet().timeout(SHORT).grace(LONG).retries(retries)), Gate::new());
    let fails = pool.submit(UntilStopped(gate.path(), AtStop::Fail));
    assert!(matches!(fails.result(), Err(TaskError::Failed(_))));
    assert_eq!(gate.arrivals(), 2);
}

fn a_task_that_has_not_begun_is_cancelled_at_once() {
    let (pool, gate) = (pool(quiet().grace(LONG)), Gate::new());
    let first = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let second = pool.submit(Echo(String::new()));
    assert!(second.cancel());
    assert!(second.is_done());
    assert_eq!(second.result(), Err(TaskError::Cancelled));
    gate.open();
    assert!(first.result().is_ok());
}

fn a_task_without_a_grace_period_is_not_asked() {
    let (pool, gate) = (pool(quiet().grace(LONG)), Gate::new());
    let options = TaskOptions::new().grace(Duration::ZERO);
    let future = pool.submit_with(options, UntilStopped(gate.path(), AtStop::Return));
    gate.await_arrivals(1);
    assert!(future.cancel());
    assert!(future.is_done());
    assert_eq!(future.result(), Err(TaskError::Cancelled));
    succeeds_with(&pool, 10);
}

fn a_task_beside_others_is_asked_and_not_ended() {
    let (pool, gate) = (pool(quiet().concurrency(2).grace(SHORT)), Gate::new());
    let pids = pool.pids();
    let other = pool.submit(Pass(gate.path()));
    let future = pool.submit(UntilStopped(gate.path(), AtStop::Return));
    gate.await_arrivals(2);
    assert!(!future.cancel());
    assert_eq!(future.result(), Ok(1));
    gate.open();
    assert_eq!(other.result(), Ok(pids[0]));
}

fn each_task_of_a_map_is_asked_at_its_own_timeout() {
    let (pool, gate) = (pool(quiet()), Gate::new());
    warm_up(&pool);
    let options = TaskOptions::new().timeout(SHORT / 2).grace(LONG);
    let tasks = (0..5).map(|_| UntilStopped(gate.path(), AtStop::Return));
    let results: Vec<_> = pool.map_with(options, tasks).collect();
    assert_eq!(results, [const { Ok(1) }; 5]);
}

fn the_next_task_of_a_worker_is_not_asked() {
    let (pool, gate) = (pool(quiet().grace(LONG)), Gate::new());
    for n in 0..20 {
        let future = pool.submit(UntilStopped(gate.path(), AtStop::Return));
        gate.await_arrivals(n + 1);
        assert_eq!(future.state(), FutureState::Running);
        assert!(future.cancel());
        assert_eq!(future.result(), Ok(1));
    }
}
