//! A pool in async code: submitting without blocking, and a shutdown that is awaited. No runtime is used.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use libtest_mimic::Trial;
use procession::{
    Executor, PartialError, PoolError, ProcessPool, Said, Shutdown, SubmitAsync, TaskError,
    TaskOptions, ThreadPool, as_completed,
};

use crate::harness::{Gate, eventually};
use crate::says::tell;
use crate::tasks::{Echo, Mute, Pass, Refuses, pool, quiet};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        submit_async_is_pending_until_there_is_room_and_does_not_block,
        submit_async_is_ready_at_once_where_no_bound_is_set,
        many_submitters_that_wait_or_block_all_get_room,
        a_submitter_that_was_woken_and_is_dropped_leaves_its_room_to_the_next,
        submitters_that_wait_for_room_get_an_error_after_a_shutdown,
        a_task_that_cannot_be_encoded_makes_room_for_the_next_submitter,
        shutdown_async_is_pending_until_all_tasks_are_done,
        shutdown_async_goes_on_if_its_future_is_dropped,
        a_listener_that_awaits_a_task_of_its_pool_gets_an_error,
    ]
}

/// Counts how often it was woken, and unparks a thread.
struct Wakes {
    number: AtomicUsize,
    thread: thread::Thread,
}

impl Wakes {
    fn new() -> Arc<Self> {
        Arc::new(Self { number: AtomicUsize::new(0), thread: thread::current() })
    }

    fn number(&self) -> usize {
        self.number.load(Ordering::SeqCst)
    }

    fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.number.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let (wakes, mut future) = (Wakes::new(), pin!(future));
    loop {
        match wakes.poll(future.as_mut()) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// A pool with a task that runs and one that is pending, both at this gate, and no room for a third.
fn full_pool(gate: &Gate) -> ProcessPool {
    let pool = quiet().workers(1).max_pending(1).build().expect("a pool");
    drop(pool.submit(Pass(gate.path())));
    gate.await_arrivals(1);
    drop(pool.submit(Pass(gate.path())));
    assert!(pool.try_submit(Echo(String::new())).is_err(), "there is no room");
    pool
}

fn echo(pool: &ProcessPool) -> SubmitAsync<'_, Echo> {
    pool.submit_async(Echo("x".to_owned()))
}

fn submit_async_is_pending_until_there_is_room_and_does_not_block() {
    let gate = Gate::new();
    let pool = full_pool(&gate);
    let (wakes, mut submitted) = (Wakes::new(), pin!(echo(&pool)));
    for _ in 0..100 {
        assert!(wakes.poll(submitted.as_mut()).is_pending());
    }
    assert_eq!(wakes.number(), 0);
    gate.open();
    eventually("a waker that was woken", || wakes.number() > 0);
    let future = block_on(submitted);
    assert_eq!(block_on(future), Ok("x".to_owned()));
}

fn submit_async_is_ready_at_once_where_no_bound_is_set() {
    let pool = pool(1);
    let options = TaskOptions::new().priority(1);
    let mut submitted = pool.submit_async_with(options, Echo("x".to_owned()));
    let Poll::Ready(future) = Wakes::new().poll(Pin::new(&mut submitted)) else {
        panic!("it is pending");
    };
    assert_eq!(block_on(future), Ok("x".to_owned()));
}

fn many_submitters_that_wait_or_block_all_get_room() {
    let pool = quiet().workers(2).max_pending(2).build().expect("a pool");
    let submit = |is_async: bool, n: usize| {
        let task = Echo(n.to_string());
        if is_async { block_on(pool.submit_async(task)) } else { pool.submit(task) }
    };
    thread::scope(|scope| {
        for thread in 0..6 {
            scope.spawn(move || {
                let futures: Vec<_> = (0..100).map(|n| submit(thread > 1, n)).collect();
                for (n, future) in futures.into_iter().enumerate() {
                    assert_eq!(future.result(), Ok(n.to_string()));
                }
            });
        }
    });
    let stats = pool.stats();
    assert_eq!((stats.done, stats.pending, stats.running), (600, 0, 0));
}

fn a_submitter_that_was_woken_and_is_dropped_leaves_its_room_to_the_next() {
    let gate = Gate::new();
    let pool = full_pool(&gate);
    let mut submitters: Vec<_> = (0..10).map(|_| (Wakes::new(), echo(&pool))).collect();
    for (wakes, submitter) in &mut submitters {
        assert!(wakes.poll(Pin::new(submitter)).is_pending());
    }
    // One in the middle that was not woken.
    drop(submitters.remove(5));
    gate.open();
    while submitters.len() > 1 {
        let (wakes, first) = submitters.remove(0);
        eventually("the waker of the first", || wakes.number() > 0);
        drop(first);
    }
    let (_, last) = submitters.pop().expect("the last");
    assert_eq!(block_on(block_on(last)), Ok("x".to_owned()));
}

fn submitters_that_wait_for_room_get_an_error_after_a_shutdown() {
    let gate = Gate::new();
    let pool = full_pool(&gate);
    let mut submitters: Vec<_> = (0..3).map(|_| (Wakes::new(), echo(&pool))).collect();
    for (wakes, submitter) in &mut submitters {
        assert!(wakes.poll(Pin::new(submitter)).is_pending());
    }
    pool.shutdown(Shutdown::Kill);
    for (_, submitter) in submitters {
        let error = block_on(block_on(submitter));
        assert_eq!(error, Err(TaskError::PoolBroken(PoolError::ShutDown)));
    }
    assert_eq!(block_on(block_on(echo(&pool))), Err(TaskError::PoolBroken(PoolError::ShutDown)));
}

fn a_task_that_cannot_be_encoded_makes_room_for_the_next_submitter() {
    let pool = quiet().workers(1).max_pending(1).build().expect("a pool");
    for _ in 0..10 {
        let future = block_on(pool.submit_async(Mute(Refuses)));
        assert!(matches!(block_on(future), Err(TaskError::Unencodable { .. })));
    }
    assert_eq!(block_on(block_on(echo(&pool))), Ok("x".to_owned()));
}

fn shutdown_async_is_pending_until_all_tasks_are_done() {
    let (gate, processes, threads) = (Gate::new(), pool(1), ThreadPool::new(1));
    let futures = [processes.submit(Pass(gate.path())), threads.submit(Pass(gate.path()))];
    gate.await_arrivals(2);
    let wakes = Wakes::new();
    let mut shutdowns =
        [processes.shutdown_async(Shutdown::Wait), threads.shutdown_async(Shutdown::Wait)];
    for shutdown in &mut shutdowns {
        for _ in 0..10 {
            assert!(wakes.poll(Pin::new(shutdown)).is_pending());
        }
    }
    assert_eq!(wakes.number(), 0);
    gate.open();
    shutdowns.into_iter().for_each(block_on);
    assert!(futures.iter().all(procession::Future::is_done));
    assert!(processes.pids().is_empty());
    block_on(processes.shutdown_async(Shutdown::Kill));
}

fn shutdown_async_goes_on_if_its_future_is_dropped() {
    let pool = pool(1);
    let (gate, wakes) = (Gate::new(), Wakes::new());
    let future = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    drop(pool.shutdown_async(Shutdown::Kill));
    assert_eq!(pool.pids().len(), 1, "it was not polled");
    let mut shutdown = pool.shutdown_async(Shutdown::Wait);
    assert!(wakes.poll(Pin::new(&mut shutdown)).is_pending());
    drop(shutdown);
    gate.open();
    assert!(future.result().is_ok());
    eventually("the end of the worker", || pool.pids().is_empty());
}

fn a_listener_that_awaits_a_task_of_its_pool_gets_an_error() {
    let gate = Gate::new();
    let known = Arc::new(OnceLock::<Weak<ProcessPool>>::new());
    let (send, results) = mpsc::channel();
    let (its_pool, its_gate) = (Arc::clone(&known), gate.path());
    let listener = move |_: &Said<'_>| {
        let pool = its_pool.get().and_then(Weak::upgrade).expect("the pool");
        let tasks = || (0..2).map(|_| Pass(its_gate.clone()));
        let submit = || pool.submit(Pass(its_gate.clone()));
        let partial = block_on(submit().partials::<u8>().next_async());
        assert_eq!(partial, Some(Err(PartialError::WouldDeadlock)));
        let awaited = block_on(submit());
        let completed = block_on(as_completed([submit(), submit()]).next_async());
        let mapped = block_on(pool.map(tasks()).next_async()).expect("a result");
        let (_, unordered) = block_on(pool.map_unordered(tasks()).next_async()).expect("a result");
        let completed = completed.expect("a future").result();
        let all = [awaited, completed, mapped, unordered].map(|result| result.err());
        send.send(all).expect("a receiver");
    };
    let pool = quiet().workers(2).on_say(listener).build().expect("a pool");
    let pool = Arc::new(pool);
    known.set(Arc::downgrade(&pool)).expect("it was empty");
    let told = pool.submit(tell(["x"]));
    assert_eq!(results.recv(), Ok([const { Some(TaskError::WouldDeadlock) }; 4]));
    gate.open();
    assert!(told.result().is_ok());
}
