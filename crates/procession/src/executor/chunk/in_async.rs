//! The results of a chunk in async code, in the order of the tasks.

use std::task::{Context, Poll};

use super::results_core::{Awaited, Slot};
use super::{Results, take_ready};
use crate::error::TaskError;
use crate::executor::Canceller;
use crate::waiting::{self, AwaitedTask};

impl<O> Results<O> {
    /// The next result. `None`: all were yielded.
    pub(crate) fn poll_next(
        &mut self,
        context: &Context<'_>,
        executor: impl FnOnce() -> Option<Canceller>,
    ) -> Poll<Option<Result<O, TaskError>>> {
        if !self.has_ready() {
            // Cloning and dropping a waker calls code of the runtime: without the lock.
            let waker = context.waker().clone();
            let mut inner = self.state.lock();
            if self.is_empty || self.next == inner.slots.len() {
                return Poll::Ready(None);
            }
            if matches!(inner.slots[self.next], Slot::Pending) {
                inner.progress.awaited = Some(Awaited::One(self.next));
                let before = inner.progress.waker.replace(waker);
                drop(inner);
                drop(before);
                if waiting::has_role() {
                    let executor = executor();
                    let executor = executor.as_ref().map(Canceller::control);
                    let target = AwaitedTask { id: self.state.id, executor };
                    if let Err(error) = waiting::before_pending(target) {
                        self.skip();
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                return Poll::Pending;
            }
            inner.progress.awaited = None;
            self.ready = take_ready(&mut inner, &mut self.next, &mut self.is_empty).into_iter();
        }
        Poll::Ready(Some(self.take_ready()))
    }
}
