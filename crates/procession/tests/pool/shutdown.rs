//! Cancelling single tasks, and the shutdown of a pool.

use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, FutureState, PoolError, Shutdown, TaskError};
use rustix::process::Signal;

use crate::harness::{self, Gate, eventually, is_alive};
use crate::tasks::{
    Bad, Echo, Ending, Pass, Pid, Touch, await_workers, pool, quiet, succeeds_with,
};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_pending_task_that_is_cancelled_never_runs,
        a_running_task_that_is_cancelled_is_ended_and_its_worker_replaced,
        a_running_task_with_others_in_its_worker_is_not_cancelled,
        a_finished_task_is_not_cancelled,
        of_cancel_and_completion_exactly_one_wins,
        a_wait_that_ends_early_leaves_the_task_alone,
        dropping_a_future_leaves_the_task_alone,
        a_pool_that_is_dropped_cancels_everything,
        futures_and_pool_may_be_dropped_in_any_order,
        a_shutdown_that_waits_runs_every_task,
        a_shutdown_that_cancels_runs_only_what_has_begun,
        a_shutdown_that_cancels_takes_back_what_was_sent_ahead,
        a_shutdown_that_kills_does_not_wait_for_tasks,
        a_shutdown_succeeds_while_workers_start,
        a_shutdown_succeeds_while_workers_are_replaced,
        a_shutdown_ends_a_worker_that_is_stopped,
        a_shutdown_succeeds_when_all_workers_are_dead,
        a_second_shutdown_may_be_stricter,
        many_threads_may_shut_down_at_once,
        tasks_submitted_after_a_shutdown_are_refused,
        tasks_submitted_during_a_shutdown_are_refused_or_run,
    ]
}

pub(crate) const ALL: [Shutdown; 3] = [Shutdown::Wait, Shutdown::CancelPending, Shutdown::Kill];

#[track_caller]
pub(crate) fn assert_gone(pids: &[u32]) {
    let alive: Vec<_> = pids.iter().filter(|&&pid| is_alive(pid)).collect();
    assert!(alive.is_empty(), "{alive:?} have not ended");
}

fn a_pending_task_that_is_cancelled_never_runs() {
    let pool = pool(1);
    let gate = Gate::new();
    let witness = tempfile::tempdir().expect("a directory");
    let file = witness.path().join("it ran");
    let running = pool.submit(Pass(gate.path()));
    let pending = pool.submit(Touch(file.clone()));
    assert_eq!(pending.state(), FutureState::Pending);
    assert!(pending.cancel());
    assert_eq!(pending.state(), FutureState::Cancelled);
    assert!(!pending.cancel(), "it is cancelled already");
    assert_eq!(pending.result(), Err(TaskError::Cancelled));
    gate.open();
    running.result().expect("an output");
    pool.shutdown(Shutdown::Wait);
    assert!(!file.exists());
}

fn a_running_task_that_is_cancelled_is_ended_and_its_worker_replaced() {
    let pool = pool(1);
    let pid = pool.pids()[0];
    let gate = Gate::new();
    let running = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    assert!(running.cancel());
    assert_eq!(running.state(), FutureState::Cancelled);
    assert_eq!(running.result(), Err(TaskError::Cancelled));
    succeeds_with(&pool, 10);
    assert!(!is_alive(pid));
    await_workers(&pool);
}

fn a_running_task_with_others_in_its_worker_is_not_cancelled() {
    let pool = quiet().workers(1).concurrency(2).build().expect("a pool");
    let gate = Gate::new();
    let one = pool.submit(Pass(gate.path()));
    let other = pool.submit(Pass(gate.path()));
    gate.await_arrivals(2);
    assert!(!one.cancel());
    assert_eq!(one.state(), FutureState::Running);
    gate.open();
    assert_eq!(one.result(), other.result());
}

fn a_finished_task_is_not_cancelled() {
    let pool = pool(1);
    let finished = pool.submit(Echo("done".to_owned()));
    assert!(finished.wait_timeout(Duration::MAX));
    assert!(!finished.cancel());
    assert_eq!(finished.state(), FutureState::Finished);
    assert_eq!(finished.result(), Ok("done".to_owned()));
}

fn of_cancel_and_completion_exactly_one_wins() {
    let pool = pool(2);
    let witness = tempfile::tempdir().expect("a directory");
    let mut won = 0_u64;
    for n in 0..300 {
        let file = witness.path().join(n.to_string());
        let future = pool.submit(Touch(file.clone()));
        let others = pool.submit(Pid());
        let was_cancelled = future.cancel();
        let result = future.result();
        assert_eq!(result == Err(TaskError::Cancelled), was_cancelled, "{result:?}");
        others.result().expect("an output");
        won += u64::from(was_cancelled);
        assert!(was_cancelled || file.exists(), "it was not cancelled and did not run");
    }
    assert_eq!(pool.stats().cancelled, won);
}

fn a_wait_that_ends_early_leaves_the_task_alone() {
    let pool = pool(1);
    let gate = Gate::new();
    let future = pool.submit(Pass(gate.path()));
    let future = future.result_timeout(Duration::from_millis(10)).expect_err("it still runs");
    assert!(!future.is_done());
    gate.open();
    assert!(future.result_timeout(Duration::MAX).is_ok_and(|result| result.is_ok()));
}

fn dropping_a_future_leaves_the_task_alone() {
    let pool = pool(1);
    let witness = tempfile::tempdir().expect("a directory");
    for n in 0..20 {
        drop(pool.submit(Touch(witness.path().join(n.to_string()))));
    }
    pool.shutdown(Shutdown::Wait);
    assert_eq!(std::fs::read_dir(witness.path()).expect("a directory").count(), 20);
}

fn a_pool_that_is_dropped_cancels_everything() {
    let pool = pool(2);
    let pids = pool.pids();
    let gate = Gate::new();
    let futures: Vec<_> = (0..10).map(|_| pool.submit(Pass(gate.path()))).collect();
    gate.await_arrivals(2);
    drop(pool);
    assert_gone(&pids);
    assert!(futures.into_iter().all(|future| future.result() == Err(TaskError::Cancelled)));
}

fn futures_and_pool_may_be_dropped_in_any_order() {
    for seed in 0..12 {
        let pool = pool(2);
        let pids = pool.pids();
        let gate = Gate::new();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut values: Vec<Box<dyn std::any::Any>> = Vec::new();
        for n in 0..10 {
            values.push(match n % 3 {
                0 => Box::new(pool.submit(Pass(gate.path()))),
                1 => Box::new(pool.submit(Bad(Ending::Abort))),
                _ => Box::new(pool.submit(Pid())),
            });
        }
        values.push(Box::new(pool));
        random.shuffle(&mut values);
        drop(values);
        assert_gone(&pids);
    }
}

fn a_shutdown_that_waits_runs_every_task() {
    let pool = pool(2);
    let pids = pool.pids();
    let futures: Vec<_> = (0..200).map(|n| pool.submit(Echo(n.to_string()))).collect();
    pool.shutdown(Shutdown::Wait);
    assert_gone(&pids);
    assert!(pool.pids().is_empty());
    for (n, future) in futures.into_iter().enumerate() {
        assert!(future.is_done());
        assert_eq!(future.result(), Ok(n.to_string()));
    }
}

fn a_shutdown_that_cancels_runs_only_what_has_begun() {
    let pool = pool(2);
    let pids = pool.pids();
    let gate = Gate::new();
    let futures: Vec<_> = (0..10).map(|_| pool.submit(Pass(gate.path()))).collect();
    gate.await_arrivals(2);
    thread::scope(|scope| {
        scope.spawn(|| pool.shutdown(Shutdown::CancelPending));
        eventually("the pending cancelled", || {
            futures[2..].iter().all(|future| future.state() == FutureState::Cancelled)
        });
        assert!(futures[..2].iter().all(|future| future.state() == FutureState::Running));
        gate.open();
    });
    assert_gone(&pids);
    assert_eq!(gate.arrivals(), 2);
    assert!(futures.into_iter().take(2).all(|future| future.result().is_ok()));
}

fn a_shutdown_that_cancels_takes_back_what_was_sent_ahead() {
    let pool = pool(1);
    succeeds_with(&pool, 500);
    let witness = tempfile::tempdir().expect("a directory");
    let gate = Gate::new();
    let running = pool.submit(Pass(gate.path()));
    let file = |n: usize| witness.path().join(n.to_string());
    let behind: Vec<_> = (0..10).map(|n| pool.submit(Touch(file(n)))).collect();
    gate.await_arrivals(1);
    thread::scope(|scope| {
        scope.spawn(|| pool.shutdown(Shutdown::CancelPending));
        eventually("the rest cancelled", || {
            behind.iter().all(|future| future.state() == FutureState::Cancelled)
        });
        gate.open();
    });
    assert!(running.result().is_ok());
    assert_eq!(std::fs::read_dir(witness.path()).expect("a directory").count(), 0);
}

fn a_shutdown_that_kills_does_not_wait_for_tasks() {
    let pool = pool(2);
    let pids = pool.pids();
    let gate = Gate::new();
    let futures: Vec<_> = (0..10).map(|_| pool.submit(Pass(gate.path()))).collect();
    gate.await_arrivals(2);
    pool.shutdown(Shutdown::Kill);
    assert_gone(&pids);
    assert!(futures.into_iter().all(|future| future.result() == Err(TaskError::Cancelled)));
}

fn a_shutdown_succeeds_while_workers_start() {
    for how in ALL {
        let pool = quiet().workers(2).build().expect("a pool");
        let futures: Vec<_> = (0..10).map(|n| pool.submit(Echo(n.to_string()))).collect();
        pool.shutdown(how);
        assert!(pool.pids().is_empty());
        for (n, future) in futures.into_iter().enumerate() {
            assert!(future.is_done());
            match (how, future.result()) {
                (Shutdown::Wait, result) => assert_eq!(result, Ok(n.to_string())),
                (_, Ok(text)) => assert_eq!(text, n.to_string()),
                (_, Err(error)) => assert_eq!(error, TaskError::Cancelled),
            }
        }
        // And without tasks.
        quiet().workers(2).build().expect("a pool").shutdown(how);
    }
}

fn a_shutdown_succeeds_while_workers_are_replaced() {
    for how in ALL {
        let pool = pool(2);
        let mut futures = Vec::new();
        for _ in 0..4 {
            futures.push(pool.submit(Bad(Ending::Kill)));
            futures.push(pool.submit(Bad(Ending::Exit(0))));
        }
        let last = pool.submit(Echo("last".to_owned()));
        assert!(futures.remove(0).result().is_err());
        pool.shutdown(how);
        assert!(pool.pids().is_empty());
        assert!(futures.into_iter().all(|future| future.is_done()));
        assert!(last.is_done());
        if how == Shutdown::Wait {
            assert_eq!(last.result(), Ok("last".to_owned()));
        }
    }
}

fn a_shutdown_succeeds_when_all_workers_are_dead() {
    for how in ALL {
        let pool = pool(2);
        let gate = Gate::new();
        let futures: Vec<_> = (0..4).map(|_| pool.submit(Pass(gate.path()))).collect();
        gate.await_arrivals(2);
        for pid in pool.pids() {
            harness::signal(pid, Signal::KILL);
        }
        gate.open();
        pool.shutdown(how);
        assert!(futures.iter().all(procession::Future::is_done));
        assert!(pool.pids().is_empty());
    }
}

fn a_shutdown_ends_a_worker_that_is_stopped() {
    for how in [Shutdown::CancelPending, Shutdown::Kill] {
        let pool = pool(2);
        let pids = pool.pids();
        harness::signal(pids[0], Signal::STOP);
        pool.shutdown(how);
        assert_gone(&pids);
    }
}

fn a_second_shutdown_may_be_stricter() {
    let pool = pool(1);
    let gate = Gate::new();
    let running = pool.submit(Pass(gate.path()));
    let pending = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    thread::scope(|scope| {
        scope.spawn(|| pool.shutdown(Shutdown::Wait));
        scope.spawn(|| {
            pool.shutdown(Shutdown::CancelPending);
        });
        eventually("the pending task cancelled", || pending.is_done());
        assert_eq!(running.state(), FutureState::Running);
        pool.shutdown(Shutdown::Kill);
        assert_eq!(running.state(), FutureState::Cancelled);
    });
    pool.shutdown(Shutdown::Wait);
}

fn many_threads_may_shut_down_at_once() {
    let pool = pool(2);
    let pids = pool.pids();
    let futures: Vec<_> = (0..100).map(|_| pool.submit(Pid())).collect();
    thread::scope(|scope| {
        for how in ALL.repeat(3) {
            let (pool, pids, futures) = (&pool, &pids, &futures);
            scope.spawn(move || {
                pool.shutdown(how);
                assert_gone(pids);
                assert!(futures.iter().all(procession::Future::is_done));
            });
        }
    });
}

fn tasks_submitted_after_a_shutdown_are_refused() {
    for how in ALL {
        let pool = pool(1);
        pool.shutdown(how);
        let refused = pool.submit(Pid());
        assert_eq!(refused.state(), FutureState::Finished);
        assert_eq!(refused.result(), Err(TaskError::PoolBroken(PoolError::ShutDown)));
    }
}

fn tasks_submitted_during_a_shutdown_are_refused_or_run() {
    let pool = pool(2);
    thread::scope(|scope| {
        let submits = scope
            .spawn(|| (0..2000).map(|n| (n, pool.submit(Echo(n.to_string())))).collect::<Vec<_>>());
        succeeds_with(&pool, 50);
        pool.shutdown(Shutdown::Wait);
        let mut was_refused = false;
        for (n, future) in submits.join().expect("no panic") {
            match future.result() {
                Ok(text) => assert!(text == n.to_string() && !was_refused),
                Err(error) => {
                    assert_eq!(error, TaskError::PoolBroken(PoolError::ShutDown));
                    was_refused = true;
                }
            }
        }
    });
}
