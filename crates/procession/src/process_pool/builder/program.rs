//! Settings of a pool: the program that the workers run, and how it is started.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::{Builder, WorkerProgram};

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
