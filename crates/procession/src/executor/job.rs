//! [`Job`]: a submitted task and the promise of its output, without their types, so that one queue can
//! hold tasks of all types.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use super::callbacks;
use super::engine::Canceller;
use super::runner::FOREIGN;
use crate::blob::Blob;
use crate::codec::{self, Encoding, Refusal, with_encoding};
use crate::error::TaskError;
use crate::future::{self, Core, EncodedPartial, Future, Promise};
use crate::panics;
use crate::progress_lines::Said;
use crate::task::{Context, Task, TaskId};
use crate::transport::Reply;

/// A submitted task and the promise of its output, for an [`Engine`](super::Engine).
///
/// It is completed by [`JobRunner::run`](super::JobRunner::run) or by [`fail`](Self::fail). On drop, its
/// future is completed with [`TaskError::Cancelled`].
///
/// ```
/// use procession::{Job, JobRunner, PoolError, TaskError};
///
/// fn run_or_refuse(job: Job, runner: &JobRunner, is_shut_down: bool) {
///     match is_shut_down {
///         true => job.fail(TaskError::PoolBroken(PoolError::ShutDown)),
///         false => runner.run(job, 0),
///     }
/// }
/// ```
pub struct Job {
    id: TaskId,
    name: &'static str,
    work: Box<dyn Work>,
}

impl Job {
    pub(crate) fn new<T: Task>(task: T, canceller: Option<Canceller>) -> (Self, Future<T::Output>) {
        let id = TaskId::next();
        let decode = with_encoding!(T::ENCODING, F => codec::decode_only::<F, T::Output>);
        let control = canceller.map(Canceller::into_control);
        let (promise, future) = future::promise_of_sent(id, control, decode);
        (Self { id, name: T::NAME, work: Box::new(TypedJob { task, promise }) }, future)
    }

    /// The id of the task: [`Future::id`]. Ids increase in the order of submission.
    /// See the example of [`Cancel`](super::Cancel).
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The type of the task, by its [`NAME`](Task::NAME).
    ///
    /// ```
    /// # use procession::{Job, JobRunner};
    /// fn run_and_tell(job: Job, runner: &JobRunner) {
    ///     let (id, name) = (job.id(), job.name());
    ///     runner.run(job, 0);
    ///     println!("task {id}, a {name}, has ended");
    /// }
    /// ```
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the task on this thread and completes its future. The context may have been that of another task.
    pub(crate) fn run(self, context: &mut Context) {
        context.task = self.id;
        self.work.run(context);
    }

    /// Completes the future with an error, and calls its callbacks on this thread. To cancel a task, the
    /// error is [`TaskError::Cancelled`]. Panics of the callbacks and of `Drop` of the task are caught.
    /// Several are completed by [`fail_all`](Self::fail_all). See the example of [`Job`].
    pub fn fail(self, error: TaskError) {
        self.work.into_promise().fail(error);
    }

    /// Completes the futures of several jobs with this error, and after that calls their callbacks on this thread: a
    /// callback may wait for another of these futures. For [`Engine::shut_down`](super::Engine::shut_down), where a
    /// callback would wait for ever for a job that only its own thread can complete.
    ///
    /// ```
    /// # use std::sync::Mutex;
    /// # use procession::{Job, TaskError};
    /// fn cancel_pending(queue: &Mutex<Vec<Job>>) {
    ///     let jobs = std::mem::take(&mut *queue.lock().unwrap()); // and release the lock
    ///     Job::fail_all(jobs, &TaskError::Cancelled);
    /// }
    /// ```
    pub fn fail_all(jobs: impl IntoIterator<Item = Self>, error: &TaskError) {
        let fail = |job: Self| job.fail(error.clone());
        callbacks::deliver_for(FOREIGN, || jobs.into_iter().for_each(fail));
    }

    /// Encodes the task. If that fails, completes the future with the error.
    pub(crate) fn encode(self) -> Option<EncodedJob> {
        let Self { id, name, work } = self;
        let (encoded, encoding) = (encode(&*work), work.encoding());
        let promise = work.into_promise();
        match encoded {
            Ok((text, blobs)) => {
                Some(EncodedJob { id, name, encoding, text, blobs, earlier: 0, promise })
            }
            Err(refusal) => {
                promise.fail(refusal.into_error("task", name));
                None
            }
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, work: _ } = self;
        f.debug_struct("Job").field("id", id).field("name", name).finish_non_exhaustive()
    }
}

/// An encoded task. Up to [`INLINE`] bytes need no allocation.
pub(crate) type EncodedText = SmallVec<[u8; INLINE]>;
const INLINE: usize = 64;

/// A job whose task was encoded.
pub(crate) struct EncodedJob {
    pub id: TaskId,
    pub name: &'static str,
    pub encoding: Encoding,
    pub text: EncodedText,
    /// The blobs to which the text refers.
    pub blobs: Vec<Blob>,
    /// How often it was begun before, on other hosts.
    pub earlier: u32,
    pub promise: AnyPromise,
}

/// A promise without its type. On drop, its future is completed with [`TaskError::Cancelled`].
///
/// It consists of the core that promise and future share, so it needs no allocation. One that the
/// submitting thread allocates for each task and a handler thread frees would make both contend for
/// the allocator.
pub(crate) struct AnyPromise {
    /// `None`: it was completed.
    core: Option<Arc<dyn AnyCore>>,
}

/// A [`Core`] without its type.
pub(crate) trait AnyCore: Send + Sync {
    fn set_running(&self, running: bool);
    fn put_partial(&self, partial: Option<EncodedPartial>);
    /// Whether it takes lines of the task itself.
    fn put_line(&self, said: &Said<'_>) -> bool {
        let _ = said;
        false
    }
    fn complete_with(self: Arc<Self>, reply: &Reply<'_>);
    fn fail(self: Arc<Self>, error: TaskError);
}

impl AnyPromise {
    pub(crate) fn new<O: Serialize + DeserializeOwned + Send + 'static>(
        promise: Promise<O>,
    ) -> Self {
        Self { core: promise.into_core().map(|core| core as Arc<dyn AnyCore>) }
    }

    /// The promise of something that takes the place of a future.
    #[cfg(feature = "remote")]
    pub(crate) fn of_core(core: Arc<dyn AnyCore>) -> Self {
        Self { core: Some(core) }
    }

    pub(crate) fn set_running(&self, running: bool) {
        if let Some(core) = &self.core {
            core.set_running(running);
        }
    }

    /// What passes values on that the task emits: without the lock that this promise is in.
    pub(crate) fn partial_sink(&self) -> Option<impl Fn(Option<EncodedPartial>) + use<>> {
        let core = Arc::clone(self.core.as_ref()?);
        Some(move |partial| core.put_partial(partial))
    }

    /// The same for lines; it returns false if they are for the executor's function.
    pub(crate) fn line_sink(&self) -> Option<impl Fn(&Said<'_>) -> bool + use<>> {
        let core = Arc::clone(self.core.as_ref()?);
        Some(move |said: &Said<'_>| core.put_line(said))
    }

    pub(crate) fn complete_with(mut self, reply: &Reply<'_>) {
        if let Some(core) = self.core.take() {
            core.complete_with(reply);
        }
    }

    pub(crate) fn fail(mut self, error: TaskError) {
        if let Some(core) = self.core.take() {
            core.fail(error);
        }
    }
}

impl Drop for AnyPromise {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.fail(TaskError::Cancelled);
        }
    }
}

impl<O: Serialize + DeserializeOwned + Send + 'static> AnyCore for Core<O> {
    fn set_running(&self, running: bool) {
        Core::set_running(self, running);
    }

    fn put_partial(&self, partial: Option<EncodedPartial>) {
        Core::put_partial(self, partial);
    }

    fn complete_with(self: Arc<Self>, reply: &Reply<'_>) {
        self.complete(reply.result(self.decode));
    }

    fn fail(self: Arc<Self>, error: TaskError) {
        self.complete(Err(error));
    }
}

/// Encodes into a buffer that each thread keeps.
fn encode(work: &dyn Work) -> Result<(EncodedText, Vec<Blob>), Refusal> {
    /// A larger buffer becomes the text, and is not kept.
    const KEPT: usize = 4096;
    thread_local!(static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
    // `Serialize` may submit tasks, which then use a new buffer. So do destructors at the end of a thread.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    let encoded = work.encode(&mut buffer);
    let encoded = encoded.map(|blobs| match buffer.len() {
        len if len <= KEPT => (EncodedText::from_slice(&buffer), blobs),
        _ => (EncodedText::from_vec(std::mem::take(&mut buffer)), blobs),
    });
    if buffer.capacity() <= KEPT {
        buffer.clear();
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
    encoded
}

trait Work: Send {
    fn run(self: Box<Self>, context: &mut Context);
    fn encode(&self, into: &mut Vec<u8>) -> Result<Vec<Blob>, Refusal>;
    fn encoding(&self) -> Encoding;
    fn into_promise(self: Box<Self>) -> AnyPromise;
}

struct TypedJob<T: Task> {
    task: T,
    promise: Promise<T::Output>,
}

impl<T: Task> Work for TypedJob<T> {
    fn run(self: Box<Self>, context: &mut Context) {
        let Self { task, promise } = *self;
        promise.set_running(true);
        context.stop.set_future(promise.of_task());
        let result = panics::run(task, context);
        context.stop.set_future(None);
        promise.complete(result);
    }

    fn encode(&self, into: &mut Vec<u8>) -> Result<Vec<Blob>, Refusal> {
        with_encoding!(T::ENCODING, F => codec::encode::<F, T>(&self.task, into))
    }

    fn encoding(&self) -> Encoding {
        T::ENCODING
    }

    fn into_promise(self: Box<Self>) -> AnyPromise {
        let Self { task, promise } = *self;
        panics::discard(task);
        AnyPromise::new(promise)
    }
}
