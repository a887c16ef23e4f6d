//! [`Sandbox`]: what the workers of a pool may do, for tasks that work on data that is not trusted.

use std::path::{Path, PathBuf};

use procession_os::sandbox::{self, Rules};
use serde::{Deserialize, Serialize};

use crate::error::PoolError;

mod report;

pub use self::report::{Layer, SandboxReport};

/// What a worker process may do: for code that may be taken over by the data that it reads, such as a
/// decoder. Linux only, and only with the feature `sandbox`: elsewhere a pool with a sandbox is not built, or
/// is built without it if [`best_effort`](Self::best_effort) is set. `SECURITY.md` in the sources says what
/// each level stops, and how to write a task that works under it.
///
/// | | [`none`](Self::none) | [`basic`](Self::basic) | [`strict`](Self::strict) |
/// |---|---|---|---|
/// | environment | that of this process | what is needed to start, and [`worker_env`](crate::Builder::worker_env) | as basic |
/// | files | those of the user | programs and libraries of the system, for reading | none |
/// | network, other processes | allowed | new sockets and signals are refused | sockets, forks and programs are refused |
/// | rights of a superuser | kept | given up | given up |
/// | system calls | all | all but those for tracing, mounting, and the like | those of a list |
/// | new code | allowed | allowed | refused |
///
/// A worker is confined after the [`Limits`](crate::Limits) are in place and before the initializer runs.
/// A system call that the filter does not allow ends the worker, and the error of the task names it:
/// [`Death::violation`](crate::Death::violation). Calls that libraries try and can do without fail with an
/// error instead, and so do files, TCP ports and signals outside of the rules: the task goes on with that error.
///
/// ```no_run
/// # use procession::{PoolError, ProcessPool, Sandbox};
/// let sandbox = Sandbox::strict().read("/usr/share/models").memory(1 << 30);
/// let pool = ProcessPool::builder().sandbox(sandbox).build()?;
/// # Ok::<(), PoolError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Sandbox {
    level: SandboxLevel,
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    memory: Option<u64>,
    total_memory: Option<u64>,
    largest_output: Option<u64>,
    allowed: Vec<Allow>,
    needs_namespaces: bool,
    is_best_effort: bool,
    is_fresh: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum SandboxLevel {
    #[default]
    None,
    Basic,
    Strict,
}

/// An exception of a [`Sandbox`].
///
/// ```
/// use procession::{Allow, Sandbox};
///
/// let fetches = Sandbox::strict().allow(Allow::Network);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Allow {
    /// Sockets for the internet (IPv4 and IPv6), and the files that name resolution and TLS need.
    Network,
    /// New processes and other programs, under the same rules. At the strict level a program must be
    /// readable: see [`Sandbox::read`].
    Processes,
    /// Memory that can be executed, such as just-in-time compilers and `dlopen` need.
    NewCode,
}

impl Sandbox {
    /// No sandbox. The default.
    ///
    /// ```
    /// # use procession::Sandbox;
    /// assert_eq!(Sandbox::none(), Sandbox::default());
    /// ```
    pub const fn none() -> Self {
        Self::of(SandboxLevel::None)
    }

    /// Stops what code does that looks around: files of the user, other processes, the network.
    ///
    /// ```
    /// # use procession::{Allow, Sandbox};
    /// let fetches = Sandbox::basic().allow(Allow::Network).write("downloads");
    /// ```
    pub const fn basic() -> Self {
        Self::of(SandboxLevel::Basic)
    }

    /// Allows computation, and the files of [`read`](Self::read) and [`write`](Self::write).
    ///
    /// ```
    /// # use procession::Sandbox;
    /// let decodes = Sandbox::strict().memory(1 << 30); // 1 GiB
    /// ```
    pub const fn strict() -> Self {
        Self::of(SandboxLevel::Strict)
    }

    const fn of(level: SandboxLevel) -> Self {
        Self {
            level,
            read: Vec::new(),
            write: Vec::new(),
            memory: None,
            total_memory: None,
            largest_output: None,
            allowed: Vec::new(),
            needs_namespaces: false,
            is_best_effort: false,
            is_fresh: false,
        }
    }

    /// Allows reading this file, or this directory with all in it. It must exist when a worker starts. In a program
    /// that runs as root the worker's user must have the right to read it: a worker gives the rights of a superuser up.
    ///
    /// ```
    /// # use procession::Sandbox;
    /// let sandbox = Sandbox::strict().read("/usr/share/models").read("/usr/share/fonts");
    /// ```
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.push(path.into());
        self
    }

    /// Allows reading and writing there, and new files. As for [`read`](Self::read), the worker's user must have
    /// the right to do so.
    ///
    /// ```
    /// # use procession::Sandbox;
    /// let sandbox = Sandbox::strict().write("thumbnails");
    /// ```
    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.write.push(path.into());
        self
    }

    /// The most writable memory of a worker, and its longest file, in bytes. A worker needs about 10 MB for
    /// itself: with less it does not start, which the error of each future tells. Default: no limit.
    ///
    /// ```
    /// # use procession::Sandbox;
    /// let sandbox = Sandbox::strict().memory(1 << 30); // 1 GiB
    /// ```
    pub const fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// The most memory, in bytes, of all processes of a worker together, with their memory files. Blobs and long
    /// outputs that the worker has returned count as long as the program keeps them. Beyond it the system kills the
    /// worker with all of its processes, and [`Death::violation`](crate::Death::violation) says so.
    ///
    /// It needs a control group that was delegated to this program: `SECURITY.md` in the sources says how. Where there
    /// is none, the pool is not built, unless [`best_effort`](Self::best_effort) is set. Default: no limit.
    ///
    /// ```
    /// # use procession::Sandbox;
    /// let sandbox = Sandbox::strict().total_memory(2 << 30); // 2 GiB
    /// ```
    pub const fn total_memory(mut self, bytes: u64) -> Self {
        self.total_memory = Some(bytes);
        self
    }

    /// The most bytes of what a worker sends at once: the output of a task, a value that it emits, or a line, each with
    /// its blobs. Of anything larger the pool reads no bytes beyond this number: the task fails with
    /// [`TaskError::Undelivered`](crate::TaskError::Undelivered), the value is
    /// [missed](crate::PartialError::Missed), and the line says that it is lost. A number below 64 KiB counts as 64
    /// KiB. Default: no limit.
    ///
    /// ```
    /// # use procession::Sandbox;
    /// let decodes = Sandbox::strict().largest_output(64 << 20); // 64 MiB
    /// ```
    pub const fn largest_output(mut self, bytes: u64) -> Self {
        self.largest_output = Some(bytes);
        self
    }

    /// Allows what the level refuses.
    ///
    /// ```
    /// # use procession::{Allow, Sandbox};
    /// let sandbox = Sandbox::strict().allow(Allow::Network);
    /// ```
    pub fn allow(mut self, exception: Allow) -> Self {
        self.allowed.push(exception);
        self
    }

    /// Requires the layer `namespaces` of the strict level, which bounds the number of threads and processes of a
    /// worker. Some systems refuse it to their users; without this call a worker goes on without it, and
    /// [`ProcessPool::sandbox_report`](crate::ProcessPool::sandbox_report) tells why. At the basic level there is
    /// none.
    ///
    /// ```
    /// use procession::Sandbox;
    ///
    /// let sandbox = Sandbox::strict().require_namespaces();
    /// ```
    pub const fn require_namespaces(mut self) -> Self {
        self.needs_namespaces = true;
        self
    }

    /// Goes on without the layers that this system does not have. Without this, the pool is not built:
    /// [`PoolError::SandboxUnavailable`]. [`ProcessPool::sandbox_report`](crate::ProcessPool::sandbox_report)
    /// says which are missing.
    ///
    /// ```
    /// # use procession::Sandbox;
    /// let sandbox = Sandbox::strict().best_effort(); // `sandbox_report` says what is missing
    /// ```
    pub const fn best_effort(mut self) -> Self {
        self.is_best_effort = true;
        self
    }

    /// Each worker runs one task. Otherwise a worker that one task has taken over also runs later ones, and
    /// can read them and answer for them. It replaces
    /// [`Recycling::after_tasks`](crate::Recycling::after_tasks).
    ///
    /// ```
    /// # use procession::Sandbox;
    /// let sandbox = Sandbox::strict().fresh_per_task();
    /// ```
    pub const fn fresh_per_task(mut self) -> Self {
        self.is_fresh = true;
        self
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    pub(crate) fn is_on(&self) -> bool {
        self.level != SandboxLevel::None
    }

    pub(crate) fn is_best_effort(&self) -> bool {
        self.is_best_effort
    }

    pub(crate) fn most_memory(&self) -> Option<u64> {
        [self.memory, self.total_memory].into_iter().flatten().min().filter(|_| self.is_on())
    }

    /// The maximum length of an output, a partial result or a line, in bytes.
    pub(crate) fn most_sent(&self) -> u64 {
        /// Bytes in a record of the ring are not counted.
        const LEAST: u64 = 64 << 10;
        let most = self.largest_output.filter(|_| self.is_on());
        most.map_or(u64::MAX, |most| most.max(LEAST))
    }

    pub(crate) fn total_memory_bytes(&self) -> Option<u64> {
        self.total_memory.filter(|_| self.is_on())
    }

    /// Whether a worker inherits this variable.
    pub(crate) fn inherits(&self, variable: &std::ffi::OsStr) -> bool {
        /// How a program is loaded, and how it shows text and time.
        const KEPT: [&str; 9] = [
            "PATH",
            "LD_LIBRARY_PATH",
            "LANG",
            "LANGUAGE",
            "TZ",
            "TMPDIR",
            "RUST_BACKTRACE",
            "RUST_MIN_STACK",
            "PROCESSION_TEST_NO_MEMFD",
        ];
        let Some(name) = variable.to_str() else { return !self.is_on() };
        !self.is_on() || KEPT.contains(&name) || name.starts_with("LC_")
    }

    fn rules(&self) -> Rules {
        let Self { level, read, write, memory, allowed, .. } = self;
        Rules {
            is_strict: *level == SandboxLevel::Strict,
            needs_namespaces: self.needs_namespaces,
            is_best_effort: self.is_best_effort,
            read: read.clone(),
            write: write.clone(),
            memory: *memory,
            network: allowed.contains(&Allow::Network),
            processes: allowed.contains(&Allow::Processes),
            new_code: allowed.contains(&Allow::NewCode),
        }
    }

    /// Whether this system has the layers, and the paths exist.
    pub(crate) fn check(&self) -> Result<(), PoolError> {
        if !self.is_on() {
            return Ok(());
        }
        if let Some(path) = self.read.iter().chain(&self.write).find(|path| !is_usable(path)) {
            let path = path.display();
            return Err(PoolError::Setting(format!(
                "a path of the sandbox does not exist, or is relative: {path}"
            )));
        }
        sandbox::check(&self.rules()).map_err(|missing| unavailable(missing.layer, missing.why))
    }

    /// Confines this process, a worker.
    pub(crate) fn impose(&self) -> Result<SandboxReport, Layer> {
        if !self.is_on() {
            return Ok(SandboxReport::default());
        }
        let rules = self.rules();
        let of = |layer: &str, missing| {
            let is_optional = sandbox::is_optional(layer, &rules);
            Layer { layer: layer.to_owned(), missing, is_optional }
        };
        let missing = |missing: sandbox::Unavailable| {
            let why = missing.why.chars().take(LONGEST_REASON).collect();
            of(missing.layer, Some(why))
        };
        let all_missing = sandbox::confine(&rules).map_err(missing)?;
        let missing: Vec<_> = all_missing.into_iter().map(missing).collect();
        let is_there = |layer: &&&str| missing.iter().all(|missing| missing.layer != ***layer);
        let there = sandbox::layers(&rules).iter().filter(is_there);
        let there = there.map(|layer| of(layer, None));
        let layers = there.chain(missing.iter().cloned()).collect();
        Ok(SandboxReport { layers })
    }
}

/// Reasons are cut to this length, so that a message holds them all.
const LONGEST_REASON: usize = 100;

fn is_usable(path: &Path) -> bool {
    path.is_absolute() && path.exists()
}

fn unavailable(layer: &str, why: String) -> PoolError {
    PoolError::SandboxUnavailable { layer: layer.to_owned(), why }
}

/// What a system call that was refused is called in [`Death::violation`](crate::Death::violation).
pub(crate) fn violation(call: u32) -> Box<str> {
    match sandbox::syscalls::name(call) {
        Some(name) => format!("{name}: denied").into(),
        None => format!("system call {call}: denied").into(),
    }
}

/// That a worker had more than [`Sandbox::total_memory`].
pub(crate) fn violation_of_memory(bytes: u64) -> Box<str> {
    format!("memory: more than {bytes} bytes").into()
}

/// A system call whose name was not noted: one that was made with SIGSYS blocked, as the C library does to
/// start a program, or one of 32 bits.
pub(crate) fn violation_without_name() -> Box<str> {
    "a call without a name, such as one that starts a program: denied".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_exist_is_an_error_of_the_settings() {
        let sandbox = Sandbox::strict().best_effort().read("/does/not/exist");
        assert!(matches!(sandbox.check(), Err(PoolError::Setting(_))));
        assert_eq!(Sandbox::none().check(), Ok(()));
    }
}
