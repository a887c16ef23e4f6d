//! [`SubmitAsync`]: waits for room for a pending task without blocking the thread.
//!
//! The wakers are in a map by ticket, under the lock of the state. An event that makes room takes out as many
//! as there is room for, and wakes them after the lock was released. A future that was woken and finds no room,
//! because a blocking `submit` was faster, waits again with its old ticket. A future that was woken and is
//! dropped wakes the next.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::ProcessPool;
use super::inner::PoolInner;
use super::state::PoolState;
use crate::executor::{Engine, Job, callbacks};
use crate::future::Future;
use crate::panics;
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
        let inner = &*self.pool.inner;
        if inner.poll_reserve(&mut self.ticket, context).is_pending() {
            return Poll::Pending;
        }
        let task = self.task.take().expect("not polled after it was ready");
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

impl PoolInner {
    /// Reserves room for one task, or registers the waker. Where [`reserve`](Self::reserve) does not
    /// wait, this is ready as well.
    fn poll_reserve(&self, ticket: &mut Option<u64>, context: &Context<'_>) -> Poll<()> {
        if self.setup.max_pending.is_none() || self.origin.is_forked() {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        let mut state = self.lock_state();
        let is_ready =
            self.has_room(&state) || callbacks::is_within(self) || self.collapsed.get().is_some();
        let before = if is_ready {
            state.reserved += 1;
            ticket.take().and_then(|ticket| state.waiting_for_room.remove(&ticket))
        } else {
            let ticket = *ticket.get_or_insert_with(|| {
                state.next_ticket += 1;
                state.next_ticket
            });
            state.waiting_for_room.insert(ticket, waker)
        };
        drop(state);
        // The waker is the program's code: it is dropped without the lock.
        panics::discard(before);
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    }

    fn leave_queue_for_room(&self, ticket: u64) {
        if self.origin.is_forked() {
            return;
        }
        let waker = self.lock_state().waiting_for_room.remove(&ticket);
        match waker {
            Some(waker) => panics::discard(waker),
            // It was woken: the room is for the next one.
            None => self.room_was_made(),
        }
    }

    /// Wakes those that wait for room, as many as there is room for.
    pub(super) fn room_was_made(&self) {
        let mut state = self.lock_state();
        let wakers = self.take_room_wakers(&mut state);
        drop(state);
        wake(wakers);
    }

    /// Notifies the threads that wait for room, and takes out as many wakers as there is room for. They
    /// are woken after the lock was released.
    pub(super) fn take_room_wakers(&self, state: &mut PoolState) -> Vec<Waker> {
        if self.setup.max_pending.is_none() {
            return Vec::new();
        }
        let room = match self.collapsed.get() {
            None => self.room(state),
            Some(_) => usize::MAX,
        };
        if room > 0 {
            self.room.notify_all();
        }
        let number = room.min(state.waiting_for_room.len());
        let next = std::iter::from_fn(|| state.waiting_for_room.pop_first());
        next.take(number).map(|(_, waker)| waker).collect()
    }
}

pub(super) fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        let _ = panics::catch(|| waker.wake());
    }
}
