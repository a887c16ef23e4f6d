//! The guarantees of the library for executors that are implemented outside of it: [`OneThread`] and
//! [`PriorityThreads`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use libtest_mimic::Trial;
use procession::{
    Context, Executor, Failure, Future, FutureState, JobRunner, Shutdown, Task, TaskError,
};
use serde::{Deserialize, Serialize};

use crate::harness::{self, Gate, trial};
use crate::own_executor::OneThread;
use crate::own_threads::PriorityThreads;
use crate::tasks::{Echo, Pass, Touch};

pub(crate) fn trials() -> Vec<Trial> {
    macro_rules! trials {
        ($($test:ident),* $(,)?) => {
            vec![$(trial(concat!(module_path!(), "::", stringify!($test)), $test)),*]
        };
    }
    trials![
        a_pending_task_of_a_foreign_executor_can_be_cancelled,
        a_dropped_map_cancels_what_a_foreign_executor_has_not_begun,
        a_callback_on_the_only_thread_cannot_wait_for_a_pending_task,
        a_callback_that_waits_for_its_own_future_is_refused_by_a_foreign_executor,
        all_threads_of_a_foreign_executor_may_wait_for_pending_tasks,
        urgent_tasks_of_a_foreign_executor_go_first,
        tasks_of_a_foreign_executor_share_locals_and_lines,
        a_foreign_executor_that_is_dropped_completes_all_futures,
    ]
}

/// Reports a line, and returns how many of these tasks have run in the executor.
#[derive(Serialize, Deserialize)]
struct CountLines(String);

impl Task for CountLines {
    const NAME: &'static str = "count lines";
    type Output = usize;

    fn run(self, context: &Context) -> Result<usize, Failure> {
        context.say(self.0);
        Ok(context.local(AtomicUsize::default).fetch_add(1, Ordering::SeqCst) + 1)
    }
}

fn start() -> OneThread {
    OneThread::start().expect("a thread")
}

fn a_pending_task_of_a_foreign_executor_can_be_cancelled() {
    let executor = start();
    let gate = Gate::new();
    let running = executor.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let file = gate.path().join("open");
    let pending = executor.submit(Touch(file.clone()));
    assert_eq!((running.state(), pending.state()), (FutureState::Running, FutureState::Pending));
    assert!(!running.cancel(), "a thread cannot be killed");
    assert!(pending.cancel() && !pending.cancel());
    assert_eq!(pending.result(), Err(TaskError::Cancelled));
    assert!(!file.exists());
    gate.open();
    assert!(running.result().is_ok());
}

fn a_dropped_map_cancels_what_a_foreign_executor_has_not_begun() {
    let executor = start();
    let (open, gate) = (Gate::new(), Gate::new());
    open.open();
    let paths = std::iter::once(open.path()).chain(std::iter::repeat(gate.path()));
    let mut results = executor.map(paths.map(Pass));
    assert!(results.next().is_some_and(|result| result.is_ok()));
    gate.await_arrivals(1);
    drop(results);
    gate.open();
    executor.shutdown(Shutdown::Wait);
    assert_eq!(gate.arrivals(), 1);
}

fn a_callback_on_the_only_thread_cannot_wait_for_a_pending_task() {
    let executor = Arc::new(start());
    let gate = Gate::new();
    let first = executor.submit(Pass(gate.path()));
    let (sender, waited) = mpsc::channel();
    let its_executor = Arc::clone(&executor);
    first.on_done(move |_| {
        let pending = its_executor.submit(Echo("behind".to_owned()));
        sender.send(pending.result()).expect("a receiver");
    });
    gate.open();
    assert_eq!(waited.recv(), Ok(Err(TaskError::WouldDeadlock)));
    // The task itself is run.
    assert_eq!(executor.submit(Echo("after".to_owned())).result(), Ok("after".to_owned()));
}

fn a_callback_that_waits_for_its_own_future_is_refused_by_a_foreign_executor() {
    let executor = start();
    let gate = Gate::new();
    let place = Arc::new(Mutex::new(None));
    let future = executor.submit(Pass(gate.path()));
    let (sender, result) = mpsc::channel();
    let its_place = Arc::clone(&place);
    future.on_done(move |_| {
        let own: Future<u32> = its_place.lock().unwrap().take().expect("the future");
        sender.send(own.result()).expect("a receiver");
    });
    *place.lock().unwrap() = Some(future);
    gate.open();
    assert_eq!(result.recv(), Ok(Err(TaskError::WouldDeadlock)));
}

fn all_threads_of_a_foreign_executor_may_wait_for_pending_tasks() {
    let executor = Arc::new(PriorityThreads::start(2).expect("threads"));
    let gate = Gate::new();
    let (sender, waited) = mpsc::channel();
    for _ in 0..2 {
        let (sender, its_executor) = (sender.clone(), Arc::clone(&executor));
        let its_gate = gate.path();
        executor.submit(Pass(gate.path())).on_done(move |_| {
            // The other thread waits here as well, or will in a moment.
            let behind: Vec<_> =
                (0..10).map(|_| its_executor.submit(Pass(its_gate.clone()))).collect();
            let results: Vec<_> = behind.into_iter().rev().map(Future::result).collect();
            sender.send(results).expect("a receiver");
        });
    }
    gate.await_arrivals(2);
    gate.open();
    for _ in 0..2 {
        let results = waited.recv().expect("results");
        assert!(results.len() == 10 && results.iter().all(Result::is_ok), "{results:?}");
    }
    assert_eq!(executor.submit(Echo("after".to_owned())).result(), Ok("after".to_owned()));
}

fn urgent_tasks_of_a_foreign_executor_go_first() {
    let executor = PriorityThreads::start(1).expect("a thread");
    let gate = Gate::new();
    let running = executor.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let (sender, order) = mpsc::channel();
    for (number, priority) in [0, -1, 5, 0, 5].into_iter().enumerate() {
        let sender = sender.clone();
        let future = executor.at(priority).submit(Echo(number.to_string()));
        future.on_done(move |_| sender.send(number).expect("a receiver"));
    }
    let cancelled = executor.at(9).submit(Echo("never".to_owned()));
    assert!(cancelled.cancel());
    gate.open();
    executor.shutdown(Shutdown::Wait);
    assert!(running.is_done() && cancelled.result() == Err(TaskError::Cancelled));
    assert_eq!(order.try_iter().collect::<Vec<_>>(), [2, 4, 0, 3, 1]);
}

fn tasks_of_a_foreign_executor_share_locals_and_lines() {
    let (sender, lines) = mpsc::channel();
    let runner = JobRunner::new().on_say(move |said| {
        sender.send((said.task, said.worker, said.line.to_owned())).expect("a receiver");
    });
    let executor = OneThread::start_with(runner).expect("a thread");
    let future = executor.submit(CountLines("hello".to_owned()));
    let task = future.id();
    assert_eq!(future.result(), Ok(1));
    assert_eq!(executor.submit(CountLines("again".to_owned())).result(), Ok(2), "the same counter");
    assert_eq!(lines.recv(), Ok((task, 0, "hello".to_owned())));
}

fn a_foreign_executor_that_is_dropped_completes_all_futures() {
    let executor = start();
    let gate = Gate::new();
    let running = executor.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let pending: Vec<_> = (0..5).map(|_| executor.submit(Pass(gate.path()))).collect();
    // While the thread runs a task, so that it takes none of the others.
    let dropped = thread::spawn(move || drop(executor));
    harness::eventually("no pending task", || pending.iter().all(Future::is_done));
    gate.open();
    dropped.join().expect("no panic");
    assert!(running.result().is_ok());
    assert!(pending.into_iter().all(|future| future.result() == Err(TaskError::Cancelled)));
}
