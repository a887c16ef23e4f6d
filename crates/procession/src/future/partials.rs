//! [`Partials`]: the values that a task [emits](crate::Context::emit) while it runs, at the side of its future.

mod queue;

use std::any::type_name;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::{Arc, MutexGuard, Weak};
use std::task::{Context, Poll};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::queue::EncodedPartial;
pub(super) use self::queue::PartialQueue;
use self::queue::{KeptPartial, NextPartial};
use super::core::{Core, CoreState, ResultState, Running};
use super::{Future, TaskControl};
use crate::codec::{self, BinaryEncoding};
use crate::task::TaskId;
use crate::waiting::{self, AwaitedTask, Need};

/// A value that a task emitted before its result: see [`Future::partials`].
///
/// ```
/// use procession::{Future, PartialError};
///
/// fn of_last_attempt(future: &Future<()>) -> Result<Vec<String>, PartialError> {
///     let mut lines = Vec::new();
///     let mut attempt = 1;
///     for partial in future.partials::<String>() {
///         let partial = partial?;
///         if partial.attempt > attempt {
///             lines.clear(); // the task has begun anew
///         }
///         attempt = partial.attempt;
///         lines.push(partial.value);
///     }
///     Ok(lines)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Partial<P> {
    /// The value.
    pub value: P,
    /// Which attempt of the task emitted it, from 1: [`Context::attempt`](crate::Context::attempt). A task
    /// that is tried again begins anew, so what earlier attempts emitted may come twice.
    pub attempt: u32,
}

/// Why a partial result was not sent, or why there is none.
///
/// ```
/// use procession::{Future, PartialError};
///
/// fn print(future: &Future<()>) {
///     for partial in future.partials::<String>() {
///         match partial {
///             Ok(partial) => println!("{}", partial.value),
///             Err(PartialError::Missed { number }) => println!("… and {number} more"),
///             Err(error) => eprintln!("{error}"),
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartialError {
    /// From [`Context::emit`](crate::Context::emit): the value cannot be encoded.
    #[error("cannot encode the partial result{}{field}: {reason}", if field.is_empty() { "" } else { " at " })]
    Unencodable {
        /// The path of the field, such as `.items[3].ratio`; empty for the value itself.
        field: String,
        /// Why.
        reason: String,
    },
    /// From [`Context::emit`](crate::Context::emit): the worker process cannot send it.
    #[error("cannot send the partial result: {reason}")]
    Undelivered {
        /// What the operating system said.
        reason: String,
    },
    /// From [`Partials`]: the task emitted a value that is none of the type that is asked for.
    #[error("cannot decode a partial result as {expected}: {reason}")]
    Undecodable {
        /// The name of the type.
        expected: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// From [`Partials`], in the place of values that were not kept, since too many were waiting to be read.
    #[error("{number} partial results were not kept: too many were not read")]
    Missed {
        /// How many.
        number: u64,
    },
    /// From [`Partials`]: the wait for the next value would never end, as
    /// [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock) says of results.
    #[error("waiting for this partial result here would never end")]
    WouldDeadlock,
}

/// The values that a task emits, as they arrive and in their order, as an iterator that blocks; from
/// [`Future::partials`]. In async code, [`next_async`](Self::next_async) waits without blocking, and with the
/// feature `stream` this is a `futures_core::Stream`.
///
/// It ends when the task is done and all of its values were yielded, before the result can be had. It
/// continues after an error, except after [`PartialError::WouldDeadlock`], which ends the iterator.
///
/// ```
/// use procession::{Future, Partials};
///
/// fn numbers(future: &Future<()>) -> Partials<u64> {
///     future.partials() // does not borrow the future, which may be awaited elsewhere
/// }
/// ```
pub struct Partials<P> {
    queue: Arc<PartialQueue>,
    task: TaskId,
    executor: Option<Weak<dyn TaskControl>>,
    /// A wait was refused.
    has_ended: bool,
    values: PhantomData<fn() -> P>,
}

impl<T> Future<T> {
    /// The values of the type `P` that the task emits by [`Context::emit`](crate::Context::emit) while it runs.
    /// They can be read before the task is done, and after it.
    ///
    /// ```
    /// # use procession::{Context, Executor, Failure, Task, ThreadPool};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct Primes(u64);
    ///
    /// impl Task for Primes {
    ///     const NAME: &'static str = "primes";
    ///     type Output = usize;
    ///     fn run(self, context: &Context) -> Result<usize, Failure> {
    ///         let mut number = 0;
    ///         for n in (2..self.0).filter(|n| (2..*n).all(|m| n % m != 0)) {
    ///             context.emit(&n)?; // read at once
    ///             number += 1;
    ///         }
    ///         Ok(number)
    ///     }
    /// }
    ///
    /// let pool = ThreadPool::new(1);
    /// let future = pool.submit(Primes(12));
    /// let mut found = Vec::new();
    /// for prime in future.partials::<u64>() {
    ///     found.push(prime?.value);
    /// }
    /// assert_eq!(found, [2, 3, 5, 7, 11]);
    /// assert_eq!(future.result(), Ok(5));
    /// # Ok::<(), procession::PartialError>(())
    /// ```
    ///
    /// Of the values of a task that are not read, at most 1,024 are kept, with at most 16 MiB and 256 blobs in memory
    /// files. What the task emits beyond that is dropped and counted: [`PartialError::Missed`] takes its place. The
    /// task does not wait.
    /// A task that is tried again begins anew; each value says [of which attempt](Partial::attempt) it is.
    ///
    /// Two `Partials` of one task share its values: each value is yielded by one of them. Tasks of
    /// [`map`](crate::Executor::map) have no future, so what they emit is dropped.
    pub fn partials<P: Serialize + DeserializeOwned + Send>(&self) -> Partials<P> {
        Partials {
            queue: self.core.partials(),
            task: self.core.id,
            executor: self.core.executor.clone(),
            has_ended: false,
            values: PhantomData,
        }
    }
}

impl<T> Core<T> {
    /// The values that the task emits, which are kept from now on or since the first of them.
    pub(super) fn partials(&self) -> Arc<PartialQueue> {
        if let Running::Of(task) = &self.running {
            return task.partials();
        }
        let mut inner = self.lock();
        let is_over = !matches!(inner.stage, ResultState::Pending);
        let queue = inner.awaiters.partials();
        drop(inner);
        if is_over {
            queue.close();
        }
        queue
    }

    /// Adds a value that the task emitted. `None`: one that was lost.
    pub(crate) fn put_partial(&self, partial: Option<EncodedPartial>) {
        self.partials().put(partial);
    }

    /// Ends the partial results: before the callbacks, which may read them.
    #[cold]
    pub(super) fn close_partials<'c>(
        &'c self,
        inner: MutexGuard<'c, CoreState<T>>,
    ) -> MutexGuard<'c, CoreState<T>> {
        let partials = inner.awaiters.partials.clone();
        // Closing calls a waker.
        drop(inner);
        if let Some(partials) = partials {
            partials.close();
        }
        self.lock()
    }
}

impl<P: Serialize + DeserializeOwned + Send> Partials<P> {
    /// The next value, for async code on any runtime: awaits it without blocking the thread. `None`: the task
    /// is done, and all were yielded. Nothing is lost if the returned future is dropped.
    ///
    /// ```
    /// # use procession::{Future, PartialError};
    /// async fn count(future: &Future<()>) -> Result<u64, PartialError> {
    ///     let (mut partials, mut sum) = (future.partials::<u64>(), 0);
    ///     while let Some(partial) = partials.next_async().await {
    ///         sum += partial?.value;
    ///     }
    ///     Ok(sum)
    /// }
    /// ```
    pub fn next_async(
        &mut self,
    ) -> impl std::future::Future<Output = Option<Result<Partial<P>, PartialError>>> {
        poll_fn(|context| self.poll_next_value(context))
    }

    fn poll_next_value(
        &mut self,
        context: &Context<'_>,
    ) -> Poll<Option<Result<Partial<P>, PartialError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match self.queue.poll(context.waker()) {
            NextPartial::KeptPartial(kept) => Poll::Ready(Some(decode(kept))),
            NextPartial::End => Poll::Ready(None),
            NextPartial::Later => {
                if waiting::before_pending(self.target()).is_err() {
                    self.has_ended = true;
                    return Poll::Ready(Some(Err(PartialError::WouldDeadlock)));
                }
                Poll::Pending
            }
        }
    }

    fn target(&self) -> AwaitedTask<'_> {
        AwaitedTask { id: self.task, executor: self.executor.as_ref() }
    }
}

fn decode<P: Serialize + DeserializeOwned + Send>(
    kept: KeptPartial,
) -> Result<Partial<P>, PartialError> {
    match kept {
        KeptPartial::Missed(number) => Err(PartialError::Missed { number }),
        KeptPartial::Value(EncodedPartial { attempt, text, blobs }) => {
            match codec::decode::<BinaryEncoding, P>(&text, blobs) {
                Ok(value) => Ok(Partial { value, attempt }),
                Err(refusal) => {
                    let (expected, reason) = (type_name::<P>(), refusal.to_string());
                    Err(PartialError::Undecodable { expected, reason })
                }
            }
        }
    }
}

impl<P: Serialize + DeserializeOwned + Send> Iterator for Partials<P> {
    type Item = Result<Partial<P>, PartialError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let mut next = self.queue.take();
        if matches!(next, NextPartial::Later) {
            let Ok(_waiting) = waiting::begin([self.target()], Need::All) else {
                self.has_ended = true;
                return Some(Err(PartialError::WouldDeadlock));
            };
            next = self.queue.wait();
        }
        match next {
            NextPartial::KeptPartial(kept) => Some(decode(kept)),
            NextPartial::End | NextPartial::Later => None,
        }
    }
}

#[cfg(feature = "stream")]
impl<P: Serialize + DeserializeOwned + Send> futures_core::Stream for Partials<P> {
    type Item = Result<Partial<P>, PartialError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.poll_next_value(context)
    }
}

impl<P> fmt::Debug for Partials<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partials").field("task", &self.task).finish_non_exhaustive()
    }
}
