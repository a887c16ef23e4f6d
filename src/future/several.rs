//! Many futures at once: as they finish, or until enough of them have.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use super::Future;
use crate::waiting::{self, Need};

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
    let sender = Arc::new(sender);
    let futures: Vec<_> = futures.into_iter().map(Some).collect();
    for (index, future) in futures.iter().enumerate() {
        if !future.as_ref().expect("none was yielded yet").watch(&sender, index) {
            let _ = sender.send(index);
        }
    }
    AsCompleted { unfinished: futures.len(), futures, sender, finished }
}

/// The iterator of [`as_completed`].
///
/// Where a wait could never end, it yields a future that is not done, whose
/// [`result`](Future::result) is then [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock).
#[derive(Debug)]
pub struct AsCompleted<T> {
    futures: Vec<Option<Future<T>>>,
    /// What the futures were given, to take it back.
    sender: Arc<Sender<usize>>,
    finished: Receiver<usize>,
    unfinished: usize,
}

impl<T> AsCompleted<T> {
    /// Waits for the next future, but not beyond `deadline`; `Ok(None)` when all were yielded.
    /// Those that are done are yielded after it, too. Where a wait could never end, there is none.
    pub fn next_before(&mut self, deadline: Instant) -> Result<Option<Future<T>>, Unfinished> {
        if self.unfinished == 0 {
            return Ok(None);
        }
        loop {
            let next = self.finished.try_recv().ok().or_else(|| {
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

    /// The futures that were not yielded yet, in their original order.
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

    /// The future of this index, if it was not yielded before it was done.
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
            let index = match self.finished.try_recv() {
                Ok(index) => index,
                Err(_) => match self.begin(Need::Any) {
                    // Each future sends once, since each promise is kept.
                    Some(_waiting) => self.finished.recv().ok()?,
                    None => self.futures.iter().position(Option::is_some)?,
                },
            };
            if let Some(future) = self.take(index) {
                future.unwatch(&self.sender);
                return Some(future);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.unfinished, Some(self.unfinished))
    }
}

impl<T> Drop for AsCompleted<T> {
    fn drop(&mut self) {
        self.unwatch();
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

/// Waits until enough of the futures are done, or until `timeout` has passed. Where that could never
/// come, because this thread would have to do it (see
/// [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock)), it does not wait.
pub fn wait<'f, T>(
    futures: impl IntoIterator<Item = &'f Future<T>>,
    until: Until,
    timeout: Option<Duration>,
) -> Waited<'f, T> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut seen = HashSet::new();
    let futures: Vec<_> = futures.into_iter().filter(|future| seen.insert(future.id())).collect();
    let (sender, finished) = mpsc::channel();
    let sender = Arc::new(sender);
    let is_enough = |future: &Future<T>| match until {
        Until::FirstCompleted => true,
        Until::FirstFailed => future.failed(),
        Until::AllCompleted => false,
    };
    let mut is_done = vec![false; futures.len()];
    let (mut left, mut has_enough) = (0, futures.is_empty());
    for (index, future) in futures.iter().enumerate() {
        // When there is enough, the others are only looked at.
        is_done[index] =
            if has_enough { future.is_done() } else { !future.watch(&sender, index) };
        has_enough |= is_done[index] && is_enough(future);
        left += usize::from(!is_done[index]);
    }
    if !has_enough && left > 0 {
        let need = match (deadline, until) {
            (Some(_), _) => Need::Time,
            (None, Until::AllCompleted) => Need::All,
            (None, Until::FirstCompleted | Until::FirstFailed) => Need::Any,
        };
        let waits_for = futures.iter().zip(&is_done).filter(|(_, is_done)| !**is_done);
        if let Ok(_waiting) = waiting::begin(waits_for.map(|(future, _)| future.target()), need) {
            while left > 0 && !has_enough {
                let next = match deadline {
                    None => finished.recv().ok(),
                    Some(deadline) => {
                        let left = deadline.saturating_duration_since(Instant::now());
                        finished.recv_timeout(left).ok()
                    }
                };
                let Some(index) = next else { break };
                is_done[index] = true;
                left -= 1;
                has_enough = is_enough(futures[index]);
            }
        }
    }
    for (future, is_done) in futures.iter().zip(&mut is_done) {
        if !*is_done {
            future.unwatch(&sender);
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
