//! Tasks and results as bytes, for an executor whose workers are on other hosts: feature `remote`.
//!
//! ```text
//!  Job ── Job::into_remote ──► RemoteTask ──── bytes ────► RemoteTask ── ProcessPool::run_remote ─┐
//!                              RemotePromise                                                      │
//!                                  ▲ complete                                                     ▼
//!                                  └────────── bytes ◄──────────────────────────────────── RemoteResult
//! ```
//!
//! What carries the bytes is another crate. Blobs are kept apart, since a carrier may have a way of its own
//! for large data.

mod chunks;
mod progress;
mod run;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::chunks::RemoteChunks;
use self::chunks::{ItemResult, RemoteChunkCore};
pub use self::progress::{RemoteLine, RemoteProgress};
use self::run::{OnDone, OnProgress};
use crate::blob::{self, Blob};
use crate::codec::{Encoding, Refusal};
use crate::error::TaskError;
use crate::executor::Job;
use crate::executor::chunk::AnyChunkPromise;
use crate::executor::job::{AnyPromise, EncodedJob};
use crate::transport::Reply;

/// An encoded task, or a chunk of short tasks of one kind, on its way to another host.
///
/// ```
/// use procession::{Executor, RemoteTask};
/// # use std::sync::{Arc, Mutex};
/// # use procession::{Context, Engine, Failure, Job, Shutdown, Task};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Square(u64);
/// # impl Task for Square {
/// #     const NAME: &'static str = "square";
/// #     type Output = u64;
/// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
/// # }
/// # #[derive(Default)]
/// # struct Wire(Mutex<Vec<Vec<u8>>>);
/// impl Engine for Wire {
///     fn enqueue(&self, job: Job) {
///         let Some((task, _promise)) = job.into_remote() else { return };
///         self.0.lock().unwrap().push(task.to_bytes());
///     }
/// #   fn ahead(&self) -> usize { 1 }
/// #   fn shut_down(&self, _: Shutdown) {}
/// }
///
/// let wire = Wire::default();
/// let future = wire.submit(Square(7));
/// let bytes = wire.0.lock().unwrap().pop().unwrap();
/// let task = RemoteTask::from_bytes(&bytes, Vec::new()).unwrap();
/// assert_eq!((task.name(), task.tasks(), task.blobs().len()), ("square", 1, 0));
/// assert!(future.result().is_err()); // its promise was dropped
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTask {
    name: String,
    encoding: Encoding,
    text: Vec<u8>,
    /// Of a chunk: where the text of each of its tasks ends.
    ends: Vec<usize>,
    blobs: Vec<Blob>,
    /// The number of attempts on other hosts. It is not among the bytes of the task.
    earlier: u32,
}

/// The head of an encoded task: one line of JSON. The lengths of the tasks of a chunk follow, and then the text.
#[derive(Serialize, Deserialize)]
struct RemoteHead<'t> {
    #[serde(borrow)]
    name: Cow<'t, str>,
    encoding: Encoding,
    /// The number of lengths.
    #[serde(default, skip_serializing_if = "is_zero")]
    tasks: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Bytes that are no encoded task or result.
///
/// ```
/// use procession::{NotEncoded, RemoteTask};
///
/// let error: NotEncoded = RemoteTask::from_bytes(b"hello", Vec::new()).unwrap_err();
/// assert!(error.to_string().starts_with("these bytes are no encoded task"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no encoded {what}: {reason}")]
pub struct NotEncoded {
    what: &'static str,
    reason: String,
}

impl RemoteTask {
    /// The kind of the task, by its [`NAME`](crate::Task::NAME). See the example of [`RemoteTask`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of tasks: more than one of a chunk.
    /// See the example of [`ProcessPool::run_remote`](crate::ProcessPool::run_remote).
    pub fn tasks(&self) -> usize {
        self.ends.len().max(1)
    }

    /// The [blobs](Blob) of the task, which are not in [`to_bytes`](Self::to_bytes).
    /// See the example of [`ProcessPool::run_remote`](crate::ProcessPool::run_remote).
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// The same task, after this number of attempts on other hosts, which
    /// [`Context::attempt`](crate::Context::attempt) counts, too. The number is not among the
    /// [bytes](Self::to_bytes): the host that runs the task calls this.
    ///
    /// ```
    /// # use procession::*;
    /// fn second_attempt(bytes: &[u8]) -> Result<RemoteTask, NotEncoded> {
    ///     Ok(RemoteTask::from_bytes(bytes, Vec::new())?.begun_before(1))
    /// }
    /// ```
    pub fn begun_before(self, times: u32) -> Self {
        Self { earlier: times, ..self }
    }

    /// The task without its blobs. See the example of [`ProcessPool::run_remote`](crate::ProcessPool::run_remote).
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { name, encoding, text, ends, blobs: _, earlier: _ } = self;
        let (name, encoding, tasks) = (Cow::Borrowed(&**name), *encoding, ends.len());
        let head = RemoteHead { name, encoding, tasks };
        let mut bytes = Vec::with_capacity(128 + chunks::LENGTH * tasks + text.len());
        serde_json::to_writer(&mut bytes, &head).expect("text is always encodable");
        bytes.push(b'\n');
        chunks::write_lengths(ends, &mut bytes);
        bytes.extend_from_slice(text);
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) has written, and adds the blobs of the task, in their order.
    /// See the example of [`ProcessPool::run_remote`](crate::ProcessPool::run_remote).
    ///
    /// # Errors
    ///
    /// The bytes have no such form. Whether the task itself can be decoded is found out where it is run.
    pub fn from_bytes(bytes: &[u8], blobs: Vec<Blob>) -> Result<Self, NotEncoded> {
        let (head, text) = split(bytes, "task")?;
        let RemoteHead { name, encoding, tasks } = parse(head, "task")?;
        check_number(&blobs, "task")?;
        let (ends, text) = chunks::read_lengths(tasks, text)?;
        if !ends.is_empty() && ends.last() != Some(&text.len()) {
            let reason = "its tasks do not fill it".to_owned();
            return Err(NotEncoded { what: "task", reason });
        }
        let (name, text, earlier) = (name.into_owned(), text.to_vec(), 0);
        Ok(Self { name, encoding, text, ends, blobs, earlier })
    }
}

/// The promise of the output of a task that is run elsewhere. On drop, its future is completed with
/// [`TaskError::Cancelled`]. See the example of [`ProcessPool::run_remote`](crate::ProcessPool::run_remote).
pub struct RemotePromise(PromiseKind);

enum PromiseKind {
    /// With the kind of the task.
    One(AnyPromise, &'static str),
    Chunk(Box<dyn AnyChunkPromise>, u32),
}

impl RemotePromise {
    fn of_chunk(promise: Box<dyn AnyChunkPromise>, len: usize) -> Self {
        Self(PromiseKind::Chunk(promise, u32::try_from(len).expect("fewer tasks than 2^32")))
    }

    /// Completes the future with the result of the task. If the output cannot be decoded, that is the error.
    /// See the example of [`ProcessPool::run_remote`](crate::ProcessPool::run_remote).
    pub fn complete(self, result: RemoteResult) {
        let RemoteResult(content) = result;
        match (self.0, content) {
            (kind, Content::Error(error)) => Self(kind).fail(error),
            (PromiseKind::One(promise, task), Content::Reply { text, blobs }) => {
                match Reply::parse(&text) {
                    Ok(mut reply) => {
                        reply.task = task;
                        reply.blobs.replace(blobs);
                        promise.complete_with(&reply);
                    }
                    Err(_) => promise.fail(malformed()),
                }
            }
            (PromiseKind::Chunk(promise, len), Content::Chunk(items)) => {
                chunks::complete(&*promise, len, items);
            }
            (kind, _) => Self(kind).fail(malformed()),
        }
    }

    /// Completes the future with an error.
    /// See the example of [`ProcessPool::run_remote`](crate::ProcessPool::run_remote).
    pub fn fail(self, error: TaskError) {
        match self.0 {
            PromiseKind::One(promise, _) => promise.fail(error),
            PromiseKind::Chunk(promise, len) => drop(promise.fail(0..len, &error)),
        }
    }

    /// Whether the task has begun: [`FutureState::Running`](crate::FutureState::Running).
    /// See the example of [`ProcessPool::run_remote`](crate::ProcessPool::run_remote).
    pub fn set_running(&self, running: bool) {
        if let PromiseKind::One(promise, _) = &self.0 {
            promise.set_running(running);
        }
    }
}

fn malformed() -> TaskError {
    Refusal::new("the reply is malformed").into_undecodable("output", "")
}

impl fmt::Debug for RemotePromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemotePromise").finish_non_exhaustive()
    }
}

/// The encoded output of a task, or its error, on its way back.
///
/// ```
/// use procession::{RemoteResult, TaskError};
///
/// let result = RemoteResult::of_error(TaskError::Cancelled);
/// let read = RemoteResult::from_bytes(&result.to_bytes(), Vec::new())?;
/// assert_eq!(read.error(), Some(&TaskError::Cancelled));
/// assert!(read.blobs().is_empty());
/// # Ok::<(), procession::NotEncoded>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteResult(Content);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// What the worker has replied.
    Reply {
        text: Vec<u8>,
        blobs: Vec<Blob>,
    },
    Error(TaskError),
    Chunk(Vec<ItemResult>),
}

impl RemoteResult {
    /// The result of a task that has no output. See the example of [`RemoteResult`].
    pub fn of_error(error: TaskError) -> Self {
        Self(Content::Error(error))
    }

    /// The same result, from a worker of the host `name`. An error that names the worker then also names the host, and
    /// counts the `earlier` attempts that the task had on other hosts.
    ///
    /// ```
    /// # use procession::*;
    /// let death = TaskError::WorkerDied(Box::new(Death::new("thumb", Exit::Signal(11))));
    /// let result = RemoteResult::of_error(death).on_host("rack 7", 2);
    /// let error = result.error().expect("an error").to_string();
    /// assert!(error.contains("on host rack 7") && error.contains("attempt 3"), "{error}");
    /// ```
    pub fn on_host(self, name: &str, earlier: u32) -> Self {
        Self(match self.0 {
            Content::Error(error) => Content::Error(error.on_host(name, earlier)),
            Content::Chunk(items) => Content::Chunk(chunks::on_host(items, name, earlier)),
            reply @ Content::Reply { .. } => reply,
        })
    }

    /// The error of the pool, if the task did not reply. Errors that the task itself returned are in the
    /// encoded reply. See the example of [`RemoteResult`].
    pub fn error(&self) -> Option<&TaskError> {
        match &self.0 {
            Content::Reply { .. } | Content::Chunk(_) => None,
            Content::Error(error) => Some(error),
        }
    }

    /// The [blobs](Blob) of the output, which are not in [`to_bytes`](Self::to_bytes).
    /// See the example of [`RemoteResult`].
    pub fn blobs(&self) -> &[Blob] {
        match &self.0 {
            Content::Reply { blobs, .. } => blobs,
            Content::Error(_) | Content::Chunk(_) => &[],
        }
    }

    /// The result without its blobs. See the example of [`RemoteResult`].
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.0 {
            Content::Reply { text, .. } => [b"reply\n", &text[..]].concat(),
            Content::Error(error) => {
                let error =
                    serde_json::to_vec(error).expect("errors are made of texts and numbers");
                [b"error\n", &error[..]].concat()
            }
            Content::Chunk(items) => [b"chunk\n", &chunks::to_bytes(items)[..]].concat(),
        }
    }

    /// Reads what [`to_bytes`](Self::to_bytes) has written, and adds the blobs of the output.
    /// See the example of [`RemoteResult`].
    ///
    /// # Errors
    ///
    /// The bytes have no such form.
    pub fn from_bytes(bytes: &[u8], blobs: Vec<Blob>) -> Result<Self, NotEncoded> {
        let (head, text) = split(bytes, "result")?;
        check_number(&blobs, "result")?;
        match head {
            b"reply" => Ok(Self(Content::Reply { text: text.to_vec(), blobs })),
            b"chunk" => Ok(Self(Content::Chunk(chunks::from_bytes(text)?))),
            b"error" => Ok(Self(Content::Error(parse(text, "result")?))),
            _ => Err(NotEncoded { what: "result", reason: "its first line is unknown".to_owned() }),
        }
    }
}

fn split<'b>(bytes: &'b [u8], what: &'static str) -> Result<(&'b [u8], &'b [u8]), NotEncoded> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| NotEncoded { what, reason: "the first line is cut".to_owned() })?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

fn parse<'b, T: Deserialize<'b>>(bytes: &'b [u8], what: &'static str) -> Result<T, NotEncoded> {
    serde_json::from_slice(bytes).map_err(|error| NotEncoded { what, reason: error.to_string() })
}

fn check_number(blobs: &[Blob], what: &'static str) -> Result<(), NotEncoded> {
    let is_fine = blobs.len() <= blob::MOST;
    let reason = || format!("{} blobs are more than {}", blobs.len(), blob::MOST);
    if is_fine { Ok(()) } else { Err(NotEncoded { what, reason: reason() }) }
}

impl Job {
    /// Encodes the task, to be run elsewhere. `None`: it cannot be encoded, and its future has the error.
    /// See the example of [`ProcessPool::run_remote`](crate::ProcessPool::run_remote).
    pub fn into_remote(self) -> Option<(RemoteTask, RemotePromise)> {
        let EncodedJob { name, encoding, text, blobs, promise, .. } = self.encode()?;
        let (text, ends) = (text.into_vec(), Vec::new());
        let task = RemoteTask { name: name.to_owned(), encoding, text, ends, blobs, earlier: 0 };
        Some((task, RemotePromise(PromiseKind::One(promise, name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Death, Exit};
    use crate::task_options::TaskOptions;

    #[test]
    fn a_task_and_its_result_are_read_as_they_were_written_and_other_bytes_are_refused() {
        let (name, text) = ("a\nb \"c\"".to_owned(), b"x\ny".to_vec());
        for ends in [vec![], vec![3], vec![1, 1, 3]] {
            let (name, text, blobs) = (name.clone(), text.clone(), Vec::new());
            let encoding = Encoding::Binary;
            let task = RemoteTask { name, encoding, text, ends, blobs, earlier: 0 };
            assert_eq!(RemoteTask::from_bytes(&task.to_bytes(), Vec::new()), Ok(task));
        }
        let death = TaskError::WorkerDied(Box::new(Death::new("square", Exit::Signal(11))));
        let reply = Content::Reply { text: b"{}\n{}".to_vec(), blobs: Vec::new() };
        let items = vec![
            ItemResult::Output(b"7\n"[..].into()),
            ItemResult::Error(TaskError::Cancelled),
            ItemResult::Reply(b"{}".to_vec()),
        ];
        let chunk = RemoteResult(Content::Chunk(items));
        let cut = chunk.to_bytes();
        assert!(RemoteResult::from_bytes(&cut[..cut.len() - 1], Vec::new()).is_err());
        let elsewhere = RemoteResult::of_error(death.clone()).on_host("h", 1);
        for result in [RemoteResult::of_error(death), elsewhere, RemoteResult(reply), chunk] {
            assert_eq!(RemoteResult::from_bytes(&result.to_bytes(), Vec::new()), Ok(result));
        }
        for bytes in [&b""[..], b"reply", b"other\nx", b"error\n{}", b"{}\nx", b"chunk\nz"] {
            assert!(RemoteResult::from_bytes(bytes, Vec::new()).is_err());
            assert!(RemoteTask::from_bytes(bytes, Vec::new()).is_err());
        }
        let endless = TaskOptions::new().no_timeout();
        for options in [TaskOptions::new(), endless, endless.timeout(std::time::Duration::ZERO)] {
            let text = serde_json::to_string(&options).expect("text and numbers");
            assert_eq!(serde_json::from_str::<TaskOptions>(&text).ok(), Some(options));
        }
        let many = vec![Blob::default(); blob::MOST + 1];
        assert!(RemoteResult::from_bytes(b"reply\n", many).is_err());
    }
}
