//! The lines that tasks report while they run, from [`Context::say`](crate::Context::say) to the executor's
//! `on_say`, in this process or from a worker process.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use crate::panics;
use crate::printable::printable;
use crate::task::TaskId;

/// A line that a task reported by [`Context::say`](crate::Context::say).
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
    // Not `println!`, which panics if standard output is closed. One write, so that lines of several
    // threads do not mix.
    Box::new(|said| {
        drop(io::stdout().write_all(format!("{}\n", printable(said.line)).as_bytes()));
    })
}

/// Where the lines of tasks that run in this process go.
#[derive(Clone)]
pub(crate) struct LineSink(Arc<WriteLine>);

/// Takes the task, the index of its worker, and the line.
type WriteLine = dyn Fn(TaskId, usize, &str) + Send + Sync;

impl LineSink {
    /// Passes each line to `write`.
    pub(crate) fn new(write: impl Fn(TaskId, usize, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    /// Calls `on_say` in this process.
    pub(crate) fn calling(on_say: OnSay) -> Self {
        let pid = std::process::id();
        Self::new(move |task, worker, line| {
            // A panic of `on_say` must not fail the task.
            let _ = panics::catch(|| on_say(&Said { task, worker, pid, line }));
        })
    }

    pub(crate) fn write(&self, task: TaskId, worker: usize, line: &str) {
        (self.0)(task, worker, line);
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
