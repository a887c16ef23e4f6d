//! What futures mean, the same for all executors: the semantics of Python's `concurrent.futures`.
//!
//! Most tests run once for each kind of executor. The sequential executor is left out where a task
//! must be seen pending or running. `OneThread` and `OwnThreads` are executors that are implemented with
//! public items only, by the examples `own_executor.rs` and `own_threads.rs`.

#[path = "../support/harness.rs"]
mod harness;
#[allow(dead_code, unreachable_pub, reason = "an example, which has its own `main`")]
#[path = "../../examples/own_executor.rs"]
mod own_executor;
#[allow(dead_code, unreachable_pub, reason = "an example, which has its own `main`")]
#[path = "../../examples/own_threads.rs"]
mod own_threads;
#[path = "../support/tasks.rs"]
mod tasks;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use procession::{Engine, Executor, Future, Sequential, ThreadPool};
use tasks::Echo;

/// One trial for each test and each kind of executor, from the functions of a module.
macro_rules! trials {
    ($($kinds:ident: [$($test:ident),* $(,)?]),* $(,)?) => {{
        let mut trials = Vec::new();
        $($(for &kind in crate::$kinds {
            let (module, test) = (module_path!(), stringify!($test));
            let name = format!("{module}::{kind:?}::{test}").to_lowercase();
            trials.push(crate::harness::trial(&name, move || $test(kind)));
        })*)*
        trials
    }};
}

mod callbacks;
mod chunks_on_threads;
mod foreign;
mod map;
mod mapped;
mod partials;
mod results;
mod several;
mod shutdown;
mod stopping;

fn main() {
    harness::hush_panics_on_purpose();
    procession::worker::serve_if_asked(tasks::registry());
    let trials = [
        callbacks::trials(),
        chunks_on_threads::trials(),
        map::trials(),
        mapped::trials(),
        partials::trials(),
        shutdown::trials(),
        stopping::trials(),
        several::trials(),
        results::trials(),
        foreign::trials(),
    ];
    harness::run(trials.into_iter().flatten().collect());
}

/// An executor that several threads and callbacks share.
type Shared = Arc<dyn Engine>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sequential,
    OneThread,
    OwnThreads,
    Threads,
    Processes,
}

const ALL: &[Kind] =
    &[Kind::Sequential, Kind::OneThread, Kind::OwnThreads, Kind::Threads, Kind::Processes];
/// Those that have pending tasks.
const QUEUED: &[Kind] = &[Kind::OneThread, Kind::OwnThreads, Kind::Threads, Kind::Processes];
/// Those that cannot end a running task.
const THREADED: &[Kind] = &[Kind::OneThread, Kind::OwnThreads, Kind::Threads];
const CONCURRENT: &[Kind] = &[Kind::OwnThreads, Kind::Threads, Kind::Processes];

impl Kind {
    /// An executor of this kind that runs up to `size` tasks at the same time.
    fn of(self, size: usize) -> Shared {
        match self {
            Self::Sequential => Arc::new(Sequential::new()),
            Self::OneThread => Arc::new(own_executor::OneThread::start().expect("a thread")),
            Self::OwnThreads => {
                Arc::new(own_threads::PriorityThreads::start(size).expect("threads"))
            }
            Self::Threads => Arc::new(ThreadPool::new(size)),
            Self::Processes => Arc::new(tasks::quiet().workers(size).build().expect("a pool")),
        }
    }

    /// The number of workers of such an executor.
    fn workers(self, size: usize) -> usize {
        if matches!(self, Self::Sequential | Self::OneThread) { 1 } else { size }
    }
}

fn echo(executor: &dyn Engine, text: &str) -> Future<String> {
    executor.submit(Echo(text.to_owned()))
}

/// Polls a future on this thread until it is ready.
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
