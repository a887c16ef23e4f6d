//! `map`: the order of results, how many tasks it takes ahead, and its drop.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, Shutdown, TaskError};

use crate::harness::Gate;
use crate::tasks::{Bad, Echo, Ending, Pass, Seat};
use crate::{Kind, block_on, echo};

pub(crate) fn trials() -> Vec<Trial> {
    trials! {
        ALL: [
            map_keeps_the_order_and_the_errors_in_place,
            map_folds_what_it_would_yield,
            map_takes_a_bounded_number_of_tasks_ahead,
            map_works_on_an_endless_iterator,
            map_does_not_call_an_iterator_after_its_end,
            map_knows_its_length_and_stays_at_its_end,
            map_keyed_yields_each_key_with_the_result_of_its_task,
            map_unordered_yields_each_result_once_with_the_index_of_its_task,
            map_is_awaited_and_is_a_stream_in_the_order_of_the_tasks,
            map_unordered_is_awaited_and_is_a_stream,
            map_unordered_takes_a_bounded_number_of_tasks_ahead,
            map_unordered_works_on_an_endless_iterator,
        ],
        CONCURRENT: [
            map_unordered_yields_results_behind_one_that_is_not_done,
            map_unordered_wakes_async_code_that_waits,
            a_task_that_waits_in_map_unordered_for_others_of_its_executor_gets_their_results,
            dropping_a_map_unordered_cancels_what_waits,
            dropping_a_map_cancels_what_waits,
            dropping_a_map_finishes_what_runs,
        ],
    }
}

fn map_keeps_the_order_and_the_errors_in_place(kind: Kind) {
    let executor = kind.of(2);
    let endings = (0..60).map(|n| if n % 7 == 3 { Ending::Fail } else { Ending::None });
    let results: Vec<_> = executor.map(endings.map(Bad)).map(|result| result.is_ok()).collect();
    assert_eq!(results, (0..60).map(|n| n % 7 != 3).collect::<Vec<_>>());
    let echoes = executor.map((0..60).map(|n| Echo(n.to_string())));
    assert!(echoes.into_iter().eq((0..60).map(|n| Ok(n.to_string()))));
}

fn map_folds_what_it_would_yield(kind: Kind) {
    let executor = kind.of(2);
    for number in [0, 1, 40, 9_000] {
        let mut results = executor.map((0..number).map(|n| Echo(n.to_string())));
        let mut folded: Vec<_> = results.by_ref().take(10).collect();
        results.for_each(|result| folded.push(result));
        assert!(folded.into_iter().eq((0..number).map(|n| Ok(n.to_string()))));
    }
    let mut seen = 0;
    let results = executor.map((0..).map(|n| Echo(n.to_string())));
    let panic = catch_unwind(AssertUnwindSafe(|| {
        results.for_each(|_| {
            seen += 1;
            assert!(seen < 5_000, "on purpose");
        });
    }));
    assert!(panic.is_err());
    assert_eq!(executor.submit(Echo("x".to_owned())).result(), Ok("x".to_owned()));
}

fn map_takes_a_bounded_number_of_tasks_ahead(kind: Kind) {
    let executor = kind.of(2);
    let taken = AtomicUsize::new(0);
    let tasks = (0..100_000).map(|n| {
        taken.fetch_add(1, Ordering::SeqCst);
        Echo(n.to_string())
    });
    let mut results = executor.map(tasks);
    assert_eq!(
        taken.load(Ordering::SeqCst),
        0,
        "nothing is taken before the first result is asked for"
    );
    for consumed in 1..=70_000 {
        assert!(results.next().is_some());
        let ahead = taken.load(Ordering::SeqCst) - consumed;
        // A pool hands four chunks per worker over, of at most 1,024 tasks each. If the tasks become long,
        // single tasks follow.
        let max = executor.ahead() + 2 * 4 * 1024;
        assert!(ahead <= max, "{ahead} tasks ahead");
    }
}

fn map_works_on_an_endless_iterator(kind: Kind) {
    let executor = kind.of(2);
    let echoes = executor.map((0..).map(|n: u32| Echo(n.to_string())));
    let first: Vec<_> = echoes.take(300).collect::<Result<_, _>>().expect("outputs");
    assert_eq!(first[299], "299");
}

fn map_does_not_call_an_iterator_after_its_end(kind: Kind) {
    let executor = kind.of(2);
    let mut asked = 0;
    let unfused = std::iter::from_fn(|| {
        asked += 1;
        (asked != 4).then(|| Echo(asked.to_string()))
    });
    let mut results = executor.map(unfused);
    assert_eq!(results.by_ref().count(), 3);
    assert!(results.next().is_none());
}

fn map_knows_its_length_and_stays_at_its_end(kind: Kind) {
    let executor = kind.of(2);
    let mut results = executor.map((0..3000).map(|n| Echo(n.to_string())).collect::<Vec<_>>());
    for left in (0..3000).rev() {
        assert!(results.next().is_some());
        assert_eq!(results.len(), left);
    }
    assert!(results.next().is_none() && results.next().is_none());
    let mut results = executor.map_unordered((0..30).map(|n| Echo(n.to_string())));
    for left in (0..30).rev() {
        assert!(results.next().is_some());
        assert_eq!(results.len(), left);
    }
    assert!(results.next().is_none() && results.next().is_none());
    let endless = executor.map((0..).map(|n: u32| Echo(n.to_string())));
    assert_eq!(endless.size_hint(), (usize::MAX, None));
}

fn map_keyed_yields_each_key_with_the_result_of_its_task(kind: Kind) {
    let executor = kind.of(2);
    let ending = |n| if n % 7 == 3 { Ending::Fail } else { Ending::None };
    let mut results = executor.map_keyed((0..3_000).map(|n| (n, Bad(ending(n)))));
    for n in 0..3_000 {
        let (key, result) = results.next().expect("a result");
        assert_eq!((key, result.is_ok()), (n, n % 7 != 3));
    }
    assert!(results.next().is_none());
}

fn map_unordered_yields_each_result_once_with_the_index_of_its_task(kind: Kind) {
    let executor = kind.of(2);
    for round in 0..3 {
        let ending = |n| if n % 7 == 3 { Ending::Fail } else { Ending::None };
        let results = executor.map_unordered((0..3_000).map(|n| Bad(ending(n))));
        let mut seen = vec![0; 3_000];
        for (index, result) in results {
            seen[index] += 1;
            assert_eq!(result.is_ok(), index % 7 != 3, "round {round}, task {index}");
        }
        assert!(seen.iter().all(|times| *times == 1));
    }
    let mut echoes: Vec<_> =
        executor.map_unordered((0..3_000).map(|n| Echo(n.to_string()))).collect();
    echoes.sort_unstable_by_key(|(index, _)| *index);
    assert!(echoes.into_iter().eq((0..3_000).map(|n| (n, Ok(n.to_string())))));
}

fn map_is_awaited_and_is_a_stream_in_the_order_of_the_tasks(kind: Kind) {
    use futures_core::Stream;
    let executor = kind.of(2);
    let outputs = || (0..3_000).map(|n| Ok(n.to_string()));
    let tasks = || (0..3_000).map(|n| Echo(n.to_string()));
    let (mut awaited, mut results) = (executor.map(tasks()), Vec::new());
    while let Some(result) = block_on(awaited.next_async()) {
        results.push(result);
        // Both ways in turn.
        if results.len() % 100 == 7 {
            results.extend(awaited.next());
        }
    }
    assert!(block_on(awaited.next_async()).is_none());
    assert!(results.into_iter().eq(outputs()));
    let mut stream = executor.map(tasks());
    assert_eq!(Stream::size_hint(&stream), (3_000, Some(3_000)));
    let mut next = || block_on(poll_fn(|context| Pin::new(&mut stream).poll_next(context)));
    assert!(std::iter::from_fn(&mut next).eq(outputs()));
    assert!(next().is_none());
}

fn map_unordered_is_awaited_and_is_a_stream(kind: Kind) {
    use futures_core::Stream;
    let executor = kind.of(2);
    let tasks = || (0..1_000).map(|n| Echo(n.to_string()));
    let in_order = |mut results: Vec<(usize, Result<String, TaskError>)>| {
        results.sort_unstable_by_key(|(index, _)| *index);
        assert!(results.into_iter().eq((0..1_000).map(|n| (n, Ok(n.to_string())))));
    };
    let (mut awaited, mut results) = (executor.map_unordered(tasks()), Vec::new());
    while let Some(result) = block_on(awaited.next_async()) {
        results.push(result);
    }
    assert!(block_on(awaited.next_async()).is_none());
    in_order(results);
    let mut stream = executor.map_unordered(tasks());
    assert_eq!(Stream::size_hint(&stream), (1_000, Some(1_000)));
    let mut next = || block_on(poll_fn(|context| Pin::new(&mut stream).poll_next(context)));
    in_order(std::iter::from_fn(&mut next).collect());
    assert!(next().is_none());
}

fn map_unordered_wakes_async_code_that_waits(kind: Kind) {
    let (executor, gates) = (kind.of(2), [Gate::new(), Gate::new()]);
    let mut results = executor.map_unordered(gates.iter().map(|gate| Pass(gate.path())));
    for index in [1, 0] {
        // A future that is dropped while it is pending loses nothing.
        for _ in 0..3 {
            let next = pin!(results.next_async());
            assert!(next.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        gates.iter().for_each(|gate| gate.await_arrivals(1));
        thread::scope(|scope| {
            scope.spawn(|| gates[index].open());
            let (yielded, result) = block_on(results.next_async()).expect("a result");
            assert!(yielded == index && result.is_ok());
        });
    }
    assert!(block_on(results.next_async()).is_none());
}

fn map_unordered_takes_a_bounded_number_of_tasks_ahead(kind: Kind) {
    let executor = kind.of(2);
    let taken = AtomicUsize::new(0);
    let tasks = (0..100_000).map(|n| {
        taken.fetch_add(1, Ordering::SeqCst);
        Echo(n.to_string())
    });
    let mut results = executor.map_unordered(tasks);
    assert_eq!(taken.load(Ordering::SeqCst), 0, "nothing is taken before the first result");
    for consumed in 1..=20_000 {
        assert!(results.next().is_some());
        let ahead = taken.load(Ordering::SeqCst) - consumed;
        // Four chunks per worker, and one that has arrived.
        let max = executor.ahead().max((2 * 4 + 1) * 1024);
        assert!(ahead <= max, "{ahead} tasks ahead");
    }
}

fn map_unordered_works_on_an_endless_iterator(kind: Kind) {
    let executor = kind.of(2);
    let echoes = executor.map_unordered((0..).map(|n: u32| Echo(n.to_string())));
    let mut right = 0;
    for (index, result) in echoes.take(300) {
        right += usize::from(result == Ok(index.to_string()));
    }
    assert_eq!(right, 300);
}

fn map_unordered_yields_results_behind_one_that_is_not_done(kind: Kind) {
    let executor = kind.of(2);
    let (shut, open) = (Gate::new(), Gate::new());
    open.open();
    let path = |n| if n == 0 { shut.path() } else { open.path() };
    let mut results = executor.map_unordered((0..100).map(|n| Pass(path(n))));
    for _ in 1..100 {
        assert!(results.next().is_some_and(|(index, result)| index > 0 && result.is_ok()));
    }
    shut.open();
    assert!(results.next().is_some_and(|(index, result)| index == 0 && result.is_ok()));
    assert!(results.next().is_none());
}

fn a_task_that_waits_in_map_unordered_for_others_of_its_executor_gets_their_results(kind: Kind) {
    let executor = kind.of(1);
    let inner = std::sync::Arc::clone(&executor);
    let (sender, summed) = std::sync::mpsc::channel();
    // A callback is called for the executor, on a thread that the tasks may need.
    echo(&*executor, "x").on_done(move |_| {
        let results = inner.map_unordered((0..50).map(|n| Echo(n.to_string())));
        let right = results.filter(|(index, result)| *result == Ok(index.to_string())).count();
        let _ = sender.send(right);
    });
    assert_eq!(summed.recv_timeout(Duration::from_secs(50)), Ok(50));
}

fn dropping_a_map_unordered_cancels_what_waits(kind: Kind) {
    let executor = kind.of(1);
    let (first, gate) = (Gate::new(), Gate::new());
    first.open();
    let paths = std::iter::once(first.path()).chain(std::iter::repeat(gate.path()));
    let mut results = executor.map_unordered(paths.map(Pass));
    assert!(results.next().is_some_and(|(index, result)| index == 0 && result.is_ok()));
    gate.await_arrivals(1);
    drop(results);
    gate.open();
    executor.shutdown(Shutdown::Wait);
    // A process may have been given more than one ahead of their begin.
    assert!(gate.arrivals() <= 2, "{}", gate.arrivals());
}

fn dropping_a_map_cancels_what_waits(kind: Kind) {
    let executor = kind.of(1);
    let (first, gate) = (Gate::new(), Gate::new());
    let mut results =
        executor.map(std::iter::once(first.path()).chain(std::iter::repeat(gate.path())).map(Pass));
    thread::scope(|scope| {
        scope.spawn(|| {
            first.await_arrivals(1);
            // After a short task, a process would get the next tasks ahead of their begin.
            thread::sleep(Duration::from_millis(50));
            first.open();
        });
        assert!(results.next().is_some_and(|result| result.is_ok()));
    });
    gate.await_arrivals(1);
    drop(results);
    gate.open();
    executor.shutdown(Shutdown::Wait);
    assert_eq!(gate.arrivals(), 1);
}

fn dropping_a_map_finishes_what_runs(kind: Kind) {
    let executor = kind.of(1);
    let (before, gate) = (executor.submit(Seat()).result().expect("a seat"), Gate::new());
    let open = Gate::new();
    open.open();
    let paths = std::iter::once(open.path()).chain(std::iter::repeat(gate.path()));
    let mut results = executor.map(paths.map(Pass));
    assert!(results.next().is_some_and(|result| result.is_ok()));
    gate.await_arrivals(1);
    drop(results);
    gate.open();
    let after = executor.submit(Seat()).result().expect("a seat");
    assert_eq!(before.1, after.1, "the worker process lives on");
    executor.shutdown(Shutdown::Wait);
    assert_eq!(gate.arrivals(), 1, "nothing else was begun");
}
