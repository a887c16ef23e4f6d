//! Runs tasks that were encoded elsewhere in a process pool of this program.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Content, RemoteChunkCore, RemoteProgress, RemoteResult, RemoteTask};
use crate::codec::Refusal;
use crate::error::TaskError;
use crate::executor::chunk::EncodedChunk;
use crate::executor::job::{AnyCore, AnyPromise, EncodedJob, EncodedText};
use crate::future::EncodedPartial;
use crate::process_pool::ProcessPool;
use crate::progress_lines::Said;
use crate::registry::Registry;
use crate::task::TaskId;
use crate::task_options::TaskOptions;
use crate::transport::Reply;

pub(super) type OnDone = Box<dyn FnOnce(RemoteResult) + Send>;
pub(super) type OnProgress = Box<dyn Fn(RemoteProgress) + Send + Sync>;

/// Takes the place of a future: passes the encoded result to `on_done`.
struct RemoteCore {
    first: TaskId,
    on_progress: OnProgress,
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
    fn put_partial(&self, partial: Option<EncodedPartial>) {
        (self.on_progress)(RemoteProgress::of_partial(partial));
    }

    fn put_line(&self, said: &Said<'_>) -> bool {
        (self.on_progress)(RemoteProgress::of_line(self.first, said));
        true
    }

    fn set_running(&self, _: bool) {}

    fn complete_with(self: Arc<Self>, reply: &Reply<'_>) {
        self.pass(Content::Reply { text: reply.to_text(), blobs: reply.blobs.take() });
    }

    fn fail(self: Arc<Self>, error: TaskError) {
        self.pass(Content::Error(error));
    }
}

impl ProcessPool {
    /// Runs a task that was encoded elsewhere. Calls `on_progress` with each line and value that the task sends
    /// while it runs, in order, and then calls `on_done` once with its result. Both are called on threads of the
    /// pool or of the caller: they must not wait, and must take no lock that the caller has. The registry is that
    /// of the pool's workers. Returns the id by which [`Canceller::cancel`](crate::Canceller::cancel) of this pool
    /// ends the task.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] mod example {
    /// use std::sync::mpsc;
    ///
    /// use procession::*;
    ///
    /// /// Sends each task to a pool, as if that were on another host, and waits for its result.
    /// struct FarAway(ProcessPool);
    ///
    /// impl Engine for FarAway {
    ///     fn enqueue(&self, job: Job) {
    ///         let Some((task, promise)) = job.into_remote() else { return };
    ///         let (bytes, blobs) = (task.to_bytes(), task.blobs().to_vec());
    ///
    ///         // The other host:
    ///         let task = match RemoteTask::from_bytes(&bytes, blobs) {
    ///             Ok(task) => task,
    ///             Err(error) => return promise.fail(TaskError::failed(error)),
    ///         };
    ///         println!("{} of {:?}", task.tasks(), task.name());
    ///         let (progress, messages) = mpsc::channel();
    ///         let done = progress.clone();
    ///         self.0.run_remote(
    ///             &Registry::collected(),
    ///             task,
    ///             TaskOptions::new(),
    ///             move |told| drop(progress.send(Ok(told))),
    ///             move |result| drop(done.send(Err(result))),
    ///         );
    ///
    ///         // Here:
    ///         promise.set_running(true);
    ///         for message in messages {
    ///             match message {
    ///                 Ok(told) => promise.progress(told),
    ///                 Err(result) => return promise.complete(result),
    ///             }
    ///         }
    ///     }
    ///
    ///     fn ahead(&self) -> usize {
    ///         1
    ///     }
    ///
    ///     fn shut_down(&self, how: Shutdown) {
    ///         self.0.shutdown(how);
    ///     }
    /// }
    ///
    /// #[procession::task]
    /// fn count(to: u32, context: &Context) -> Result<u32, PartialError> {
    ///     (1..=to).try_for_each(|n| context.emit(&n))?;
    ///     Ok(to)
    /// }
    ///
    /// #[procession::main]
    /// # pub
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let far_away = FarAway(ProcessPool::builder().workers(1).build()?);
    ///     let future = far_away.submit(count(3));
    ///     let seen: Result<Vec<u32>, _> = future.partials().map(|it| it.map(|it| it.value)).collect();
    ///     assert_eq!((seen, future.result()), (Ok(vec![1, 2, 3]), Ok(3)));
    ///     Ok(())
    /// }
    /// # }
    /// # #[cfg(not(feature = "macros"))] mod example { pub fn main() -> Result<(), ()> { Ok(()) } }
    /// # fn main() { example::main().unwrap() }
    /// ```
    pub fn run_remote(
        &self,
        registry: &Registry,
        task: RemoteTask,
        options: TaskOptions,
        on_progress: impl Fn(RemoteProgress) + Send + Sync + 'static,
        on_done: impl FnOnce(RemoteResult) + Send + 'static,
    ) -> TaskId {
        let RemoteTask { name, encoding: _, text, ends, blobs, earlier } = task;
        let id = TaskId::next_many(ends.len().max(1));
        let (on_progress, on_done): (OnProgress, OnDone) =
            (Box::new(on_progress), Box::new(on_done));
        match registry.known(&name) {
            Ok((name, encoding)) if ends.is_empty() => {
                let on_done = Mutex::new(Some(on_done));
                let core = RemoteCore { first: id, on_progress, on_done };
                let promise = AnyPromise::of_core(Arc::new(core));
                let text = EncodedText::from_vec(text);
                self.submit_encoded(
                    EncodedJob { id, name, encoding, text, blobs, earlier, promise },
                    options,
                );
            }
            Ok((name, encoding)) => {
                let promise = Box::new(RemoteChunkCore::new(id, ends.len(), on_progress, on_done));
                let chunk = EncodedChunk { id, name, encoding, text, ends, earlier, promise };
                self.submit_encoded_chunk(chunk, options);
            }
            Err(reason) => {
                let error = Refusal::new(reason).into_undecodable("task", &name);
                on_done(RemoteResult::of_error(error));
            }
        }
        id
    }

    /// How long the tasks of this pool ran lately: a moving mean, in which the last ones count most. `None`:
    /// none has run yet. An agent sends it with each result, so that the other side can choose how many short
    /// tasks it puts into one message.
    ///
    /// ```no_run
    /// # use procession::{PoolError, ProcessPool};
    /// # fn main() -> Result<(), PoolError> {
    /// let pool = ProcessPool::builder().workers(1).build()?;
    /// assert_eq!(pool.typical_run_time(), None); // no task has run
    /// # Ok(()) }
    /// ```
    pub fn typical_run_time(&self) -> Option<Duration> {
        self.typical_task_run_time()
    }

    /// Ends tasks of [`run_remote`](Self::run_remote) at once: those that wait do not begin, and the workers
    /// that run them are killed, whatever grace period they have. `tasks` is the number of tasks of a chunk,
    /// or 1. Tasks that have ended are not affected.
    ///
    /// ```
    /// # use procession::{ProcessPool, TaskId};
    /// /// Nobody waits for this task any more.
    /// fn give_up(pool: &ProcessPool, id: TaskId) {
    ///     pool.kill_remote(id, 1);
    /// }
    /// ```
    pub fn kill_remote(&self, first: TaskId, tasks: u64) {
        self.kill_tasks(first, tasks);
    }
}
