//! [`Context`]: what a running task may know about where it runs.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Locals, TaskId};
use crate::codec::{self, BinaryEncoding};
use crate::future::{EncodedPartial, PartialError};
use crate::progress_lines::LineSink;
use crate::stop_signal::StopSignal;

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
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// #[procession::task]
    /// fn place(context: &Context) -> usize {
    ///     context.worker()
    /// }
    /// assert_eq!(Sequential::new().submit(place()).result(), Ok(0));
    /// # }
    /// ```
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// How often this task has been begun, this time included: 1 for the first run.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// #[procession::task]
    /// fn fetch(url: String, context: &Context) -> Result<String, Failure> {
    ///     if context.attempt() > 1 {
    ///         context.say(format_args!("{url}: attempt {}", context.attempt()));
    ///     }
    ///     Ok(url) // …
    /// }
    /// # }
    /// ```
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Passes a line to `on_say` of the executor, before the task's result. Default: the line is written
    /// to the standard output of the program that submitted the task. A process pool cuts a line after 16 MiB.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// #[procession::task]
    /// fn convert(path: String, context: &Context) -> usize {
    ///     context.say(format_args!("converting {path}"));
    ///     path.len() // …
    /// }
    /// let pool = Sequential::new().on_say(|said| assert_eq!(said.line, "converting a.png"));
    /// assert_eq!(pool.submit(convert("a.png".into())).result(), Ok(5));
    /// # }
    /// ```
    pub fn say(&self, line: impl fmt::Display) {
        self.lines.write(self.task, self.worker, &line.to_string());
    }

    /// Passes a value to the future of the task, before its result: see
    /// [`Future::partials`](crate::Future::partials), which has an example. Values arrive in their order. This
    /// is the same on every executor.
    ///
    /// A value is encoded in the [binary encoding](crate::Encoding::Binary), whatever that of the task is. It may have
    /// blobs. In a process pool, values count towards the rate at which the lines of one worker are read: at
    /// most 50,000 lines and 64 MiB in a second; above it, the task waits here. A value with blobs counts as many lines
    /// as it has blobs, and their bytes as well.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// #[procession::task]
    /// fn count(to: u32, context: &Context) -> Result<u32, Failure> {
    ///     for n in 1..=to {
    ///         context.emit(&n)?;
    ///     }
    ///     Ok(to)
    /// }
    /// let pool = ThreadPool::new(1);
    /// let future = pool.submit(count(3));
    /// let seen: Vec<u32> = future.partials().map(|partial| partial.unwrap().value).collect();
    /// assert_eq!(seen, [1, 2, 3]);
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`PartialError::Unencodable`]: the value cannot be encoded.
    /// - [`PartialError::Undelivered`]: the worker process cannot send it.
    ///
    /// It is no error if the values are not read. The tasks of [`map`](crate::Executor::map),
    /// [`map_unordered`](crate::Executor::map_unordered) and [`map_keyed`](crate::Executor::map_keyed) have no
    /// futures, so what they emit is dropped: [`submit`](crate::Executor::submit) tasks whose values are to be read.
    pub fn emit<P: Serialize + DeserializeOwned>(&self, value: &P) -> Result<(), PartialError> {
        let mut text = Vec::new();
        let blobs = codec::encode::<BinaryEncoding, P>(value, &mut text).map_err(|refusal| {
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
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// #[procession::task]
    /// fn thumbnail(path: String, context: &Context) -> usize {
    ///     context.label(&path); // `coordinator logs` shows the path
    ///     path.len() // …
    /// }
    /// # }
    /// ```
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
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # use std::{collections::HashMap, sync::Mutex};
    /// type Cache = Mutex<HashMap<u64, u64>>;
    ///
    /// #[procession::task]
    /// fn cube(n: u64, context: &Context) -> u64 {
    ///     let cache = context.local(Cache::default); // one in each worker
    ///     *cache.lock().unwrap().entry(n).or_insert_with(|| n * n * n)
    /// }
    /// assert_eq!(Sequential::new().submit(cube(3)).result(), Ok(27));
    /// # }
    /// ```
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
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// struct Model(Vec<f32>);
    ///
    /// #[procession::task]
    /// fn has_model(context: &Context) -> bool {
    ///     context.get_local::<Model>().is_some() // an initializer has made it
    /// }
    /// assert_eq!(Sequential::new().submit(has_model()).result(), Ok(false));
    /// # }
    /// ```
    pub fn get_local<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.locals.get_made()
    }
}
