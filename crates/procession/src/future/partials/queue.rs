//! [`PartialQueue`]: the partial results of one task that were not read, encoded, up to a bound.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::blob::Blob;
use crate::panics;
use procession_os::fork::Origin;

/// Largest number of values that are kept for a reader.
const MOST_VALUES: usize = 1024;

/// Largest number of their bytes, with those of blobs. One larger value is kept if there is no other.
const MOST_BYTES: usize = 16 << 20;

/// Largest number of blobs in these values that keep a descriptor of this process. A single value may have more, if no
/// other value is kept.
const MOST_FILES: usize = 256;

/// Largest number of wakers: a reader that is polled with another one each time must not add them for ever.
const MOST_WAKERS: usize = 8;

/// A value that a task emitted, in the binary encoding.
#[derive(Debug)]
pub(crate) struct EncodedPartial {
    pub attempt: u32,
    pub text: Vec<u8>,
    /// The blobs to which the text refers.
    pub blobs: Vec<Blob>,
}

impl EncodedPartial {
    fn bytes(&self) -> usize {
        self.text.len() + self.blobs.iter().map(|blob| blob.len()).sum::<usize>()
    }

    /// Number of its blobs that keep a descriptor.
    fn files(&self) -> usize {
        self.blobs.iter().filter(|blob| blob.file().is_some()).count()
    }
}

/// What is in the queue.
pub(super) enum KeptPartial {
    Value(EncodedPartial),
    /// So many values were dropped here.
    Missed(u64),
}

/// What a reader gets.
pub(super) enum NextPartial {
    KeptPartial(KeptPartial),
    /// The queue is empty, and the task may emit more.
    Later,
    End,
}

/// Between the task, or the thread that receives from its worker, and the readers.
pub(in crate::future) struct PartialQueue {
    /// The process whose threads fill it.
    origin: Origin,
    state: Mutex<QueueState>,
    arrived: Condvar,
}

#[derive(Default)]
struct QueueState {
    /// Each value has the number of its files at the time when it arrived: a blob gets a file later, when a clone of it is
    /// sent.
    kept: VecDeque<(KeptPartial, usize)>,
    /// Number of bytes of the values.
    bytes: usize,
    /// Number of files of the values.
    files: usize,
    /// The task is done.
    is_closed: bool,
    /// Of the readers that wait in async code.
    wakers: VecDeque<Waker>,
}

impl PartialQueue {
    pub(in crate::future) fn new() -> Self {
        Self { origin: Origin::here(), state: Mutex::default(), arrived: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a value. `None`: one that was lost on its way.
    pub(in crate::future) fn put(&self, partial: Option<EncodedPartial>) {
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        let files = partial.as_ref().map_or(0, EncodedPartial::files);
        let has_room = |partial: &EncodedPartial| {
            let fits = state.bytes.saturating_add(partial.bytes()) <= MOST_BYTES
                && state.files + files <= MOST_FILES;
            state.kept.is_empty() || state.kept.len() < MOST_VALUES && fits
        };
        match (partial.filter(has_room), state.kept.back_mut()) {
            (Some(partial), _) => {
                state.bytes += partial.bytes();
                state.files += files;
                state.kept.push_back((KeptPartial::Value(partial), files));
            }
            (None, Some((KeptPartial::Missed(number), _))) => *number += 1,
            (None, _) => state.kept.push_back((KeptPartial::Missed(1), 0)),
        }
        self.wake(state);
    }

    /// The task is done.
    pub(in crate::future) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        self.wake(state);
    }

    /// Wakes the readers. The waker is called without the lock.
    fn wake(&self, mut state: MutexGuard<'_, QueueState>) {
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.arrived.notify_all();
        for waker in wakers {
            let _ = panics::catch(|| waker.wake());
        }
    }

    fn next(&self, state: &mut QueueState) -> NextPartial {
        if let Some((kept, files)) = state.kept.pop_front() {
            if let KeptPartial::Value(partial) = &kept {
                state.bytes -= partial.bytes();
            }
            state.files -= files;
            return NextPartial::KeptPartial(kept);
        }
        // In a forked copy of the program no thread fills the queue.
        if state.is_closed || self.origin.is_forked() {
            NextPartial::End
        } else {
            NextPartial::Later
        }
    }

    pub(super) fn take(&self) -> NextPartial {
        self.next(&mut self.lock())
    }

    /// Blocks until there is a value or the end.
    pub(super) fn wait(&self) -> NextPartial {
        let mut state = self.lock();
        loop {
            match self.next(&mut state) {
                NextPartial::Later => {
                    state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                next => return next,
            }
        }
    }

    /// The same for a poll: `waker` is woken where this returns [`NextPartial::Later`].
    pub(super) fn poll(&self, waker: &Waker) -> NextPartial {
        let next = self.take();
        if !matches!(next, NextPartial::Later) {
            return next;
        }
        // Cloning and dropping a waker calls code of the runtime: without the lock.
        let waker = waker.clone();
        let mut state = self.lock();
        let next = self.next(&mut state);
        let is_new = !state.wakers.iter().any(|known| known.will_wake(&waker));
        let mut surplus = None;
        if matches!(next, NextPartial::Later) && is_new {
            state.wakers.push_back(waker);
            if state.wakers.len() > MOST_WAKERS {
                surplus = state.wakers.pop_front();
            }
        }
        drop(state);
        // It polls again, if it still waits.
        if let Some(surplus) = surplus {
            let _ = panics::catch(|| surplus.wake());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn value(len: usize) -> Option<EncodedPartial> {
        Some(EncodedPartial { attempt: 1, text: vec![0; len], blobs: Vec::new() })
    }

    fn taken(queue: &PartialQueue) -> Vec<Result<usize, u64>> {
        let next = || match queue.take() {
            NextPartial::KeptPartial(KeptPartial::Value(partial)) => Some(Ok(partial.text.len())),
            NextPartial::KeptPartial(KeptPartial::Missed(number)) => Some(Err(number)),
            NextPartial::Later | NextPartial::End => None,
        };
        std::iter::from_fn(next).collect()
    }

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn each_waiting_reader_is_woken_once_by_a_value_and_never_by_a_poll() {
        let queue = PartialQueue::new();
        let readers: [Arc<Count>; 2] = Default::default();
        let wakers = readers.clone().map(Waker::from);
        for waker in wakers.iter().cycle().take(10) {
            assert!(matches!(queue.poll(waker), NextPartial::Later));
        }
        let woken = || readers.clone().map(|reader| reader.0.load(Ordering::SeqCst));
        assert_eq!(woken(), [0, 0]);
        queue.put(value(1));
        assert_eq!(woken(), [1, 1]);
        // Wakers that are new each time are not kept for ever.
        assert_eq!(taken(&queue), [Ok(1)]);
        for _ in 0..100 {
            let _ = queue.poll(&Arc::new(Count::default()).into());
        }
        assert_eq!(queue.lock().wakers.len(), MOST_WAKERS);
    }

    #[test]
    fn what_is_not_read_is_bounded_and_what_is_dropped_is_counted_in_its_place() {
        let queue = PartialQueue::new();
        (0..MOST_VALUES + 5).for_each(|_| queue.put(value(1)));
        let all = taken(&queue);
        assert_eq!(all.len(), MOST_VALUES + 1);
        assert_eq!(all.last(), Some(&Err(5)));
        for len in [MOST_BYTES, 1, 1] {
            queue.put(value(len));
        }
        assert_eq!(taken(&queue), [Ok(MOST_BYTES), Err(2)]);
        for len in [Some(MOST_BYTES + 1), None, Some(1)] {
            queue.put(len.and_then(value));
        }
        assert_eq!(taken(&queue), [Ok(MOST_BYTES + 1), Err(2)]);
        let without_files = || {
            let blobs = vec![Blob::from(vec![7]); 2 * MOST_FILES];
            Some(EncodedPartial { attempt: 1, text: Vec::new(), blobs })
        };
        queue.put(without_files());
        queue.put(without_files());
        assert_eq!(taken(&queue), [Ok(0), Ok(0)]);
        queue.put(value(2));
        queue.close();
        queue.put(value(3));
        assert_eq!(taken(&queue), [Ok(2)]);
        assert!(matches!(queue.wait(), NextPartial::End));
    }

    #[test]
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    fn what_is_not_read_keeps_a_bounded_number_of_files() {
        use crate::received_bytes::ReceivedBytes;
        use procession_os::sealed::Sealed;

        let queue = PartialQueue::new();
        if !procession_os::sealed::is_available() {
            return;
        }
        let file = procession_os::sealed::create(&[7]).expect("a file");
        let sealed = ReceivedBytes::Sealed(Sealed::open(file, 1).expect("a sealed file"));
        let sealed = Blob::from(sealed);
        let with_blobs = |number| {
            let blobs = vec![sealed.clone(); number];
            Some(EncodedPartial { attempt: 1, text: Vec::new(), blobs })
        };
        for number in [MOST_FILES - 1, 1, 1] {
            queue.put(with_blobs(number));
        }
        assert_eq!(taken(&queue), [Ok(0), Ok(0), Err(1)]);
        queue.put(with_blobs(MOST_FILES + 1));
        assert_eq!(taken(&queue), [Ok(0)], "there is no other");
    }
}
