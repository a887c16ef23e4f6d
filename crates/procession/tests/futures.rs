//! What futures mean, the same for all executors: the semantics of Python's `concurrent.futures`.
//!
//! Most tests run once for each kind of executor. A task can only be seen waiting or running where
//! it does not run in the thread that submits it, so some leave the sequential executor out.

#[path = "support/harness.rs"]
mod harness;
#[path = "support/tasks.rs"]
mod tasks;

use std::collections::HashSet;
use std::error::Error;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use harness::{Gate, eventually, trial};
use libtest_mimic::Trial;
use procession::{
    Engine, Executor, Future, PoolError, Sequential, Shutdown, State, TaskError, ThreadPool, Until,
    as_completed, wait,
};
use tasks::{Bad, Echo, Ending, Pass, Seat, Touch};

fn main() {
    harness::hush_panics_on_purpose();
    procession::worker::serve_if_asked(tasks::registry());
    harness::run(trials());
}

/// An executor that several threads and callbacks share.
type Shared = Arc<dyn Engine>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sequential,
    Threads,
    Processes,
}

const ALL: &[Kind] = &[Kind::Sequential, Kind::Threads, Kind::Processes];
const CONCURRENT: &[Kind] = &[Kind::Threads, Kind::Processes];

impl Kind {
    /// An executor of this kind that runs up to so many tasks at the same time.
    fn of(self, size: usize) -> Shared {
        match self {
            Self::Sequential => Arc::new(Sequential::new()),
            Self::Threads => Arc::new(ThreadPool::new(size)),
            Self::Processes => Arc::new(tasks::quiet().workers(size).build().expect("a pool")),
        }
    }
}

macro_rules! trials {
    ($($kinds:ident: [$($test:ident),* $(,)?]),* $(,)?) => {{
        let mut trials = Vec::new();
        $($(for &kind in $kinds {
            let name = format!("futures::{kind:?}::{}", stringify!($test)).to_lowercase();
            trials.push(trial(&name, move || $test(kind)));
        })*)*
        trials
    }};
}

fn trials() -> Vec<Trial> {
    trials! {
        ALL: [
            a_future_brings_the_output,
            a_future_brings_the_error_with_its_causes,
            a_future_brings_the_panic_with_its_location,
            each_future_has_an_id_of_its_own,
            a_finished_future_shows_what_it_has,
            a_finished_future_cannot_be_cancelled,
            a_result_that_is_there_is_had_within_no_time,
            callbacks_are_called_in_order_before_the_result_can_be_had,
            a_callback_on_a_finished_future_is_called_at_once,
            a_callback_that_panics_harms_nobody,
            a_callback_may_submit_a_hundred_tasks_in_a_chain,
            as_completed_yields_each_future_once,
            as_completed_believes_no_iterator_that_promises_too_much,
            as_completed_of_nothing_is_empty,
            waiting_for_finished_futures_returns_at_once,
            waiting_for_the_first_failure_finds_it,
            waiting_counts_duplicates_once,
            map_keeps_the_order_and_the_errors_in_place,
            map_takes_no_more_than_so_many_tasks_ahead,
            map_works_on_an_endless_iterator,
            map_does_not_ask_an_iterator_again_that_has_ended,
            a_future_can_be_awaited,
            a_future_that_was_awaited_has_no_result_any_more,
            many_threads_submit_at_once,
            a_task_knows_its_worker_and_attempt,
            a_shut_down_executor_refuses_tasks,
            an_executor_can_be_shut_down_twice,
        ],
        CONCURRENT: [
            the_states_follow_each_other,
            a_pending_task_can_be_cancelled_and_never_runs,
            a_wait_for_a_result_can_end_early,
            as_completed_yields_in_the_order_of_completion,
            as_completed_can_give_up_and_says_how_many_are_missing,
            waiting_for_the_first_completed_does_not_wait_for_others,
            waiting_for_the_first_failure_does_not_stop_at_a_success,
            waiting_for_all_ends_at_the_timeout,
            waiting_again_finds_what_has_come,
            an_awaited_future_wakes_its_task,
            dropping_a_map_cancels_what_waits,
            dropping_a_map_lets_what_runs_come_to_its_end,
            a_callback_may_wait_in_every_way_for_tasks_of_its_executor,
            callbacks_may_wait_for_futures_whose_callbacks_lie_behind_theirs,
            a_callback_that_waits_for_its_own_future_is_refused,
            of_two_callbacks_that_wait_for_each_other_one_is_refused,
            callbacks_may_wait_for_each_other_in_the_shutdown_that_cancels_both,
            a_shutdown_that_waits_finishes_everything,
            a_shutdown_that_cancels_finishes_what_runs,
            a_shutdown_after_one_from_a_callback_waits,
            every_shutdown_at_once_waits,
            callbacks_may_shut_down_their_executor,
        ],
    }
}

fn echo(executor: &dyn Engine, text: &str) -> Future<String> {
    executor.submit(Echo(text.to_owned()))
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
    let TaskError::Panicked { message, location } = error else { panic!("{error:?}") };
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
    assert_eq!((text.state(), unit.state()), (State::Finished, State::Finished));
    assert_eq!(format!("{text:?}"), "<Future state=finished returned String>");
    assert_eq!(format!("{unit:?}"), "<Future state=finished raised Panicked>");
    assert_eq!(format!("{failed:?}"), "<Future state=finished raised Failed>");
}

fn a_finished_future_cannot_be_cancelled(kind: Kind) {
    let executor = kind.of(1);
    let future = echo(&*executor, "done");
    assert!(future.wait_timeout(Duration::MAX));
    assert!(!future.cancel());
    assert_eq!(future.state(), State::Finished);
    assert_eq!(future.result(), Ok("done".to_owned()));
}

fn a_result_that_is_there_is_had_within_no_time(kind: Kind) {
    let executor = kind.of(1);
    let future = echo(&*executor, "done");
    assert!(future.wait_timeout(Duration::MAX));
    assert!(future.is_done());
    assert_eq!(future.result_timeout(Duration::ZERO).expect("it is there"), Ok("done".to_owned()));
}

/// A task that can be made to wait until its future has callbacks, where it runs elsewhere.
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

fn a_callback_that_panics_harms_nobody(kind: Kind) {
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

/// Promises more elements than there can be.
struct Boastful<I>(I);

impl<I: Iterator> Iterator for Boastful<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

fn as_completed_believes_no_iterator_that_promises_too_much(kind: Kind) {
    let executor = kind.of(2);
    let futures = Boastful((0..3).map(|n| echo(&*executor, &n.to_string())));
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

fn map_keeps_the_order_and_the_errors_in_place(kind: Kind) {
    let executor = kind.of(2);
    let endings = (0..60).map(|n| if n % 7 == 3 { Ending::Fail } else { Ending::None });
    let results: Vec<_> = executor.map(endings.map(Bad)).map(|result| result.is_ok()).collect();
    assert_eq!(results, (0..60).map(|n| n % 7 != 3).collect::<Vec<_>>());
    let echoes = executor.map((0..60).map(|n| Echo(n.to_string())));
    assert!(echoes.into_iter().eq((0..60).map(|n| Ok(n.to_string()))));
}

fn map_takes_no_more_than_so_many_tasks_ahead(kind: Kind) {
    let executor = kind.of(2);
    let taken = AtomicUsize::new(0);
    let tasks = (0..100_000).map(|n| {
        taken.fetch_add(1, Ordering::SeqCst);
        Echo(n.to_string())
    });
    let mut results = executor.map(tasks);
    assert_eq!(taken.load(Ordering::SeqCst), 0, "nothing is taken before it is asked for");
    for consumed in 1..=70_000 {
        assert!(results.next().is_some());
        let ahead = taken.load(Ordering::SeqCst) - consumed;
        // Short tasks are handed over in chunks.
        let most = executor.ahead().max(executor.chunks_ahead() * 1024);
        assert!(ahead <= most, "{ahead} tasks ahead");
    }
}

fn map_works_on_an_endless_iterator(kind: Kind) {
    let executor = kind.of(2);
    let echoes = executor.map((0..).map(|n: u32| Echo(n.to_string())));
    let first: Vec<_> = echoes.take(300).collect::<Result<_, _>>().expect("outputs");
    assert_eq!(first[299], "299");
}

fn map_does_not_ask_an_iterator_again_that_has_ended(kind: Kind) {
    let executor = kind.of(2);
    let mut asked = 0;
    let moody = std::iter::from_fn(|| {
        asked += 1;
        (asked != 4).then(|| Echo(asked.to_string()))
    });
    let mut results = executor.map(moody);
    assert_eq!(results.by_ref().count(), 3);
    assert!(results.next().is_none());
}

/// The smallest runtime there is.
fn block_on<F: std::future::Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
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
    assert_eq!(future.state(), State::Finished);
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
    let size = if kind == Kind::Sequential { 1 } else { 3 };
    for seat in kind.of(size).map((0..30).map(|_| Seat())) {
        let (worker, _, attempt) = seat.expect("a seat");
        assert!(worker < size);
        assert_eq!(attempt, 1);
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

fn the_states_follow_each_other(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let (first, second) = (executor.submit(Pass(gate.path())), executor.submit(Pass(gate.path())));
    gate.await_arrivals(1);
    assert_eq!((first.state(), second.state()), (State::Running, State::Pending));
    assert_eq!(format!("{first:?} {second:?}"), "<Future state=running> <Future state=pending>");
    gate.open();
    assert!(second.wait_timeout(Duration::MAX));
    assert_eq!((first.state(), second.state()), (State::Finished, State::Finished));
    assert_eq!(second.state().to_string(), "finished");
}

fn a_pending_task_can_be_cancelled_and_never_runs(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let file = gate.path().join("open");
    let running = executor.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    // Would it run, it would let the other one pass.
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

fn as_completed_can_give_up_and_says_how_many_are_missing(kind: Kind) {
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

fn waiting_again_finds_what_has_come(kind: Kind) {
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
    assert_eq!(early.0.load(Ordering::SeqCst), 0, "only who asked last is woken");
    assert!(block_on(future).is_ok());
}

fn dropping_a_map_cancels_what_waits(kind: Kind) {
    let executor = kind.of(1);
    let (first, gate) = (Gate::new(), Gate::new());
    let mut results =
        executor.map(std::iter::once(first.path()).chain(std::iter::repeat(gate.path())).map(Pass));
    thread::scope(|scope| {
        scope.spawn(|| {
            first.await_arrivals(1);
            // Were it short, a process would be given the next ones before their turn.
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

fn dropping_a_map_lets_what_runs_come_to_its_end(kind: Kind) {
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

fn a_callback_may_wait_in_every_way_for_tasks_of_its_executor(kind: Kind) {
    let executor = kind.of(1);
    let gate = Gate::new();
    let future = executor.submit(Pass(gate.path()));
    let (sender, waited) = mpsc::channel();
    let its_executor = Arc::clone(&executor);
    future.on_done(move |_| {
        let echo = |n: usize| echo(&*its_executor, &n.to_string());
        // Often, since each time a thread takes over and ends, at a time of its own.
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
        // A callback of a task that this one waits for waits as well.
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

fn callbacks_may_wait_for_futures_whose_callbacks_lie_behind_theirs(kind: Kind) {
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
    assert_eq!(pending.state(), State::Cancelled);
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
