//! [`EncodedChunk`]: short tasks of one type that [`map`](super::Executor::map) passes to an executor together,
//! because a future for each would cost more than the task itself.
//!
//! Each task has its own result. If one fails or kills its worker, the others are not affected.

mod in_async;
mod local;
mod promise;
mod results_core;
mod signal;

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

pub(crate) use self::local::{LocalChunk, LocalChunkExecutor, collect};
use self::promise::promise_of;
use self::results_core::{Awaited, PendingResults, ResultsCore, Slot, state_of};
use super::Job;
use super::engine::Canceller;
use crate::codec::{self, Encoding, with_encoding};
use crate::error::TaskError;
use crate::future::{Arrivals, Watcher};
use crate::panics;
use crate::progress_lines::Said;
use crate::task::{Task, TaskId};
use crate::task_options::TaskOptions;
use crate::transport::{INLINE_LIMIT, Reply};
use crate::waiting::{self, AwaitedTask, Need, Waiting};

/// Tasks of one type, encoded, and the promise of their outputs.
pub(crate) struct EncodedChunk {
    /// Id of the first task; those of the others follow.
    pub(crate) id: TaskId,
    pub(crate) name: &'static str,
    pub(crate) encoding: Encoding,
    /// The encoded tasks, one after the other.
    pub(crate) text: Vec<u8>,
    /// Where each of them ends.
    pub(crate) ends: Vec<usize>,
    /// How often they were begun before, on other hosts.
    pub(crate) earlier: u32,
    pub(crate) promise: Box<dyn AnyChunkPromise>,
}

/// An executor that takes chunks.
pub(crate) trait ChunkExecutor {
    /// Number of tasks to put into one chunk, by the run times of earlier tasks. One: no chunks.
    fn chunk_size(&self) -> usize;
    /// Number of chunks that [`map`](super::Executor::map) hands over ahead of its consumer.
    fn chunks_ahead(&self) -> usize;
    fn enqueue_chunk(&self, chunk: EncodedChunk, options: TaskOptions);
    /// Takes a single job with options of its own.
    fn enqueue_with(&self, job: Job, options: TaskOptions);
}

/// The promise of the outputs of a chunk, without their type.
pub(crate) trait AnyChunkPromise: Send + Sync {
    /// Completes one task with a reply.
    fn complete_with(&self, item: u32, reply: &Reply<'_>);
    /// Completes consecutive tasks with their encoded outputs. Returns the number of tasks that were
    /// not complete before; so does [`fail`](Self::fail).
    fn complete(&self, first: u32, outputs: &[&[u8]]) -> usize;
    fn fail(&self, items: Range<u32>, error: &TaskError) -> usize;
    /// Whether it takes lines of its tasks itself.
    fn put_line(&self, said: &Said<'_>) -> bool {
        let _ = said;
        false
    }
}

/// The results of a chunk, in the order of its tasks.
pub(crate) struct Results<O> {
    state: Arc<ResultsCore<O>>,
    /// Number of tasks.
    len: usize,
    /// Index of the first result that was not taken, or of a [watched](Self::watch) chunk the number of
    /// those that were.
    next: usize,
    /// Results that were taken and not yielded.
    ready: vec::IntoIter<Slot<O>>,
    /// All results were taken at once.
    is_empty: bool,
}

/// Longest wait for all results of a chunk; after it, a wait ends with the next result. One wake-up
/// takes longer than many short tasks.
const WAIT_FOR_ALL: Duration = Duration::from_millis(2);

/// A chunk of the next tasks with its results, if there is any task for it, and what ended it.
pub(crate) type EncodedTasks<T> =
    (Option<(EncodedChunk, Results<<T as Task>::Output>)>, ChunkEnd<T>);

/// What ended a chunk.
pub(crate) enum ChunkEnd<T> {
    /// It is full; there may be more tasks.
    More,
    /// The iterator has ended.
    End,
    /// The next task has blobs, and so cannot be in a chunk.
    HasBlobs(T),
    /// The next task cannot be encoded.
    Refused(TaskError),
    /// The iterator panicked. The caller hands the chunk over and then resumes the panic: without
    /// chunks, the tasks before the panic would have been submitted.
    Panic(Box<dyn Any + Send>),
}

/// Largest text of a chunk, in bytes, if its tasks have similar lengths. It fits into one record and
/// leaves room for the next one.
const MAX_TEXT: usize = INLINE_LIMIT / 2;

/// Encodes up to `max` tasks as a chunk; see [`ChunkEnd`].
pub(crate) fn encode<T: Task>(tasks: &mut impl Iterator<Item = T>, max: usize) -> EncodedTasks<T> {
    let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(max));
    // A task that was taken out of the iterator cannot be put back, so the length of the next one is
    // estimated by that of the last.
    let mut last = 0;
    let end = loop {
        if ends.len() == max || text.len() + last > MAX_TEXT {
            break ChunkEnd::More;
        }
        let task = match panics::hold(|| tasks.next()) {
            Ok(Some(task)) => task,
            Ok(None) => break ChunkEnd::End,
            Err(panic) => break ChunkEnd::Panic(panic),
        };
        let before = text.len();
        let refusal = match with_encoding!(T::ENCODING, F => codec::encode::<F, T>(&task, &mut text))
        {
            Ok(blobs) if blobs.is_empty() => {
                ends.push(text.len());
                last = text.len() - before;
                panics::discard(task);
                continue;
            }
            Ok(_) => None,
            Err(refusal) => Some(refusal),
        };
        text.truncate(before);
        let Some(refusal) = refusal else { break ChunkEnd::HasBlobs(task) };
        panics::discard(task);
        break ChunkEnd::Refused(refusal.into_error("task", T::NAME));
    };
    if ends.is_empty() {
        return (None, end);
    }
    let (state, results) = state_of(ends.len(), ());
    let id = state.id;
    let state = state as Arc<ResultsCore<T::Output>>;
    let promise = with_encoding!(T::ENCODING, F => promise_of::<F, T::Output>(state, T::NAME));
    let (name, encoding, earlier) = (T::NAME, T::ENCODING, 0);
    let chunk = EncodedChunk { id, name, encoding, text, ends, earlier, promise };
    (Some((chunk, results)), end)
}

impl<O> Results<O> {
    fn new(state: Arc<ResultsCore<O>>, len: usize) -> Self {
        Self { state, len, next: 0, ready: Vec::new().into_iter(), is_empty: false }
    }

    /// The id of the first task.
    pub(crate) fn id(&self) -> TaskId {
        self.state.id
    }

    /// Number of tasks.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// From now on results are taken as they arrive, by [`take_arrived`](Self::take_arrived): sends
    /// `key` when there are any.
    pub(crate) fn watch(&self, sender: &Arc<Arrivals>, key: usize) {
        let mut inner = self.state.lock();
        let is_ready = |slot: &Slot<O>| matches!(slot, Slot::Ready(_));
        let ready = inner.slots.iter().enumerate().filter(|(_, slot)| is_ready(slot));
        let arrived: Vec<_> = ready.map(|(item, _)| item).collect();
        let has_arrived = !arrived.is_empty();
        inner.progress.arrived = arrived;
        inner.progress.watcher = Some(Watcher { sender: Arc::clone(sender), index: key });
        drop(inner);
        if has_arrived {
            sender.send(key);
        }
    }

    /// The results that have arrived since the last call, with the indices of their tasks.
    pub(crate) fn take_arrived(&mut self) -> Vec<(usize, Result<O, TaskError>)> {
        let mut inner = self.state.lock();
        let arrived = std::mem::take(&mut inner.progress.arrived);
        self.next += arrived.len();
        let take = |item: usize| match std::mem::replace(&mut inner.slots[item], Slot::Taken) {
            Slot::Ready(result) => (item, result.map_err(|error| *error)),
            Slot::Pending | Slot::Taken => unreachable!("`arrived` has only ready slots, once"),
        };
        arrived.into_iter().map(take).collect()
    }

    pub(crate) fn are_all_taken(&self) -> bool {
        self.next == self.len
    }

    /// Skips the first task without a result, which is dropped when it arrives. Returns its index.
    pub(crate) fn skip_pending(&mut self) -> Option<usize> {
        let mut inner = self.state.lock();
        let item = inner.slots.iter().position(|slot| matches!(slot, Slot::Pending))?;
        inner.slots[item] = Slot::Taken;
        inner.progress.pending -= 1;
        self.next += 1;
        Some(item)
    }

    /// Waits for the next result, for [`take_ready`](Self::take_ready). Returns false if all were yielded.
    ///
    /// # Errors
    ///
    /// The error that takes the place of the next result: a wait for it on this thread would not end.
    pub(crate) fn wait_for_next(
        &mut self,
        executor: &dyn Fn() -> Option<Canceller>,
    ) -> Result<bool, TaskError> {
        if !self.has_ready() {
            match self.begin(executor) {
                Ok(_waiting) => self.ready = self.fetch().into_iter(),
                Err(error) => {
                    self.skip();
                    return Err(error);
                }
            }
        }
        Ok(self.has_ready())
    }

    /// Whether the next result was taken, and need not be waited for.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.as_slice().is_empty()
    }

    /// The next result, which is there.
    #[inline]
    pub(crate) fn take_ready(&mut self) -> Result<O, TaskError> {
        // Each arm writes the result where it is returned. `map_err` would copy it first, and a result is as long as
        // the longest error.
        match self.ready.next() {
            Some(Slot::Ready(Ok(output))) => Ok(output),
            Some(Slot::Ready(Err(error))) => Err(*error),
            _ => unreachable!("the next result was waited for, and only ready slots are taken"),
        }
    }

    /// Called before a wait.
    fn begin(&self, executor: &dyn Fn() -> Option<Canceller>) -> Result<Waiting, TaskError> {
        if !waiting::has_role() {
            return Ok(Waiting::default());
        }
        let would_wait = matches!(self.state.lock().slots.get(self.next), Some(Slot::Pending));
        if !would_wait {
            return Ok(Waiting::default());
        }
        begin_wait_for_chunk(self.state.id, executor)
    }

    /// Skips the next result, which was not waited for and is dropped when it arrives.
    fn skip(&mut self) {
        let mut inner = self.state.lock();
        let slot = std::mem::replace(&mut inner.slots[self.next], Slot::Taken);
        inner.progress.pending -= usize::from(matches!(slot, Slot::Pending));
        self.next += 1;
        drop(inner);
        panics::discard(slot);
    }

    /// Waits for at least one result, and takes all that follow without a gap.
    fn fetch(&mut self) -> Vec<Slot<O>> {
        let (state, next) = (&*self.state, self.next);
        if self.is_empty || next == self.len {
            return Vec::new();
        }
        state.signal.wait_until(WAIT_FOR_ALL, &|has_waited| {
            let mut inner = state.lock();
            let is_enough = inner.progress.pending == 0
                || (has_waited && !matches!(inner.slots[next], Slot::Pending));
            let awaited = if has_waited { Awaited::One(next) } else { Awaited::All };
            // `None` also in place of what a poll has set.
            inner.progress.awaited = (!is_enough).then_some(awaited);
            if !is_enough {
                state.signal.reset();
            }
            is_enough
        });
        take_ready(&mut state.lock(), &mut self.next, &mut self.is_empty)
    }
}

/// It is compiled once, and not for each type of outputs.
fn begin_wait_for_chunk(
    id: TaskId,
    executor: &dyn Fn() -> Option<Canceller>,
) -> Result<Waiting, TaskError> {
    let executor = executor();
    let executor = executor.as_ref().map(Canceller::control);
    waiting::begin([AwaitedTask { id, executor }], Need::All)
}

/// Takes the results from `next` on, up to the first that is pending.
fn take_ready<O>(
    inner: &mut PendingResults<O, dyn Send>,
    next: &mut usize,
    is_empty: &mut bool,
) -> Vec<Slot<O>> {
    if *next == 0 && inner.progress.pending == 0 {
        *is_empty = true;
        return std::mem::take(&mut inner.slots);
    }
    // A loop, and no iterators: each of these would be compiled for each type of outputs.
    let mut ready = Vec::new();
    while let Some(slot) = inner.slots.get_mut(*next)
        && !matches!(slot, Slot::Pending)
    {
        ready.push(std::mem::replace(slot, Slot::Taken));
        *next += 1;
    }
    ready
}
