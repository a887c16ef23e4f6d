//! [`Builder`]: the settings of a process pool, each with its default, and their validation.

mod debug;
mod faults;
mod listeners;
mod program;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::control_groups::ControlGroups;
use super::crash_keeper::CrashKeeper;
use super::initializer::Initializer;
use super::inner::Setup;
use super::listeners::{ListenerFns, OnEvent, OnOutput};
use super::program::Programs;
use super::template::Template;
use super::traces::Traces;
use super::{Output, ProcessPool};
use super::{pool_journal, socket_dir, validate};
use crate::error::PoolError;
use crate::limits::{Limits, Recycling};
use crate::printable::printable;
use crate::progress_lines::{self, OnSay};
use crate::retries::Retries;
use crate::sandbox::Sandbox;
use crate::scheduler::{ResolvedOptions, Settings};
use crate::task_options::TaskOptions;
use crate::worker;
use procession_os as os;

/// The settings of a [`ProcessPool`]; [`build`](Self::build) checks them and starts the pool.
///
/// ```no_run
/// # use procession::{PoolError, ProcessPool};
/// # fn main() -> Result<(), PoolError> {
/// let pool = ProcessPool::builder().workers(4).build()?;
///
/// // For tasks that may hang, leak or crash:
/// use procession::{Limits, Recycling, Retries};
/// use std::time::Duration;
/// let pool = ProcessPool::builder()
///     .timeout(Duration::from_secs(30))
///     .retries(Retries::times(2))
///     .recycling(Recycling::never().after_tasks(1000).above_memory(1 << 30))
///     .limits(Limits::none().address_space(4 << 30).niceness(10))
///     .max_pending(10_000)
///     .build()?;
/// # Ok(()) }
/// ```
#[must_use]
pub struct Builder {
    workers: Option<usize>,
    min_workers: Option<usize>,
    spares: usize,
    idle_timeout: Option<Duration>,
    concurrency: Option<usize>,
    timeout: Option<Duration>,
    grace: Option<Duration>,
    retries: Retries,
    recycling: Recycling,
    limits: Limits,
    stack: Option<usize>,
    max_pending: Option<usize>,
    initializer: Option<Result<Initializer, PoolError>>,
    preload: Option<Result<Initializer, PoolError>>,
    program: WorkerProgram,
    worker_args: Vec<OsString>,
    start_timeout: Duration,
    worker_env: Vec<(OsString, OsString)>,
    build_id: String,
    sandbox: Sandbox,
    crash_dir: Option<PathBuf>,
    on_event: Option<OnEvent>,
    wants_starts: bool,
    on_output: OnOutput,
    on_say: OnSay,
    /// The directory of journals. Without the feature it is never set.
    journal: Option<PathBuf>,
    /// The least important level of spans and events of tasks.
    #[cfg(feature = "tracing")]
    trace_level: Option<tracing::level_filters::LevelFilter>,
}

enum WorkerProgram {
    This,
    BesideThis(String),
    At(PathBuf),
}

impl WorkerProgram {
    /// The programs to try, in order.
    fn find(self, worker_args: Vec<OsString>) -> Result<Programs, PoolError> {
        match self {
            Self::This => Programs::this(worker_args),
            Self::BesideThis(name) => Programs::beside_this(&name, worker_args),
            Self::At(path) => Programs::only(&path, worker_args),
        }
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            workers: None,
            min_workers: None,
            spares: 0,
            idle_timeout: None,
            concurrency: None,
            timeout: None,
            grace: None,
            retries: Retries::none(),
            recycling: Recycling::never(),
            limits: Limits::none(),
            stack: None,
            max_pending: None,
            initializer: None,
            preload: None,
            program: WorkerProgram::This,
            worker_args: Vec::new(),
            start_timeout: Duration::from_secs(10),
            worker_env: Vec::new(),
            build_id: String::new(),
            sandbox: Sandbox::none(),
            crash_dir: None,
            on_event: None,
            wants_starts: false,
            on_output: Box::new(|Output { worker, pid, stream: _, line }| {
                eprintln!("worker {worker} (pid {pid}): {}", printable(line));
            }),
            on_say: progress_lines::to_stdout(),
            journal: None,
            #[cfg(feature = "tracing")]
            trace_level: None,
        }
    }
}

impl Builder {
    /// Number of worker processes, at most; 1 to 32,768. Default: one per CPU.
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// let builder = ProcessPool::builder().workers(2);
    /// ```
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Number of workers that are started before there are tasks for them, and that are kept while
    /// they are idle. A number above [`workers`](Self::workers) means all. Default: all.
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// // Starts with one worker, has up to 8 while there are tasks:
    /// let builder = ProcessPool::builder()
    ///     .workers(8)
    ///     .min_workers(1)
    ///     .idle_timeout(Duration::from_secs(60));
    /// ```
    pub fn min_workers(mut self, workers: usize) -> Self {
        self.min_workers = Some(workers);
        self
    }

    /// Number of workers beyond [`workers`](Self::workers) that are started in advance, run the
    /// [`initializer`](Self::initializer), and then stand by; at most 32,768. When a worker dies, is
    /// killed or recycled, or a further one is needed, a spare takes its place at once, and the next
    /// process is started as a spare. So a crash costs the start of a worker no time while a spare
    /// stands by. Default: none.
    ///
    /// Each spare is one more process, with the memory that its initializer takes, and no tasks. The
    /// indices of workers, for example of [`Context::worker`](crate::Context::worker), are below the
    /// sum of `workers` and `spares`.
    ///
    /// ```no_run
    /// # use procession::ProcessPool;
    /// let builder = ProcessPool::builder().workers(4).spares(1);
    /// ```
    pub fn spares(mut self, spares: usize) -> Self {
        self.spares = spares;
        self
    }

    /// A worker beyond [`min_workers`](Self::min_workers) that was idle for this long is ended.
    /// Default: no limit. See the example of [`min_workers`](Self::min_workers).
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Number of tasks that run at the same time, in all workers together. Default: one per worker.
    ///
    /// With more tasks than workers, each worker runs several on threads; if a worker dies, all tasks
    /// that run in it are lost. With fewer tasks than workers, one worker is started per task. At
    /// most 32,768 tasks per worker.
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// // 30 downloads at a time, in 2 processes:
    /// let builder = ProcessPool::builder().workers(2).concurrency(30);
    /// ```
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.concurrency = Some(tasks);
        self
    }

    /// Stack size of each thread of the pool, in bytes: of the threads in this process (see
    /// `process_pool/README.md` in the sources), and of the threads that run tasks in a worker with
    /// several tasks at a time. Values below 256 KiB are raised to 256 KiB. Default: the default of
    /// the standard library, 2 MiB unless `RUST_MIN_STACK` is set.
    ///
    /// Smaller stacks let more threads start under a limit of memory.
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// let builder = ProcessPool::builder().workers(2).concurrency(1000).stack_size(512 << 10);
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack = Some(bytes);
        self
    }

    /// The largest number of tasks that wait for a worker; at least 1. At this number, `submit`
    /// blocks until there are fewer, and [`ProcessPool::try_submit`] returns [`Full`](super::Full).
    /// A `submit` from a callback of this pool never blocks. Default: no limit.
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// // Of an iterator of a million tasks, 1,000 are in memory:
    /// let builder = ProcessPool::builder().max_pending(1_000);
    /// ```
    pub fn max_pending(mut self, tasks: usize) -> Self {
        self.max_pending = Some(tasks);
        self
    }

    /// The name of the build of this program. A worker program whose [`Registry::build_id`] differs
    /// is refused, like one with another build of this crate. Default: the empty string.
    ///
    /// [`Registry::build_id`]: crate::Registry::build_id
    ///
    /// ```
    /// # use procession::*;
    /// # use std::time::Duration;
    /// let builder = ProcessPool::builder().build_id(env!("CARGO_PKG_VERSION"));
    /// ```
    pub fn build_id(mut self, id: impl Into<String>) -> Self {
        self.build_id = id.into();
        self
    }

    /// Checks the settings and starts the pool. Returns before the workers are ready: tasks can be
    /// submitted at once. If no worker can be started, each future holds
    /// [`TaskError::PoolBroken`](crate::TaskError::PoolBroken).
    ///
    /// ```
    /// # use procession::{PoolError, ProcessPool};
    /// match ProcessPool::builder().workers(2).worker_program("no/such/program").build() {
    ///     Ok(pool) => println!("{} workers", pool.workers()),
    ///     Err(PoolError::Program { path, reason }) => println!("{}: {reason}", path.display()),
    ///     Err(error) => panic!("{error}"),
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`PoolError::Setting`]: a setting is out of range, the initializer cannot be encoded, the directory
    ///   for crashes cannot be written to, a path of the sandbox does not exist, or two functions with the
    ///   attribute [`task`](macro@crate::task) have the same name (see `Registry::collected`).
    /// - [`PoolError::SandboxUnavailable`]: this system lacks a layer of the [`sandbox`](Self::sandbox), which is
    ///   not set to [`best_effort`](Sandbox::best_effort).
    /// - [`PoolError::Program`]: the worker program does not exist or is not executable.
    /// - [`PoolError::NotServing`]: this process was started as a worker, and its `main` did not call
    ///   [`worker::serve_if_asked`].
    /// - [`PoolError::WorkerNotServing`]: workers would run this program, and its `main` has not called
    ///   [`worker::serve_if_asked`] before this.
    /// - [`PoolError::NoRunDir`]: there is no directory in which sockets can be made.
    /// - [`PoolError::Journal`]: the journal cannot be written.
    /// - [`PoolError::System`]: the operating system refused a thread or the path of the executable.
    #[expect(clippy::too_many_lines, reason = "a list of settings")]
    pub fn build(self) -> Result<ProcessPool, PoolError> {
        // Every field is named, so the compiler rejects a new setting that is not used here.
        let Self {
            workers,
            min_workers,
            spares,
            idle_timeout,
            concurrency,
            timeout,
            grace,
            retries,
            recycling:
                Recycling { after_tasks: max_tasks, above_memory: max_memory, above_age: max_age },
            limits,
            max_pending,
            initializer,
            preload,
            program,
            worker_args,
            start_timeout,
            mut worker_env,
            build_id,
            sandbox,
            crash_dir,
            on_event,
            wants_starts,
            on_output,
            on_say,
            journal,
            #[cfg(feature = "tracing")]
            trace_level,
            stack,
        } = self;
        #[cfg(not(feature = "tracing"))]
        let trace_level = None;
        if worker::was_asked_in_vain() {
            return Err(PoolError::NotServing);
        }
        validate::not_zero("max_pending", max_pending)?;
        validate::not_zero("after_tasks", max_tasks)?;
        validate::age(max_age)?;
        validate::env(&worker_env)?;
        sandbox.check()?;
        let max_tasks = if sandbox.is_fresh() { Some(1) } else { max_tasks };
        // A descriptor of the pool must not get the number of a closed standard stream.
        os::descriptors::fill_standard();
        let slots = validate::slots(workers.unwrap_or_else(num_cpus::get), concurrency)?;
        socket_dir::prepare()?;
        let programs = program.find(worker_args)?;
        let min_workers = min_workers.unwrap_or(slots.len()).min(slots.len());
        let initializer = initializer.transpose()?;
        let (template, preload) = Template::of(preload.transpose()?);
        let spares = validate::spares(spares)?;
        let crash_keeper = crash_dir.as_deref().map(CrashKeeper::new).transpose()?;
        let control_groups = ControlGroups::create(&sandbox)?;
        // Last, so that a setting that is refused leaves no journal.
        let journal = pool_journal::begin(journal, &build_id, &slots, &mut worker_env)?;
        let traces = Traces::begin(trace_level, &mut worker_env);
        let setup = Setup {
            scheduling: Settings {
                slots,
                spares,
                min_workers,
                idle_timeout,
                max_tasks,
                max_age,
                start_timeout,
                start_tries: START_TRIES,
            },
            options: TaskOptions::new().resolve(ResolvedOptions {
                timeout,
                grace,
                priority: 0,
                retries,
            }),
            max_pending,
            max_memory,
            limits,
            stack,
            initializer,
            template,
            preload,
            programs,
            worker_env,
            build_id,
            sandbox,
            control_groups,
            crash_keeper,
        };
        ProcessPool::start(
            setup,
            ListenerFns { on_event, wants_starts, on_output, on_say, journal, traces },
        )
    }
}

/// Number of failed starts in a row after which the pool is broken; with the delays between them
/// this takes a little more than a second.
const START_TRIES: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_thread_of_the_pool_breaks_the_pool_in_words() {
        use crate::error::TaskError;
        use crate::executor::{Executor, Shutdown};
        use crate::task::Nothing;

        let pool = Builder::default()
            .worker_program("/bin/cat")
            .worker_env("PROCESSION_TEST_SUPERVISOR_PANICS", "")
            .workers(2)
            .max_pending(1)
            .build()
            .expect("a pool");
        for _ in 0..10 {
            match pool.submit(Nothing).result() {
                Err(TaskError::PoolBroken(PoolError::ThreadDied { thread, message })) => {
                    assert_eq!(thread, "supervisor");
                    assert!(message.contains("on purpose at "), "{message}");
                }
                other => panic!("{other:?}"),
            }
        }
        pool.shutdown(Shutdown::Wait);
    }
}
