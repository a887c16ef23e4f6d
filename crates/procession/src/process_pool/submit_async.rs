//! [`SubmitAsync`]: waits for room for a pending task without blocking the thread.
//! `room.rs` has the queue of those that wait.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::ProcessPool;
use crate::executor::{Engine, Job};
use crate::future::Future;
use crate::scheduler::ResolvedOptions;
use crate::task::Task;

/// The future of [`ProcessPool::submit_async`]: a [`Future`] of the task's result, once there is room
/// for the task.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// async fn answer(pool: &ProcessPool, n: u64) -> Result<u64, TaskError> {
///     let future = pool.submit_async(square(n)).await; // there is room now
///     future.await
/// }
/// # }
/// ```
#[must_use = "the task is submitted when this future is polled"]
pub struct SubmitAsync<'p, T: Task> {
    pool: &'p ProcessPool,
    options: ResolvedOptions,
    /// `None`: it was submitted.
    task: Option<T>,
    /// Its place among those that wait for room.
    ticket: Option<u64>,
}

impl<'p, T: Task> SubmitAsync<'p, T> {
    pub(super) fn new(pool: &'p ProcessPool, options: ResolvedOptions, task: T) -> Self {
        Self { pool, options, task: Some(task), ticket: None }
    }
}

/// No part of it is ever pinned.
impl<T: Task> Unpin for SubmitAsync<'_, T> {}

impl<T: Task> std::future::Future for SubmitAsync<'_, T> {
    type Output = Future<T::Output>;

    /// # Panics
    ///
    /// After it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(self.task.is_some(), "polled after it was ready");
        let inner = &*self.pool.inner;
        if inner.poll_reserve(&mut self.ticket, context).is_pending() {
            return Poll::Pending;
        }
        let task = self.task.take().expect("it is there");
        let (job, future) = Job::new(task, self.pool.canceller());
        inner.submit(job, self.options);
        Poll::Ready(future)
    }
}

impl<T: Task> Drop for SubmitAsync<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.pool.inner.leave_queue_for_room(ticket);
        }
    }
}

impl<T: Task> std::fmt::Debug for SubmitAsync<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubmitAsync").field("task", &T::NAME).finish_non_exhaustive()
    }
}
