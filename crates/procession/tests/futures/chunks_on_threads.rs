//! Short tasks of `map`, which threads take in chunks: each behaves as if it were submitted alone.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use libtest_mimic::Trial;
use procession::{Context, Executor, Failure, PoolError, Shutdown, Task, TaskError, ThreadPool};
use serde::{Deserialize, Serialize};

use crate::harness::{Gate, ON_PURPOSE, eventually};
use crate::tasks::{Bad, Echo, Ending, Meet, Pass};

pub(crate) fn trials() -> Vec<Trial> {
    macro_rules! trials {
        ($($test:ident),* $(,)?) => {
            vec![$(crate::harness::trial(concat!(module_path!(), "::", stringify!($test)), $test)),*]
        };
    }
    trials![
        tasks_behind_a_long_one_of_their_chunk_run_on_another_thread,
        as_many_tasks_of_a_chunk_as_threads_may_wait_for_each_other,
        a_failure_and_a_panic_in_a_chunk_are_those_of_one_task,
        each_task_of_a_chunk_has_an_id_of_its_own,
        a_function_for_lines_that_is_set_late_gets_those_of_later_tasks,
        tasks_of_a_chunk_may_map_tasks_of_the_same_pool,
        a_shutdown_cancels_what_has_not_begun_of_a_chunk,
        a_map_that_is_dropped_leaves_the_rest_of_its_chunks_undone,
        results_of_a_dropped_map_may_use_the_pool_in_their_drop,
        a_function_for_lines_may_use_the_pool_in_its_drop,
        a_function_for_lines_whose_drop_panics_ends_no_thread,
    ]
}

/// A pool of this many threads that puts at least 25 short tasks into a chunk.
fn warm(threads: usize) -> ThreadPool {
    warmed(ThreadPool::new(threads), threads)
}

fn warmed(pool: ThreadPool, threads: usize) -> ThreadPool {
    eventually("chunks of 25 tasks", || {
        let taken = AtomicUsize::new(0);
        let tasks = (0..2_000).inspect(|_| {
            taken.fetch_add(1, Ordering::SeqCst);
        });
        let mut results = pool.map(tasks.map(|n| Echo(n.to_string())));
        assert!(results.next().is_some_and(|result| result.is_ok()));
        let ahead = taken.load(Ordering::SeqCst);
        assert!(results.all(|result| result.is_ok()));
        ahead >= 4 * 25 * threads.min(4)
    });
    pool
}

fn tasks_behind_a_long_one_of_their_chunk_run_on_another_thread() {
    let pool = warm(2);
    let (shut, open) = (Gate::new(), Gate::new());
    open.open();
    let path = |n| if n == 3 { shut.path() } else { open.path() };
    let mut results = pool.map_unordered((0..300).map(|n| Pass(path(n))));
    for _ in 1..300 {
        assert!(results.next().is_some_and(|(index, result)| index != 3 && result.is_ok()));
    }
    shut.open();
    assert!(results.next().is_some_and(|(index, result)| index == 3 && result.is_ok()));
    assert!(results.next().is_none());
}

fn as_many_tasks_of_a_chunk_as_threads_may_wait_for_each_other() {
    let pool = warm(2);
    for _ in 0..10 {
        let gate = Gate::new();
        let tasks = [Meet(gate.path(), 2), Meet(gate.path(), 2)];
        assert!(pool.map(tasks).all(|result| result.is_ok()));
    }
}

fn a_failure_and_a_panic_in_a_chunk_are_those_of_one_task() {
    let pool = warm(2);
    let ending = |n| match n % 50 {
        7 => Ending::Fail,
        8 => Ending::Panic,
        _ => Ending::None,
    };
    for (n, result) in pool.map((0..500).map(|n| Bad(ending(n)))).enumerate() {
        match n % 50 {
            7 => assert!(matches!(result, Err(TaskError::Failed(_))), "{n}: {result:?}"),
            8 => assert!(matches!(result, Err(TaskError::Panicked { .. })), "{n}: {result:?}"),
            _ => assert_eq!(result, Ok(()), "{n}"),
        }
    }
}

/// Says a line.
#[derive(Serialize, Deserialize)]
struct Speak;

impl Task for Speak {
    const NAME: &'static str = "speak";
    type Output = ();

    fn run(self, context: &Context) -> Result<(), Failure> {
        context.say("here");
        Ok(())
    }
}

fn each_task_of_a_chunk_has_an_id_of_its_own() {
    let ids = Arc::new(Mutex::new(HashSet::new()));
    let said = Arc::clone(&ids);
    let pool = ThreadPool::new(2).on_say(move |line| {
        assert!(said.lock().expect("no panic").insert(line.task), "an id twice");
    });
    let pool = warmed(pool, 2);
    assert!(pool.map((0..5_000).map(|_| Speak)).all(|result| result.is_ok()));
    assert_eq!(ids.lock().expect("no panic").len(), 5_000);
}

fn a_function_for_lines_that_is_set_late_gets_those_of_later_tasks() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let mut pool = warm(2);
    for turn in 0..3 {
        let said = Arc::clone(&lines);
        pool = pool.on_say(move |line| said.lock().expect("no panic").push((turn, line.task)));
        let alone = pool.submit(Speak);
        let id = alone.id();
        assert_eq!(alone.result(), Ok(()));
        assert_eq!(*lines.lock().expect("no panic"), [(turn, id)]);
        assert!(pool.map((0..200).map(|_| Speak)).all(|result| result.is_ok()));
        let said = std::mem::take(&mut *lines.lock().expect("no panic"));
        assert_eq!(said.len(), 201);
        assert!(said.iter().all(|(of, _)| *of == turn));
    }
}

/// Maps tasks on the pool that runs it.
#[derive(Serialize, Deserialize)]
struct Inner(u32);

static POOL: OnceLock<ThreadPool> = OnceLock::new();

impl Task for Inner {
    const NAME: &'static str = "inner";
    type Output = usize;

    fn run(self, _: &Context) -> Result<usize, Failure> {
        let pool = POOL.get().ok_or("no pool")?;
        let results = pool.map((0..self.0).map(|n| Echo(n.to_string())));
        Ok(results.filter(Result::is_ok).count())
    }
}

fn tasks_of_a_chunk_may_map_tasks_of_the_same_pool() {
    let pool = POOL.get_or_init(|| warm(1));
    let tasks = || (0..200).map(|n| Inner(n % 30));
    for (n, result) in pool.map(tasks()).enumerate() {
        assert_eq!(result, Ok(n % 30));
    }
    let unordered = pool.map_unordered(tasks());
    assert_eq!(unordered.filter(|(n, result)| *result == Ok(n % 30)).count(), 200);
}

fn a_shutdown_cancels_what_has_not_begun_of_a_chunk() {
    let pool = warm(1);
    let gate = Gate::new();
    let mut results = pool.map((0..100).map(|_| Pass(gate.path())));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            gate.await_arrivals(1);
            // It waits for the task that runs, after the others were cancelled.
            scope.spawn(|| pool.shutdown(Shutdown::CancelPending));
            eventually("a pool that takes no tasks", || {
                let refused = pool.submit(Echo(String::new()));
                let is_refused = refused.is_done();
                refused.cancel();
                is_refused
            });
            gate.open();
        });
        assert!(results.next().is_some_and(|result| result.is_ok()));
    });
    assert!(results.all(|result| result.is_err()));
    assert_eq!(gate.arrivals(), 1);
}

fn a_map_that_is_dropped_leaves_the_rest_of_its_chunks_undone() {
    let pool = warm(1);
    let (open, gate) = (Gate::new(), Gate::new());
    open.open();
    let path = |n| if n == 0 { open.path() } else { gate.path() };
    let mut results = pool.map((0..300).map(|n| Pass(path(n))));
    assert!(results.next().is_some_and(|result| result.is_ok()));
    gate.await_arrivals(1);
    drop(results);
    gate.open();
    assert_eq!(pool.submit(Echo("x".to_owned())).result(), Ok("x".to_owned()));
    assert_eq!(gate.arrivals(), 1);
}

/// Calls a function when it is dropped.
#[derive(Serialize, Deserialize, Default)]
struct OnDrop {
    #[serde(skip)]
    call: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl OnDrop {
    fn new(call: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { call: Some(Box::new(call)) }
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call();
        }
    }
}

/// Waits at a gate. Its output submits a task when it is dropped, and counts the tasks that ran.
#[derive(Serialize, Deserialize)]
struct SubmitsInDrop {
    gate: std::path::PathBuf,
    #[serde(skip)]
    shared: Option<(Arc<ThreadPool>, Arc<AtomicUsize>)>,
}

impl Task for SubmitsInDrop {
    const NAME: &'static str = "submits in drop";
    type Output = OnDrop;

    fn run(self, context: &Context) -> Result<OnDrop, Failure> {
        Pass(self.gate).run(context)?;
        let (pool, number) = self.shared.ok_or("not in this process")?;
        Ok(OnDrop::new(move || {
            let has_run = pool.submit(Echo(String::new())).result().is_ok();
            number.fetch_add(usize::from(has_run), Ordering::SeqCst);
        }))
    }
}

fn results_of_a_dropped_map_may_use_the_pool_in_their_drop() {
    let pool = Arc::new(warm(2));
    let (open, number) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    open.open();
    for _ in 0..20 {
        number.store(0, Ordering::SeqCst);
        let gate = Gate::new();
        let shared = (Arc::clone(&pool), Arc::clone(&number));
        let path = |n| if n == 9 { gate.path() } else { open.path() };
        let task = |n| SubmitsInDrop { gate: path(n), shared: Some(shared.clone()) };
        let mut results = pool.map_unordered((0..10).map(task));
        let first = results.next();
        gate.await_arrivals(1);
        drop((results, first));
        gate.open();
        // The last one, at least, is dropped by a thread of the pool, and the first one here.
        eventually("two results that were dropped", || number.load(Ordering::SeqCst) >= 2);
        let after = pool.submit(Echo("x".to_owned()));
        eventually("a pool that runs tasks", || after.is_done());
    }
}

/// Replaces the function for lines of a pool of one thread, which has `before`. The thread then has the last reference
/// to the old function, and drops it when it begins the next task. This function submits that task.
fn with_new_function_for_lines(
    before: OnDrop,
    in_chunk: bool,
    meanwhile: impl FnOnce(&ThreadPool),
) {
    let pool = warmed(ThreadPool::new(1).on_say(move |_| _ = &before), 1);
    let gate = Gate::new();
    let first = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let pool = pool.on_say(|_| {});
    let (next, texts) = (AtomicUsize::new(0), ["a", "b"].map(str::to_owned));
    std::thread::scope(|scope| {
        let tasks = texts.iter().cloned().map(Echo).inspect(|_| {
            next.fetch_add(1, Ordering::SeqCst);
        });
        let mapped = in_chunk.then(|| scope.spawn(|| pool.map(tasks).collect::<Vec<_>>()));
        eventually("tasks that were taken", || !in_chunk || next.load(Ordering::SeqCst) == 2);
        meanwhile(&pool);
        gate.open();
        let after = pool.submit(Echo("x".to_owned()));
        eventually("a pool that runs tasks", || after.is_done());
        assert!(first.result().is_ok() && after.result().is_ok());
        if let Some(mapped) = mapped {
            assert!(mapped.join().expect("no panic").into_iter().eq(texts.clone().map(Ok)));
        }
    });
    pool.shutdown(Shutdown::Wait);
    let late = pool.submit(Speak).result();
    assert_eq!(late, Err(TaskError::PoolBroken(PoolError::ShutDown)));
}

fn a_function_for_lines_may_use_the_pool_in_its_drop() {
    for in_chunk in [false, true] {
        let kept = Arc::new(Mutex::new(None));
        let of_drop = Arc::clone(&kept);
        let cancels = OnDrop::new(move || drop(of_drop.lock().expect("no panic").take()));
        with_new_function_for_lines(cancels, in_chunk, |pool| {
            let future = pool.submit(Speak).cancel_on_drop();
            *kept.lock().expect("no panic") = Some(future);
        });
        assert!(kept.lock().expect("no panic").is_none());
    }
}

fn a_function_for_lines_whose_drop_panics_ends_no_thread() {
    for in_chunk in [false, true] {
        with_new_function_for_lines(OnDrop::new(|| panic!("{ON_PURPOSE}")), in_chunk, |_| {});
    }
    // And if no task follows.
    let before = OnDrop::new(|| panic!("{ON_PURPOSE}"));
    let pool = ThreadPool::new(1).on_say(move |_| _ = &before);
    assert_eq!(pool.submit(Echo(String::new())).result(), Ok(String::new()));
    let pool = pool.on_say(|_| {});
    pool.shutdown(Shutdown::Wait);
    let late = pool.submit(Speak).result();
    assert_eq!(late, Err(TaskError::PoolBroken(PoolError::ShutDown)));
}
