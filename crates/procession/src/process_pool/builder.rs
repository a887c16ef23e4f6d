//! The settings of a process pool; each has a default.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::inner::{Initializer, OnEvent, OnOutput, Setup};
use super::program::Programs;
use super::socket_dir;
use super::{Output, PoolEvent, ProcessPool};
use crate::error::PoolError;
use crate::limits::{Limits, Recycling};
use crate::retries::Retries;
use crate::scheduler::{ResolvedOptions, Settings};
use crate::task::Task;
use crate::voice::{self, OnSay, Said};
use crate::worker;
use procession_os as os;

/// Builds a [`ProcessPool`].
///
/// ```no_run
/// # use procession::{PoolError, ProcessPool};
/// # fn main() -> Result<(), PoolError> {
/// let pool = ProcessPool::builder().workers(4).build()?;
///
/// // For work that may hang, leak or crash:
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
    idle_timeout: Option<Duration>,
    concurrency: Option<usize>,
    timeout: Option<Duration>,
    retries: Retries,
    recycling: Recycling,
    limits: Limits,
    stack: Option<usize>,
    max_pending: Option<usize>,
    initializer: Option<Result<Initializer, PoolError>>,
    program: WorkerProgram,
    start_timeout: Duration,
    worker_env: Vec<(OsString, OsString)>,
    build_id: String,
    on_event: Option<OnEvent>,
    tells_of_starts: bool,
    on_output: OnOutput,
    on_say: OnSay,
}

enum WorkerProgram {
    This,
    BesideThis(String),
    At(PathBuf),
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            workers: None,
            min_workers: None,
            idle_timeout: None,
            concurrency: None,
            timeout: None,
            retries: Retries::none(),
            recycling: Recycling::never(),
            limits: Limits::none(),
            stack: None,
            max_pending: None,
            initializer: None,
            program: WorkerProgram::This,
            start_timeout: Duration::from_secs(10),
            worker_env: Vec::new(),
            build_id: String::new(),
            on_event: None,
            tells_of_starts: false,
            on_output: Box::new(|Output { worker, pid, stream: _, line }| {
                eprintln!("worker {worker} (pid {pid}): {line}");
            }),
            on_say: voice::aloud(),
        }
    }
}

impl Builder {
    /// How many worker processes to keep, at most. Default: one per CPU.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// How many of the workers to start before there is a task for them, and to keep when there
    /// is none any more. Default: all of them.
    pub fn min_workers(mut self, workers: usize) -> Self {
        self.min_workers = Some(workers);
        self
    }

    /// How long a worker beyond [`min_workers`](Self::min_workers) may be idle before it is let
    /// go. Default: for ever.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// How many tasks run at the same time, over all workers. Default: one per worker. With more
    /// than that each worker runs several, on threads; should it die, all of these are lost. With
    /// less, only so many workers are started.
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.concurrency = Some(tasks);
        self
    }

    /// How many bytes the stack of each thread has: here of those that attend the workers and call
    /// callbacks, and in workers that run several tasks at a time of those that run them. Default:
    /// what the standard library gives to a thread, which is 2 MiB unless `RUST_MIN_STACK` says
    /// otherwise. Less than that lets more threads start under a limit of memory; less than 256 KiB
    /// is raised to that.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack = Some(bytes);
        self
    }

    /// How long a task may run, counted from when it starts to. Then its worker is killed and
    /// replaced, whatever the task is doing. Should the worker run several tasks at a time, the
    /// others die with it. Default: for ever.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether tasks are tried again. Default: not.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// When workers are replaced by fresh ones. Default: only when they die.
    pub fn recycling(mut self, recycling: Recycling) -> Self {
        self.recycling = recycling;
        self
    }

    /// What each worker may use. Default: what this process may.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How many tasks may wait for a worker; a further `submit` waits until there are fewer, and
    /// [`ProcessPool::try_submit`] refuses. Submitting from a callback never waits. Default: any
    /// number.
    pub fn max_pending(mut self, tasks: usize) -> Self {
        self.max_pending = Some(tasks);
        self
    }

    /// A task that each worker runs before any other, say to load a model into
    /// [`Context::local`](crate::Context::local). It must be done within the
    /// [`start_timeout`](Self::start_timeout). If it fails, the pool is broken, since the next
    /// worker would fare no better.
    pub fn initializer<T: Task>(mut self, task: T) -> Self {
        self.initializer = Some(Initializer::new(&task));
        self
    }

    /// The program that the workers run; it must serve, see [`worker::serve_if_asked`], and be
    /// built with the same build of this crate. That both mean the same by a task's name is not
    /// checked. Default: the program that runs already.
    pub fn worker_program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = WorkerProgram::At(path.into());
        self
    }

    /// Workers run the executable of this name beside the running one, if it exists and is of the
    /// same build; else the running one. A [`PoolEvent::ProgramPassedOver`] tells if one was found
    /// and not used.
    pub fn worker_program_beside(mut self, name: impl Into<String>) -> Self {
        self.program = WorkerProgram::BesideThis(name.into());
        self
    }

    /// How long a worker may take from its start until it reports; then it is killed, and another
    /// one tried. Default: 10 seconds.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Adds a variable to the environment of the workers, which is otherwise that of this process.
    /// [`build`](Self::build) refuses a name that is empty or contains `=`, and a zero byte in a name
    /// or value.
    pub fn worker_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.worker_env.push((name.into(), value.into()));
        self
    }

    /// Called with what happens in the pool, from threads of its own. Default: nothing.
    ///
    /// Since it is called for each task that starts, [`map`](crate::Executor::map) sends tasks one by
    /// one then. The pool's threads call it, so it cannot wait for a task of the pool: that is
    /// [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock). The same holds for
    /// [`on_output`](Self::on_output) and [`on_say`](Self::on_say).
    pub fn on_event(mut self, call: impl Fn(&PoolEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Box::new(call));
        self.tells_of_starts = true;
        self
    }

    /// Names the build of this program; a worker whose [`Registry::build_id`] has another name is
    /// refused, as one is whose version of this crate differs. Default: none.
    ///
    /// [`Registry::build_id`]: crate::Registry::build_id
    pub fn build_id(mut self, id: impl Into<String>) -> Self {
        self.build_id = id.into();
        self
    }

    /// Like [`on_event`](Self::on_event), without [`PoolEvent::TaskStarted`], so that
    /// [`map`](crate::Executor::map) still sends short tasks in chunks.
    pub fn on_event_except_starts(self, call: impl Fn(&PoolEvent) + Send + Sync + 'static) -> Self {
        Self { tells_of_starts: false, ..self.on_event(call) }
    }

    /// Called with each line that a worker writes to its standard output or error. Default: it is
    /// written to this process's standard error, with the worker's number and process id.
    pub fn on_output(mut self, call: impl Fn(&Output<'_>) + Send + Sync + 'static) -> Self {
        self.on_output = Box::new(call);
        self
    }

    /// Called with each line that a task [says](crate::Context::say), before its future is done,
    /// from threads of the pool's own. Default: it is written to this process's standard output.
    pub fn on_say(mut self, call: impl Fn(&Said<'_>) + Send + Sync + 'static) -> Self {
        self.on_say = Box::new(call);
        self
    }

    /// Starts the pool. It is usable at once, while its workers are still starting; should none
    /// of them be able to, the futures tell.
    pub fn build(self) -> Result<ProcessPool, PoolError> {
        // All of it, so that a new setting cannot be forgotten.
        let Self {
            workers,
            min_workers,
            idle_timeout,
            concurrency,
            timeout,
            retries,
            recycling: Recycling { after_tasks: max_tasks, above_memory: max_memory },
            limits,
            max_pending,
            initializer,
            program,
            start_timeout,
            worker_env,
            build_id,
            on_event,
            tells_of_starts,
            on_output,
            on_say,
            stack,
        } = self;
        if worker::was_asked_in_vain() {
            return Err(PoolError::NotServing);
        }
        if max_tasks == Some(0) || max_pending == Some(0) {
            let what = if max_pending == Some(0) { "max_pending" } else { "after_tasks" };
            return Err(PoolError::Setting(format!("{what} must be at least 1")));
        }
        check_variables(&worker_env)?;
        // The pool's own files must not take the place of a closed standard stream.
        os::descriptors::fill_standard();
        let slots = slots(workers.unwrap_or_else(num_cpus::get), concurrency)?;
        socket_dir::prepare()?;
        let programs = match program {
            WorkerProgram::This => Programs::this()?,
            WorkerProgram::BesideThis(name) => Programs::beside_this(&name)?,
            WorkerProgram::At(path) => Programs::only(&path)?,
        };
        let min_workers = min_workers.unwrap_or(slots.len()).min(slots.len());
        ProcessPool::start(Setup {
            scheduling: Settings {
                slots,
                min_workers,
                idle_timeout,
                max_tasks,
                start_timeout,
                start_tries: START_TRIES,
            },
            options: ResolvedOptions { timeout, priority: 0, retries },
            max_pending,
            max_memory,
            limits,
            stack,
            initializer: initializer.transpose()?,
            programs,
            worker_env,
            build_id,
            on_event,
            tells_of_starts,
            on_output,
            on_say,
        })
    }
}

/// Refuses what cannot be in an environment, or would be read there as something else.
fn check_variables(variables: &[(OsString, OsString)]) -> Result<(), PoolError> {
    use std::os::unix::ffi::OsStrExt;
    for (name, value) in variables {
        let reason = match (name.as_bytes(), value.as_bytes()) {
            ([], _) => "is empty",
            (name, _) if name.contains(&b'=') => "contains '='",
            (name, _) if name.contains(&0) => "contains a zero byte",
            (_, value) if value.contains(&0) => {
                let text = format!("worker_env: the value of {name:?} contains a zero byte");
                return Err(PoolError::Setting(text));
            }
            _ => continue,
        };
        return Err(PoolError::Setting(format!("worker_env: the name {name:?} {reason}")));
    }
    Ok(())
}

/// How many fruitless starts in a row it takes to give up: with the delays between them, after
/// somewhat more than a second.
const START_TRIES: u32 = 8;

/// More than any system can have: what is allocated for each is bounded by these.
const MOST_WORKERS: usize = 1 << 15;
const MOST_IN_A_WORKER: usize = 1 << 15;

/// Spreads `concurrency` tasks over the workers as evenly as they go.
fn slots(workers: usize, concurrency: Option<usize>) -> Result<Vec<usize>, PoolError> {
    let concurrency = concurrency.unwrap_or(workers);
    if workers == 0 || concurrency == 0 {
        let what = if workers == 0 { "workers" } else { "concurrency" };
        return Err(PoolError::Setting(format!("{what} must be at least 1")));
    }
    let workers = workers.min(concurrency);
    let too_many = |what: &str, number: usize, most: usize| {
        PoolError::Setting(format!("{what} must be at most {most}, not {number}"))
    };
    if workers > MOST_WORKERS {
        return Err(too_many("workers", workers, MOST_WORKERS));
    }
    if concurrency.div_ceil(workers) > MOST_IN_A_WORKER {
        let most = workers * MOST_IN_A_WORKER;
        let what = format!("concurrency with {workers} workers");
        return Err(too_many(&what, concurrency, most));
    }
    let (each, more) = (concurrency / workers, concurrency % workers);
    Ok((0..workers).map(|worker| each + usize::from(worker < more)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrency_is_spread_evenly_and_never_exceeded() {
        assert_eq!(slots(2, None), Ok(vec![1, 1]));
        assert_eq!(slots(2, Some(3)), Ok(vec![2, 1]));
        assert_eq!(slots(2, Some(30)), Ok(vec![15, 15]));
        assert_eq!(slots(4, Some(1)), Ok(vec![1]));
        assert!(matches!(slots(0, None), Err(PoolError::Setting(_))));
        assert!(matches!(slots(1, Some(0)), Err(PoolError::Setting(_))));
    }

    #[test]
    fn numbers_beyond_any_system_are_refused_with_the_bound() {
        for (workers, concurrency) in [
            (usize::MAX, None),
            (2, Some(usize::MAX)),
            (usize::MAX, Some(usize::MAX)),
            (MOST_WORKERS + 1, None),
            (1, Some(MOST_IN_A_WORKER + 1)),
        ] {
            let Err(PoolError::Setting(reason)) = slots(workers, concurrency) else {
                panic!("{workers} and {concurrency:?} are taken");
            };
            assert!(reason.contains("32768") || reason.contains("65536"), "{reason}");
        }
        assert_eq!(slots(MOST_WORKERS, None).map(|slots| slots.len()), Ok(MOST_WORKERS));
    }

    #[test]
    fn a_panic_of_a_thread_of_the_pool_breaks_the_pool_in_words() {
        use crate::Failure;
        use crate::error::TaskError;
        use crate::executor::{Executor, Shutdown};
        use crate::task::Context;

        #[derive(serde::Serialize, serde::Deserialize)]
        struct Nothing;
        impl Task for Nothing {
            const NAME: &'static str = "nothing";
            type Output = ();
            fn run(self, _: &Context) -> Result<(), Failure> {
                Ok(())
            }
        }
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
