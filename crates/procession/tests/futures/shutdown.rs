//! The end of an executor.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, Future, FutureState, PoolError, Shutdown, TaskError};

use crate::harness::Gate;
use crate::tasks::Pass;
use crate::{Kind, echo};

pub(crate) fn trials() -> Vec<Trial> {
    trials! {
        ALL: [
            a_shut_down_executor_refuses_tasks,
            an_executor_can_be_shut_down_twice,
        ],
        CONCURRENT: [
            a_shutdown_that_waits_finishes_everything,
            a_shutdown_that_cancels_finishes_what_runs,
            a_shutdown_after_one_from_a_callback_waits,
            every_shutdown_at_once_waits,
            callbacks_may_shut_down_their_executor,
        ],
    }
}

fn a_shut_down_executor_refuses_tasks(kind: Kind) {
    for how in [Shutdown::Wait, Shutdown::CancelPending, Shutdown::Kill] {
        let executor = kind.of(1);
        executor.shutdown(how);
        let refused = echo(&*executor, "too late");
        assert_eq!(format!("{refused:?}"), "<Future state=finished raised PoolBroken>");
        assert_eq!(refused.result(), Err(TaskError::PoolBroken(PoolError::ShutDown)));
    }
}

fn an_executor_can_be_shut_down_twice(kind: Kind) {
    let executor = kind.of(2);
    let future = echo(&*executor, "before");
    executor.shutdown(Shutdown::Wait);
    executor.shutdown(Shutdown::Wait);
    executor.shutdown(Shutdown::Kill);
    assert_eq!(future.result(), Ok("before".to_owned()));
}

fn a_shutdown_that_waits_finishes_everything(kind: Kind) {
    let executor = kind.of(2);
    let futures: Vec<_> = (0..50).map(|n| echo(&*executor, &n.to_string())).collect();
    executor.shutdown(Shutdown::Wait);
    for (n, future) in futures.into_iter().enumerate() {
        assert!(future.is_done());
        assert_eq!(future.result(), Ok(n.to_string()));
    }
}

fn a_shutdown_that_cancels_finishes_what_runs(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let running = executor.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let pending = executor.submit(Pass(gate.path()));
    pending.on_done({
        let gate = gate.path();
        move |result| {
            assert_eq!(*result, Err(TaskError::Cancelled));
            std::fs::write(gate.join("open"), "").expect("an opened gate");
        }
    });
    executor.shutdown(Shutdown::CancelPending);
    assert_eq!(pending.state(), FutureState::Cancelled);
    assert!(running.is_done() && running.result().is_ok());
}

fn a_shutdown_after_one_from_a_callback_waits(kind: Kind) {
    let executor = kind.of(1);
    let (first, second) = (Gate::new(), Gate::new());
    let future = executor.submit(Pass(first.path()));
    let last = executor.submit(Pass(second.path()));
    let (sender, returned) = mpsc::channel();
    let its_executor = Arc::clone(&executor);
    future.on_done(move |_| {
        its_executor.shutdown(Shutdown::Wait);
        let _ = sender.send(());
    });
    first.open();
    returned.recv().expect("the callback's shutdown returns at once");
    second.await_arrivals(1);
    let opens = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        second.open();
        second
    });
    executor.shutdown(Shutdown::Wait);
    assert!(last.is_done());
    drop(opens.join());
}

fn every_shutdown_at_once_waits(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let future = executor.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                executor.shutdown(Shutdown::Wait);
                assert!(future.is_done());
            });
        }
        thread::sleep(Duration::from_millis(30));
        gate.open();
    });
}

fn callbacks_may_shut_down_their_executor(kind: Kind) {
    for how in [Shutdown::Wait, Shutdown::CancelPending, Shutdown::Kill] {
        let executor = kind.of(2);
        let gate = Gate::new();
        let futures: Vec<_> = (0..6).map(|_| executor.submit(Pass(gate.path()))).collect();
        for future in &futures {
            let its_executor = Arc::clone(&executor);
            future.on_done(move |_| its_executor.shutdown(how));
        }
        gate.open();
        executor.shutdown(how);
        assert!(futures.iter().all(Future::is_done));
    }
}
