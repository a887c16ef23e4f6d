//! The lines that tasks report while they run, from [`Context::say`](crate::Context::say) to the executor's
//! `on_say`, in this process or from a worker process; and the way of what they emit out of a worker process.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use crate::future::{EncodedPartial, PartialError};
use crate::panics;
use crate::printable::printable;
use crate::task::TaskId;

/// A line that a task reported by [`Context::say`](crate::Context::say).
///
/// ```
/// use procession::{Said, Sequential};
///
/// fn print(said: &Said<'_>) {
///     println!("task {} in process {}: {}", said.task, said.pid, said.line);
/// }
/// let executor = Sequential::new().on_say(print);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Said<'l> {
    /// The id of the task: [`Future::id`](crate::Future::id).
    pub task: TaskId,
    /// Index of the worker that runs the task, from 0: [`Context::worker`](crate::Context::worker).
    pub worker: usize,
    /// Id of the process that runs the task.
    pub pid: u32,
    /// The text as the task formatted it; line breaks in it are kept.
    pub line: &'l str,
}

/// The function that an executor calls with each line.
pub(crate) type OnSay = Box<dyn Fn(&Said<'_>) + Send + Sync>;

/// The default: writes the line to standard output, with control characters escaped.
pub(crate) fn to_stdout() -> OnSay {
    Box::new(|said| print(said.line))
}

/// Writes a line to standard output, with control characters escaped.
pub(crate) fn print(line: &str) {
    // Not `println!`, which panics if standard output is closed. One write, so that lines of several
    // threads do not mix.
    drop(io::stdout().write_all(format!("{}\n", printable(line)).as_bytes()));
}

/// Where the lines of tasks that run in this process go.
#[derive(Clone)]
pub(crate) struct LineSink(Arc<dyn WriteLine>);

/// Takes the lines of tasks, and what they emit.
pub(crate) trait WriteLine: Send + Sync {
    fn write(&self, task: TaskId, worker: usize, line: &str);

    /// Passes a value to the future of the task, if that is in another process.
    fn emit(&self, task: TaskId, partial: EncodedPartial) -> Result<(), PartialError> {
        let _ = (task, partial);
        Ok(())
    }
}

/// Calls `on_say` in this process.
struct CallOnSay {
    on_say: OnSay,
    pid: u32,
}

impl WriteLine for CallOnSay {
    fn write(&self, task: TaskId, worker: usize, line: &str) {
        let pid = self.pid;
        // A panic of `on_say` must not fail the task.
        let _ = panics::catch(|| (self.on_say)(&Said { task, worker, pid, line }));
    }
}

impl LineSink {
    pub(crate) fn new(to: Arc<dyn WriteLine>) -> Self {
        Self(to)
    }

    /// Calls `on_say` in this process.
    pub(crate) fn calling(on_say: OnSay) -> Self {
        Self::new(Arc::new(CallOnSay { on_say, pid: std::process::id() }))
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn write(&self, task: TaskId, worker: usize, line: &str) {
        self.0.write(task, worker, line);
    }

    pub(crate) fn emit(&self, task: TaskId, partial: EncodedPartial) -> Result<(), PartialError> {
        self.0.emit(task, partial)
    }
}

impl Default for LineSink {
    fn default() -> Self {
        Self::calling(to_stdout())
    }
}

impl fmt::Debug for LineSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineSink").finish_non_exhaustive()
    }
}
