//! Which shared values this process has given back. The workers that have them are notified before their next call, or
//! within about a second.
//!
//! The list is one of the process, since a value may have gone to the workers of several pools. A worker that
//! does not know a value ignores its id.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// The encoding of a shared value, in the process that made the value.
pub(crate) struct SharedContent {
    bytes: Vec<u8>,
    _release: Release,
}

impl SharedContent {
    pub(super) fn new(id: Uuid, bytes: Vec<u8>) -> Self {
        Self { bytes, _release: Release(id) }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

/// On drop, the workers are notified that they do not need the value with this id any more.
pub(super) struct Release(pub Uuid);

impl Drop for Release {
    fn drop(&mut self) {
        let mut released = RELEASED.lock().unwrap_or_else(PoisonError::into_inner);
        released.push_back(self.0);
        if released.len() > MOST {
            released.pop_front();
        }
        NUMBER.fetch_add(1, Ordering::Release);
    }
}

/// Maximum number of ids that are kept. A worker that has not received older ones drops all of its values.
const MOST: usize = 256;

/// The ids of those that were released last.
static RELEASED: Mutex<VecDeque<Uuid>> = Mutex::new(VecDeque::new());

/// How many were released in all. Changed while `RELEASED` is locked.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// How many releases a worker was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ToldReleases(u64);

impl Default for ToldReleases {
    /// A worker that starts now has none of the values that were released before.
    fn default() -> Self {
        Self(NUMBER.load(Ordering::Acquire))
    }
}

impl ToldReleases {
    /// The record for a worker that has received this number of releases, and the number that it has received
    /// with the record. `None` if there is nothing new.
    #[inline]
    pub(crate) fn news(self) -> Option<(Vec<u8>, Self)> {
        (NUMBER.load(Ordering::Acquire) != self.0).then(|| self.record())
    }

    #[cold]
    fn record(self) -> (Vec<u8>, Self) {
        let released = RELEASED.lock().unwrap_or_else(PoisonError::into_inner);
        let number = NUMBER.load(Ordering::Acquire);
        let new = usize::try_from(number - self.0).unwrap_or(usize::MAX);
        let ids = match released.len().checked_sub(new) {
            Some(known) => released.range(known..).flat_map(|id| *id.as_bytes()).collect(),
            None => Vec::new(),
        };
        (ids, Self(number))
    }
}

/// The ids of a record. None: all values are meant.
pub(super) fn ids(record: &[u8]) -> impl Iterator<Item = Uuid> {
    record.as_chunks().0.iter().map(|id| Uuid::from_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_is_told_once_what_was_released_since_it_started() {
        let told = ToldReleases::default();
        let id = Uuid::new_v4();
        let bytes = SharedContent::new(id, vec![7; 3]);
        assert_eq!(bytes.as_slice(), [7; 3]);
        drop(bytes);
        let (record, now) = told.news().expect("news");
        // Other tests of this program may release values as well.
        assert!(ids(&record).any(|released| released == id));
        assert!(now.news().is_none_or(|(record, _)| ids(&record).all(|released| released != id)));
        assert!(
            ToldReleases::default()
                .news()
                .is_none_or(|(record, _)| ids(&record).all(|it| it != id))
        );
        (0..=MOST).for_each(|_| drop(SharedContent::new(Uuid::new_v4(), Vec::new())));
        let (record, now) = told.news().expect("news");
        assert!(record.is_empty(), "all that it has, since not all ids are known");
        assert!(now.0 - told.0 > MOST as u64);
    }
}
