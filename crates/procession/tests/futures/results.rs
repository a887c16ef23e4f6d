//! The result of one future, its state, cancelling and awaiting it.

use std::collections::HashSet;
use std::error::Error;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, Future, FutureState, TaskError, Until, wait};

use crate::harness::{Gate, eventually};
use crate::tasks::{Bad, Ending, Pass, Seat, Touch};
use crate::{Kind, block_on, echo};

pub(crate) fn trials() -> Vec<Trial> {
    trials! {
        ALL: [
            a_future_brings_the_output,
            a_future_brings_the_error_with_its_causes,
            a_future_brings_the_panic_with_its_location,
            each_future_has_an_id_of_its_own,
            a_finished_future_shows_what_it_has,
            a_finished_future_cannot_be_cancelled,
            a_result_that_is_there_needs_no_wait,
            a_future_can_be_awaited,
            a_future_that_was_awaited_has_no_result_any_more,
            many_threads_submit_at_once,
            a_task_knows_its_worker_and_attempt,
        ],
        CONCURRENT: [
            the_states_follow_each_other,
            a_pending_task_can_be_cancelled_and_never_runs,
            a_wait_for_a_result_can_end_early,
            an_awaited_future_wakes_its_task,
        ],
    }
}

fn a_future_brings_the_output(kind: Kind) {
    assert_eq!(echo(&*kind.of(1), "ünï").result(), Ok("ünï".to_owned()));
}

fn a_future_brings_the_error_with_its_causes(kind: Kind) {
    let error = kind.of(1).submit(Bad(Ending::Fail)).result().expect_err("an error");
    assert!(matches!(error, TaskError::Failed(_)));
    assert_eq!(error.to_string(), "the outer error");
    let cause = error.source().expect("a cause");
    assert_eq!(cause.to_string(), "the inner error");
    assert!(cause.source().is_none());
}

fn a_future_brings_the_panic_with_its_location(kind: Kind) {
    let error = kind.of(1).submit(Bad(Ending::Panic)).result().expect_err("an error");
    let TaskError::Panicked { message, location, .. } = error else { panic!("{error:?}") };
    assert_eq!(message, "on purpose");
    assert!(location.expect("a location").contains("tasks.rs:"));
}

fn each_future_has_an_id_of_its_own(kind: Kind) {
    let executor = kind.of(1);
    let futures: Vec<_> = (0..20).map(|_| echo(&*executor, "")).collect();
    let ids: Vec<_> = futures.iter().map(Future::id).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 20);
    assert!(ids.is_sorted(), "in the order of submission");
}

fn a_finished_future_shows_what_it_has(kind: Kind) {
    let executor = kind.of(1);
    let (text, unit) = (echo(&*executor, ""), executor.submit(Bad(Ending::Panic)));
    let failed = executor.submit(Bad(Ending::Fail));
    assert!(text.wait_timeout(Duration::MAX));
    wait([&unit, &failed], Until::AllCompleted, None);
    assert_eq!((text.state(), unit.state()), (FutureState::Finished, FutureState::Finished));
    assert_eq!(format!("{text:?}"), "<Future state=finished returned String>");
    assert_eq!(format!("{unit:?}"), "<Future state=finished raised Panicked>");
    assert_eq!(format!("{failed:?}"), "<Future state=finished raised Failed>");
}

fn a_finished_future_cannot_be_cancelled(kind: Kind) {
    let executor = kind.of(1);
    let future = echo(&*executor, "done");
    assert!(future.wait_timeout(Duration::MAX));
    assert!(!future.cancel());
    assert_eq!(future.state(), FutureState::Finished);
    assert_eq!(future.result(), Ok("done".to_owned()));
}

fn a_result_that_is_there_needs_no_wait(kind: Kind) {
    let executor = kind.of(1);
    let future = echo(&*executor, "done");
    assert!(future.wait_timeout(Duration::MAX));
    assert!(future.is_done());
    assert_eq!(future.result_timeout(Duration::ZERO).expect("it is there"), Ok("done".to_owned()));
}

fn a_future_can_be_awaited(kind: Kind) {
    let executor = kind.of(2);
    let texts = block_on(async {
        let (first, second) = (echo(&*executor, "a"), echo(&*executor, "b"));
        let failed = executor.submit(Bad(Ending::Fail));
        assert!(matches!(failed.await, Err(TaskError::Failed(_))));
        Ok::<_, TaskError>(second.await? + &first.await?)
    });
    assert_eq!(texts, Ok("ba".to_owned()));
}

fn a_future_that_was_awaited_has_no_result_any_more(kind: Kind) {
    let executor = kind.of(1);
    let mut future = echo(&*executor, "once");
    assert_eq!(block_on(&mut future), Ok("once".to_owned()));
    assert_eq!(future.state(), FutureState::Finished);
    assert!(future.is_done() && !future.cancel());
    let (sender, called) = mpsc::channel();
    future.on_done(move |result| sender.send(result.clone()).unwrap());
    assert_eq!(called.try_recv(), Ok(Err(TaskError::AlreadyTaken)));
    assert_eq!(block_on(&mut future), Err(TaskError::AlreadyTaken));
    assert_eq!(future.result(), Err(TaskError::AlreadyTaken));
}

fn many_threads_submit_at_once(kind: Kind) {
    let executor = kind.of(2);
    thread::scope(|scope| {
        for thread in 0..6 {
            let executor = &executor;
            scope.spawn(move || {
                let text = |n| format!("{thread}/{n}");
                let futures: Vec<_> = (0..50).map(|n| echo(&**executor, &text(n))).collect();
                for (n, future) in futures.into_iter().enumerate() {
                    assert_eq!(future.result(), Ok(text(n)));
                }
            });
        }
    });
}

fn a_task_knows_its_worker_and_attempt(kind: Kind) {
    let size = kind.workers(3);
    for seat in kind.of(size).map((0..30).map(|_| Seat())) {
        let (worker, _, attempt) = seat.expect("a seat");
        assert!(worker < size);
        assert_eq!(attempt, 1);
    }
}

fn the_states_follow_each_other(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let (first, second) = (executor.submit(Pass(gate.path())), executor.submit(Pass(gate.path())));
    gate.await_arrivals(1);
    assert_eq!((first.state(), second.state()), (FutureState::Running, FutureState::Pending));
    assert_eq!(format!("{first:?} {second:?}"), "<Future state=running> <Future state=pending>");
    gate.open();
    assert!(second.wait_timeout(Duration::MAX));
    assert_eq!((first.state(), second.state()), (FutureState::Finished, FutureState::Finished));
    assert_eq!(second.state().to_string(), "finished");
}

fn a_pending_task_can_be_cancelled_and_never_runs(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let file = gate.path().join("open");
    let running = executor.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    // If it ran, it would open the gate of the other one.
    let pending = executor.submit(Touch(file.clone()));
    let (sender, called) = mpsc::channel();
    pending.on_done(move |result| sender.send(result.clone()).unwrap());
    assert!(pending.cancel());
    assert_eq!(called.try_recv(), Ok(Err(TaskError::Cancelled)));
    assert_eq!(format!("{pending:?}"), "<Future state=cancelled>");
    assert!(!file.exists());
    gate.open();
    assert!(running.result().is_ok());
    assert_eq!(pending.result(), Err(TaskError::Cancelled));
}

fn a_wait_for_a_result_can_end_early(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let future = executor.submit(Pass(gate.path()));
    assert!(!future.wait_timeout(Duration::ZERO));
    let future = future.result_timeout(Duration::from_millis(5)).expect_err("it still runs");
    gate.open();
    assert!(future.result().is_ok());
}

fn an_awaited_future_wakes_its_task(kind: Kind) {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let executor = kind.of(1);
    let gate = Gate::new();
    let mut future = pin!(executor.submit(Pass(gate.path())));
    let [early, late] = [0, 1].map(|_| Arc::new(Count(AtomicUsize::new(0))));
    for count in [&early, &late] {
        let waker = Waker::from(Arc::clone(count));
        let polled = std::future::Future::poll(future.as_mut(), &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    assert_eq!(late.0.load(Ordering::SeqCst), 0);
    gate.open();
    eventually("a wake-up", || late.0.load(Ordering::SeqCst) == 1);
    assert_eq!(early.0.load(Ordering::SeqCst), 0, "only the last waker is woken");
    assert!(block_on(future).is_ok());
}
