//! How a process pool is to be; every setting has a default under which nobody needs to set it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::program::{self, Programs};
use super::{Output, PoolEvent, ProcessPool, Setup};
use crate::error::PoolError;
use crate::worker;

/// Builds a [`ProcessPool`].
///
/// ```no_run
/// # use procession::{PoolError, ProcessPool};
/// # fn main() -> Result<(), PoolError> {
/// let pool = ProcessPool::builder().workers(4).build()?;
/// # Ok(()) }
/// ```
#[must_use]
pub struct Builder {
    workers: Option<usize>,
    concurrency: Option<usize>,
    program: WorkerProgram,
    start_timeout: Duration,
    worker_env: Vec<(OsString, OsString)>,
    on_event: Box<dyn Fn(&PoolEvent) + Send + Sync>,
    on_output: Box<dyn Fn(&Output<'_>) + Send + Sync>,
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
            concurrency: None,
            program: WorkerProgram::This,
            start_timeout: Duration::from_secs(10),
            worker_env: Vec::new(),
            on_event: Box::new(|_| {}),
            on_output: Box::new(|Output { worker, pid, stream: _, line }| {
                eprintln!("worker {worker} (pid {pid}): {line}");
            }),
        }
    }
}

impl Builder {
    /// How many worker processes to keep. Default: one per CPU.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// How many tasks run at the same time, over all workers. Default: one per worker. With more
    /// than that each worker runs several, on threads; should it die, all of these are lost. With
    /// less, only so many workers are started.
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.concurrency = Some(tasks);
        self
    }

    /// The program that the workers run; it must serve, see [`worker::serve_if_asked`], and be
    /// built with the same build of this crate. Default: the program that runs already.
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
    pub fn worker_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.worker_env.push((name.into(), value.into()));
        self
    }

    /// Called with what happens in the pool, from threads of its own. Default: nothing.
    pub fn on_event(mut self, call: impl Fn(&PoolEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Box::new(call);
        self
    }

    /// Called with each line that a worker writes to its standard output or error. Default: it is
    /// written to this process's standard error, with the worker's number and process id.
    pub fn on_output(mut self, call: impl Fn(&Output<'_>) + Send + Sync + 'static) -> Self {
        self.on_output = Box::new(call);
        self
    }

    /// Starts the pool. It is usable at once, while its workers are still starting; should none
    /// of them be able to, the futures tell.
    pub fn build(self) -> Result<ProcessPool, PoolError> {
        let Self { workers, concurrency, program, start_timeout, worker_env, on_event, on_output } =
            self;
        if worker::was_asked_in_vain() {
            return Err(PoolError::NotServing);
        }
        program::prepare_meeting_place()?;
        let programs = match program {
            WorkerProgram::This => Programs::this()?,
            WorkerProgram::BesideThis(name) => Programs::beside_this(&name)?,
            WorkerProgram::At(path) => Programs::only(&path)?,
        };
        let slots = slots(workers.unwrap_or_else(num_cpus::get), concurrency)?;
        ProcessPool::start(Setup {
            slots,
            start_timeout,
            programs,
            worker_env,
            on_event,
            on_output,
        })
    }
}

/// Spreads `concurrency` tasks over the workers as evenly as they go.
fn slots(workers: usize, concurrency: Option<usize>) -> Result<Vec<usize>, PoolError> {
    let concurrency = concurrency.unwrap_or(workers);
    if workers == 0 || concurrency == 0 {
        let what = if workers == 0 { "workers" } else { "concurrency" };
        return Err(PoolError::Setting(format!("{what} must be at least 1")));
    }
    let workers = workers.min(concurrency);
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
}
