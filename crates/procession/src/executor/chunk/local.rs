//! [`LocalChunk`]: short tasks that [`map`](crate::Executor::map) passes to an executor that runs tasks
//! on threads of this process. They are not encoded.
//!
//! A thread takes the tasks of a chunk one by one. So the tasks behind one that takes long can be taken by
//! another thread, which splits the chunk: it takes the first half of the tasks that are left.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ChunkEnd, Results, ResultsCore, state_of};
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
    /// Runs the next task. Returns false if there is none.
    fn run_next(&self, context: &mut Context) -> bool;
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
    let mut taken = VecDeque::with_capacity(max);
    let end = loop {
        if taken.len() == max {
            break ChunkEnd::More;
        }
        match panics::hold(|| tasks.next()) {
            Ok(Some(task)) => taken.push_back(task),
            Ok(None) => break ChunkEnd::End,
            Err(panic) => break ChunkEnd::Panic(panic),
        }
    };
    if taken.is_empty() {
        return (None, end);
    }
    let (state, results) = state_of(taken.len());
    let rest = Mutex::new(NotBegun { first: 0, tasks: taken });
    (Some((Arc::new(TypedChunk { state, rest }), results)), end)
}

struct TypedChunk<T: Task> {
    state: Arc<ResultsCore<T::Output>>,
    rest: Mutex<NotBegun<T>>,
}

/// Tasks that have not begun.
struct NotBegun<T> {
    /// Index of the first of them in the whole chunk.
    first: usize,
    tasks: VecDeque<T>,
}

impl<T: Task> TypedChunk<T> {
    fn rest(&self) -> MutexGuard<'_, NotBegun<T>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the first of the tasks that have not begun, this many of those that are left.
    fn part(&self, number: impl FnOnce(usize) -> usize) -> Option<Arc<dyn LocalChunk>> {
        let mut rest = self.rest();
        let (first, number) = (rest.first, number(rest.tasks.len()));
        let tasks: VecDeque<T> = rest.tasks.drain(..number).collect();
        rest.first += number;
        drop(rest);
        if tasks.is_empty() {
            return None;
        }
        let state = Arc::clone(&self.state);
        Some(Arc::new(Self { state, rest: Mutex::new(NotBegun { first, tasks }) }))
    }
}

impl<T: Task> LocalChunk for TypedChunk<T> {
    fn id(&self) -> TaskId {
        self.state.id
    }

    fn left(&self) -> usize {
        self.rest().tasks.len()
    }

    fn run_next(&self, context: &mut Context) -> bool {
        let mut rest = self.rest();
        let Some(task) = rest.tasks.pop_front() else { return false };
        let item = rest.first;
        rest.first += 1;
        drop(rest);
        context.task = TaskId(self.state.id.0 + item as u64);
        let result = panics::run(task, context).map_err(Box::new);
        self.state.put(item, std::iter::once(result));
        true
    }

    fn split(&self) -> Option<Arc<dyn LocalChunk>> {
        self.part(|left| left.div_ceil(2))
    }

    fn take_rest(&self) -> Option<Arc<dyn LocalChunk>> {
        self.part(|left| left)
    }

    fn fail(&self, error: &TaskError) -> usize {
        let mut rest = self.rest();
        let (first, tasks) = (rest.first, std::mem::take(&mut rest.tasks));
        rest.first += tasks.len();
        drop(rest);
        let number = tasks.len();
        for task in tasks {
            panics::discard(task);
        }
        if number > 0 {
            let errors = (0..number).map(|_| Err(Box::new(error.clone())));
            self.state.put(first, errors);
        }
        number
    }
}

impl<T: Task> Drop for TypedChunk<T> {
    fn drop(&mut self) {
        self.fail(&TaskError::Cancelled);
    }
}
