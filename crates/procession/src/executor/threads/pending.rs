//! [`PendingEntries`]: the tasks and chunks that have not begun, in the order of submission, and found by their ids.

use std::collections::VecDeque;

use super::queue::Entry;
use crate::task::TaskId;

/// Entries in the order of their ids, which is that of submission: a new one is nearly always the last.
#[derive(Debug, Default)]
pub(super) struct PendingEntries {
    /// `None`: the entry was taken out of the middle. The first and the last entry are there.
    entries: VecDeque<(TaskId, Option<Entry>)>,
    /// Number of entries that are there.
    len: usize,
}

/// The number of entries whose memory is kept when there are none.
const KEPT: usize = 1024;

impl PendingEntries {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, id: TaskId, entry: Entry) {
        self.len += 1;
        match self.entries.back() {
            // Another thread has taken a later id, and the lock before this thread.
            Some((last, _)) if *last > id => {
                let index = self.entries.partition_point(|(other, _)| *other < id);
                self.entries.insert(index, (id, Some(entry)));
            }
            _ => self.entries.push_back((id, Some(entry))),
        }
    }

    pub(super) fn pop_first(&mut self) -> Option<Entry> {
        let (_, entry) = self.entries.pop_front()?;
        self.len -= 1;
        self.trim();
        entry
    }

    pub(super) fn contains(&self, id: TaskId) -> bool {
        self.index_of(id).is_some_and(|index| self.entries[index].1.is_some())
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Option<Entry> {
        let entry = self.index_of(id).and_then(|index| self.entries[index].1.take())?;
        self.len -= 1;
        self.trim();
        Some(entry)
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Entry> + use<> {
        let Self { entries, len: _ } = std::mem::take(self);
        entries.into_iter().filter_map(|(_, entry)| entry)
    }

    fn index_of(&self, id: TaskId) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |(other, _)| *other).ok()
    }

    /// Removes the places of entries that were taken out: at both ends at once, in the middle when they are most.
    fn trim(&mut self) {
        while self.entries.front().is_some_and(|(_, entry)| entry.is_none()) {
            self.entries.pop_front();
        }
        while self.entries.back().is_some_and(|(_, entry)| entry.is_none()) {
            self.entries.pop_back();
        }
        if self.entries.len() > 2 * self.len + KEPT {
            self.entries.retain(|(_, entry)| entry.is_some());
        }
        if self.len == 0 && self.entries.capacity() > KEPT {
            self.entries = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::executor::Job;
    use crate::task::Nothing;

    fn job() -> Job {
        Job::new(Nothing, None).0
    }

    fn id_of(entry: Option<Entry>) -> Option<TaskId> {
        entry.map(|entry| match entry {
            Entry::Job(job) => job.id(),
            Entry::Chunk(chunk) => chunk.id(),
        })
    }

    proptest! {
        /// Each step: which of them it is, and which of the entries.
        #[test]
        fn it_is_a_map_by_id(steps in prop::collection::vec((0..5_u8, any::<prop::sample::Index>()), 0..400)) {
            let mut pending = PendingEntries::default();
            let (mut model, mut late) = (BTreeSet::new(), Vec::new());
            for (step, index) in steps {
                let ids: Vec<TaskId> = model.iter().copied().collect();
                match step {
                    0 => late.push(job()),
                    1 | 2 => {
                        // Mostly the last, as where two threads submit.
                        let job = if step == 1 { late.pop() } else { None }.unwrap_or_else(job);
                        model.insert(job.id());
                        pending.insert(job.id(), Entry::Job(job));
                    }
                    3 if !ids.is_empty() => {
                        let id = *index.get(&ids);
                        prop_assert!(pending.contains(id));
                        model.remove(&id);
                        prop_assert_eq!(id_of(pending.remove(id)), Some(id));
                        prop_assert!(!pending.contains(id) && pending.remove(id).is_none());
                    }
                    _ => {
                        prop_assert_eq!(id_of(pending.pop_first()), model.pop_first());
                    }
                }
                prop_assert_eq!(pending.len(), model.len());
            }
            let left: Vec<_> = pending.take_all().map(Some).filter_map(id_of).collect();
            prop_assert_eq!(left, model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(pending.len(), 0);
        }
    }

    #[test]
    fn entries_that_were_taken_out_leave_little_behind() {
        let mut pending = PendingEntries::default();
        let insert = |pending: &mut PendingEntries| {
            let job = job();
            let id = job.id();
            pending.insert(id, Entry::Job(job));
            id
        };
        let first = insert(&mut pending);
        for _ in 0..10_000 {
            let (second, _last) = (insert(&mut pending), insert(&mut pending));
            assert!(pending.remove(second).is_some());
            if pending.len() > 100 {
                let ids: Vec<_> = pending.entries.iter().map(|(id, _)| *id).collect();
                ids.into_iter().skip(1).for_each(|id| drop(pending.remove(id)));
                assert_eq!((pending.len(), pending.entries.len()), (1, 1));
            }
            assert!(pending.entries.len() <= 2 * pending.len() + KEPT);
        }
        let all: Vec<_> = (0..10_000).map(|_| insert(&mut pending)).collect();
        all.into_iter().for_each(|id| drop(pending.remove(id)));
        assert!(pending.remove(first).is_some() && pending.entries.capacity() <= KEPT);
    }
}
