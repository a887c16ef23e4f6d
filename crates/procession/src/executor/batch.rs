//! Many tasks of one kind that are handed over together: [`map`](super::Executor::map) does that
//! with short ones, for which a future of their own would cost more than the task itself.
//!
//! Each has its own result nevertheless, and its own fate: one that kills its worker takes no
//! other along.

use std::any::Any;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::job::Canceller;
use crate::codec::{self, Encoding};
use crate::error::TaskError;
use crate::panics;
use crate::task::{Task, TaskId};
use crate::transport::{INLINE_LIMIT, Reply};
use crate::waiting::{self, Need, Target, Waiting};

/// Tasks of one kind, encoded, and those who are owed their outputs.
pub struct Batch {
    /// Of the first task; those of the others follow.
    pub(crate) id: TaskId,
    pub(crate) name: &'static str,
    /// The tasks, one after the other.
    pub(crate) text: Vec<u8>,
    /// Where each of them ends.
    pub(crate) ends: Vec<usize>,
    pub(crate) shares: Box<dyn AnyBatchPromise>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("id", &self.id).field("tasks", &self.ends.len()).finish()
    }
}

/// What is owed for the tasks of a batch, without its type.
pub(crate) trait AnyBatchPromise: Send + Sync {
    fn answer(&self, item: u32, reply: &Reply<'_>);
    /// The outputs of tasks that follow each other, encoded. Gives the number of those that were
    /// still owed; so does the next.
    fn deliver(&self, first: u32, outputs: &[&[u8]]) -> usize;
    fn fail(&self, items: Range<u32>, error: &TaskError) -> usize;
}

/// The results of a batch, in the order of its tasks.
pub(crate) struct Results<O> {
    results: Arc<BatchState<O>>,
    /// The first one that was not taken.
    next: usize,
    ready: vec::IntoIter<Slot<O>>,
    /// All were taken.
    is_empty: bool,
}

struct BatchState<O> {
    id: TaskId,
    inner: Mutex<Inner<O>>,
    arrived: Condvar,
}

struct Inner<O> {
    slots: Vec<Slot<O>>,
    missing: usize,
    /// Whether somebody waits, and for all of them or only for the next.
    waits: Option<For>,
}

enum Slot<O> {
    Pending,
    /// Errors are rare and large.
    Here(Result<O, Box<TaskError>>),
    Taken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    All,
    One(usize),
}

/// How long to wait for all results of a batch before being content with the next: each time
/// somebody is woken costs more than many a short task.
const A_WHILE: Duration = Duration::from_millis(2);

/// What became of the next tasks: a batch, if there were any for it, and what is behind them.
pub(crate) type Encoded<T> = (Option<(Batch, Results<<T as Task>::Output>)>, BatchEnd<T>);

/// What ended a batch.
pub(crate) enum BatchEnd<T> {
    /// It is large enough; there may be more tasks.
    More,
    /// There are no more.
    End,
    /// A task that has blobs beside its text, and cannot travel together with others.
    HasBlobs(T),
    /// A task that cannot be encoded.
    Refused(TaskError),
    /// The iterator panicked, which is to go on when the batch was handed over: one by one, its
    /// tasks would have been submitted by now.
    Panic(Box<dyn Any + Send>),
}

/// Tasks that travel together have no more text than this, as far as they are all of one length:
/// so much goes in one record, and leaves room for the next.
const MOST_TEXT: usize = INLINE_LIMIT / 2;

/// Encodes up to `most` tasks; ends early at one that cannot be among others.
pub(crate) fn encode<T: Task>(tasks: &mut impl Iterator<Item = T>, most: usize) -> Encoded<T> {
    let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(most));
    // What was taken out of the iterator cannot be put back, so the length of the next task is
    // guessed from that of the last.
    let mut last = 0;
    let behind = loop {
        if ends.len() == most || text.len() + last > MOST_TEXT {
            break BatchEnd::More;
        }
        let task = match panics::hold(|| tasks.next()) {
            Ok(Some(task)) => task,
            Ok(None) => break BatchEnd::End,
            Err(panic) => break BatchEnd::Panic(panic),
        };
        let before = text.len();
        let refusal = match codec::encode(T::ENCODING, &task, &mut text) {
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
        let Some(refusal) = refusal else { break BatchEnd::HasBlobs(task) };
        panics::discard(task);
        break BatchEnd::Refused(refusal.into_error("task", T::NAME));
    };
    if ends.is_empty() {
        return (None, behind);
    }
    let id = TaskId::next_many(ends.len());
    let slots = ends.iter().map(|_| Slot::Pending).collect();
    let inner = Inner { slots, missing: ends.len(), waits: None };
    let shared = Arc::new(BatchState { id, inner: Mutex::new(inner), arrived: Condvar::new() });
    let results = Results {
        results: Arc::clone(&shared),
        next: 0,
        ready: Vec::new().into_iter(),
        is_empty: false,
    };
    let shares = Box::new(BatchPromise { shared, encoding: T::ENCODING });
    let batch = Batch { id, name: T::NAME, text, ends, shares };
    (Some((batch, results)), behind)
}

impl<O> Results<O> {
    pub(crate) fn id(&self) -> TaskId {
        self.results.id
    }

    /// Waits for the next result; none if all were yielded.
    pub(crate) fn next(
        &mut self,
        executor: impl FnOnce() -> Option<Canceller>,
    ) -> Option<Result<O, TaskError>> {
        if self.ready.as_slice().is_empty() {
            match self.begin(executor) {
                Ok(_waiting) => self.ready = self.fetch().into_iter(),
                Err(error) => {
                    self.give_up_next();
                    return Some(Err(error));
                }
            }
        }
        match self.ready.next()? {
            Slot::Here(result) => Some(result.map_err(|error| *error)),
            Slot::Pending | Slot::Taken => unreachable!("only what is here was fetched"),
        }
    }

    /// To be called before a wait.
    fn begin(&self, executor: impl FnOnce() -> Option<Canceller>) -> Result<Waiting, TaskError> {
        let would_wait = || {
            let inner = self.results.lock();
            matches!(inner.slots.get(self.next), Some(Slot::Pending))
        };
        if !waiting::has_role() || !would_wait() {
            return Ok(Waiting::default());
        }
        let executor = executor();
        let executor = executor.as_ref().map(|canceller| &canceller.0);
        waiting::begin([Target { id: self.results.id, executor }], Need::All)
    }

    /// The next result was not waited for, and is not yielded when it comes.
    fn give_up_next(&mut self) {
        let mut inner = self.results.lock();
        let slot = std::mem::replace(&mut inner.slots[self.next], Slot::Taken);
        inner.missing -= usize::from(matches!(slot, Slot::Pending));
        self.next += 1;
        drop(inner);
        panics::discard(slot);
    }

    /// Waits until there is at least one more, and takes all there are.
    fn fetch(&mut self) -> Vec<Slot<O>> {
        let mut inner = self.results.lock();
        if self.is_empty || self.next == inner.slots.len() {
            return Vec::new();
        }
        let mut patience = Some(A_WHILE);
        while inner.missing > 0
            && (patience.is_some() || matches!(inner.slots[self.next], Slot::Pending))
        {
            inner.waits = Some(if patience.is_some() { For::All } else { For::One(self.next) });
            inner = match patience.take() {
                Some(patience) => {
                    let waited = self.results.arrived.wait_timeout(inner, patience);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.results.arrived.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
            inner.waits = None;
        }
        if self.next == 0 && inner.missing == 0 {
            let all = std::mem::take(&mut inner.slots);
            self.is_empty = true;
            return all;
        }
        let rest = inner.slots[self.next..].iter_mut();
        let there = rest.take_while(|slot| !matches!(slot, Slot::Pending));
        let there: Vec<_> = there.map(|slot| std::mem::replace(slot, Slot::Taken)).collect();
        self.next += there.len();
        there
    }
}

impl<O> BatchState<O> {
    fn lock(&self) -> MutexGuard<'_, Inner<O>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the number of results that were still owed.
    fn put(&self, first: usize, results: impl Iterator<Item = Result<O, Box<TaskError>>>) -> usize {
        let mut inner = self.lock();
        let Inner { slots, missing, waits } = &mut *inner;
        let missed = *missing;
        for (slot, result) in slots.iter_mut().skip(first).zip(results) {
            // What was cancelled meanwhile stays so.
            if matches!(slot, Slot::Pending) {
                *slot = Slot::Here(result);
                *missing -= 1;
            } else {
                panics::discard(result);
            }
        }
        let is_enough = match waits {
            None => false,
            Some(For::All) => *missing == 0,
            Some(For::One(next)) => !matches!(slots[*next], Slot::Pending),
        };
        let number = missed - *missing;
        drop(inner);
        if is_enough {
            self.arrived.notify_one();
        }
        number
    }
}

impl<O> Drop for BatchState<O> {
    fn drop(&mut self) {
        // Outputs that nobody took may be dropped by whoever delivers for many others, too.
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        panics::discard(std::mem::take(&mut inner.slots));
    }
}

/// The other side of the results. Dropped, it cancels what is left, so that nobody waits for what
/// will never come.
struct BatchPromise<O> {
    shared: Arc<BatchState<O>>,
    /// Of the outputs.
    encoding: Encoding,
}

impl<O: Serialize + DeserializeOwned + Send> AnyBatchPromise for BatchPromise<O> {
    fn answer(&self, item: u32, reply: &Reply<'_>) {
        self.shared.put(item as usize, std::iter::once(reply.result().map_err(Box::new)));
    }

    fn deliver(&self, first: u32, outputs: &[&[u8]]) -> usize {
        let undecodable =
            |reason| Box::new(TaskError::Undecodable { what: "output".to_owned(), reason });
        let mut results = Vec::with_capacity(outputs.len());
        while results.len() < outputs.len() {
            // `Deserialize` is the user's code and may panic; then it goes on behind that one.
            let decoded = panics::catch(|| {
                for output in &outputs[results.len()..] {
                    results.push(codec::read(self.encoding, output).map_err(undecodable));
                }
            });
            if let Err(panic) = decoded {
                results.push(Err(undecodable(panic.message)));
            }
        }
        self.shared.put(first as usize, results.into_iter())
    }

    fn fail(&self, items: Range<u32>, error: &TaskError) -> usize {
        self.shared.put(items.start as usize, items.map(|_| Err(Box::new(error.clone()))))
    }
}

impl<O> Drop for BatchPromise<O> {
    fn drop(&mut self) {
        self.shared.put(0, std::iter::repeat_with(|| Err(Box::new(TaskError::Cancelled))));
    }
}
