//! What tasks say while they run: from [`Context::say`](crate::Context::say) to the one who
//! listens, wherever the task runs.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use crate::panics;
use crate::task::TaskId;

/// A line that a task said; see [`Context::say`](crate::Context::say).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Said<'l> {
    /// The task, as its future has it.
    pub task: TaskId,
    /// Which worker of the executor runs it, counted from 0.
    pub worker: usize,
    /// The process that runs it.
    pub pid: u32,
    /// What it said.
    pub line: &'l str,
}

/// Whoever listens to what tasks say.
pub(crate) type OnSay = Box<dyn Fn(&Said<'_>) + Send + Sync>;

/// Who listens where nobody was named: standard output.
pub(crate) fn aloud() -> OnSay {
    // In one piece, and not by `println!`, which panics where nobody reads.
    Box::new(|said| drop(io::stdout().write_all(format!("{}\n", said.line).as_bytes())))
}

/// Carries a line from a task of this process to where it is heard, here or across the border.
#[derive(Clone)]
pub(crate) struct Voice(Arc<Carry>);

/// Takes the task, the worker that runs it, and the line.
type Carry = dyn Fn(TaskId, usize, &str) + Send + Sync;

impl Voice {
    /// One that is heard elsewhere.
    pub(crate) fn new(carry: impl Fn(TaskId, usize, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(carry))
    }

    /// One that is heard in this process.
    pub(crate) fn heard_by(listener: OnSay) -> Self {
        let pid = std::process::id();
        Self::new(move |task, worker, line| {
            // A listener that panics is not the task's fault.
            let _ = panics::catch(|| listener(&Said { task, worker, pid, line }));
        })
    }

    pub(crate) fn say(&self, task: TaskId, worker: usize, line: &str) {
        (self.0)(task, worker, line);
    }
}

impl Default for Voice {
    fn default() -> Self {
        Self::heard_by(aloud())
    }
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Voice").finish_non_exhaustive()
    }
}
