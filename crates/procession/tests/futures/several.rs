//! Several futures: `as_completed` and `wait`.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use procession::{Executor, Future, Until, as_completed, wait};

use crate::harness::{Gate, eventually};
use crate::tasks::{Bad, Ending, Pass};
use crate::{Kind, block_on, echo};

pub(crate) fn trials() -> Vec<Trial> {
    trials! {
        ALL: [
            as_completed_yields_each_future_once,
            as_completed_does_not_trust_a_size_hint,
            as_completed_of_nothing_is_empty,
            as_completed_is_awaited_and_is_a_stream_that_yields_each_future_once,
            waiting_for_finished_futures_returns_at_once,
            waiting_for_the_first_failure_finds_it,
            waiting_counts_duplicates_once,
        ],
        CONCURRENT: [
            as_completed_yields_in_the_order_of_completion,
            as_completed_wakes_async_code_in_the_order_of_completion,
            as_completed_stops_at_a_deadline_and_counts_unfinished_futures,
            waiting_for_the_first_completed_does_not_wait_for_others,
            waiting_for_the_first_failure_does_not_stop_at_a_success,
            waiting_for_all_ends_at_the_timeout,
            waiting_again_finds_further_futures,
        ],
    }
}

fn as_completed_is_awaited_and_is_a_stream_that_yields_each_future_once(kind: Kind) {
    use futures_core::Stream;
    let executor = kind.of(2);
    let futures = || (0..50).map(|n| echo(&*executor, &n.to_string()));
    let all: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    let mut completed = as_completed(futures());
    let mut outputs = Vec::new();
    while let Some(future) = block_on(completed.next_async()) {
        assert!(future.is_done());
        outputs.push(block_on(future).expect("an output"));
    }
    assert!(block_on(completed.next_async()).is_none());
    outputs.sort_by_key(|output| output.parse::<u32>().expect("a number"));
    assert_eq!(outputs, all);

    let mut stream = as_completed(futures());
    let mut next = || block_on(poll_fn(|context| Pin::new(&mut stream).poll_next(context)));
    let mut outputs: Vec<_> =
        std::iter::from_fn(&mut next).map(|f| f.result().expect("x")).collect();
    assert!(next().is_none());
    outputs.sort_by_key(|output| output.parse::<u32>().expect("a number"));
    assert_eq!(outputs, all);
}

fn as_completed_wakes_async_code_in_the_order_of_completion(kind: Kind) {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let executor = kind.of(3);
    let gates: Vec<_> = (0..3).map(|_| Gate::new()).collect();
    let futures: Vec<_> = gates.iter().map(|gate| executor.submit(Pass(gate.path()))).collect();
    let ids: Vec<_> = futures.iter().map(Future::id).collect();
    let mut completed = as_completed(futures);
    for index in [2, 0, 1] {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        // A future that is dropped while it is pending loses nothing.
        for _ in 0..3 {
            let next = pin!(completed.next_async());
            assert!(next.poll(&mut context).is_pending());
        }
        gates[index].open();
        eventually("a waker that was woken", || count.0.load(Ordering::SeqCst) == 1);
        let future = block_on(completed.next_async()).expect("a future");
        assert_eq!(future.id(), ids[index]);
    }
    assert!(block_on(completed.next_async()).is_none());
}

/// Has a `size_hint` that is too large.
struct Exaggerating<I>(I);

impl<I: Iterator> Iterator for Exaggerating<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

fn as_completed_yields_each_future_once(kind: Kind) {
    let executor = kind.of(2);
    let mut futures: Vec<_> = (0..50).map(|n| echo(&*executor, &n.to_string())).collect();
    assert!(futures[0].wait_timeout(Duration::MAX), "one is finished already");
    futures.reverse();
    let completed = as_completed(futures);
    assert_eq!(completed.size_hint(), (50, Some(50)));
    let mut numbers: Vec<u32> =
        completed.map(|future| future.result().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..50));
}

fn as_completed_does_not_trust_a_size_hint(kind: Kind) {
    let executor = kind.of(2);
    let futures = Exaggerating((0..3).map(|n| echo(&*executor, &n.to_string())));
    assert_eq!(as_completed(futures).count(), 3);
}

fn as_completed_of_nothing_is_empty(_: Kind) {
    let mut nothing = as_completed(Vec::<Future<String>>::new());
    assert!(nothing.next().is_none());
    assert!(matches!(nothing.next_before(Instant::now()), Ok(None)));
}

fn waiting_for_finished_futures_returns_at_once(kind: Kind) {
    let executor = kind.of(2);
    let futures: Vec<_> = (0..5).map(|n| echo(&*executor, &n.to_string())).collect();
    assert!(futures.iter().all(|future| future.wait_timeout(Duration::MAX)));
    for until in [Until::FirstCompleted, Until::FirstFailed, Until::AllCompleted] {
        let waited = wait(&futures, until, Some(Duration::ZERO));
        let done: Vec<_> = waited.done.iter().map(|future| future.id()).collect();
        assert_eq!(done, futures.iter().map(Future::id).collect::<Vec<_>>(), "{until:?}");
        assert!(waited.not_done.is_empty());
    }
    let nothing = wait::<String>([], Until::AllCompleted, None);
    assert!(nothing.done.is_empty() && nothing.not_done.is_empty());
}

fn waiting_for_the_first_failure_finds_it(kind: Kind) {
    let executor = kind.of(2);
    let endings = [Ending::Fail, Ending::Panic];
    let futures: Vec<_> = endings.map(|ending| executor.submit(Bad(ending))).into_iter().collect();
    let waited = wait(&futures, Until::FirstFailed, None);
    assert!(waited.done.iter().any(|future| future.is_done()));
    let waited = wait(&futures, Until::AllCompleted, None);
    assert_eq!(waited.done.len(), 2);
}

fn waiting_counts_duplicates_once(kind: Kind) {
    let executor = kind.of(2);
    let (one, other) = (echo(&*executor, "one"), echo(&*executor, "other"));
    let waited = wait([&one, &other, &one, &one], Until::AllCompleted, None);
    let done: Vec<_> = waited.done.iter().map(|future| future.id()).collect();
    assert_eq!(done, [one.id(), other.id()]);
    assert!(waited.not_done.is_empty());
}

fn as_completed_yields_in_the_order_of_completion(kind: Kind) {
    let executor = kind.of(3);
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    let futures = gates.each_ref().map(|gate| executor.submit(Pass(gate.path())));
    let ids = futures.each_ref().map(Future::id);
    let mut completed = as_completed(futures);
    for n in [2, 0, 1] {
        gates[n].open();
        assert_eq!(completed.next().map(|future| future.id()), Some(ids[n]));
    }
    assert!(completed.next().is_none());
}

fn as_completed_stops_at_a_deadline_and_counts_unfinished_futures(kind: Kind) {
    let executor = kind.of(2);
    let gate = Gate::new();
    let futures = [executor.submit(Pass(gate.path())), executor.submit(Pass(gate.path()))];
    let slow = futures.each_ref().map(Future::id);
    let mut completed = as_completed(futures);
    let soon = Instant::now() + Duration::from_millis(20);
    let unfinished = completed.next_before(soon).expect_err("none is done");
    assert_eq!(unfinished.to_string(), "2 (of 2) futures unfinished");
    gate.open();
    let one = completed.next_before(Instant::now() + Duration::from_secs(60)).expect("in time");
    assert!(slow.contains(&one.expect("one").id()));
    let left = completed.into_unfinished();
    assert_eq!(left.len(), 1);
    assert!(slow.contains(&left[0].id()));
}

fn waiting_for_the_first_completed_does_not_wait_for_others(kind: Kind) {
    let executor = kind.of(2);
    let (gate, open) = (Gate::new(), Gate::new());
    open.open();
    let (slow, quick) = (executor.submit(Pass(gate.path())), executor.submit(Pass(open.path())));
    let waited = wait([&slow, &quick], Until::FirstCompleted, None);
    assert_eq!(waited.done.iter().map(|f| f.id()).collect::<Vec<_>>(), [quick.id()]);
    assert_eq!(waited.not_done.iter().map(|f| f.id()).collect::<Vec<_>>(), [slow.id()]);
    gate.open();
}

fn waiting_for_the_first_failure_does_not_stop_at_a_success(kind: Kind) {
    let executor = kind.of(2);
    let held = Gate::new();
    let quick = executor.submit(Bad(Ending::None));
    let slow = executor.submit(Bad(Ending::FailAt(held.path())));
    held.await_arrivals(1);
    let waited = wait([&quick, &slow], Until::FirstFailed, Some(Duration::from_millis(20)));
    assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
    let endless = Gate::new();
    let never = executor.submit(Bad(Ending::FailAt(endless.path())));
    held.open();
    let waited = wait([&quick, &never, &slow], Until::FirstFailed, None);
    assert_eq!(waited.not_done.iter().map(|f| f.id()).collect::<Vec<_>>(), [never.id()]);
    assert_eq!(waited.done.len(), 2);
    endless.open();
}

fn waiting_for_all_ends_at_the_timeout(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let futures: Vec<_> = (0..3).map(|_| executor.submit(Pass(gate.path()))).collect();
    for timeout in [Duration::ZERO, Duration::from_millis(5)] {
        let waited = wait(&futures, Until::AllCompleted, Some(timeout));
        assert_eq!((waited.done.len(), waited.not_done.len()), (0, 3));
    }
    gate.open();
    assert_eq!(wait(&futures, Until::AllCompleted, None).done.len(), 3);
}

fn waiting_again_finds_further_futures(kind: Kind) {
    let executor = kind.of(3);
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    let futures = gates.each_ref().map(|gate| executor.submit(Pass(gate.path())));
    let mut left: Vec<_> = futures.iter().collect();
    for (n, gate) in gates.iter().enumerate() {
        gate.open();
        let waited = wait(left, Until::FirstCompleted, None);
        assert_eq!(waited.done.iter().map(|f| f.id()).collect::<Vec<_>>(), [futures[n].id()]);
        left = waited.not_done;
    }
    assert!(left.is_empty());
}
