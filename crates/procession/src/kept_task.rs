//! [`KeptTask`]: a task that ended its worker, from a file of
//! [`Builder::keep_crashes`](crate::Builder::keep_crashes), to be run again alone.

mod entry;
mod file;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use self::entry::replay_if_asked;
pub(crate) use self::file::{KeptContents, KeptHeader, KeptInitializer, attempts, write};
use crate::blob::Blob;
use crate::codec::{self, Encoding, IgnoredValue, with_encoding};
use crate::error::{Exit, TaskError, with_unit};
use crate::progress_lines::LineSink;
use crate::registry::Registry;
use crate::stop_signal::StopSignal;
use crate::task::{Context, Locals, Task, TaskId};
use crate::transport::{Reply, ReplyBuffer, Status};

/// A task that ended its worker, with its arguments and blobs: what
/// [`Builder::keep_crashes`](crate::Builder::keep_crashes) has written to a file.
///
/// ```standalone_crate
/// # #[cfg(feature = "macros")] mod example {
/// use procession::{Executor, KeptTask, ProcessPool};
///
/// #[procession::task]
/// fn decode(image: Vec<u8>) -> usize {
///     if image.is_empty() { std::process::abort() }
///     image.len()
/// }
///
/// #[procession::main]
/// # pub
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     # let dir = tempfile::tempdir()?;
///     # let dir = dir.path();
///     let pool = ProcessPool::builder().workers(1).keep_crashes(dir).build()?;
///     let Err(error) = pool.submit(decode(vec![])).result() else { return Ok(()) };
///     println!("{error}"); // "… died of signal 6 (SIGABRT) …; its input is kept in …"
///     let kept = KeptTask::read(error.kept_file().ok_or("no file")?)?;
///     assert!(kept.task().ends_with("decode"));
///     println!("process {} {}: {}", kept.pid(), kept.cause(), kept.path().display());
///     Ok(())
/// }
/// # }
/// # #[cfg(not(feature = "macros"))] mod example { pub fn main() -> Result<(), ()> { Ok(()) } }
/// # fn main() { example::main().unwrap() }
/// ```
///
/// Every program that serves as a worker can run it, alone and in its own process, without a line of code:
///
/// ```text
/// PROCESSION_REPLAY=crashes/2026-11-29T15-27-08-4711-17-thumb.procession ./thumbnails
/// PROCESSION_REPLAY=crashes/… gdb --args ./thumbnails
/// ```
///
/// It prints the output, or ends by the same signal as the worker:
/// [`worker::replay_if_asked`](crate::worker::replay_if_asked) says more. In a test:
///
/// ```no_run
/// # #[cfg(feature = "macros")]
/// # fn example() -> Result<(), procession::ReplayError> {
/// use procession::{KeptTask, Registry};
///
/// let kept = KeptTask::read("tests/crashes/broken-image.procession")?;
/// let output = kept.replay(&Registry::collected())?; // or this process dies
/// println!("{output}");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct KeptTask {
    path: PathBuf,
    header: KeptHeader,
    text: Vec<u8>,
    blobs: Vec<Blob>,
    initializer: Option<Vec<u8>>,
    preload: Option<Vec<u8>>,
    is_forced: bool,
}

/// How a task ended its worker.
///
/// ```
/// use procession::{Exit, KeptCause};
///
/// assert_eq!(KeptCause::Died(Exit::Signal(6)).to_string(), "died of signal 6 (SIGABRT)");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeptCause {
    /// The process ended.
    Died(Exit),
    /// It ran longer than this, and its worker was killed.
    TimedOut(Duration),
}

impl fmt::Display for KeptCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Died(exit) => write!(f, "died of {exit}"),
            Self::TimedOut(after) => {
                write!(f, "ran longer than {}", with_unit(after))
            }
        }
    }
}

/// Why a kept task was not run, or has no output.
///
/// ```
/// use procession::{KeptTask, ReplayError};
///
/// let nothing = KeptTask::read("no such file");
/// assert!(matches!(nothing, Err(ReplayError::Unreadable { .. })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is not one that a pool has written, or is cut.
    #[error("{} is no kept task: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It was kept by another build of this crate or, by
    /// [`Registry::build_id`](crate::Registry::build_id), of the program.
    #[error(
        "the task was kept by another build ({kept}, this is {this}), which may encode it otherwise; \
         KeptTask::despite_build, or PROCESSION_REPLAY_FORCE=1, runs it all the same"
    )]
    OtherBuild {
        /// The build that has kept it.
        kept: String,
        /// The build of this program.
        this: String,
    },
    /// This program has no such task.
    #[error("{reason}")]
    UnknownTask {
        /// Why the task is not found.
        reason: String,
    },
    /// This program encodes the task otherwise.
    #[error(
        "task {task:?} was kept in the encoding {kept:?}, and this program has it in {this:?}: run it with the \
         program that kept it"
    )]
    OtherEncoding {
        /// The task.
        task: String,
        /// The encoding of the file.
        kept: Encoding,
        /// That of this program.
        this: Encoding,
    },
    /// A thread for it could not be started, or the limits of its worker not be imposed.
    #[error("cannot run the task as its worker did: {reason}")]
    System {
        /// What the system refused.
        reason: String,
    },
    /// The pool's initializer, or its preload, which run before the task, failed.
    #[error("the preload or the initializer failed: {0}")]
    Initializer(#[source] TaskError),
    /// The task ran and has no output.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl KeptTask {
    /// Reads a file. See the example of [`KeptTask`].
    ///
    /// # Errors
    ///
    /// [`ReplayError::Unreadable`] and [`ReplayError::Malformed`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ReplayError> {
        let path = path.as_ref();
        let KeptContents { header, text, blobs, initializer, preload } = file::read(path)?;
        let blobs = blobs.into_iter().map(Blob::from).collect();
        let path = path.to_owned();
        Ok(Self { path, header, text, blobs, initializer, preload, is_forced: false })
    }

    /// The kind of task, by its [`NAME`](Task::NAME). See the example of [`KeptTask`].
    pub fn task(&self) -> &str {
        &self.header.task
    }

    /// How it ended its worker. See the example of [`KeptTask`].
    pub fn cause(&self) -> KeptCause {
        self.header.cause
    }

    /// The process that it ended. See the example of [`KeptTask`].
    pub fn pid(&self) -> u32 {
        self.header.pid
    }

    /// The file that it was read from. See the example of [`KeptTask`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same, to be run by a program of another build as well.
    ///
    /// ```no_run
    /// # use procession::{KeptTask, Registry, ReplayError};
    /// let kept = KeptTask::read("crashes/a.procession")?.despite_build();
    /// println!("{}", kept.replay(&Registry::new())?); // .with::<Decode>()
    /// # Ok::<(), ReplayError>(())
    /// ```
    #[must_use]
    pub fn despite_build(mut self) -> Self {
        self.is_forced = true;
        self
    }

    /// The task itself, with its arguments.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Decode(Vec<u8>);
    /// # impl Task for Decode {
    /// #     const NAME: &'static str = "decode";
    /// #     type Output = ();
    /// #     fn run(self, _: &Context) -> Result<(), Failure> { Ok(()) }
    /// # }
    /// fn image(kept: &KeptTask) -> Result<Vec<u8>, ReplayError> {
    ///     let Decode(image) = kept.decode()?;
    ///     Ok(image)
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReplayError::UnknownTask`] if it is no `T`, [`ReplayError::OtherEncoding`], and
    /// [`TaskError::Undecodable`] if the type has changed. The build is not compared.
    pub fn decode<T: Task>(&self) -> Result<T, ReplayError> {
        if self.header.task != T::NAME {
            let reason = format!("the file has a task {:?}, not {:?}", self.header.task, T::NAME);
            return Err(ReplayError::UnknownTask { reason });
        }
        self.check_encoding(T::ENCODING)?;
        with_encoding!(T::ENCODING, F => codec::decode::<F, T>(&self.text, self.blobs.clone()))
            .map_err(|refusal| refusal.into_undecodable("task", T::NAME).into())
    }

    /// Runs the pool's preload and its initializer, if it had them, and then the task, on this thread and without the
    /// limits and the timeout of the pool. What ended the worker ends this process.
    /// See the examples of [`KeptTask`] and [`ReplayedOutput`].
    ///
    /// # Errors
    ///
    /// All of [`ReplayError`] but those of reading.
    pub fn replay(&self, registry: &Registry) -> Result<ReplayedOutput, ReplayError> {
        let this = registry.build();
        if self.header.build != this && !self.is_forced {
            return Err(ReplayError::OtherBuild { kept: self.header.build.clone(), this });
        }
        let unknown = |reason| ReplayError::UnknownTask { reason };
        let encoding = registry.encoding(self.task()).map_err(unknown)?;
        self.check_encoding(encoding)?;
        let locals = Arc::default();
        let first =
            [(&self.preload, &self.header.preload), (&self.initializer, &self.header.initializer)];
        for (text, head) in
            first.into_iter().filter_map(|(text, head)| text.as_ref().zip(head.as_ref()))
        {
            self.run(registry, &head.task, text, Vec::new(), TaskId(0), &locals).map_err(
                |error| match error {
                    ReplayError::Task(error) => ReplayError::Initializer(error),
                    error => error,
                },
            )?;
        }
        let (id, blobs) = (TaskId(self.header.id), self.blobs.clone());
        self.run(registry, self.task(), &self.text, blobs, id, &locals)
    }

    fn run(
        &self,
        registry: &Registry,
        name: &str,
        text: &[u8],
        blobs: Vec<Blob>,
        task: TaskId,
        locals: &Arc<Locals>,
    ) -> Result<ReplayedOutput, ReplayError> {
        let runner = registry.runner(name).map_err(|reason| ReplayError::UnknownTask { reason })?;
        let context = Context {
            task,
            worker: self.header.worker,
            attempt: self.header.attempts,
            locals: Arc::clone(locals),
            lines: LineSink::default(),
            label: None,
            stop: StopSignal::Here { future: None, executor: Arc::default() },
        };
        let mut buffer = ReplyBuffer::default();
        buffer.blobs = blobs;
        let status = runner(text, &context, &mut buffer);
        if status == Status::Ok {
            let (task, encoding) = (self.header.task.clone(), buffer.encoding());
            let blobs = std::mem::take(&mut buffer.blobs);
            let data = buffer.into_data();
            return Ok(ReplayedOutput { task, encoding, data, blobs });
        }
        // The errors of a task are what a pool makes of its reply.
        let reply = buffer.envelope(task.0, status, Duration::ZERO);
        let reply = Reply::parse(reply).map_err(|_| ReplayError::Malformed {
            path: self.path.clone(),
            reason: "the reply cannot be read".to_owned(),
        })?;
        match reply.result::<IgnoredValue>(codec::decode_in) {
            Err(error) => Err(error.into()),
            Ok(IgnoredValue) => unreachable!("{status:?} is no output"),
        }
    }

    fn check_encoding(&self, this: Encoding) -> Result<(), ReplayError> {
        let kept = self.header.encoding;
        match kept == this {
            true => Ok(()),
            false => Err(ReplayError::OtherEncoding { task: self.header.task.clone(), kept, this }),
        }
    }
}

/// The output of a task that was run by [`KeptTask::replay`]. It displays as the JSON of the output; of
/// another encoding, as its length.
///
/// ```
/// use procession::{KeptTask, Registry};
///
/// fn checksum_of(file: &str, registry: &Registry) -> Result<u32, Box<dyn std::error::Error>> {
///     Ok(KeptTask::read(file)?.replay(registry)?.decode()?)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedOutput {
    task: String,
    encoding: Encoding,
    data: Vec<u8>,
    blobs: Vec<Blob>,
}

impl ReplayedOutput {
    /// The output, whose type is that of the task. See the example of [`ReplayedOutput`].
    ///
    /// # Errors
    ///
    /// [`TaskError::Undecodable`] if it is of another type.
    pub fn decode<O: Serialize + DeserializeOwned + Send>(&self) -> Result<O, TaskError> {
        codec::decode_in(self.encoding, &self.data, self.blobs.clone())
            .map_err(|refusal| refusal.into_undecodable("output", &self.task))
    }
}

impl fmt::Display for ReplayedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encoding {
            Encoding::Json => f.write_str(&String::from_utf8_lossy(&self.data))?,
            Encoding::Binary => write!(f, "{} bytes in the binary encoding", self.data.len())?,
        }
        let blobs = self.blobs.iter().enumerate();
        blobs
            .into_iter()
            .try_for_each(|(index, blob)| write!(f, "\nblob {index}: {} bytes", blob.len()))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ReplayError {
    ReplayError::Unreadable { path: path.to_owned(), reason: error.to_string() }
}
