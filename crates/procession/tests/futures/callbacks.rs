//! Callbacks: their order, and what they may do.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Engine, Executor, Future, Shutdown, TaskError, Until, as_completed, wait};

use crate::harness::Gate;
use crate::tasks::{Echo, Pass, Seat};
use crate::{Kind, Shared, block_on, echo};

pub(crate) fn trials() -> Vec<Trial> {
    trials! {
        ALL: [
            callbacks_are_called_in_order_before_the_result_can_be_had,
            a_callback_on_a_finished_future_is_called_at_once,
            a_callback_that_panics_does_not_affect_others,
            a_callback_may_submit_a_hundred_tasks_in_a_chain,
        ],
        CONCURRENT: [
            a_callback_may_wait_in_every_way_for_tasks_of_its_executor,
            callbacks_may_wait_for_futures_whose_callbacks_come_later,
            a_callback_that_waits_for_its_own_future_is_refused,
            of_two_callbacks_that_wait_for_each_other_one_is_refused,
        ],
        QUEUED: [callbacks_may_wait_for_each_other_in_the_shutdown_that_cancels_both],
    }
}

/// A task that waits at a gate, so that its future gets callbacks before it ends; not if it runs on
/// the thread that submits it.
fn held_back(kind: Kind, executor: &dyn Engine) -> (Future<u32>, Gate) {
    let gate = Gate::new();
    if kind == Kind::Sequential {
        gate.open();
    }
    (executor.submit(Pass(gate.path())), gate)
}

fn callbacks_are_called_in_order_before_the_result_can_be_had(kind: Kind) {
    let executor = kind.of(1);
    let (future, gate) = held_back(kind, &*executor);
    let calls = Arc::new(Mutex::new(Vec::new()));
    for n in 0..5 {
        let calls = Arc::clone(&calls);
        future.on_done(move |result| {
            assert!(result.is_ok());
            thread::sleep(Duration::from_millis(5));
            calls.lock().expect("no panic").push(n);
        });
    }
    gate.open();
    assert!(future.result().is_ok());
    assert_eq!(*calls.lock().expect("no panic"), [0, 1, 2, 3, 4]);
}

fn a_callback_on_a_finished_future_is_called_at_once(kind: Kind) {
    let executor = kind.of(1);
    let future = echo(&*executor, "done");
    assert!(future.wait_timeout(Duration::MAX));
    let (sender, called) = mpsc::channel();
    future.on_done(move |result| sender.send((thread::current().id(), result.clone())).unwrap());
    assert_eq!(called.try_recv(), Ok((thread::current().id(), Ok("done".to_owned()))));
    assert_eq!(future.result(), Ok("done".to_owned()), "it is still there");
}

fn a_callback_that_panics_does_not_affect_others(kind: Kind) {
    let executor = kind.of(1);
    let (future, gate) = held_back(kind, &*executor);
    let (sender, called) = mpsc::channel();
    future.on_done(|_| panic!("on purpose"));
    future.on_done(move |_| sender.send("the next one").unwrap());
    gate.open();
    assert!(future.wait_timeout(Duration::MAX));
    future.on_done(|_| panic!("on purpose"));
    assert_eq!(called.recv(), Ok("the next one"));
    assert!(future.result().is_ok());
    assert_eq!(echo(&*executor, "on").result(), Ok("on".to_owned()));
}

fn a_callback_may_submit_a_hundred_tasks_in_a_chain(kind: Kind) {
    fn link(executor: Shared, n: usize, ended: mpsc::Sender<usize>) {
        let future = echo(&*executor, &n.to_string());
        future.on_done(move |result| {
            assert_eq!(*result, Ok(n.to_string()));
            if n == 100 {
                ended.send(n).expect("a receiver");
            } else {
                link(executor, n + 1, ended);
            }
        });
    }
    let (sender, ended) = mpsc::channel();
    let executor = kind.of(2);
    link(Arc::clone(&executor), 1, sender);
    assert_eq!(ended.recv(), Ok(100));
}

fn a_callback_may_wait_in_every_way_for_tasks_of_its_executor(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let future = executor.submit(Pass(gate.path()));
    let (sender, waited) = mpsc::channel();
    let its_executor = Arc::clone(&executor);
    future.on_done(move |_| {
        let echo = |n: usize| echo(&*its_executor, &n.to_string());
        // Often: each time a thread takes the queue over and ends at a random time.
        for n in 0..1_000 {
            assert_eq!(echo(n).result(), Ok(n.to_string()));
        }
        assert_eq!(echo(1).result_timeout(Duration::MAX).expect("in time"), Ok("1".to_owned()));
        assert!(echo(2).wait_timeout(Duration::from_secs(50)));
        let futures: Vec<_> = (0..5).map(echo).collect();
        assert_eq!(wait(&futures, Until::AllCompleted, None).done.len(), 5);
        assert_eq!(as_completed((0..5).map(echo)).filter_map(|f| f.result().ok()).count(), 5);
        let echoes = its_executor.map((0..3_000).map(|n| Echo(n.to_string())));
        assert!(echoes.eq((0..3_000).map(|n| Ok(n.to_string()))));
        assert_eq!(block_on(echo(3)), Ok("3".to_owned()));
        // The callback of the task that this callback waits for waits as well.
        let (outer, again) = (echo(4), Arc::clone(&its_executor));
        outer.on_done(move |_| {
            assert!(again.submit(Echo("5".to_owned())).result().is_ok());
        });
        sender.send(outer.result()).expect("a receiver");
    });
    gate.open();
    assert_eq!(waited.recv(), Ok(Ok("4".to_owned())));
    assert!(future.result().is_ok());
    executor.shutdown(Shutdown::Wait);
}

fn callbacks_may_wait_for_futures_whose_callbacks_come_later(kind: Kind) {
    const NUMBER: usize = 20;
    let executor = kind.of(1);
    let gate = Gate::new();
    let first = executor.submit(Pass(gate.path()));
    let mut next: Option<Future<String>> = None;
    let (sender, called) = mpsc::channel();
    for n in (0..NUMBER).rev() {
        let future = echo(&*executor, &n.to_string());
        let (behind, sender) = (next.take(), sender.clone());
        future.on_done(move |_| {
            let result = behind.map(|future| future.result());
            sender.send((n, result.is_none_or(|result| result.is_ok()))).expect("a receiver");
        });
        next = Some(future);
    }
    gate.open();
    assert!(first.result().is_ok() && next.expect("the last one").result().is_ok());
    let mut calls: Vec<_> = called.iter().take(NUMBER).collect();
    calls.sort_unstable();
    assert!(calls.into_iter().eq((0..NUMBER).map(|n| (n, true))));
}

fn a_callback_that_waits_for_its_own_future_is_refused(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let place = Arc::new(Mutex::new(None));
    let future = executor.submit(Pass(gate.path()));
    let (sender, result) = mpsc::channel();
    let its_place = Arc::clone(&place);
    future.on_done(move |_| {
        let own: Future<u32> = its_place.lock().unwrap().take().expect("the future");
        assert!(!own.wait_timeout(Duration::MAX));
        assert_eq!(wait([&own], Until::AllCompleted, None).not_done.len(), 1);
        sender.send(own.result()).expect("a receiver");
    });
    *place.lock().unwrap() = Some(future);
    gate.open();
    assert_eq!(result.recv(), Ok(Err(TaskError::WouldDeadlock)));
    assert!(echo(&*executor, "on").result().is_ok());
}

fn of_two_callbacks_that_wait_for_each_other_one_is_refused(kind: Kind) {
    let executor = kind.of(2);
    let gate = Gate::new();
    let places = [(); 2].map(|()| Arc::new(Mutex::new(None)));
    let futures = [(); 2].map(|()| executor.submit(Pass(gate.path())));
    let (sender, results) = mpsc::channel();
    for n in 0..2 {
        let (other, sender) = (Arc::clone(&places[1 - n]), sender.clone());
        futures[n].on_done(move |_| {
            let other: Future<u32> = other.lock().unwrap().take().expect("the other one");
            sender.send(other.result().map(drop)).expect("a receiver");
        });
    }
    for (place, future) in places.iter().zip(futures) {
        *place.lock().unwrap() = Some(future);
    }
    gate.open();
    let mut results: Vec<_> = results.iter().take(2).collect();
    results.sort_unstable_by_key(Result::is_err);
    assert_eq!(results, [Ok(()), Err(TaskError::WouldDeadlock)]);
}

fn callbacks_may_wait_for_each_other_in_the_shutdown_that_cancels_both(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let running = executor.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let (first, second) = (executor.submit(Seat()), executor.submit(Seat()));
    let (sender, called) = mpsc::channel();
    let told = sender.clone();
    second.on_done(move |result| told.send(result.clone()).expect("a receiver"));
    first.on_done(move |_| sender.send(second.result()).expect("a receiver"));
    gate.open();
    executor.shutdown(Shutdown::CancelPending);
    let results: Vec<_> = called.try_iter().collect();
    assert!(results.len() == 2 && first.is_done() && running.is_done(), "{results:?}");
}
