//! Many futures at once: as they finish, or until enough of them have.

use std::collections::HashSet;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Future;

/// Yields futures as they finish, whatever their order.
///
/// ```no_run
/// # use procession::{as_completed, Future, TaskError};
/// # fn show(futures: Vec<Future<String>>) -> Result<(), TaskError> {
/// for future in as_completed(futures) {
///     println!("{}", future.result()?);
/// }
/// # Ok(()) }
/// ```
pub fn as_completed<T>(futures: impl IntoIterator<Item = Future<T>>) -> AsCompleted<T> {
    let (sender, finished) = mpsc::channel();
    let futures: Vec<_> = futures.into_iter().map(Some).collect();
    for (index, future) in futures.iter().enumerate() {
        future.as_ref().expect("none was yielded yet").watch(&sender, index);
    }
    AsCompleted { unfinished: futures.len(), futures, finished }
}

/// The iterator of [`as_completed`].
#[derive(Debug)]
pub struct AsCompleted<T> {
    futures: Vec<Option<Future<T>>>,
    finished: Receiver<usize>,
    unfinished: usize,
}

impl<T> AsCompleted<T> {
    /// Waits for the next future, but not beyond `deadline`; `Ok(None)` when all were yielded.
    pub fn next_before(&mut self, deadline: Instant) -> Result<Option<Future<T>>, Unfinished> {
        if self.unfinished == 0 {
            return Ok(None);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match self.finished.recv_timeout(left) {
            Ok(index) => Ok(self.take(index)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(Unfinished { unfinished: self.unfinished, of: self.futures.len() })
            }
        }
    }

    /// The futures that were not yielded yet, in their original order.
    pub fn into_unfinished(self) -> Vec<Future<T>> {
        self.futures.into_iter().flatten().collect()
    }

    fn take(&mut self, index: usize) -> Option<Future<T>> {
        self.unfinished -= 1;
        self.futures[index].take()
    }
}

impl<T> Iterator for AsCompleted<T> {
    type Item = Future<T>;

    fn next(&mut self) -> Option<Future<T>> {
        if self.unfinished == 0 {
            return None;
        }
        // Each future sends once, since each promise is kept, so this cannot wait for ever.
        let index = self.finished.recv().ok()?;
        self.take(index)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.unfinished, Some(self.unfinished))
    }
}

/// A wait ended before all futures did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{unfinished} (of {of}) futures unfinished")]
pub struct Unfinished {
    /// How many are not done.
    pub unfinished: usize,
    /// How many there were.
    pub of: usize,
}

/// When [`wait`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When any future is done.
    FirstCompleted,
    /// When any future has failed, or all are done.
    FirstFailed,
    /// When all are done.
    AllCompleted,
}

/// What [`wait`] found; each future stands in one of the two, in the order given, once.
#[derive(Debug)]
pub struct Waited<'f, T> {
    /// The futures that are done.
    pub done: Vec<&'f Future<T>>,
    /// Those that are not.
    pub not_done: Vec<&'f Future<T>>,
}

/// Waits until enough of the futures are done, or until `timeout` has passed.
pub fn wait<'f, T>(
    futures: impl IntoIterator<Item = &'f Future<T>>,
    until: Until,
    timeout: Option<Duration>,
) -> Waited<'f, T> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut seen = HashSet::new();
    let futures: Vec<_> = futures.into_iter().filter(|future| seen.insert(future.id())).collect();
    let (sender, finished) = mpsc::channel();
    for (index, future) in futures.iter().enumerate() {
        future.watch(&sender, index);
    }
    let mut is_done = vec![false; futures.len()];
    let mut left = futures.len();
    while left > 0 {
        let next = match deadline {
            None => finished.recv().ok(),
            Some(deadline) => {
                finished.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
            }
        };
        let Some(index) = next else { break };
        is_done[index] = true;
        left -= 1;
        match until {
            Until::FirstCompleted => break,
            Until::FirstFailed if futures[index].failed() => break,
            Until::FirstFailed | Until::AllCompleted => {}
        }
    }
    // What finished by the way is done as well.
    while let Ok(index) = finished.try_recv() {
        is_done[index] = true;
    }
    let (done, not_done): (Vec<_>, Vec<_>) =
        futures.into_iter().zip(is_done).partition(|(_, is_done)| *is_done);
    let only = |part: Vec<(&'f Future<T>, bool)>| part.into_iter().map(|(f, _)| f).collect();
    Waited { done: only(done), not_done: only(not_done) }
}
