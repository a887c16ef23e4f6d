//! `Future::map` and `Future::cancel_on_drop`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, FutureState, Shutdown, TaskError, Until, as_completed, wait};

use crate::harness::{Gate, ON_PURPOSE, eventually};
use crate::tasks::{Bad, Ending, Pass};
use crate::{Kind, block_on, echo};

pub(crate) fn trials() -> Vec<Trial> {
    trials! {
        ALL: [
            a_mapped_future_brings_what_the_function_makes_of_the_output,
            a_mapped_future_brings_the_error_of_its_task_and_does_not_call_the_function,
            a_panic_of_the_function_is_the_error_of_the_mapped_future,
            mapped_futures_are_awaited_and_waited_for_like_others,
            callbacks_get_the_result_before_the_function_does,
            a_future_that_was_awaited_maps_to_an_error,
        ],
        CONCURRENT: [
            a_mapped_future_has_the_id_and_the_state_of_its_task,
            a_mapped_future_that_waits_gets_the_output,
            a_mapped_future_cancels_its_task,
            a_dropped_future_leaves_its_task_alone_unless_it_cancels_on_drop,
            a_future_that_cancels_on_drop_and_is_done_has_its_result,
        ],
    }
}

fn a_mapped_future_brings_what_the_function_makes_of_the_output(kind: Kind) {
    let executor = kind.of(2);
    let mapped =
        |n: usize| echo(&*executor, &"x".repeat(n)).map(|text| text.len()).map(|len| len * 2);
    let futures: Vec<_> = (0..100).map(mapped).collect();
    for (n, future) in futures.into_iter().enumerate() {
        assert_eq!(future.result(), Ok(2 * n));
    }
    // One at a time: its caller may receive the reply itself.
    for n in 0..100 {
        assert_eq!(mapped(n).result(), Ok(2 * n));
    }
}

fn a_mapped_future_brings_the_error_of_its_task_and_does_not_call_the_function(kind: Kind) {
    let executor = kind.of(1);
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let mapped =
        executor.submit(Bad(Ending::Fail)).map(move |_| called.fetch_add(1, Ordering::SeqCst));
    assert!(matches!(mapped.result(), Err(TaskError::Failed(_))));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

fn a_panic_of_the_function_is_the_error_of_the_mapped_future(kind: Kind) {
    let executor = kind.of(1);
    let mapped = echo(&*executor, "x").map(|_| -> String { panic!("{ON_PURPOSE}") });
    match mapped.result() {
        Err(TaskError::Panicked { message, location: Some(location), .. }) => {
            assert_eq!(message, ON_PURPOSE);
            assert!(location.contains("mapped.rs"), "{location}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(echo(&*executor, "y").result(), Ok("y".to_owned()));
}

fn mapped_futures_are_awaited_and_waited_for_like_others(kind: Kind) {
    let executor = kind.of(2);
    let mapped = |n: usize| echo(&*executor, &"x".repeat(n)).map(|text| text.len());
    assert_eq!(block_on(mapped(3)), Ok(3));
    let sum: usize =
        as_completed((0..10).map(mapped)).map(|future| future.result().expect("a length")).sum();
    assert_eq!(sum, 45);
    let futures: Vec<_> = (0..10).map(mapped).collect();
    assert_eq!(wait(&futures, Until::AllCompleted, None).done.len(), 10);
}

fn callbacks_get_the_result_before_the_function_does(kind: Kind) {
    let executor = kind.of(1);
    let (sender, calls) = mpsc::channel();
    let (first, second) = (sender.clone(), sender);
    let future = echo(&*executor, "x");
    future.on_done(move |_| assert!(first.send("callback").is_ok()));
    let mapped = future.map(move |_| assert!(second.send("function").is_ok()));
    assert_eq!(mapped.result(), Ok(()));
    assert_eq!(calls.iter().collect::<Vec<_>>(), ["callback", "function"]);
}

fn a_future_that_was_awaited_maps_to_an_error(kind: Kind) {
    let executor = kind.of(1);
    let mut future = echo(&*executor, "x");
    assert_eq!(block_on(&mut future), Ok("x".to_owned()));
    assert_eq!(future.map(|text| text.len()).result(), Err(TaskError::AlreadyTaken));
}

fn a_mapped_future_has_the_id_and_the_state_of_its_task(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let future = executor.submit(Pass(gate.path()));
    let id = future.id();
    let mapped = future.map(|_| ());
    eventually("a running task", || mapped.state() == FutureState::Running);
    let behind = executor.submit(Pass(gate.path())).map(|_| ()).map(|()| 1);
    assert_eq!((mapped.id(), behind.state()), (id, FutureState::Pending));
    gate.open();
    assert_eq!(behind.result(), Ok(1));
    assert_eq!(mapped.state(), FutureState::Finished);
}

fn a_mapped_future_that_waits_gets_the_output(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let mapped = executor.submit(Pass(gate.path())).map(|_| "mapped");
    let waiter = std::thread::spawn(move || mapped.result());
    gate.await_arrivals(1);
    gate.open();
    assert_eq!(waiter.join().expect("no panic"), Ok("mapped"));
}

fn a_mapped_future_cancels_its_task(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let _first = executor.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let mapped = executor.submit(Pass(gate.path())).map(|_| ());
    assert!(mapped.cancel() && mapped.is_done());
    assert_eq!(mapped.result(), Err(TaskError::Cancelled));
    gate.open();
    executor.shutdown(Shutdown::Wait);
    assert_eq!(gate.arrivals(), 1);
}

fn a_dropped_future_leaves_its_task_alone_unless_it_cancels_on_drop(kind: Kind) {
    let executor = kind.of(1);
    let (gate, kept, cancelled) = (Gate::new(), Gate::new(), Gate::new());
    kept.open();
    cancelled.open();
    let _first = executor.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    drop(executor.submit(Pass(kept.path())));
    drop(executor.submit(Pass(cancelled.path())).cancel_on_drop());
    drop(executor.submit(Pass(cancelled.path())).cancel_on_drop().map(|_| ()));
    drop(executor.submit(Pass(cancelled.path())).map(|_| ()).cancel_on_drop());
    let late = executor.submit(Pass(cancelled.path())).cancel_on_drop();
    let late =
        late.result_timeout(Duration::from_millis(1)).expect_err("a future that is not done");
    drop(late);
    gate.open();
    executor.shutdown(Shutdown::Wait);
    assert_eq!((kept.arrivals(), cancelled.arrivals()), (1, 0));
}

fn a_future_that_cancels_on_drop_and_is_done_has_its_result(kind: Kind) {
    let executor = kind.of(1);
    assert_eq!(echo(&*executor, "x").cancel_on_drop().result(), Ok("x".to_owned()));
    assert_eq!(block_on(echo(&*executor, "y").cancel_on_drop()), Ok("y".to_owned()));
    let mapped = echo(&*executor, "z").cancel_on_drop().map(|text| text.len());
    assert_eq!(mapped.result(), Ok(1));
}
