//! The errors: of one task ([`TaskError`]) and of the whole pool ([`PoolError`]). They are plain values
//! (`Clone`, comparable, without handles): several futures may get the same error, and some errors arrive from
//! another process.

mod backtrace;
mod death;
mod failure;
mod kept_input;
#[cfg(all(feature = "backtrace", target_os = "linux"))]
mod symbols;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use self::backtrace::is_library;
pub use self::backtrace::{Backtrace, Frame};
pub(crate) use self::death::with_unit;
pub use self::death::{Death, Exit};
use self::death::{kept_in, last_said, on_host};
pub use self::failure::{Cause, DowncastError, Failure};
pub use self::kept_input::KeptInput;
use crate::printable::printable;

/// Why a task has no output.
///
/// | type | what it is | where |
/// |---|---|---|
/// | [`Failure`] | the error that a task returns | [`Task::run`](crate::Task::run) |
/// | [`Cause`] | the same error as it arrives: its messages, and itself if it could be sent | [`Failed`](Self::Failed) |
/// | [`Death`] | the end of a worker that ran a task: which task, which process, how | [`WorkerDied`](Self::WorkerDied) |
/// | [`Backtrace`](crate::Backtrace) | the calls in which a worker crashed | [`Death::backtrace`] |
/// | [`Exit`] | how a process ended: exit code or signal | [`Death::exit`], [`PoolEvent`](crate::PoolEvent) |
/// | [`Fault`](crate::Fault) | the kind of an attempt that failed, which decides on a retry | [`Retries`](crate::Retries), [`PoolEvent`](crate::PoolEvent) |
///
/// ```
/// use procession::TaskError;
///
/// fn is_worth_a_retry(error: &TaskError) -> bool {
///     match error {
///         TaskError::WorkerDied(death) => !death.is_collateral,
///         TaskError::TimedOut { .. } => true,
///         _ => false, // the task's own error, a panic, a value that cannot be sent
///     }
/// }
/// assert!(!is_worth_a_retry(&TaskError::failed("no such file")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TaskError {
    /// The task ran and returned an error of its own; walk it with
    /// [`Error::source`](std::error::Error::source), or have it back with
    /// [`downcast`](Self::downcast).
    #[error(transparent)]
    Failed(Cause),
    /// The task panicked. Its worker caught the panic and runs further tasks.
    #[error("task panicked{}: {}", at(location), printable(message))]
    Panicked {
        /// What the panic said.
        message: String,
        /// `file:line:column`, where it is known.
        location: Option<String>,
        /// The calls of the task in which it panicked, the innermost first, such as
        /// `app::scale at src/main.rs:7:5`: at most 50. Empty where backtraces are off, that is without
        /// `RUST_BACKTRACE=1` or `RUST_LIB_BACKTRACE=1` in the environment.
        ///
        /// ```
        /// # use procession::TaskError;
        /// fn report(error: &TaskError) {
        ///     eprintln!("{error}");
        ///     if let TaskError::Panicked { backtrace, .. } = error {
        ///         backtrace.iter().for_each(|call| eprintln!("  {call}"));
        ///     }
        /// }
        /// ```
        backtrace: Vec<String>,
    },
    /// The process that ran the task ended before it answered.
    #[error(transparent)]
    WorkerDied(Box<Death>),
    /// The task ran longer than it may, and was ended together with its worker. Or two workers, one after the other, did
    /// not begin it: the first by its deadline and for 0.4 s, the second for 0.3 s. That happens if workers are stopped,
    /// or get no CPU for that time.
    #[error(
        "task {task:?} ran longer than {} and was ended{} together with worker {worker} (pid {pid}){}{}{}",
        with_unit(after), counted(*attempts), on_host(host), last_said(last_output), kept_in(kept)
    )]
    TimedOut {
        /// The kind of task, by its [`NAME`](crate::Task::NAME).
        task: String,
        /// Which worker of the pool ran it last, counted from 0.
        worker: usize,
        /// The process that was ended.
        pid: u32,
        /// The name of the host of the worker, if the executor's workers are on other hosts; else `None`.
        host: Option<Box<str>>,
        /// How long it was allowed to run.
        after: Duration,
        /// How often the task was begun, also on hosts that were lost.
        attempts: u32,
        /// The last lines that the process wrote to stderr or stdout, oldest first. They may contain
        /// lines of earlier tasks of that worker.
        last_output: Vec<String>,
        /// Where the task was kept, if the pool keeps such tasks:
        /// [`Builder::keep_crashes`](crate::Builder::keep_crashes).
        kept: Option<KeptInput>,
    },
    /// The host that ran the task gave no sign of life for longer than its lease, so the task was taken away
    /// from it: it may have run to its end or not, and its result is refused. Of an executor whose workers
    /// are on other hosts.
    #[error("host {host} was lost with task {task:?}, which it had begun{}", counted(*attempts))]
    HostLost {
        /// The kind of task, by its [`NAME`](crate::Task::NAME).
        task: String,
        /// The name that the host gave itself.
        host: String,
        /// How often the task was begun, on all hosts.
        attempts: u32,
    },
    /// The task has the place of another one in a job that this executor has attached to: an earlier program
    /// submitted other tasks, or in another order. It was not begun.
    #[error(
        "job {job} had another task than {task:?} in place {index}, when it was submitted before"
    )]
    OtherTask {
        /// The kind of task, by its [`NAME`](crate::Task::NAME).
        task: String,
        /// The name of the job.
        job: String,
        /// The place of the task in the order of submission, from 0.
        index: u64,
    },
    /// The future was cancelled, or its executor was shut down, before there was an output.
    #[error("task was cancelled")]
    Cancelled,
    /// The task, or its output, cannot be encoded so that an equal value is read back, so it was
    /// not sent; see [`Task::ENCODING`](crate::Task::ENCODING).
    #[error("cannot encode {}{}: {}", part(what, task), in_field(field), printable(reason))]
    Unencodable {
        /// `task` or `output`.
        what: String,
        /// The kind of task, by its [`NAME`](crate::Task::NAME).
        task: String,
        /// Which part of the value was refused, such as `.items[3].ratio`; empty if that is the
        /// value itself.
        field: String,
        /// What the encoder said.
        reason: String,
    },
    /// The task, or its output, arrived but could not be read on the other side, or was read there
    /// as another value, as an untagged enum may do.
    #[error("cannot decode {}{}: {}", part(what, task), in_field(field), printable(reason))]
    Undecodable {
        /// `task`, `output` or `reply`.
        what: String,
        /// The kind of task, by its [`NAME`](crate::Task::NAME). Empty if it is not known.
        task: String,
        /// Which part became another value, such as `.items[3].ratio`; empty for the whole, or if it is not
        /// known.
        field: String,
        /// What the decoder said, or that no task of this name is registered.
        reason: String,
    },
    /// The task, or its output, did not get to the other side: a process had too few descriptors, or too
    /// little memory, to send or to receive it, or a limit of file sizes forbids it. A task that no
    /// worker could receive was not begun.
    #[error("cannot deliver the {what}: {}", printable(reason))]
    Undelivered {
        /// `task` or `output`.
        what: String,
        /// Which side failed, and what the operating system said.
        reason: String,
    },
    /// A wait for the output was refused, because it would never have ended. The task goes on. One of
    /// these holds:
    ///
    /// - The waiting thread delivers the outputs of this executor. It does so in `on_event`, `on_say`
    ///   and `on_output`, and in `Deserialize` and `Drop` of an output.
    /// - The waiting thread runs a task or a callback that has to end before the awaited task can.
    /// - The waiting thread runs tasks or callbacks, and the system starts no other thread that would
    ///   run the next of them during the wait.
    #[error(
        "waiting for this task here would never end, because it needs this thread: wait outside of tasks and \
         callbacks of its executor"
    )]
    WouldDeadlock,
    /// The output was handed over before: the future was awaited to its end.
    #[error("the output of this task was already taken")]
    AlreadyTaken,
    /// The executor cannot run anything any more, or was shut down before the task was submitted.
    #[error("the pool cannot run this task: {0}")]
    PoolBroken(#[source] PoolError),
}

impl TaskError {
    /// The error of a task that returned this failure: [`Failed`](Self::Failed). It is for tests of code
    /// that handles errors, as [`Death::new`] is.
    ///
    /// ```
    /// # use procession::TaskError;
    /// let error = TaskError::failed("no such file");
    /// assert_eq!(error.to_string(), "no such file");
    /// ```
    pub fn failed(failure: impl Into<Failure>) -> Self {
        Self::Failed(failure.into().into_cause())
    }

    /// The file in which the task was kept, by [`Builder::keep_crashes`](crate::Builder::keep_crashes).
    ///
    /// ```
    /// # use procession::{KeptTask, ReplayError, TaskError};
    /// fn kept(error: &TaskError) -> Option<Result<KeptTask, ReplayError>> {
    ///     error.kept_file().map(KeptTask::read)
    /// }
    /// assert!(kept(&TaskError::Cancelled).is_none());
    /// ```
    pub fn kept_file(&self) -> Option<&Path> {
        let kept = match self {
            Self::WorkerDied(death) => &death.kept,
            Self::TimedOut { kept, .. } => kept,
            _ => return None,
        };
        kept.as_ref()?.file()
    }

    /// The task's own error itself, if it is an `E` and could be sent: see [`Cause::downcast`].
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize, thiserror::Error)]
    /// #[error("the limit is {limit}")]
    /// struct TooLarge { limit: u64 }
    ///
    /// #[procession::task]
    /// fn factorial(n: u64) -> Result<u64, TooLarge> {
    ///     if n > 20 { Err(TooLarge { limit: 20 }) } else { Ok((1..=n).product()) }
    /// }
    ///
    /// let error = Sequential::new().submit(factorial(21)).result().unwrap_err();
    /// assert_eq!(error.downcast(), Ok(TooLarge { limit: 20 }));
    /// assert!(TaskError::Cancelled.downcast::<TooLarge>().is_err()); // no error of the task's own
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DowncastError`] says what the error is in place of an `E`.
    pub fn downcast<E: Serialize + DeserializeOwned + Send>(&self) -> Result<E, DowncastError> {
        match self {
            Self::Failed(cause) => cause.downcast(),
            error => Err(DowncastError::NoValue {
                wanted: std::any::type_name::<E>(),
                error: error.to_string(),
            }),
        }
    }
}

impl TaskError {
    /// The error of a worker of another host, on which the task was begun after `earlier` attempts elsewhere.
    #[cfg(feature = "remote")]
    pub(crate) fn on_host(mut self, name: &str, earlier: u32) -> Self {
        let (host, attempts) = match &mut self {
            Self::WorkerDied(death) => {
                let Death { host, attempts, .. } = &mut **death;
                (host, attempts)
            }
            Self::TimedOut { host, attempts, .. } => (host, attempts),
            _ => return self,
        };
        *host = Some(name.into());
        *attempts = attempts.saturating_add(earlier);
        self
    }
}

fn counted(attempts: u32) -> String {
    if attempts > 1 { format!(", {attempts} times") } else { String::new() }
}

fn tried(tries: u32) -> String {
    if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries in a row") }
}

fn part(what: &str, task: &str) -> String {
    match (what, task) {
        (what, "") => format!("the {what}"),
        ("task", task) => format!("task {task:?}"),
        (what, task) => format!("the {what} of task {task:?}"),
    }
}

fn in_field(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!(" at {}", printable(field)) }
}

fn at(location: &Option<String>) -> String {
    location.as_ref().map_or_else(String::new, |l| format!(" at {}", printable(l)))
}

/// Why a pool cannot be built, or cannot go on.
///
/// ```
/// use procession::{PoolError, ProcessPool};
///
/// let refused = ProcessPool::builder().workers(0).build();
/// assert!(matches!(refused, Err(PoolError::Setting(_))));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PoolError {
    /// A setting of the builder makes no sense.
    #[error("{0}")]
    Setting(String),
    /// The worker program cannot be found or is no program.
    #[error("cannot use {path:?} as the worker program: {reason}")]
    Program {
        /// The program that was to be started.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This process was itself started as a worker, and its `main` did not serve.
    #[error(
        "this process was started as a worker but builds a pool of its own: call \
         procession::worker::serve_if_asked(..) first thing in main"
    )]
    NotServing,
    /// The worker program runs, but does not become a worker.
    #[error("the worker program does not serve: {cause}")]
    WorkerNotServing {
        /// What the program did instead, and what to write where.
        cause: String,
    },
    /// The worker program is a wrapper that starts the program that would serve, and stays between,
    /// replaces the standard input, which is the worker's socket to the coordinator, or clears the
    /// environment, in which the worker finds its invitation.
    #[error(
        "the worker program is a wrapper: {cause}. It must become that program, with `exec`, and \
         leave its standard input alone, and PROCESSION_INVITATION in its environment"
    )]
    WorkerWrapped {
        /// What it did.
        cause: String,
    },
    /// This system lacks a layer of the [`Sandbox`](crate::Sandbox), or refuses it.
    #[error("the sandbox cannot be put in place: {layer}: {why}")]
    SandboxUnavailable {
        /// `limits`, `capabilities`, `landlock` or `seccomp`.
        layer: String,
        /// The cause.
        why: String,
    },
    /// There is no directory in which workers can meet their coordinator.
    #[error(
        "no temporary directory is usable for the workers' sockets: {0}. Set TMPDIR to a writable directory \
         with a short path"
    )]
    NoRunDir(String),
    /// The journal of the pool cannot be written: see `Builder::journal`.
    #[error("{0}")]
    Journal(String),
    /// No worker could be started, again and again, so the pool gave up.
    #[error("no worker could be started ({}): {cause}", tried(*tries))]
    CannotStart {
        /// How many starts failed in a row.
        tries: u32,
        /// What the last of them died of.
        cause: String,
    },
    /// The operating system refused something that the pool needs.
    #[error("{0}")]
    System(String),
    /// A thread of the executor's own ended in a panic: a fault in this crate.
    #[error("the executor's thread {thread:?} panicked, a fault in procession: {message}")]
    ThreadDied {
        /// The thread's name.
        thread: String,
        /// What the panic said, and where.
        message: String,
    },
    /// What connects the executor with its hosts is gone, or has lost what it was to keep.
    #[error("the hosts cannot be used: {0}")]
    Broker(String),
    /// Another program, or another executor of this one, works on the job of this name.
    #[error("job {job} is worked on by another program: {by}")]
    JobHeld {
        /// The name of the job.
        job: String,
        /// Which one: its host and process id.
        by: String,
    },
    /// This process was forked from the one that has the executor. Only that one can use it; this one
    /// can build another.
    #[error("this process was forked from the one that has the executor: build another one here")]
    Forked,
    /// The executor was shut down before.
    #[error("the executor was shut down")]
    ShutDown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_what_a_worker_said_without_control_characters() {
        let text = || "\u{1b}[2Jgone".to_owned();
        let what = || "output".to_owned();
        let panicked = TaskError::Panicked {
            message: text(),
            location: Some(text()),
            backtrace: vec![text()],
        };
        let task = || "t".to_owned();
        let unencodable =
            TaskError::Unencodable { what: what(), task: task(), field: text(), reason: text() };
        let undecodable =
            TaskError::Undecodable { what: what(), task: task(), field: text(), reason: text() };
        let undelivered = TaskError::Undelivered { what: what(), reason: text() };
        let mut death = Box::new(Death::new("t", Exit::Code(1)));
        death.last_output = vec![text()];
        let worker_died = TaskError::WorkerDied(death);
        let of_another_type = DowncastError::OfAnotherType { wanted: "E", found: text() };
        let errors = [panicked, unencodable, undecodable, undelivered, worker_died];
        let shown = errors.iter().map(ToString::to_string).chain([of_another_type.to_string()]);
        for shown in shown {
            assert!(shown.contains(r"\u{1b}[2Jgone"), "{shown:?}");
            assert!(!shown.contains(char::is_control), "{shown:?}");
        }
    }

    #[test]
    fn an_error_counts_one_try_as_one_and_quotes_an_empty_path() {
        let told = |tries| PoolError::CannotStart { tries, cause: "it ended".into() }.to_string();
        assert_eq!(told(1), "no worker could be started (1 try): it ended");
        assert_eq!(told(8), "no worker could be started (8 tries in a row): it ended");
        let error = PoolError::Program { path: PathBuf::new(), reason: "it is missing".into() };
        assert_eq!(error.to_string(), "cannot use \"\" as the worker program: it is missing");
    }
}
