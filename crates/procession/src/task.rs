//! A [`Task`] is a value with a method `run`, and a [`Context`] is what that method may know about where
//! it runs. Nothing here depends on an executor.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Encoding};
use crate::error::Failure;
use crate::future::{EncodedPartial, PartialError};
use crate::panics;
use crate::progress_lines::LineSink;
use crate::stop_signal::StopSignal;

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
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// let pool = Sequential::new();
/// let (first, second) = (pool.submit(square(1)), pool.submit(square(2)));
/// assert!(first.id() < second.id(), "in the order of submission");
/// # }
/// ```
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

#[cfg(feature = "remote")]
impl TaskId {
    /// Its number, to be sent.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The id with a number that [`number`](Self::number) has given.
    pub fn of_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a running task may know about where it runs.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// use procession::Context;
///
/// #[procession::task]
/// fn page(number: u32, context: &Context) -> String {
///     context.say(format_args!("page {number} by worker {}", context.worker()));
///     format!("page {number} at attempt {}", context.attempt())
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Context {
    pub(crate) task: TaskId,
    pub(crate) worker: usize,
    pub(crate) attempt: u32,
    pub(crate) locals: Arc<Locals>,
    pub(crate) lines: LineSink,
    /// `None` if there is no journal.
    pub(crate) label: Option<LabelSink>,
    pub(crate) stop: StopSignal,
}

/// Sets the label of the task that runs.
pub(crate) trait SetLabel: fmt::Debug + Send + Sync {
    fn set_label(&self, task: TaskId, label: &dyn fmt::Display);
}

pub(crate) type LabelSink = Arc<dyn SetLabel>;

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

    /// Passes a value to the future of the task, before its result: see
    /// [`Future::partials`](crate::Future::partials), which has an example. Values arrive in their order. This
    /// is the same on every executor.
    ///
    /// A value is encoded in the [binary encoding](Encoding::Binary), whatever that of the task is. It may have
    /// blobs. In a process pool, values count towards the rate at which the lines of one worker are read: at
    /// most 50,000 lines and 64 MiB in a second; above it, the task waits here.
    ///
    /// # Errors
    ///
    /// - [`PartialError::Unencodable`]: the value cannot be encoded.
    /// - [`PartialError::Undelivered`]: the worker process cannot send it.
    ///
    /// It is no error if the values are not read.
    pub fn emit<P: Serialize + DeserializeOwned>(&self, value: &P) -> Result<(), PartialError> {
        let mut text = Vec::new();
        let blobs = codec::encode(Encoding::Binary, value, &mut text).map_err(|refusal| {
            let field = refusal.field();
            PartialError::Unencodable { field, reason: refusal.into_reason() }
        })?;
        let partial = EncodedPartial { attempt: self.attempt, text, blobs };
        match &self.stop {
            StopSignal::Here { future: Some(future), .. } => {
                future.put_partial(Some(partial));
                Ok(())
            }
            _ => self.lines.emit(self.task, partial),
        }
    }

    /// Gives this run of the task a label, such as the name of its file, in the journal of the pool: see
    /// `Builder::journal`. Without a journal it does nothing. A second call
    /// replaces the label.
    ///
    /// A crash of the task is seen with the label: it goes into memory that outlives the worker, which
    /// takes less than a microsecond. The task has a line at its end, which is written together with others
    /// if it was short; so do the first 10,000 short tasks with labels in each process. After that, only long
    /// and failed tasks are written with their labels. Labels are cut after 200 characters.
    pub fn label(&self, label: impl fmt::Display) {
        if let Some(sink) = &self.label {
            sink.set_label(self.task, &label);
        }
    }

    /// Whether the task is to stop: its future was [cancelled](crate::Future::cancel), or it has run for
    /// its timeout. A task that looks at this from time to time can clean up and return what it has.
    ///
    /// In a process pool the task has its [grace period](crate::TaskOptions::grace) from then on, after
    /// which its worker is killed. Without a grace period it is killed at once.
    ///
    /// ```
    /// # use procession::{Context, Executor, Failure, Task, ThreadPool};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct Approximate(f64);
    ///
    /// impl Task for Approximate {
    ///     const NAME: &'static str = "approximate";
    ///     type Output = f64;
    ///     fn run(self, context: &Context) -> Result<f64, Failure> {
    ///         let mut root = 1.0;
    ///         while !context.stop_requested() {
    ///             root = (root + self.0 / root) / 2.0;
    ///         }
    ///         Ok(root) // as good as it got
    ///     }
    /// }
    ///
    /// let pool = ThreadPool::new(1);
    /// let future = pool.submit(Approximate(2.0));
    /// # while future.state() != procession::FutureState::Running {}
    /// future.cancel();
    /// assert!(future.result().is_ok());
    /// ```
    pub fn stop_requested(&self) -> bool {
        self.stop.is_requested()
    }

    /// Returns the value of type `T` of this process; the first call makes it, and later tasks get the
    /// same one. Use it for a connection pool, a loaded model or a cache. An executor that runs tasks in
    /// its own process has a value of its own.
    pub fn local<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.locals.get(make)
    }

    /// Like [`local`](Self::local), where making the value may fail. The error goes to this task alone:
    /// the next task that asks makes the value again.
    ///
    /// ```
    /// # use procession::{Context, Executor, Failure, Sequential, Task};
    /// # use serde::{Deserialize, Serialize};
    /// # struct Model(usize);
    /// # impl Model {
    /// #     fn load() -> std::io::Result<Self> { Ok(Self(3)) }
    /// # }
    /// #[derive(Serialize, Deserialize)]
    /// struct Classify(String);
    ///
    /// impl Task for Classify {
    ///     const NAME: &'static str = "classify";
    ///     type Output = bool;
    ///     fn run(self, context: &Context) -> Result<bool, Failure> {
    ///         let model = context.try_local(Model::load)?; // read once in each worker
    ///         Ok(self.0.len() > model.0)
    ///     }
    /// }
    ///
    /// assert_eq!(Sequential::new().submit(Classify("text".into())).result(), Ok(true));
    /// ```
    ///
    /// # Errors
    ///
    /// That of `make`.
    pub fn try_local<T: Send + Sync + 'static, E>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        self.locals.try_get(make)
    }

    /// The [`local`](Self::local) value of this type, if one was made.
    pub fn get_local<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.locals.get_made()
    }
}

/// The values behind [`Context::local`], one for each type.
#[derive(Default)]
pub(crate) struct Locals {
    cells: Mutex<HashMap<TypeId, Arc<Cell>>>,
}

#[derive(Default)]
struct Cell {
    value: OnceLock<Arc<dyn Any + Send + Sync>>,
    /// Locked while the value is made.
    making: Mutex<()>,
}

impl Cell {
    fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let value = Arc::clone(self.value.get()?);
        Some(value.downcast().expect("the cell of a type holds that type"))
    }
}

impl Locals {
    /// The map is locked only to find the cell: making a value may take long, or ask for another local.
    fn cell<T: 'static>(&self) -> Arc<Cell> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry(TypeId::of::<T>()).or_default())
    }

    fn get<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let Ok(value) = self.try_get(|| Ok::<T, Infallible>(make()));
        value
    }

    fn try_get<T: Send + Sync + 'static, E>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let cell = self.cell::<T>();
        if let Some(value) = cell.get() {
            return Ok(value);
        }
        let _making = cell.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = cell.get() {
            return Ok(value);
        }
        let value = Arc::new(make()?);
        let _ = cell.value.set(Arc::clone(&value) as Arc<dyn Any + Send + Sync>);
        Ok(value)
    }

    fn get_made<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.cell::<T>().get()
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_local_that_cannot_be_made_is_made_by_the_next_that_asks_and_then_kept() {
        let locals = Locals::default();
        assert_eq!(locals.get_made::<u32>(), None);
        assert_eq!(locals.try_get::<u32, _>(|| Err("no")), Err("no"));
        assert_eq!(locals.get_made::<u32>(), None);
        assert_eq!(locals.try_get(|| Ok::<u32, &str>(1)), Ok(Arc::new(1)));
        assert_eq!(locals.try_get::<u32, _>(|| Err("not called")), Ok(Arc::new(1)));
        assert_eq!((*locals.get(|| 2_u32), locals.get_made()), (1, Some(Arc::new(1_u32))));
        assert_eq!(locals.get_made::<String>(), None);
    }

    #[test]
    fn of_many_threads_that_ask_for_a_local_one_makes_it() {
        let (locals, made) = (Locals::default(), AtomicUsize::new(0));
        let make = || match made.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Err(()),
            _ => Ok("made"),
        };
        let results = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| locals.try_get(make))).collect();
            threads.into_iter().map(|it| it.join().expect("no panic")).collect::<Vec<_>>()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 6);
        assert_eq!(made.load(Ordering::SeqCst), 3);
    }
}
