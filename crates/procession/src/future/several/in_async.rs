//! [`AsCompleted`] in async code, on any runtime.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::AsCompleted;
use crate::future::Future;
use crate::waiting;

impl<T> AsCompleted<T> {
    /// The next future, for async code on any runtime: awaits it without blocking the thread. `None`: all
    /// were yielded. Nothing is lost if the returned future is dropped.
    ///
    /// With the feature `stream`, this type is a `futures_core::Stream` as well.
    ///
    /// ```
    /// # use procession::{Context, Executor, Failure, Task, TaskError, ThreadPool, as_completed};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Square(u64);
    /// # impl Task for Square {
    /// #     const NAME: &'static str = "square";
    /// #     type Output = u64;
    /// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
    /// # }
    /// async fn sum_of_squares(pool: &ThreadPool) -> Result<u64, TaskError> {
    ///     let mut completed = as_completed((1..=10).map(|n| pool.submit(Square(n))));
    ///     let mut sum = 0;
    ///     while let Some(future) = completed.next_async().await {
    ///         sum += future.await?;
    ///     }
    ///     Ok(sum)
    /// }
    /// ```
    pub fn next_async(&mut self) -> impl std::future::Future<Output = Option<Future<T>>> {
        poll_fn(|context| self.poll_next_done(context))
    }

    fn poll_next_done(&mut self, context: &Context<'_>) -> Poll<Option<Future<T>>> {
        let mut is_registered = false;
        while self.unfinished > 0 {
            match self.next_index() {
                Some(index) => {
                    if let Some(future) = self.take(index) {
                        return Poll::Ready(Some(future));
                    }
                }
                // Then once more: a message may have been sent before.
                None if !is_registered => {
                    self.sender.wake_by(context.waker().clone());
                    is_registered = true;
                }
                None => {
                    let mut left = self.futures.iter().flatten().map(Future::target);
                    let begun = left.try_for_each(waiting::before_pending);
                    let refused = begun.err().and_then(|_| self.first_left());
                    return match refused.and_then(|index| self.take(index)) {
                        Some(future) => Poll::Ready(Some(future)),
                        None => Poll::Pending,
                    };
                }
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(feature = "stream")]
impl<T> futures_core::Stream for AsCompleted<T> {
    type Item = Future<T>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Future<T>>> {
        self.poll_next_done(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.unfinished, Some(self.unfinished))
    }
}
