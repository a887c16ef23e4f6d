//! `map`: the order of results, how many tasks it takes ahead, and its drop.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, Shutdown};

use crate::Kind;
use crate::harness::Gate;
use crate::tasks::{Bad, Echo, Ending, Pass, Seat};

pub(crate) fn trials() -> Vec<Trial> {
    trials! {
        ALL: [
            map_keeps_the_order_and_the_errors_in_place,
            map_takes_a_bounded_number_of_tasks_ahead,
            map_works_on_an_endless_iterator,
            map_does_not_call_an_iterator_after_its_end,
        ],
        CONCURRENT: [
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
        // A process pool hands four chunks per worker over, of at most 1,024 tasks each.
        let max = executor.ahead().max(2 * 4 * 1024);
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
