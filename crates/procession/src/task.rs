//! A [`Task`] is a value with a method `run`, and a [`Context`] is what that method may know about where
//! it runs. Nothing here depends on an executor.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::Encoding;
use crate::error::Failure;
use crate::panics;
use crate::progress_lines::LineSink;

/// A piece of work that can be sent to another process.
///
/// The value itself is the argument: it is encoded, sent, decoded by the worker and run there; its
/// output comes back in the same way. On a sequential or thread executor the task is run as it is.
///
/// What is decoded equals what was encoded. Every number is exact, down to the last bit of an
/// `f64`. A value that the encoding cannot hold is never changed: it is refused before it is sent,
/// with a [`TaskError::Unencodable`](crate::TaskError::Unencodable) that names the task and the
/// field, such as `.items[3].ratio`. JSON, which is the default, has no NaN and no infinities, no
/// `Some(None)` and no `Some(())`, and no map keys such as tuples. A task whose values may be like
/// that chooses the other encoding, which holds them all:
///
/// ```
/// # use procession::{Context, Encoding, Failure, Task};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// struct Mean(Vec<f64>);
///
/// impl Task for Mean {
///     const NAME: &'static str = "mean";
///     const ENCODING: Encoding = Encoding::Binary;
///     type Output = Option<f64>; // Some(NaN) is no None
///     fn run(self, _: &Context) -> Result<Option<f64>, Failure> {
///         let number = self.0.len();
///         Ok((number > 0).then(|| self.0.iter().sum::<f64>() / number as f64))
///     }
/// }
/// ```
///
/// Both encodings write what a type's `Serialize` says. They cannot know what it leaves out
/// (`#[serde(skip)]`), nor which of two variants of an `#[serde(untagged)]` enum was meant if both
/// look the same. `docs/encodings.md` in the repository has a table of what each of them holds.
///
/// ```
/// use procession::{Context, Failure, Task};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Parse(String);
///
/// impl Task for Parse {
///     const NAME: &'static str = "parse";
///     type Output = i64;
///     fn run(self, _: &Context) -> Result<i64, Failure> {
///         Ok(self.0.trim().parse()?)
///     }
/// }
/// ```
///
/// Most tasks are functions: the attribute [`task`](macro@crate::task) writes all of this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "not a task",
    note = "a task is what a function with `#[procession::task]` returns: call that function with its \
            arguments",
    note = "or implement `procession::Task` for a type of your own"
)]
pub trait Task: Serialize + DeserializeOwned + Send + 'static {
    /// The name under which a [`Registry`](crate::Registry) knows this kind of task.
    const NAME: &'static str;
    /// What the task gives back.
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// How the task and its output are encoded where they cross the border of a process.
    const ENCODING: Encoding = Encoding::Json;

    /// Does the work. `?` takes every [`std::error::Error`], boxes of them, `anyhow::Error` and texts:
    /// see [`Failure`].
    fn run(self, context: &Context) -> Result<Self::Output, Failure>;
}

/// Identifies one submitted task within this process; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(crate) u64);

impl TaskId {
    pub(crate) fn next() -> Self {
        Self::next_many(1)
    }

    /// Reserves `number` consecutive ids and returns the first.
    pub(crate) fn next_many(number: usize) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(number as u64, Ordering::Relaxed))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a running task may know about where it runs.
#[derive(Debug)]
pub struct Context {
    pub(crate) task: TaskId,
    pub(crate) worker: usize,
    pub(crate) attempt: u32,
    pub(crate) locals: Arc<Locals>,
    pub(crate) lines: LineSink,
}

impl Context {
    /// Which worker of the executor runs the task, counted from 0: the process in a process
    /// pool, the thread in a thread pool, always 0 in the sequential executor.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// How often this task has been begun, this time included: 1 for the first run.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Passes a line to `on_say` of the executor, before the task's result. Default: the line is written
    /// to the standard output of the program that submitted the task.
    pub fn say(&self, line: impl fmt::Display) {
        self.lines.write(self.task, self.worker, &line.to_string());
    }

    /// Returns the value of type `T` of this process; the first call makes it, and later tasks get the
    /// same one. Use it for a connection pool, a loaded model or a cache. An executor that runs tasks in
    /// its own process has a value of its own.
    pub fn local<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.locals.get(make)
    }
}

/// The values behind [`Context::local`], one for each type.
#[derive(Default)]
pub(crate) struct Locals {
    cells: Mutex<HashMap<TypeId, Arc<Cell>>>,
}

type Cell = OnceLock<Arc<dyn Any + Send + Sync>>;

impl Locals {
    fn get<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        // The map is locked only to find the cell: making a value may take long, or ask for
        // another local.
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cells.entry(TypeId::of::<T>()).or_default())
        };
        let value = Arc::clone(cell.get_or_init(|| Arc::new(make())));
        value.downcast().expect("the cell of a type holds that type")
    }
}

impl Locals {
    /// Drops all values that are not in use elsewhere.
    pub(crate) fn clear(&self) {
        let cells = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *cells)
        };
        for (_, cell) in cells {
            panics::discard(cell);
        }
    }
}

impl fmt::Debug for Locals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locals").finish_non_exhaustive()
    }
}
