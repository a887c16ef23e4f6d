//! How a process ended: [`Exit`]. How a worker ended that ran a task: [`Death`].

use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kept_input::KeptInput;

use super::Backtrace;
use crate::printable::printable;

/// How a process ended.
///
/// ```
/// use procession::Exit;
///
/// assert_eq!(Exit::Signal(11).to_string(), "signal 11 (SIGSEGV)");
/// assert_eq!(Exit::Code(1).to_string(), "exit code 1");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Exit {
    /// It ended by itself, with this exit code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It ended, and its status is unknown: another part of the program reaped it, or the program ignores
    /// SIGCHLD, so the operating system discards the status.
    Unknown,
    /// It was still running five seconds after SIGKILL. The pool goes on without it.
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
            Self::WrittenOff => f.write_str("not ended: still running 5 s after SIGKILL"),
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

/// The end of a worker process that ran a task.
///
/// ```
/// use procession::{Death, Exit, TaskError};
///
/// fn report(error: &TaskError) -> String {
///     match error {
///         TaskError::WorkerDied(death) if death.exit == Exit::Signal(9) => {
///             format!("{} was killed: is there enough memory?", death.task)
///         }
///         TaskError::WorkerDied(death) => format!("{} died of {}", death.task, death.exit),
///         error => error.to_string(),
///     }
/// }
/// let death = Death::new("thumb", Exit::Signal(11));
/// assert_eq!(report(&TaskError::WorkerDied(Box::new(death))), "thumb died of signal 11 (SIGSEGV)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Death {
    /// The kind of task, by its [`NAME`](crate::Task::NAME).
    pub task: String,
    /// Which worker of the pool, counted from 0.
    pub worker: usize,
    /// The process that died.
    pub pid: u32,
    /// The name of the host of the worker, if the executor's workers are on other hosts; else `None`.
    pub host: Option<Box<str>>,
    /// Signal or exit code.
    pub exit: Exit,
    /// How often the task was begun: this time, before, and on hosts that were lost.
    pub attempts: u32,
    /// Upper bound of the run time of the task.
    pub ran_for: Duration,
    /// Whether the pool itself ended the worker, because of another task that ran in it.
    pub is_collateral: bool,
    /// The last lines that the process wrote to stderr or stdout, oldest first: at most 50, and 256 KiB. They may
    /// contain lines of earlier tasks of that worker.
    pub last_output: Vec<String>,
    /// Where the task was kept, if the pool keeps such tasks:
    /// [`Builder::keep_crashes`](crate::Builder::keep_crashes).
    pub kept: Option<KeptInput>,
    /// The calls in which it crashed, if a signal such as SIGSEGV or SIGABRT ended it and the worker could
    /// record them. If it ran several tasks at a time, they may be those of another of them.
    pub backtrace: Option<Backtrace>,
    /// What the [`Sandbox`](crate::Sandbox) does not allow and what ended the process: a system call, such as
    /// `socket: denied`, or `memory: more than 1073741824 bytes`. Where nothing could note its name, as when the C
    /// library starts a program with all signals blocked, the text says so.
    pub violation: Option<Box<str>>,
}

impl Death {
    /// The death of a worker in the first attempt of a task. The pool does not use it: it is for tests of
    /// code that handles errors, which set the other fields as they need them.
    ///
    /// ```
    /// # use procession::{Death, Exit, TaskError};
    /// fn is_worth_another_try(error: &TaskError) -> bool {
    ///     matches!(error, TaskError::WorkerDied(death) if death.attempts < 3)
    /// }
    ///
    /// let mut death = Box::new(Death::new("thumb", Exit::Signal(11)));
    /// assert!(is_worth_another_try(&TaskError::WorkerDied(death.clone())));
    /// death.attempts = 3;
    /// assert!(!is_worth_another_try(&TaskError::WorkerDied(death)));
    /// assert!(!is_worth_another_try(&TaskError::failed("the disk is full")));
    /// ```
    pub fn new(task: impl Into<String>, exit: Exit) -> Self {
        Self {
            task: task.into(),
            worker: 0,
            pid: 0,
            host: None,
            exit,
            attempts: 1,
            ran_for: Duration::ZERO,
            is_collateral: false,
            last_output: Vec::new(),
            kept: None,
            backtrace: None,
            violation: None,
        }
    }
}

/// A duration as `Debug` writes it, with a blank before its unit: `5.7 ms`.
pub(crate) fn with_unit(duration: impl fmt::Debug) -> String {
    let duration = format!("{duration:?}");
    let unit = duration.find(char::is_alphabetic).unwrap_or(duration.len());
    let (number, unit) = duration.split_at(unit);
    format!("{number} {unit}")
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, worker, pid, exit, attempts, ran_for, is_collateral, .. } = self;
        let how = match exit {
            Exit::WrittenOff => "could not be ended and was left behind".to_owned(),
            exit => format!("died of {exit}"),
        };
        let ran_for = with_unit(format_args!("{ran_for:.1?}"));
        let host = on_host(&self.host);
        write!(f, "worker {worker} (pid {pid}){host} {how} {ran_for} into task {task:?}")?;
        if *attempts > 1 {
            write!(f, ", attempt {attempts}")?;
        }
        let is_killed = *exit == Exit::Signal(rustix::process::Signal::KILL.as_raw());
        if *is_collateral {
            write!(f, " (ended with another task that ran for too long in the same worker)")?;
        } else if is_killed && self.violation.is_none() {
            write!(f, " (sent by `kill`, the out-of-memory killer or the CPU limit)")?;
        }
        if let Some(violation) = &self.violation {
            write!(f, ", by its sandbox ({violation})")?;
        }
        if let Some(functions) = self.backtrace.as_ref().and_then(Backtrace::summary) {
            write!(f, ", in {functions}")?;
        }
        f.write_str(&last_said(&self.last_output))?;
        f.write_str(&kept_in(&self.kept))
    }
}

impl Error for Death {}

/// Where a worker was, after its number.
pub(super) fn on_host(host: &Option<Box<str>>) -> String {
    host.as_ref().map_or_else(String::new, |host| format!(" on host {}", printable(host)))
}

/// Where the task was kept, as the end of a message.
pub(super) fn kept_in(kept: &Option<KeptInput>) -> String {
    kept.as_ref().map_or_else(String::new, |kept| format!("; {kept}"))
}

/// The last line of output that is not blank, a hint or a line of the test harness, as the end of a
/// message.
pub(super) fn last_said(output: &[String]) -> String {
    let line = output.iter().rfind(|line| tells_something(line));
    line.map_or_else(String::new, |line| format!("; it last said: {}", printable(line)))
}

/// Not so: blank lines, the hint and the calls that follow the message of a panic, and what the test
/// harness of the standard library prints around a test.
fn tells_something(line: &str) -> bool {
    let is_call = is_of_stack_backtrace(line);
    let line = line.trim();
    let is_hint = line.starts_with("note: run with `RUST_BACKTRACE=")
        || line.starts_with("note: Some details are omitted, run with `RUST_BACKTRACE=");
    let words: Vec<_> = line.split(' ').collect();
    let is_of_harness = match words[..] {
        ["running", number, "test" | "tests"] => number.parse::<usize>().is_ok(),
        ["test", _, "...", ..] | ["test", "result:", ..] => true,
        _ => false,
    };
    !(line.is_empty() || is_hint || is_call || is_of_harness)
}

/// `stack backtrace:`, `   0: app::scale` or `             at ./src/main.rs:7:5`, as the standard library
/// prints them. With `RUST_BACKTRACE=full` an address of 10 or 18 characters precedes the function, and the
/// place below it is indented by that number of characters more.
fn is_of_stack_backtrace(line: &str) -> bool {
    let text = line.trim_start();
    let is_place = || text.starts_with("at ") && matches!(line.len() - text.len(), 13 | 23 | 31);
    let is_numbered = || {
        text.split_once(": ").is_some_and(|(number, _)| {
            line.len() - text.len() + number.len() == 4 && number.parse::<u32>().is_ok()
        })
    };
    text == "stack backtrace:" || is_place() || is_numbered()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_names_its_signal() {
        assert_eq!(Exit::Signal(11).to_string(), "signal 11 (SIGSEGV)");
        assert_eq!(Exit::Code(42).to_string(), "exit code 42");
        assert_eq!(Exit::WrittenOff.to_string(), "not ended: still running 5 s after SIGKILL");
        let of = |signal: rustix::process::Signal| Exit::Signal(signal.as_raw()).to_string();
        assert!(of(rustix::process::Signal::PROF).ends_with(" (SIGPROF)"));
        if cfg!(target_os = "linux") {
            assert_eq!(Exit::Signal(30).to_string(), "signal 30 (SIGPWR)");
            assert_eq!(Exit::Signal(63).to_string(), "real-time signal 63");
        }
        assert_eq!(Exit::Signal(99).to_string(), "signal 99");
    }

    #[test]
    fn durations_have_a_blank_before_their_unit() {
        let shown = [12, 5_700, 1_500_000].map(Duration::from_micros).map(|duration| {
            let death = Death { ran_for: duration, ..Death::new("t", Exit::Code(1)) };
            death.to_string().replace("worker 0 (pid 0) died of exit code 1 ", "")
        });
        let expected =
            ["12.0 µs into task \"t\"", "5.7 ms into task \"t\"", "1.5 s into task \"t\""];
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_last_words_are_neither_blank_nor_a_hint_nor_of_the_test_harness() {
        let said = |lines: &[&str]| {
            last_said(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
        };
        let hint = "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";
        let lines =
            ["running 1 test", "boom", "", hint, "  ", "test a::b ... FAILED", "running 0 tests"];
        assert_eq!(said(&lines), "; it last said: boom");
        assert_eq!(said(&["running late for a test"]), "; it last said: running late for a test");
        let calls = ["   0: app::scale", "             at ./src/main.rs:7:5", "  12: main"];
        let panicked = [&["boom", "stack backtrace:"][..], &calls, &[hint]].concat();
        assert_eq!(said(&panicked), "; it last said: boom");
        let full = "  12:     0x55f7474a7f59 - <unknown>";
        let at = format!("{:31}at ./csu/../csu/libc-start.c:360:3", "");
        assert_eq!(said(&["boom", "stack backtrace:", full, &at]), "; it last said: boom");
        assert_eq!(said(&["        at noon"]), "; it last said:         at noon");
        assert_eq!(said(&["  3: third item"]), "; it last said:   3: third item");
        assert_eq!(said(&["", hint]), "");
        assert_eq!(said(&[]), "");
    }
}
