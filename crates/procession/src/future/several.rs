//! Several futures: [`as_completed`] and [`wait`].

mod in_async;

use std::collections::HashSet;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::{Arrivals, Future};
use crate::waiting::{self, Need};

/// Yields futures in the order in which they are done.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// let pool = ThreadPool::new(2);
/// let mut sum = 0;
/// for future in as_completed((1..=3).map(|n| pool.submit(square(n)))) {
///     sum += future.result()?;
/// }
/// assert_eq!(sum, 1 + 4 + 9);
/// # }
/// # Ok::<(), procession::TaskError>(())
/// ```
pub fn as_completed<T>(futures: impl IntoIterator<Item = Future<T>>) -> AsCompleted<T> {
    let (sender, finished) = Arrivals::new();
    let futures = collect(futures.into_iter().map(Some));
    let mut done = Vec::new();
    // Watched after the last submission: messages of finished tasks would slow the submissions down.
    for (index, future) in futures.iter().enumerate() {
        if !future.as_ref().expect("none was yielded yet").watch(&sender, index) {
            done.push(index);
        }
    }
    AsCompleted { unfinished: futures.len(), futures, done: done.into_iter(), sender, finished }
}

/// A vector that does not trust `size_hint`: the standard one allocates the lower bound, which may be wrong.
fn collect<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    const MOST_AT_ONCE: usize = 1 << 16;
    let mut all = Vec::with_capacity(items.size_hint().0.min(MOST_AT_ONCE));
    items.for_each(|item| all.push(item));
    all
}

/// The iterator of [`as_completed`]. It ends after it has yielded each future once.
///
/// If a wait would never end, it yields a future that is not done, whose
/// [`result`](Future::result) returns [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock).
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # use std::time::{Duration, Instant};
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// let pool = ThreadPool::new(2);
/// let mut completed = as_completed([1, 2, 3].map(|n| pool.submit(square(n))));
/// let deadline = Instant::now() + Duration::from_secs(60);
/// let mut sum = 0;
/// while let Ok(Some(future)) = completed.next_before(deadline) {
///     sum += future.result().unwrap_or(0);
/// }
/// assert_eq!(sum, 14);
/// for late in completed.into_unfinished() {
///     late.cancel();
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct AsCompleted<T> {
    futures: Vec<Option<Future<T>>>,
    /// Indices of the futures that were done at the start.
    done: std::vec::IntoIter<usize>,
    /// Identifies this wait in the futures.
    sender: Arc<Arrivals>,
    finished: Receiver<usize>,
    unfinished: usize,
}

impl<T> AsCompleted<T> {
    /// Waits for the next future, at most until `deadline`. `Ok(None)`: all were yielded. Futures that
    /// are done are yielded after the deadline, too. See the example of [`AsCompleted`].
    ///
    /// # Errors
    ///
    /// [`Unfinished`] after the deadline, or at once if the wait would never end.
    pub fn next_before(&mut self, deadline: Instant) -> Result<Option<Future<T>>, Unfinished> {
        if self.unfinished == 0 {
            return Ok(None);
        }
        loop {
            let next = self.next_index().or_else(|| {
                let left = deadline.checked_duration_since(Instant::now())?;
                let _waiting = self.begin(Need::Time)?;
                self.finished.recv_timeout(left).ok()
            });
            let Some(index) = next else {
                let (unfinished, of) = (self.unfinished, self.futures.len());
                return Err(Unfinished { unfinished, of });
            };
            if let Some(future) = self.take(index) {
                return Ok(Some(future));
            }
        }
    }

    /// The futures that were not yielded, in their original order. See the example of [`AsCompleted`].
    pub fn into_unfinished(mut self) -> Vec<Future<T>> {
        self.unwatch();
        std::mem::take(&mut self.futures).into_iter().flatten().collect()
    }

    fn begin(&self, need: Need) -> Option<waiting::Waiting> {
        let left = self.futures.iter().flatten().filter(|future| !future.is_done());
        waiting::begin(left.map(Future::target), need).ok()
    }

    fn unwatch(&self) {
        for future in self.futures.iter().flatten() {
            future.unwatch(&self.sender);
        }
    }

    /// The index of the first future, to be yielded although it is not done.
    fn first_left(&self) -> Option<usize> {
        let index = self.futures.iter().position(Option::is_some)?;
        self.futures[index].as_ref()?.unwatch(&self.sender);
        Some(index)
    }

    /// The index of a future that is done, if there is one now.
    fn next_index(&mut self) -> Option<usize> {
        self.done.next().or_else(|| self.finished.try_recv().ok())
    }

    /// The future of this index, if it was not yielded.
    fn take(&mut self, index: usize) -> Option<Future<T>> {
        let future = self.futures[index].take()?;
        self.unfinished -= 1;
        Some(future)
    }
}

impl<T> Iterator for AsCompleted<T> {
    type Item = Future<T>;

    fn next(&mut self) -> Option<Future<T>> {
        while self.unfinished > 0 {
            let index = match self.next_index() {
                Some(index) => index,
                None => match self.begin(Need::Any) {
                    // Each future sends once, because each promise is completed.
                    Some(_waiting) => self.finished.recv().ok()?,
                    None => self.first_left()?,
                },
            };
            if let Some(future) = self.take(index) {
                return Some(future);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.unfinished, Some(self.unfinished))
    }
}

impl<T> FusedIterator for AsCompleted<T> {}

impl<T> ExactSizeIterator for AsCompleted<T> {}

impl<T> Drop for AsCompleted<T> {
    fn drop(&mut self) {
        self.unwatch();
    }
}

/// A wait ended before all futures were done.
///
/// ```
/// use procession::Unfinished;
///
/// assert_eq!(Unfinished { unfinished: 1, of: 3 }.to_string(), "1 (of 3) futures unfinished");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{unfinished} (of {of}) futures unfinished")]
pub struct Unfinished {
    /// Number of futures that are not done.
    pub unfinished: usize,
    /// Number of futures in all.
    pub of: usize,
}

/// The condition at which [`wait`] returns. See the example of [`wait`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Until {
    /// At least one future is done.
    FirstCompleted,
    /// At least one future has an error, or all are done.
    FirstFailed,
    /// All futures are done.
    AllCompleted,
}

/// The result of [`wait`]. Each future is in one of the two lists, once, in the order of the argument.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// # use std::time::Duration;
/// let pool = ThreadPool::new(2);
/// let futures = [1, 2].map(|n| pool.submit(square(n)));
/// let waited = wait(&futures, Until::AllCompleted, Some(Duration::from_secs(60)));
/// assert_eq!((waited.done.len(), waited.not_done.len()), (2, 0));
/// # }
/// ```
#[derive(Debug)]
pub struct Waited<'f, T> {
    /// The futures that are done.
    pub done: Vec<&'f Future<T>>,
    /// The futures that are not done.
    pub not_done: Vec<&'f Future<T>>,
}

/// Waits until the condition holds, at most for `timeout`. Without futures it returns at once. Does not
/// wait if that would never end (see
/// [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock)).
///
/// ```
/// # use procession::{Context, Executor, Failure, Task, ThreadPool, Until, wait};
/// # use serde::{Deserialize, Serialize};
/// # use std::time::Duration;
/// # #[derive(Serialize, Deserialize)]
/// # struct Square(u64);
/// # impl Task for Square {
/// #     const NAME: &'static str = "square";
/// #     type Output = u64;
/// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
/// # }
/// let pool = ThreadPool::new(2);
/// let futures: Vec<_> = (1..=3).map(|n| pool.submit(Square(n))).collect();
/// let first = wait(&futures, Until::FirstCompleted, None); // without an end
/// assert!(!first.done.is_empty());
/// let waited = wait(&futures, Until::AllCompleted, Some(Duration::from_secs(60)));
/// assert_eq!((waited.done.len(), waited.not_done.len()), (3, 0));
/// ```
pub fn wait<'f, T>(
    futures: impl IntoIterator<Item = &'f Future<T>>,
    until: Until,
    timeout: Option<Duration>,
) -> Waited<'f, T> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut seen = HashSet::new();
    let futures: Vec<_> = futures.into_iter().filter(|future| seen.insert(future.id())).collect();
    let (sender, finished) = Arrivals::new();
    let mut is_done = vec![false; futures.len()];
    let mut is_enough = futures.is_empty();
    for (index, future) in futures.iter().enumerate() {
        // Once the condition holds, the other futures need not be watched.
        is_done[index] = if is_enough { future.is_done() } else { !future.watch(&sender, index) };
        is_enough |= is_done[index] && until.holds_after(future);
    }
    if !is_enough {
        wait_for_messages(&futures, &mut is_done, &finished, until, deadline);
    }
    for (future, is_done) in futures.iter().zip(&is_done) {
        if !is_done {
            future.unwatch(&sender);
        }
    }
    // Futures that have completed since then.
    while let Ok(index) = finished.try_recv() {
        is_done[index] = true;
    }
    let (done, not_done): (Vec<_>, Vec<_>) =
        futures.into_iter().zip(is_done).partition(|(_, is_done)| *is_done);
    let only = |part: Vec<(&'f Future<T>, bool)>| part.into_iter().map(|(f, _)| f).collect();
    Waited { done: only(done), not_done: only(not_done) }
}

impl Until {
    /// Whether the condition holds because this future is done.
    fn holds_after<T>(self, future: &Future<T>) -> bool {
        match self {
            Self::FirstCompleted => true,
            Self::FirstFailed => future.failed(),
            Self::AllCompleted => false,
        }
    }
}

/// Receives the indices of futures that are done, until the condition holds or the deadline passes.
fn wait_for_messages<T>(
    futures: &[&Future<T>],
    is_done: &mut [bool],
    finished: &Receiver<usize>,
    until: Until,
    deadline: Option<Instant>,
) {
    let pending = || futures.iter().zip(&*is_done).filter(|(_, is_done)| !**is_done);
    let mut left = pending().count();
    if left == 0 {
        return;
    }
    let need = match (deadline, until) {
        (Some(_), _) => Need::Time,
        (None, Until::AllCompleted) => Need::All,
        (None, Until::FirstCompleted | Until::FirstFailed) => Need::Any,
    };
    let targets = pending().map(|(future, _)| future.target());
    let Ok(_waiting) = waiting::begin(targets, need) else { return };
    while left > 0 {
        let next = match deadline {
            None => finished.recv().ok(),
            Some(deadline) => {
                let time_left = deadline.saturating_duration_since(Instant::now());
                finished.recv_timeout(time_left).ok()
            }
        };
        let Some(index) = next else { break };
        is_done[index] = true;
        left -= 1;
        if until.holds_after(futures[index]) {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Promise, promise};
    use super::*;
    use crate::error::TaskError;
    use crate::task::TaskId;

    type Pairs = (Vec<Promise<usize>>, Vec<Future<usize>>);

    fn pending(number: usize) -> Pairs {
        (0..number).map(|_| promise(TaskId::next(), None)).unzip()
    }

    /// The number of waits that the futures have stored, and the largest capacity for them.
    fn registered<'f>(futures: impl IntoIterator<Item = &'f Future<usize>>) -> (usize, usize) {
        let sizes = futures.into_iter().map(|future| {
            let watchers = &future.core.lock().awaiters.watchers;
            (watchers.len(), watchers.capacity())
        });
        sizes.fold((0, 0), |(len, room), (more, more_room)| (len + more, room.max(more_room)))
    }

    #[test]
    fn a_wait_that_ends_leaves_nothing_with_its_futures() {
        let (mut promises, futures) = pending(100);
        for until in [Until::FirstCompleted, Until::FirstFailed, Until::AllCompleted] {
            for timeout in [Duration::ZERO, Duration::from_micros(1)] {
                for _ in 0..30 {
                    let waited = wait(&futures, until, Some(timeout));
                    assert_eq!((waited.done.len(), waited.not_done.len()), (0, 100));
                    assert_eq!(registered(&futures), (0, 1));
                }
            }
        }
        promises.pop().expect("a promise").complete(Ok(1));
        for _ in 0..30 {
            let waited = wait(&futures, Until::FirstCompleted, None);
            assert_eq!((waited.done.len(), waited.not_done.len()), (1, 99));
            assert_eq!(registered(&futures), (0, 1));
        }
    }

    #[test]
    fn many_waits_at_a_time_leave_nothing_with_their_futures() {
        let (promises, futures) = pending(20);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        wait(&futures, Until::AllCompleted, Some(Duration::from_micros(10)));
                    }
                });
            }
        });
        assert_eq!(registered(&futures), (0, 1));
        drop(promises);
        assert_eq!(wait(&futures, Until::AllCompleted, None).done.len(), 20);
    }

    #[test]
    fn futures_that_as_completed_gives_back_know_nothing_of_it() {
        let (mut promises, mut futures) = pending(20);
        for left in (1..=20).rev() {
            let mut completed = as_completed(futures);
            promises.pop().expect("a promise").complete(Ok(left));
            let one = completed.next_before(Instant::now()).expect("one is done");
            assert_eq!(one.expect("one").result(), Ok(left));
            let unfinished = completed.next_before(Instant::now()).err();
            assert_eq!(unfinished.map_or(0, |error| error.unfinished), left - 1);
            futures = completed.into_unfinished();
            assert_eq!((futures.len(), registered(&futures)), (left - 1, (0, left.min(2) - 1)));
        }
    }

    #[test]
    fn what_finished_before_is_yielded_although_the_deadline_has_passed() {
        let (promises, futures) = pending(3);
        let mut completed = as_completed(futures);
        drop(promises);
        let past = Instant::now();
        for _ in 0..3 {
            let next = completed.next_before(past).expect("in time").expect("a future");
            assert_eq!(next.result(), Err(TaskError::Cancelled));
        }
        assert!(matches!(completed.next_before(past), Ok(None)));
    }

    #[test]
    fn a_future_keeps_one_waker_and_only_while_it_is_there() {
        use std::pin::Pin;
        use std::task::{Context, Wake, Waker};
        struct NoOpWaker;
        impl Wake for NoOpWaker {
            fn wake(self: Arc<Self>) {}
        }
        let poll = |future: &mut Future<usize>, waker: &Waker| {
            std::future::Future::poll(Pin::new(future), &mut Context::from_waker(waker))
        };
        let (promise, mut future) = promise(TaskId::next(), None);
        let wakers = [(); 2].map(|()| Arc::new(NoOpWaker));
        for _ in 0..100 {
            for waker in &wakers {
                assert!(poll(&mut future, &Waker::from(Arc::clone(waker))).is_pending());
            }
        }
        assert_eq!(wakers.each_ref().map(Arc::strong_count), [1, 2]);
        drop(future);
        assert_eq!(wakers.each_ref().map(Arc::strong_count), [1, 1], "dropped with the future");
        drop(promise);
    }
}
