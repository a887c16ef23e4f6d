//! [`ResultsCore`]: the results of a chunk, for the executor that completes them and the consumer that takes them.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::Results;
use super::signal::ConsumerSignal;
use crate::error::TaskError;
use crate::future::{Arrivals, Watcher};
use crate::panics;
use crate::task::TaskId;

/// `R`: what the executor keeps with the results, under the same lock.
pub(super) struct ResultsCore<O, R: ?Sized = dyn Send> {
    pub(super) id: TaskId,
    pub(super) signal: ConsumerSignal,
    inner: Mutex<PendingResults<O, R>>,
}

pub(super) struct PendingResults<O, R: ?Sized> {
    pub(super) slots: Vec<Slot<O>>,
    pub(super) progress: ChunkProgress,
    pub(super) rest: R,
}

/// How many results are there, and who waits for them. It has no type parameter, so that it is compiled once, and not
/// for each type of results.
pub(super) struct ChunkProgress {
    /// Number of pending results.
    pub(super) pending: usize,
    /// What the consumer waits for.
    pub(super) awaited: Option<Awaited>,
    /// Async code that waits for it.
    pub(super) waker: Option<Waker>,
    /// Gets a message when results arrive after none had, if they are taken as they arrive.
    pub(super) watcher: Option<Watcher>,
    /// Indices of the results that have arrived and were not taken, if there is a watcher.
    pub(super) arrived: Vec<usize>,
}

pub(super) enum Slot<O> {
    Pending,
    /// Errors are boxed because they are rare and large.
    Ready(Result<O, Box<TaskError>>),
    Taken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    All,
    One(usize),
}

/// The state and the results of a chunk of `len` tasks, all of them pending.
pub(super) fn state_of<O: Send + 'static, R: Send + 'static>(
    len: usize,
    rest: R,
) -> (Arc<ResultsCore<O, R>>, Results<O>) {
    let id = TaskId::next_many(len);
    let inner = PendingResults { slots: pending(len), progress: ChunkProgress::new(len), rest };
    let (signal, inner) = (ConsumerSignal::default(), Mutex::new(inner));
    let state = Arc::new(ResultsCore { id, signal, inner });
    let results = Results::new(Arc::clone(&state) as Arc<ResultsCore<O>>, len);
    (state, results)
}

fn pending<O>(len: usize) -> Vec<Slot<O>> {
    let mut slots = Vec::new();
    slots.resize_with(len, || Slot::Pending);
    slots
}

/// Whom to tell of results, when the lock is released.
#[must_use]
pub(super) struct Announcement {
    watcher: Option<(Arc<Arrivals>, usize)>,
    waker: Option<Waker>,
    /// What the consumer waits for is there.
    is_enough: bool,
}

impl Announcement {
    fn make(self, signal: &ConsumerSignal) {
        let Self { watcher, waker, is_enough } = self;
        if let Some((sender, key)) = watcher {
            sender.send(key);
        }
        if let Some(waker) = waker {
            let _ = panics::catch(|| waker.wake());
        }
        if is_enough {
            signal.set();
        }
    }
}

impl ChunkProgress {
    fn new(pending: usize) -> Self {
        Self { pending, awaited: None, waker: None, watcher: None, arrived: Vec::new() }
    }

    /// Counts a result that was stored.
    #[inline]
    fn stored(&mut self, item: usize) {
        self.pending -= 1;
        if self.watcher.is_some() {
            self.arrived.push(item);
        }
    }

    /// Whom to tell of these results, which were just stored. `had_arrived`: there were results for the watcher before,
    /// so it was told already.
    #[inline]
    pub(super) fn announcement(
        &mut self,
        stored: Range<usize>,
        had_arrived: bool,
    ) -> Option<Announcement> {
        let is_enough = match self.awaited {
            None => false,
            Some(Awaited::All) => self.pending == 0,
            Some(Awaited::One(next)) => stored.contains(&next),
        };
        let is_news = !had_arrived && !self.arrived.is_empty();
        if is_enough || is_news { Some(self.announce(is_enough, is_news)) } else { None }
    }

    fn announce(&mut self, is_enough: bool, is_news: bool) -> Announcement {
        let waker = if is_enough { self.waker.take() } else { None };
        let watcher = if is_news { self.watcher.as_ref() } else { None };
        let watcher = watcher.map(|watcher| (Arc::clone(&watcher.sender), watcher.index));
        Announcement { watcher, waker, is_enough }
    }
}

impl<O, R: ?Sized> PendingResults<O, R> {
    /// Whether a result is to be stored. Where its task was cancelled or skipped, the caller drops it without the lock,
    /// since that calls the program's code.
    #[inline]
    pub(super) fn is_pending(&self, item: usize) -> bool {
        matches!(self.slots[item], Slot::Pending)
    }

    /// Stores a result that is pending.
    #[inline]
    pub(super) fn store(&mut self, item: usize, result: Result<O, Box<TaskError>>) {
        // The slot is checked again, so that the compiler makes no code that drops what was in it.
        match &mut self.slots[item] {
            slot @ Slot::Pending => *slot = Slot::Ready(result),
            Slot::Ready(_) | Slot::Taken => unreachable!("the caller has seen that it is pending"),
        }
        self.progress.stored(item);
    }
}

impl<O, R: ?Sized> ResultsCore<O, R> {
    pub(super) fn lock(&self) -> MutexGuard<'_, PendingResults<O, R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn announce(&self, announcement: Announcement) {
        announcement.make(&self.signal);
    }
}

// For any `R`, so that it is compiled once for each type of outputs.
impl<O> ResultsCore<O> {
    /// Stores consecutive results. Returns the number of those that were pending.
    pub(super) fn put(&self, first: usize, results: Vec<Result<O, Box<TaskError>>>) -> usize {
        let mut inner = self.lock();
        let (before, had_arrived) = (inner.progress.pending, !inner.progress.arrived.is_empty());
        let mut surplus = Vec::new();
        let stored = first..first + results.len();
        for (item, result) in (first..).zip(results) {
            // There may be more than there are tasks.
            match item < inner.slots.len() && inner.is_pending(item) {
                true => inner.store(item, result),
                false => surplus.push(result),
            }
        }
        let number = before - inner.progress.pending;
        let announcement = inner.progress.announcement(stored, had_arrived);
        drop(inner);
        if let Some(announcement) = announcement {
            self.announce(announcement);
        }
        if !surplus.is_empty() {
            discard_each(surplus);
        }
        number
    }

    /// Completes those of some tasks that are pending with an error. Returns their number.
    pub(super) fn fail(&self, items: Range<usize>, error: &TaskError) -> usize {
        let mut inner = self.lock();
        let (before, had_arrived) = (inner.progress.pending, !inner.progress.arrived.is_empty());
        // Most often there are none: a promise is dropped when all are complete.
        if before == 0 {
            return 0;
        }
        let items = items.start..items.end.min(inner.slots.len());
        for item in items.clone() {
            if inner.is_pending(item) {
                inner.store(item, Err(Box::new(error.clone())));
            }
        }
        let number = before - inner.progress.pending;
        let announcement = inner.progress.announcement(items, had_arrived);
        drop(inner);
        if let Some(announcement) = announcement {
            self.announce(announcement);
        }
        number
    }
}

/// Drops values of the program, each of which may panic.
#[cold]
fn discard_each<T>(values: Vec<T>) {
    values.into_iter().for_each(panics::discard);
}

impl<O, R: ?Sized> Drop for PendingResults<O, R> {
    fn drop(&mut self) {
        // This may run on a thread that delivers results, and `Drop` of an output may panic. Each is dropped by itself:
        // a second panic, while the first one drops the rest, would abort the program.
        for slot in &mut self.slots {
            if matches!(slot, Slot::Ready(_)) {
                panics::discard(std::mem::replace(slot, Slot::Taken));
            }
        }
    }
}

impl Drop for ChunkProgress {
    fn drop(&mut self) {
        if self.waker.is_some() || self.watcher.is_some() {
            panics::discard((self.waker.take(), self.watcher.take()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use super::*;

    fn any<O: Send>(core: &Arc<ResultsCore<O, ()>>) -> &ResultsCore<O> {
        &**core
    }

    /// Counts the drops that happen without the lock of the results.
    struct SeesLock(Weak<ResultsCore<SeesLock, ()>>, Arc<AtomicUsize>);

    impl Drop for SeesLock {
        fn drop(&mut self) {
            let is_free = self.0.upgrade().is_none_or(|core| core.inner.try_lock().is_ok());
            self.1.fetch_add(usize::from(is_free), Ordering::SeqCst);
        }
    }

    #[test]
    fn a_result_that_is_not_wanted_is_dropped_without_the_lock() {
        let (core, mut results) = state_of::<SeesLock, ()>(3, ());
        let dropped = Arc::new(AtomicUsize::new(0));
        let output = || Ok(SeesLock(Arc::downgrade(&core), Arc::clone(&dropped)));
        assert_eq!(results.skip_pending(), Some(0));
        assert_eq!(any(&core).put(0, vec![output(), output()]), 1);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        // More than there are tasks, in what was made before.
        assert_eq!(any(&core).put(1, vec![output(), output(), output()]), 1);
        assert_eq!(dropped.load(Ordering::SeqCst), 3);
    }

    /// Counts its drops, each of which panics.
    struct Panics(Arc<AtomicUsize>);

    impl Drop for Panics {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("the drop of an output");
        }
    }

    #[test]
    fn results_that_nobody_takes_may_all_panic_when_they_are_dropped() {
        let (core, results) = state_of::<Panics, ()>(4, ());
        let dropped = Arc::new(AtomicUsize::new(0));
        let output = || Ok(Panics(Arc::clone(&dropped)));
        assert_eq!(any(&core).put(0, vec![output(), output(), output()]), 3);
        drop(results);
        drop(core);
        assert_eq!(dropped.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn results_that_were_polled_for_and_then_waited_for_may_be_completed_again() {
        let (core, mut results) = state_of::<u32, ()>(2, ());
        let polled = results.poll_next(&Context::from_waker(Waker::noop()), || None);
        assert!(matches!(polled, Poll::Pending));
        assert_eq!(any(&core).put(0, vec![Ok(1), Ok(2)]), 2);
        assert_eq!(results.wait_for_next(&|| None), Ok(true));
        assert_eq!((results.take_ready(), results.take_ready()), (Ok(1), Ok(2)));
        // As a promise does on drop.
        assert_eq!(any(&core).put(0, vec![Ok(3), Ok(3), Ok(3)]), 0);
        assert_eq!(any(&core).fail(0..usize::MAX, &TaskError::Cancelled), 0);
        assert_eq!(results.wait_for_next(&|| None), Ok(false));
    }
}
