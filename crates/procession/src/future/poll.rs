//! What a [`Future`] is to the language: it is polled, dropped and shown.

use std::any::type_name;
use std::fmt;
use std::pin::Pin;
use std::task::Poll;

use super::core::ResultState;
use super::{Future, FutureState};
use crate::error::TaskError;
use crate::{panics, waiting};

impl<T> Drop for Future<T> {
    fn drop(&mut self) {
        if self.cancels_on_drop {
            self.cancel();
        }
        // Dropping the waker calls code of the runtime, so it happens without the lock.
        if self.was_polled {
            let waker = self.core.lock().awaiters.waker.take();
            panics::discard(waker);
        }
    }
}

impl<T> std::future::Future for Future<T> {
    type Output = Result<T, TaskError>;

    /// A poll after the result was returned returns [`TaskError::AlreadyTaken`].
    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let waker = context.waker();
        let inner = self.core.lock();
        if inner.is_done() {
            return Poll::Ready(self.core.take(inner));
        }
        let is_known = inner.awaiters.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        drop(inner);
        if !is_known {
            // Cloning and dropping a waker calls code of the runtime: without the lock.
            let waker = waker.clone();
            let mut inner = self.core.lock();
            if inner.is_done() {
                return Poll::Ready(self.core.take(inner));
            }
            let before = inner.awaiters.waker.replace(waker);
            drop(inner);
            drop(before);
            self.was_polled = true;
        }
        match waiting::before_pending(self.target()) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// The state, in the format of `concurrent.futures`: `<Future state=running>`,
/// `<Future state=finished returned u32>`, `<Future state=finished raised Panicked>`.
impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        write!(f, "<Future state={state}")?;
        match &self.core.lock().stage {
            ResultState::Ready(Ok(_)) => write!(f, " returned {}", short_name(type_name::<T>()))?,
            ResultState::Ready(Err(error)) if state == FutureState::Finished => {
                let whole = format!("{error:?}");
                let name = whole.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                write!(f, " raised {name}")?;
            }
            _ => {}
        }
        f.write_str(">")
    }
}

/// `String` for `alloc::string::String`; the name of a generic type is not shortened.
fn short_name(name: &str) -> &str {
    if name.contains('<') { name } else { name.rsplit("::").next().unwrap_or(name) }
}
