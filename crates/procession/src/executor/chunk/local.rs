//! [`LocalChunk`]: short tasks that [`map`](crate::Executor::map) passes to an executor that runs tasks
//! on threads of this process. They are not encoded.
//!
//! A thread takes the tasks of a chunk one by one. So the tasks behind one that takes long can be taken by
//! another thread, which splits the chunk: it takes the first half of the tasks that are left.
//!
//! The tasks that have not begun are under the lock of the results: a thread stores a result and takes the
//! next task under one lock.

use std::ops::Range;
use std::sync::Arc;

use super::results_core::{ResultsCore, state_of};
use super::{ChunkEnd, Results};
use crate::error::TaskError;
use crate::panics;
use crate::task::{Context, Task, TaskId};

/// Tasks of one type, and the promise of their outputs. On drop, tasks that have not begun are
/// completed with [`TaskError::Cancelled`].
pub(crate) trait LocalChunk: Send + Sync {
    /// Id of the first task of the whole chunk. Its parts have the same.
    fn id(&self) -> TaskId;
    /// Number of tasks that have not begun.
    fn left(&self) -> usize;
    /// Runs the tasks, one after the other. After each it asks `goes_on` whether to run the next. Returns
    /// their number.
    fn run(&self, context: &mut Context, goes_on: &mut dyn FnMut() -> bool) -> u32;
    /// Moves the first half of the tasks that have not begun to a chunk of their own. `None`: there is
    /// none.
    fn split(&self) -> Option<Arc<dyn LocalChunk>>;
    /// The same with all of them, so that no thread begins another one.
    fn take_rest(&self) -> Option<Arc<dyn LocalChunk>>;
    /// Completes the tasks that have not begun. Returns their number.
    fn fail(&self, error: &TaskError) -> usize;
}

/// An executor that runs tasks on threads of this process.
pub(crate) trait LocalChunkExecutor {
    /// Number of tasks to put into one chunk, by the run times of earlier tasks. One: no chunks.
    fn chunk_size(&self) -> usize;
    /// Number of chunks that a map hands over ahead of its consumer.
    fn chunks_ahead(&self) -> usize;
    fn enqueue_local(&self, chunk: Arc<dyn LocalChunk>);
}

/// A chunk with its results, if there is any task for it, and what ended it.
pub(crate) type Collected<T> =
    (Option<(Arc<dyn LocalChunk>, Results<<T as Task>::Output>)>, ChunkEnd<T>);

/// Takes up to `max` tasks as a chunk.
pub(crate) fn collect<T: Task>(tasks: &mut impl Iterator<Item = T>, max: usize) -> Collected<T> {
    let mut taken = Vec::with_capacity(max);
    let has_ended = panics::hold(|| {
        while taken.len() < max {
            match tasks.next() {
                Some(task) => taken.push(Some(task)),
                None => return true,
            }
        }
        false
    });
    let end = match has_ended {
        Ok(false) => ChunkEnd::More,
        Ok(true) => ChunkEnd::End,
        Err(panic) => ChunkEnd::Panic(panic),
    };
    if taken.is_empty() {
        return (None, end);
    }
    let len = taken.len();
    let whole = 0..len;
    let (state, results) = state_of(len, NotBegun { tasks: taken, parts: vec![whole] });
    (Some((Arc::new(TypedChunk { state, part: 0 }), results)), end)
}

/// A chunk, or a part of one.
struct TypedChunk<T: Task> {
    state: Arc<ResultsCore<T::Output, NotBegun<T>>>,
    /// Its index in [`NotBegun::parts`].
    part: usize,
}

/// Tasks that have not begun.
struct NotBegun<T> {
    /// The tasks of the whole chunk. `None`: the task has begun.
    tasks: Vec<Option<T>>,
    /// Of each part, the indices of the tasks that have not begun.
    parts: Vec<Range<usize>>,
}

impl<T> NotBegun<T> {
    /// The next task of a part, with its index in the whole chunk.
    fn take_next(&mut self, part: usize) -> Option<(usize, T)> {
        let item = self.parts[part].next()?;
        Some((item, self.tasks[item].take().expect("no other part has it")))
    }
}

/// Takes the first tasks out of `rest`: `number` says how many of those that are left.
fn take_first(rest: &mut Range<usize>, number: fn(usize) -> usize) -> Option<Range<usize>> {
    let first = rest.start..rest.start + number(rest.len());
    rest.start = first.end;
    (!first.is_empty()).then_some(first)
}

impl<T: Task> TypedChunk<T> {
    /// Moves the first tasks that have not begun into a new part: `number` says how many of those that are left.
    fn part(&self, number: fn(usize) -> usize) -> Option<Arc<dyn LocalChunk>> {
        let mut inner = self.state.lock();
        let NotBegun { parts, .. } = &mut inner.rest;
        let first = take_first(&mut parts[self.part], number)?;
        parts.push(first);
        let part = parts.len() - 1;
        drop(inner);
        Some(Arc::new(Self { state: Arc::clone(&self.state), part }))
    }
}

impl<T: Task> LocalChunk for TypedChunk<T> {
    fn id(&self) -> TaskId {
        self.state.id
    }

    fn left(&self) -> usize {
        self.state.lock().rest.parts[self.part].len()
    }

    fn run(&self, context: &mut Context, goes_on: &mut dyn FnMut() -> bool) -> u32 {
        let mut number = 0;
        let mut next = self.state.lock().rest.take_next(self.part);
        while let Some((item, task)) = next {
            context.task = TaskId(self.state.id.0 + item as u64);
            let result = panics::run(task, context).map_err(Box::new);
            number += 1;
            let goes_on = goes_on();
            let mut inner = self.state.lock();
            let announcement = if inner.is_pending(item) {
                let had_arrived = !inner.progress.arrived.is_empty();
                inner.store(item, result);
                inner.progress.announcement(item..item + 1, had_arrived)
            } else {
                drop(inner);
                panics::discard(result);
                inner = self.state.lock();
                None
            };
            next = if goes_on { inner.rest.take_next(self.part) } else { None };
            drop(inner);
            if let Some(announcement) = announcement {
                self.state.announce(announcement);
            }
        }
        number
    }

    fn split(&self) -> Option<Arc<dyn LocalChunk>> {
        self.part(|left| left.div_ceil(2))
    }

    fn take_rest(&self) -> Option<Arc<dyn LocalChunk>> {
        self.part(|left| left)
    }

    fn fail(&self, error: &TaskError) -> usize {
        let mut inner = self.state.lock();
        let NotBegun { tasks, parts } = &mut inner.rest;
        let Some(items) = take_first(&mut parts[self.part], |left| left) else { return 0 };
        let number = items.len();
        // Their places are empty, so that none is dropped under the lock.
        let mut dropped = Vec::with_capacity(number);
        for task in tasks[items.clone()].iter_mut().rev() {
            dropped.push(task.take());
        }
        drop(inner);
        while let Some(task) = dropped.pop() {
            panics::discard(task);
        }
        let state: &ResultsCore<T::Output> = &*self.state;
        state.fail(items, error);
        number
    }
}

impl<T: Task> Drop for TypedChunk<T> {
    fn drop(&mut self) {
        self.fail(&TaskError::Cancelled);
    }
}
