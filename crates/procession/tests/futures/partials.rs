//! Partial results: what a task emits arrives typed and in order, before its result, on every executor.

use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream;
use libtest_mimic::Trial;
use procession::{Executor, Partial, PartialError, Partials, TaskError};

use crate::harness::Gate;
use crate::tasks::{Emit, Ending};
use crate::{Kind, block_on};

pub(crate) fn trials() -> Vec<Trial> {
    trials! {
        ALL: [
            they_arrive_in_order_and_are_there_after_the_result_too,
            a_task_that_emits_nothing_has_none,
            a_value_of_another_type_is_a_typed_error,
            a_mapped_future_has_those_of_its_task,
            a_stream_yields_them_as_well,
            what_is_not_read_is_kept_up_to_a_bound_and_then_counted,
        ],
        CONCURRENT: [
            they_arrive_before_the_task_is_done,
            async_code_gets_them_before_the_task_is_done,
            a_task_that_is_cancelled_has_an_end,
        ],
    }
}

fn texts(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}

fn emit(numbers: std::ops::Range<usize>) -> Emit {
    Emit(texts(numbers), None, Ending::None)
}

/// All that are left.
fn values(partials: Partials<String>) -> Vec<String> {
    let value = |partial: Result<Partial<String>, PartialError>| {
        let Partial { value, attempt, .. } = partial.expect("a value");
        assert_eq!(attempt, 1);
        value
    };
    partials.map(value).collect()
}

fn they_arrive_in_order_and_are_there_after_the_result_too(kind: Kind) {
    let executor = kind.of(2);
    let futures: Vec<_> = (0..20).map(|n| executor.submit(emit(n..n + 50))).collect();
    for (n, future) in futures.iter().enumerate() {
        assert_eq!(values(future.partials()), texts(n..n + 50));
    }
    let failed = executor.submit(Emit(texts(0..3), None, Ending::Fail));
    let partials = failed.partials();
    assert!(matches!(failed.result(), Err(TaskError::Failed(_))));
    assert_eq!(values(partials), texts(0..3));
}

fn a_task_that_emits_nothing_has_none(kind: Kind) {
    let executor = kind.of(1);
    let future = executor.submit(emit(0..0));
    assert_eq!(values(future.partials()), texts(0..0));
    assert_eq!(future.result(), Ok(()));
}

fn a_value_of_another_type_is_a_typed_error(kind: Kind) {
    let executor = kind.of(1);
    let future = executor.submit(emit(1..3));
    let mut partials = future.partials::<u64>();
    let error = partials.next().expect("a value").expect_err("a text is no number");
    assert!(matches!(&error, PartialError::Undecodable { expected: "u64", .. }), "{error:?}");
    assert_eq!(values(future.partials()), ["2"], "the others can still be read");
}

fn a_mapped_future_has_those_of_its_task(kind: Kind) {
    let executor = kind.of(1);
    let mapped = executor.submit(emit(0..3)).map(|()| 1).map(|n| n + 1);
    assert_eq!(values(mapped.partials()), texts(0..3));
    assert_eq!(mapped.result(), Ok(2));
}

fn a_stream_yields_them_as_well(kind: Kind) {
    let executor = kind.of(1);
    let future = executor.submit(emit(0..300));
    let mut partials = future.partials::<String>();
    for n in 0..300 {
        let next = block_on(poll_fn(|context| Pin::new(&mut partials).poll_next(context)));
        assert_eq!(next.expect("a value").expect("a text").value, n.to_string());
    }
    assert!(block_on(partials.next_async()).is_none());
    assert_eq!(block_on(future), Ok(()));
}

fn what_is_not_read_is_kept_up_to_a_bound_and_then_counted(kind: Kind) {
    let executor = kind.of(1);
    let future = executor.submit(emit(0..3_000));
    let mut partials = future.partials::<String>();
    assert_eq!(future.result(), Ok(()));
    let kept: Vec<_> = partials.by_ref().take(1024).collect();
    assert!(kept.iter().zip(texts(0..1024)).all(|(it, text)| it.as_ref().unwrap().value == text));
    assert_eq!(partials.next(), Some(Err(PartialError::Missed { number: 3_000 - 1024 })));
    assert_eq!(partials.next(), None);
}

fn they_arrive_before_the_task_is_done(kind: Kind) {
    let (executor, gate) = (kind.of(1), Gate::new());
    let future = executor.submit(Emit(texts(0..3), Some(gate.path()), Ending::None));
    let mut partials = future.partials::<String>();
    for n in 0..3 {
        let partial = partials.next().expect("a value").expect("a text");
        assert_eq!(partial.value, n.to_string());
    }
    assert!(!future.is_done());
    gate.open();
    assert_eq!(partials.next(), None);
    assert_eq!(future.result(), Ok(()));
}

fn async_code_gets_them_before_the_task_is_done(kind: Kind) {
    let (executor, gate) = (kind.of(1), Gate::new());
    let future = executor.submit(Emit(texts(0..3), Some(gate.path()), Ending::None));
    let mut partials = future.partials::<String>();
    block_on(async {
        for n in 0..3 {
            let partial = partials.next_async().await.expect("a value").expect("a text");
            assert_eq!(partial.value, n.to_string());
        }
        assert!(!future.is_done());
        gate.open();
        assert_eq!(partials.next_async().await, None);
        assert_eq!(future.await, Ok(()));
    });
}

fn a_task_that_is_cancelled_has_an_end(kind: Kind) {
    let (executor, gate) = (kind.of(1), Gate::new());
    let runs = executor.submit(Emit(texts(0..1), Some(gate.path()), Ending::None));
    let mut of_running = runs.partials::<String>();
    assert!(of_running.next().is_some());
    let waits = executor.submit(emit(0..3));
    assert!(waits.cancel());
    assert_eq!(values(waits.partials()), texts(0..0));
    gate.open();
    drop(executor);
    assert_eq!(of_running.next(), None);
}
