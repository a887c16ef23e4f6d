//! What can go wrong, typed: with one task ([`TaskError`]) or with the whole pool
//! ([`PoolError`]). Errors are plain values (`Clone`, comparable, no handles inside), because each
//! future gets its own and because half of them arrive from another process.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a task has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The task ran and returned an error of its own; walk it with [`Error::source`].
    #[error(transparent)]
    Failed(Cause),
    /// The task panicked. Its worker caught that and lives on.
    #[error("task panicked{}: {message}", at(location))]
    Panicked {
        /// What the panic said.
        message: String,
        /// `file:line:column`, where it is known.
        location: Option<String>,
    },
    /// The process that ran the task ended before it answered.
    #[error(transparent)]
    WorkerDied(Death),
    /// The task ran longer than it may, and was ended together with its worker.
    #[error("task ran longer than {after:?} and was ended{}", counted(*attempts))]
    TimedOut {
        /// How long it was allowed to run.
        after: Duration,
        /// How often the task was begun.
        attempts: u32,
    },
    /// The future was cancelled, or its executor was shut down, before there was an output.
    #[error("task was cancelled")]
    Cancelled,
    /// The task, or its output, cannot be encoded so that an equal value is read back, so it was
    /// not sent; see [`Task::ENCODING`](crate::Task::ENCODING).
    #[error("cannot encode {}{}: {reason}", part(what, task), in_field(field))]
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
    #[error("cannot decode the {what}: {reason}")]
    Undecodable {
        /// `task` or `output`.
        what: String,
        /// What the decoder said, or that no task of this name is registered.
        reason: String,
    },
    /// The task, or its output, did not get to the other side: a process had too few descriptors, or too
    /// little memory, to send or to receive it, or a limit of file sizes forbids it. A task that no
    /// worker could receive was not begun.
    #[error("cannot deliver the {what}: {reason}")]
    Undelivered {
        /// `task` or `output`.
        what: String,
        /// Which side failed, and what the operating system said.
        reason: String,
    },
    /// The output was not waited for, because that wait would never have ended: it began on a
    /// thread that delivers the outputs of this executor (in `on_event`, `on_say` or `on_output`,
    /// in `Deserialize` or `Drop` of an output), or in a task or callback for which the awaited
    /// task itself waits, or where the system starts no thread to go on with the rest. The task
    /// goes on all the same.
    #[error("waiting for this task here would never end")]
    WouldDeadlock,
    /// The output was handed over before: the future was awaited to its end.
    #[error("the output of this task was already taken")]
    AlreadyTaken,
    /// The executor cannot run anything any more, or was shut down before the task was submitted.
    #[error("the pool cannot run this task: {0}")]
    PoolBroken(#[source] PoolError),
}

fn counted(attempts: u32) -> String {
    if attempts > 1 { format!(", {attempts} times") } else { String::new() }
}

fn tried(tries: u32) -> String {
    if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries in a row") }
}

fn part(what: &str, task: &str) -> String {
    if what == "task" { format!("task {task:?}") } else { format!("the {what} of task {task:?}") }
}

fn in_field(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!(" at {field}") }
}

fn at(location: &Option<String>) -> String {
    location.as_ref().map_or_else(String::new, |l| format!(" at {l}"))
}

/// A task's own error as it crossed the process border: each message, outermost first.
///
/// It is an [`Error`] whose [`source`](Error::source) is the next cause, so reporters such as
/// `anyhow` print the chain as if the error had happened here. At most 64 messages of a chain are
/// kept; one more says where it was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Box<Cause>>,
}

/// How many messages of a chain are kept. A chain may be endless: an error can be its own source.
const MAX_CAUSES: usize = 64;

impl Cause {
    fn of(error: &dyn Error) -> Self {
        let mut messages = vec![error.to_string()];
        let mut next = error.source();
        while let Some(error) = next {
            if messages.len() == MAX_CAUSES {
                messages.push(format!("the chain of causes was cut after {MAX_CAUSES} messages"));
                break;
            }
            messages.push(error.to_string());
            next = error.source();
        }
        let chain = messages
            .into_iter()
            .rev()
            .fold(None, |source, message| Some(Box::new(Cause { message, source })));
        *chain.expect("a chain of at least one message")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}

/// What a task returns when it fails: made by `?` from any [`Error`], or by [`Failure::msg`].
///
/// Only the messages are kept, since the error value itself cannot leave its process. Like
/// `anyhow::Error` it is no [`Error`] itself; the future's [`TaskError::Failed`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(Cause);

impl Failure {
    /// A failure that is only a message.
    pub fn msg(message: impl fmt::Display) -> Self {
        Self(Cause { message: message.to_string(), source: None })
    }

    /// A failure from an error behind a reference or a box, with its whole chain.
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self(Cause::of(error))
    }

    pub(crate) fn into_cause(self) -> Cause {
        self.0
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Cause::of(&error))
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// It ended by itself, with this exit code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It ended, but how is not known: another part of the program took its status, or has told the
    /// operating system to discard such statuses (by ignoring SIGCHLD).
    Unknown,
    /// It was to be ended and lives on, since the operating system does not do it. The pool goes on
    /// without it.
    WrittenOff,
}

impl From<std::process::ExitStatus> for Exit {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Unknown => f.write_str("an unknown cause"),
            Self::WrittenOff => f.write_str("no end: it was to be ended and lives on"),
            Self::Signal(number) => match signal_name(number) {
                Some(name) => write!(f, "signal {number} ({name})"),
                None if is_real_time(number) => write!(f, "real-time signal {number}"),
                None => write!(f, "signal {number}"),
            },
        }
    }
}

/// Only Linux gives them an effect of their own number.
fn is_real_time(number: i32) -> bool {
    cfg!(target_os = "linux") && (32..=64).contains(&number)
}

fn signal_name(number: i32) -> Option<&'static str> {
    use rustix::process::Signal;
    // Numbers differ between systems, so the names are found by the system's own constants.
    [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        #[cfg(target_os = "linux")]
        (Signal::POWER, "SIGPWR"),
        #[cfg(target_os = "linux")]
        (Signal::STKFLT, "SIGSTKFLT"),
        (Signal::IO, "SIGIO"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ]
    .into_iter()
    .find_map(|(signal, name)| (signal.as_raw() == number).then_some(name))
}

/// The end of a worker process that took a task with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Death {
    /// The kind of task, by its [`NAME`](crate::Task::NAME).
    pub task: String,
    /// Which worker of the pool, counted from 0.
    pub worker: usize,
    /// The process that died.
    pub pid: u32,
    /// Signal or exit code.
    pub exit: Exit,
    /// How often the task was begun, this time included.
    pub attempts: u32,
    /// How long the task had been running at most (from when it was its turn until the end).
    pub ran_for: Duration,
    /// Whether the pool itself ended the worker, because of another task that ran in it.
    pub is_collateral: bool,
    /// The last lines that the process wrote to stderr or stdout, oldest first.
    pub last_output: Vec<String>,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, worker, pid, exit, attempts, ran_for, is_collateral, last_output: _ } =
            self;
        let how = match exit {
            Exit::WrittenOff => "could not be ended and was left behind".to_owned(),
            exit => format!("died of {exit}"),
        };
        write!(f, "worker {worker} (pid {pid}) {how} {ran_for:.1?} into task {task:?}")?;
        if *attempts > 1 {
            write!(f, ", attempt {attempts}")?;
        }
        let is_killed = *exit == Exit::Signal(rustix::process::Signal::KILL.as_raw());
        if *is_collateral {
            write!(f, " (ended with another task that ran for too long in the same worker)")?;
        } else if is_killed {
            write!(
                f,
                " (sent by hand, or by the system for want of memory or at a limit of CPU time)"
            )?;
        }
        if let Some(line) = self.last_output.last() {
            write!(f, "; it last said: {line}")?;
        }
        Ok(())
    }
}

impl Error for Death {}

/// Why a pool cannot be built, or cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    #[error(
        "the worker program does not serve: {cause}. Call \
         procession::worker::serve_if_asked(registry) first thing in the main of that program. \
         Under `reply_buffer test`, where main is not your own: build the pool in a test with `harness = \
         false` in ReplyBuffer.toml, or give it a program that serves by Builder::worker_program"
    )]
    WorkerNotServing {
        /// What it did in place of that.
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
    /// There is no directory in which workers can meet their coordinator.
    #[error("no temporary directory is usable for the workers' sockets: {0}")]
    NoRunDir(String),
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
    #[error("the executor's thread {thread:?} panicked: {message}")]
    ThreadDied {
        /// The thread's name.
        thread: String,
        /// What the panic said, and where.
        message: String,
    },
    /// This process was forked from the one that has the executor. Only that one can use it; this one
    /// can build another.
    #[error("this process was forked from the one that has the executor")]
    Forked,
    /// The executor was shut down before.
    #[error("the executor was shut down")]
    ShutDown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read settings")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn a_failure_keeps_the_whole_chain_of_causes() {
        let inner = "x".parse::<i32>().unwrap_err();
        let failure = Failure::from(Outer(inner.clone()));
        let error = TaskError::Failed(failure.into_cause());
        assert_eq!(error.to_string(), "cannot read settings");
        assert_eq!(error.source().expect("a source").to_string(), inner.to_string());
    }

    #[derive(Debug)]
    struct Endless;

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("endless")
        }
    }

    impl Error for Endless {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    #[test]
    fn an_error_that_is_its_own_source_is_cut_and_the_last_message_says_so() {
        let cause = Failure::from(Endless).into_cause();
        let mut messages = vec![cause.to_string()];
        let mut next = cause.source();
        while let Some(error) = next {
            messages.push(error.to_string());
            next = error.source();
        }
        assert_eq!(messages.len(), 65);
        assert!(messages[..64].iter().all(|message| message == "endless"));
        assert_eq!(messages[64], "the chain of causes was cut after 64 messages");
    }

    #[test]
    fn an_exit_names_its_signal() {
        assert_eq!(Exit::Signal(11).to_string(), "signal 11 (SIGSEGV)");
        assert_eq!(Exit::Code(42).to_string(), "exit code 42");
        let of = |signal: rustix::process::Signal| Exit::Signal(signal.as_raw()).to_string();
        assert!(of(rustix::process::Signal::PROF).ends_with(" (SIGPROF)"));
        if cfg!(target_os = "linux") {
            assert_eq!(Exit::Signal(30).to_string(), "signal 30 (SIGPWR)");
            assert_eq!(Exit::Signal(63).to_string(), "real-time signal 63");
        }
        assert_eq!(Exit::Signal(99).to_string(), "signal 99");
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
