//! The tasks that the tests submit, good ones and bad ones.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use procession::{
    Blob, Builder, Context, Executor, Failure, ProcessPool, Registry, Task, TaskError,
};
use rustix::process::Signal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::harness::{self, ON_PURPOSE};

/// A task ran for longer than it may, and was begun once.
#[track_caller]
pub(crate) fn assert_timed_out<T: fmt::Debug>(result: Result<T, TaskError>, limit: Duration) {
    match &result {
        Err(TaskError::TimedOut { after, attempts: 1, .. }) => assert_eq!(*after, limit),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn registry() -> Registry {
    Registry::new()
        .with::<Echo>()
        .with::<Value>()
        .with::<Float>()
        .with::<Pid>()
        .with::<Seat>()
        .with::<Env>()
        .with::<Say>()
        .with::<Touch>()
        .with::<Pass>()
        .with::<Meet>()
        .with::<MeetWith>()
        .with::<Overlap>()
        .with::<Local>()
        .with::<Bad>()
        .with::<KillAnother>()
        .with::<DieSoon>()
        .with::<Children>()
        .with::<Length>()
        .with::<Bytes>()
        .with::<LengthOfAll>()
        .with::<Hoard>()
        .with::<Repeat>()
        .with::<UntilStopped>()
        .with::<Mute>()
        .with::<Unreadable>()
        .with::<UnreadableOutput>()
        .with::<MuteOutput>()
        .with::<Nested>()
        .with::<NestedEndless>()
        .with::<Emit>()
}

/// A pool of this many workers, all there, whose output is of no interest.
pub(crate) fn pool(workers: usize) -> ProcessPool {
    let pool = quiet().workers(workers).build().expect("a pool");
    await_workers(&pool);
    pool
}

/// A builder of pools that keep to themselves what their workers print.
pub(crate) fn quiet() -> Builder {
    ProcessPool::builder().on_output(|_| {})
}

/// Waits until the pool has all its workers.
#[track_caller]
pub(crate) fn await_workers(pool: &ProcessPool) {
    harness::eventually("a full number of workers", || {
        let pids = pool.pids();
        pids.len() == pool.workers() && pids.into_iter().all(harness::is_alive)
    });
}

/// Runs short tasks until the pool sends them in chunks of at least 25, of which it hands over four
/// per worker ahead of the consumer. No task is left over.
#[track_caller]
pub(crate) fn warm_up(pool: &ProcessPool) {
    harness::eventually("chunks of 25 tasks", || {
        let taken = Cell::new(0);
        let tasks = (0..1_000 * pool.workers()).inspect(|_| taken.set(taken.get() + 1));
        let mut results = pool.map(tasks.map(|n| Echo(n.to_string())));
        assert!(results.next().is_some_and(|result| result.is_ok()));
        let ahead = taken.get();
        assert!(results.all(|result| result.is_ok()));
        ahead >= 4 * 25 * pool.workers()
    });
}

/// Runs this many tasks and checks that each gets its own output.
#[track_caller]
pub(crate) fn succeeds_with(pool: &ProcessPool, tasks: usize) {
    let texts = || (0..tasks).map(|n| n.to_string());
    let outputs: Vec<_> = pool.map(texts().map(Echo)).collect();
    assert_eq!(outputs, texts().map(Ok).collect::<Vec<_>>());
}

macro_rules! task {
    ($(#[$doc:meta])* $name:ident $fields:tt -> $output:ty: $task:ident, $context:ident => $run:expr) => {
        task!(@define $(#[$doc])* $name $fields);
        impl Task for $name {
            const NAME: &'static str = stringify!($name);
            type Output = $output;
            fn run(self, $context: &Context) -> Result<$output, Failure> {
                let $task = self;
                $run
            }
        }
    };
    (@define $(#[$doc:meta])* $name:ident ($($field:ty),*)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub(crate) struct $name($(pub(crate) $field),*);
    };
}

task!(/// Gives its argument back.
    Echo(String) -> String: task, _c => Ok(task.0));
task!(/// Gives any JSON back.
    Value(serde_json::Value) -> serde_json::Value: task, _c => Ok(task.0));
task!(/// Gives its argument back.
    Float(f64) -> f64: task, _c => Ok(task.0));
task!(/// Which process runs this.
    Pid() -> u32: _task, _c => Ok(process::id()));
task!(/// Which worker runs this, and in which process, and at which attempt.
Seat() -> (usize, u32, u32): _task, context => {
    // Long enough that the other workers get their share of many.
    thread::sleep(Duration::from_millis(1));
    Ok((context.worker(), process::id(), context.attempt()))
});
task!(/// A variable of the environment.
    Env(String) -> Option<String>: task, _c => Ok(std::env::var(task.0).ok()));
task!(/// Prints a line to standard output and one to standard error.
Say(String, String) -> (): task, _c => {
    println!("{}", task.0);
    eprintln!("{}", task.1);
    Ok(())
});
task!(/// Leaves a file behind, as a witness that it ran.
    Touch(PathBuf) -> (): task, _c => Ok(std::fs::write(task.0, "")?));
task!(/// Waits at a gate until it is opened; gives its process.
Pass(PathBuf) -> u32: task, _c => {
    harness::wait_at(&task.0);
    Ok(process::id())
});
task!(/// Waits at a gate until this number of tasks is there.
Meet(PathBuf, usize) -> u32: task, _c => {
    harness::meet_at(&task.0, task.1);
    Ok(process::id())
});
task!(/// Waits at a gate until this number of tasks is there; returns the length of its argument.
MeetWith(PathBuf, usize, String) -> usize: task, _c => {
    harness::meet_at(&task.0, task.1);
    Ok(task.2.len())
});
task!(/// Stays in a directory for a moment; gives the number of those who were there.
    Overlap(PathBuf) -> usize: task, _c => Ok(harness::visit(&task.0)));
task!(/// The process, and the value that was made once for it.
Local() -> (u32, usize): _task, context => {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let local = context.local(|| MADE.fetch_add(1, Ordering::SeqCst));
    Ok((process::id(), *local))
});
task!(/// Ends as it is told.
    Bad(Ending) -> (): task, _c => task.0.happen());
task!(/// Kills a worker, its own or another.
KillAnother(u32) -> (): task, _c => {
    let pid = i32::try_from(task.0).ok().and_then(rustix::process::Pid::from_raw);
    let _ = rustix::process::kill_process(pid.expect("a process id"), Signal::KILL);
    Ok(())
});
task!(/// Succeeds, after a wait at the gate, in a process that dies right afterwards.
DieSoon(PathBuf) -> u32: task, _c => {
    harness::wait_at(&task.0);
    thread::spawn(|| {
        thread::sleep(Duration::from_millis(100));
        process::abort();
    });
    Ok(process::id())
});
task!(/// Starts a program that goes on for ever, tells its process at the gate, and then ends as
/// told, if at all.
Children(Vec<String>, PathBuf, Option<Ending>) -> (): task, _c => {
    let Children(program, told, ending) = task;
    let child = Command::new(&program[0]).args(&program[1..]).spawn()?;
    let draft = told.with_extension("draft");
    std::fs::write(&draft, child.id().to_string())?;
    std::fs::rename(draft, told)?;
    match ending {
        Some(ending) => ending.happen(),
        None => loop {
            thread::park();
        },
    }
});
task!(/// Arrives at a gate and works until it is asked to stop; gives its attempt.
UntilStopped(PathBuf, AtStop) -> u32: task, context => {
    harness::arrive(&task.0);
    while !context.stop_requested() {
        thread::sleep(Duration::from_millis(2));
    }
    match task.1 {
        AtStop::Return => Ok(context.attempt()),
        AtStop::Fail => Err(Failure::msg("stopped")),
        AtStop::Abort => process::abort(),
        AtStop::Ignore => loop {
            thread::park();
        },
    }
});
task!(/// How long its argument is.
    Length(String) -> usize: task, _c => Ok(task.0.len()));
task!(/// Gives its argument back.
    Bytes(Blob) -> Blob: task, _c => Ok(task.0));
task!(/// How long all of its arguments are.
    LengthOfAll(Vec<Blob>) -> usize: task, _c => Ok(task.0.iter().map(|blob| blob.len()).sum()));
task!(/// A text of this length, and blobs of this length, with few descriptors left to the process.
Hoard(usize, usize, Vec<usize>) -> (String, Vec<Blob>): task, _c => {
    let open = || std::fs::File::open("/dev/null");
    let mut files: Vec<_> = std::iter::from_fn(|| open().ok()).collect();
    files.truncate(files.len().saturating_sub(task.0));
    files.into_iter().for_each(std::mem::forget);
    let blobs = task.2.into_iter().map(|len| vec![1; len].into()).collect();
    Ok(("x".repeat(task.1), blobs))
});
task!(/// A text of this length.
    Repeat(String, usize) -> String: task, _c => Ok(task.0.repeat(task.1)));
task!(/// Its argument refuses to be encoded.
    Mute(Refuses) -> (): _task, _c => Ok(()));
task!(/// Its argument refuses to be decoded.
    Unreadable(RefusesToBeRead) -> (): _task, _c => Ok(()));
task!(/// Its output refuses to be encoded.
    MuteOutput() -> Refuses: _task, _c => Ok(Refuses));
task!(/// Its output refuses to be decoded.
    UnreadableOutput() -> RefusesToBeRead: _task, _c => Ok(RefusesToBeRead));
task!(/// Runs tasks in a pool of its own; gives their processes.
Nested(usize) -> Vec<u32>: task, _c => {
    let pool = pool(task.0);
    let pids = pool.map((0..task.0 * 10).map(|_| Pid())).collect::<Result<Vec<_>, _>>()?;
    pool.shutdown(procession::Shutdown::Wait);
    Ok(pids)
});

task!(/// Emits these texts, waits at the gate if there is one, and ends as told.
Emit(Vec<String>, Option<PathBuf>, Ending) -> (): task, context => {
    for text in task.0 {
        context.emit(&text)?;
    }
    if let Some(gate) = task.1 {
        harness::wait_at(&gate);
    }
    task.2.happen()
});
task!(/// Runs a task that never ends in a pool of its own.
NestedEndless(PathBuf) -> (): task, _c => {
    pool(1).submit(Pass(task.0)).result()?;
    Ok(())
});

/// What a task does when it is asked to stop.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum AtStop {
    Return,
    Fail,
    Abort,
    Ignore,
}

/// The ways in which a task can go wrong while it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// None at all: it succeeds.
    None,
    Fail,
    /// Fails after a wait at the gate.
    FailAt(PathBuf),
    Panic,
    Abort,
    Segfault,
    Kill,
    Exit(i32),
    StackOverflow,
}

impl Ending {
    fn happen(&self) -> Result<(), Failure> {
        match *self {
            Self::None => Ok(()),
            Self::FailAt(ref gate) => {
                harness::wait_at(gate);
                Self::Fail.happen()
            }
            Self::Fail => Err(Outer(Inner).into()),
            Self::Panic => panic!("{ON_PURPOSE}"),
            Self::Abort => process::abort(),
            Self::Segfault => end_by(Signal::SEGV),
            Self::Kill => end_by(Signal::KILL),
            Self::Exit(code) => process::exit(code),
            Self::StackOverflow => {
                descend(0);
                Ok(())
            }
        }
    }
}

fn end_by(signal: Signal) -> ! {
    // The standard library looks at a segmentation fault before it lets it happen, which then
    // takes a second one.
    loop {
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
}

#[allow(unconditional_recursion)]
fn descend(depth: usize) -> usize {
    let frame = std::hint::black_box([depth; 128]);
    descend(depth + 1) + frame[depth % 128]
}

#[derive(Debug, thiserror::Error)]
#[error("the outer error")]
struct Outer(#[source] Inner);

#[derive(Debug, thiserror::Error)]
#[error("the inner error")]
struct Inner;

/// Cannot be encoded.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Refuses;

impl Serialize for Refuses {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(Refusal))
    }
}

/// Cannot be decoded.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RefusesToBeRead;

impl<'de> Deserialize<'de> for RefusesToBeRead {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(Refusal))
    }
}

struct Refusal;

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it will not")
    }
}
