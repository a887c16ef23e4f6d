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

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::blob::{self, Blob};
use crate::codec::Encoding;
use crate::error::TaskError;
use crate::executor::Job;
use crate::executor::job::{AnyCore, AnyPromise, EncodedJob, EncodedText};
use crate::process_pool::ProcessPool;
use crate::registry::Registry;
use crate::task::TaskId;
use crate::task_options::TaskOptions;
use crate::transport::Reply;

/// An encoded task, on its way to another host.
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
/// assert_eq!(RemoteTask::from_bytes(&bytes, Vec::new()).unwrap().name(), "square");
/// assert!(future.result().is_err()); // its promise was dropped
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTask {
    name: String,
    encoding: Encoding,
    text: Vec<u8>,
    blobs: Vec<Blob>,
}

/// The head of an encoded task: one line of JSON, which the text follows.
#[derive(Serialize, Deserialize)]
struct RemoteHead {
    name: String,
    encoding: Encoding,
}

/// Bytes that are no encoded task or result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no encoded {what}: {reason}")]
pub struct NotEncoded {
    what: &'static str,
    reason: String,
}

impl RemoteTask {
    /// The kind of the task, by its [`NAME`](crate::Task::NAME).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The [blobs](Blob) of the task, which are not in [`to_bytes`](Self::to_bytes).
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// The task without its blobs.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { name, encoding, text, .. } = self;
        let head = RemoteHead { name: name.clone(), encoding: *encoding };
        let mut bytes = serde_json::to_vec(&head).expect("text is always encodable");
        bytes.push(b'\n');
        bytes.extend_from_slice(text);
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) has written, and adds the blobs of the task, in their order.
    ///
    /// # Errors
    ///
    /// The bytes have no such form. Whether the task itself can be decoded is found out where it is run.
    pub fn from_bytes(bytes: &[u8], blobs: Vec<Blob>) -> Result<Self, NotEncoded> {
        let (head, text) = split(bytes, "task")?;
        let RemoteHead { name, encoding } = parse(head, "task")?;
        check_number(&blobs, "task")?;
        Ok(Self { name, encoding, text: text.to_vec(), blobs })
    }
}

/// The promise of the output of a task that is run elsewhere. On drop, its future is completed with
/// [`TaskError::Cancelled`].
pub struct RemotePromise(AnyPromise);

impl RemotePromise {
    /// Completes the future with the result of the task. If the output cannot be decoded, that is the error.
    pub fn complete(self, result: RemoteResult) {
        let RemoteResult(content) = result;
        match content {
            Content::Reply { text, blobs } => match Reply::parse(&text) {
                Ok(reply) => {
                    reply.blobs.replace(blobs);
                    self.0.complete_with(&reply);
                }
                Err(_) => {
                    let reason = "the reply is malformed".to_owned();
                    self.0.fail(TaskError::Undecodable { what: "output".to_owned(), reason });
                }
            },
            Content::Error(error) => self.0.fail(error),
        }
    }

    /// Completes the future with an error.
    pub fn fail(self, error: TaskError) {
        self.0.fail(error);
    }

    /// Whether the task has begun: [`FutureState::Running`](crate::FutureState::Running).
    pub fn set_running(&self, running: bool) {
        self.0.set_running(running);
    }
}

impl fmt::Debug for RemotePromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemotePromise").finish_non_exhaustive()
    }
}

/// The encoded output of a task, or its error, on its way back.
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
}

impl RemoteResult {
    /// The result of a task that has no output.
    pub fn of_error(error: TaskError) -> Self {
        Self(Content::Error(error))
    }

    /// The error of the pool, if the task did not reply. Errors that the task itself returned are in the
    /// encoded reply.
    pub fn error(&self) -> Option<&TaskError> {
        match &self.0 {
            Content::Reply { .. } => None,
            Content::Error(error) => Some(error),
        }
    }

    /// The [blobs](Blob) of the output, which are not in [`to_bytes`](Self::to_bytes).
    pub fn blobs(&self) -> &[Blob] {
        match &self.0 {
            Content::Reply { blobs, .. } => blobs,
            Content::Error(_) => &[],
        }
    }

    /// The result without its blobs.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.0 {
            Content::Reply { text, .. } => [b"reply\n", &text[..]].concat(),
            Content::Error(error) => {
                let error =
                    serde_json::to_vec(error).expect("errors are made of texts and numbers");
                [b"error\n", &error[..]].concat()
            }
        }
    }

    /// Reads what [`to_bytes`](Self::to_bytes) has written, and adds the blobs of the output.
    ///
    /// # Errors
    ///
    /// The bytes have no such form.
    pub fn from_bytes(bytes: &[u8], blobs: Vec<Blob>) -> Result<Self, NotEncoded> {
        let (head, text) = split(bytes, "result")?;
        check_number(&blobs, "result")?;
        match head {
            b"reply" => Ok(Self(Content::Reply { text: text.to_vec(), blobs })),
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
    pub fn into_remote(self) -> Option<(RemoteTask, RemotePromise)> {
        let EncodedJob { name, encoding, text, blobs, promise, .. } = self.encode()?;
        let task = RemoteTask { name: name.to_owned(), encoding, text: text.into_vec(), blobs };
        Some((task, RemotePromise(promise)))
    }
}

type OnDone = Box<dyn FnOnce(RemoteResult) + Send>;

/// Takes the place of a future: passes the encoded result on.
struct RemoteCore {
    on_done: Mutex<Option<OnDone>>,
}

impl RemoteCore {
    fn pass(&self, content: Content) {
        let on_done = self.on_done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(on_done) = on_done {
            on_done(RemoteResult(content));
        }
    }
}

impl AnyCore for RemoteCore {
    fn set_running(&self, _: bool) {}

    fn complete_with(self: Arc<Self>, reply: &Reply<'_>) {
        self.pass(Content::Reply { text: reply.to_text(), blobs: reply.blobs.take() });
    }

    fn fail(self: Arc<Self>, error: TaskError) {
        self.pass(Content::Error(error));
    }
}

impl ProcessPool {
    /// Runs a task that was encoded elsewhere, and calls `on_done` once with its result, on a thread of the
    /// pool or of the caller: it must not wait, and holds no lock that the caller has. The registry is that
    /// of the pool's workers. Returns the id by which [`Canceller::cancel`](crate::Canceller::cancel) of
    /// this pool ends the task.
    pub fn run_remote(
        &self,
        registry: &Registry,
        task: RemoteTask,
        options: TaskOptions,
        on_done: impl FnOnce(RemoteResult) + Send + 'static,
    ) -> TaskId {
        let RemoteTask { name, text, blobs, .. } = task;
        let id = TaskId::next();
        let core = Arc::new(RemoteCore { on_done: Mutex::new(Some(Box::new(on_done))) });
        match registry.known(&name) {
            Ok((name, encoding)) => {
                let promise = AnyPromise::of_core(core);
                let text = EncodedText::from_vec(text);
                self.submit_encoded(
                    EncodedJob { id, name, encoding, text, blobs, promise },
                    options,
                );
            }
            Err(reason) => {
                let what = "task".to_owned();
                core.pass(Content::Error(TaskError::Undecodable { what, reason }));
            }
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Death, Exit};

    #[test]
    fn a_task_and_its_result_are_read_as_they_were_written_and_other_bytes_are_refused() {
        let (name, text) = ("a\nb \"c\"".to_owned(), b"x\ny".to_vec());
        let task = RemoteTask { name, encoding: Encoding::Binary, text, blobs: Vec::new() };
        assert_eq!(RemoteTask::from_bytes(&task.to_bytes(), Vec::new()), Ok(task));
        let death = TaskError::WorkerDied(Box::new(Death::new("square", Exit::Signal(11))));
        let reply = Content::Reply { text: b"{}\n{}".to_vec(), blobs: Vec::new() };
        for result in [RemoteResult::of_error(death), RemoteResult(reply)] {
            assert_eq!(RemoteResult::from_bytes(&result.to_bytes(), Vec::new()), Ok(result));
        }
        for bytes in [&b""[..], b"reply", b"other\nx", b"error\n{}", b"{}\nx"] {
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
