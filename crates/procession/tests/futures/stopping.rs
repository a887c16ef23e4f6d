//! Tasks that are asked to stop and cannot be ended, because they run on threads of this process.

use std::thread;

use libtest_mimic::Trial;
use procession::{Executor, Shutdown};

use crate::Kind;
use crate::harness::Gate;
use crate::tasks::{AtStop, Pass, UntilStopped};

pub(crate) fn trials() -> Vec<Trial> {
    trials! {
        THREADED: [
            a_running_task_that_is_cancelled_is_asked_to_stop,
            a_mapped_future_asks_its_task_to_stop,
            a_shutdown_that_kills_asks_running_tasks_to_stop,
            other_tasks_are_not_asked_to_stop,
        ],
    }
}

fn a_running_task_that_is_cancelled_is_asked_to_stop(kind: Kind) {
    let (executor, gate) = (kind.of(1), Gate::new());
    let future = executor.submit(UntilStopped(gate.path(), AtStop::Return));
    gate.await_arrivals(1);
    assert!(!future.cancel(), "a thread cannot be killed");
    assert_eq!(future.result(), Ok(1));
}

fn a_mapped_future_asks_its_task_to_stop(kind: Kind) {
    let (executor, gate) = (kind.of(1), Gate::new());
    let future = executor.submit(UntilStopped(gate.path(), AtStop::Return));
    let mapped = future.map(|attempt| attempt + 1).map(|attempt| attempt + 1);
    gate.await_arrivals(1);
    assert!(!mapped.cancel());
    assert_eq!(mapped.result(), Ok(3));
}

fn a_shutdown_that_kills_asks_running_tasks_to_stop(kind: Kind) {
    let (executor, gate) = (kind.of(1), Gate::new());
    let future = executor.submit(UntilStopped(gate.path(), AtStop::Return));
    gate.await_arrivals(1);
    executor.shutdown(Shutdown::Kill);
    assert_eq!(future.result(), Ok(1));
}

fn other_tasks_are_not_asked_to_stop(kind: Kind) {
    let (executor, gate, stops) = (kind.of(2), Gate::new(), Gate::new());
    let first = executor.submit(UntilStopped(stops.path(), AtStop::Return));
    stops.await_arrivals(1);
    let second = thread::scope(|scope| {
        let submitted = scope.spawn(|| executor.submit(Pass(gate.path())));
        submitted.join().expect("no panic")
    });
    assert!(!first.cancel());
    assert_eq!(first.result(), Ok(1));
    gate.await_arrivals(1);
    gate.open();
    assert!(second.result().is_ok());
    let third = executor.submit(UntilStopped(stops.path(), AtStop::Return));
    stops.await_arrivals(2);
    assert!(!third.is_done());
    third.cancel();
    assert_eq!(third.result(), Ok(1));
}
