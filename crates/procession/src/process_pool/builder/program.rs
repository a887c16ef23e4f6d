//! Settings of a pool: the program that the workers run, and how it is started.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::{Builder, WorkerProgram};
use crate::process_pool::initializer::{Initializer, InitializerKind};
use crate::task::Task;

impl Builder {
    /// The program that the workers run. It must call [`serve_if_asked`](crate::worker::serve_if_asked), and be built
    /// with the same build of this crate. Whether it has the same tasks under the same names is not
    /// checked: see [`build_id`](Self::build_id). Default: the executable of this process.
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// let builder = ProcessPool::builder().worker_program("/usr/libexec/thumbnails-worker");
    /// ```
    pub fn worker_program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = WorkerProgram::At(path.into());
        self
    }

    /// The workers run the executable of this name in the directory of the executable of this
    /// process, if it exists, has the same build and reports within two seconds; else the executable of this
    /// process. If one exists and is not used, there is an event [`PoolEvent::ProgramPassedOver`](crate::PoolEvent::ProgramPassedOver).
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// let builder = ProcessPool::builder().worker_program_beside("worker");
    /// ```
    pub fn worker_program_beside(mut self, name: impl Into<String>) -> Self {
        self.program = WorkerProgram::BesideThis(name.into());
        self
    }

    /// The arguments of the worker program, after its name: for an interpreter that runs a script which
    /// serves, say. Default: none; in a test with the attribute [`test`](macro@crate::test) those
    /// that run such a test.
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// let builder = ProcessPool::builder().worker_program("/usr/bin/python3").worker_args(["worker.py"]);
    /// ```
    pub fn worker_args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.worker_args = args.into_iter().map(Into::into).collect();
        self
    }

    /// A task that each worker runs before all others, for example to load a model into
    /// [`Context::local`](crate::Context::local). It must end within the
    /// [`start_timeout`](Self::start_timeout). If it returns an error or panics, the pool is broken:
    /// each future holds [`PoolError::CannotStart`](crate::PoolError::CannotStart).
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// struct Model(Vec<u8>);
    ///
    /// #[procession::task]
    /// fn load(path: String, context: &Context) -> Result<(), Failure> {
    ///     context.try_local(|| std::fs::read(&path).map(Model))?;
    ///     Ok(())
    /// }
    ///
    /// #[procession::task]
    /// fn classify(text: String, context: &Context) -> Result<bool, Failure> {
    ///     let model = context.get_local::<Model>().ok_or("no model was loaded")?;
    ///     Ok(model.0.len() > text.len()) // …
    /// }
    ///
    /// let builder = ProcessPool::builder().initializer(load("model.bin".into()));
    /// # }
    /// ```
    pub fn initializer<T: Task>(mut self, task: T) -> Self {
        self.initializer = Some(Initializer::new(InitializerKind::Initializer, &task));
        self
    }

    /// A task that is run once, in a process of its own, before there are workers; each worker begins as a copy of
    /// that process. What the task has put into statics or [`Context::local`](crate::Context::local) is in memory
    /// once for all workers, except for the pages that a worker writes to. The
    /// [`initializer`](Self::initializer) comes after it, in each worker.
    ///
    /// Only on Linux with the GNU C library; elsewhere, and on kernels without `CONFIG_CHECKPOINT_RESTORE`, each
    /// worker runs the task itself. It counts towards the
    /// [`start_timeout`](Self::start_timeout) of the first workers. If it returns an error or panics, or has started
    /// a thread that still runs, the pool is broken: each future holds
    /// [`PoolError::CannotStart`](crate::PoolError::CannotStart).
    ///
    /// What the task leaves in its process, all workers have:
    ///
    /// - **Threads** cannot be copied, so there may be none: no thread pools, no runtimes.
    /// - **Descriptors** are shared, with their positions: a file is to be read by `read_at`, or mapped. A connection
    ///   to a server is not to be used by two workers.
    /// - **Random numbers**: a generator that the task has seeded gives the same numbers in each worker.
    /// - Functions of `pthread_atfork` are not called, and process ids that a library has kept are those of the
    ///   template.
    /// - Addresses are the same in all workers, so what is learned of one holds for the others. A
    ///   [`sandbox`](Self::sandbox) is imposed on each worker, not on the task.
    ///
    /// If the process ends, the workers go on, and the next start of a worker starts another one.
    /// [`keep_crashes`](Self::keep_crashes) does not keep a task that ends this process.
    ///
    /// ```
    /// use std::sync::OnceLock;
    ///
    /// use procession::{Builder, Failure, ProcessPool};
    ///
    /// static MODEL: OnceLock<Vec<f32>> = OnceLock::new();
    /// # #[cfg(feature = "macros")] {
    ///
    /// #[procession::task]
    /// fn load() {
    ///     MODEL.get_or_init(|| vec![0.5; 1_000_000]);
    /// }
    ///
    /// #[procession::task]
    /// fn weight(n: usize) -> Result<f32, Failure> {
    ///     let model = MODEL.get().ok_or_else(|| Failure::msg("nothing was loaded"))?;
    ///     Ok(model[n])
    /// }
    ///
    /// fn pool() -> Builder {
    ///     ProcessPool::builder().preload(load())
    /// }
    /// # }
    /// ```
    pub fn preload<T: Task>(mut self, task: T) -> Self {
        self.preload = Some(Initializer::new(InitializerKind::Preload, &task));
        self
    }

    /// The longest time from the start of a worker process until it is ready, its
    /// [`initializer`](Self::initializer) included. Then it is killed, and another one is started.
    /// Default: 10 seconds.
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// # use std::time::Duration;
    /// let builder = ProcessPool::builder().start_timeout(Duration::from_secs(60)); // a large model
    /// ```
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Adds a variable to the environment of the workers, which is a copy of that of this process.
    /// A name that is empty or contains `=`, and a zero byte in a name or value, are errors of
    /// [`build`](Self::build).
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// let builder = ProcessPool::builder().worker_env("OMP_NUM_THREADS", "1");
    /// ```
    pub fn worker_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.worker_env.push((name.into(), value.into()));
        self
    }
}
