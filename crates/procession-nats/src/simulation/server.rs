//! The server of a simulation: the records of tasks, and the queue.

use std::collections::BTreeMap;

use crate::cas_write::WriteReply;
use crate::task_record::{StoredRecord, TaskRecord};

#[derive(Debug, Default)]
pub(super) struct SimServer {
    pub(super) seq: u64,
    /// All records of each task; the last one is the latest.
    pub(super) history: BTreeMap<usize, Vec<StoredRecord>>,
    pub(super) removed: Vec<usize>,
    pub(super) queue: Vec<QueuedCopy>,
    pub(super) copies: u64,
    /// Messages that were acknowledged and may come back.
    pub(super) acked: Vec<QueuedCopy>,
    /// Instances that do not renew their leases any more.
    pub(super) without_lease: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct QueuedCopy {
    pub(super) copy: u64,
    pub(super) task: usize,
    pub(super) attempt: u32,
    pub(super) seq: u64,
}

impl SimServer {
    pub(super) fn latest(&self, task: usize) -> Option<&StoredRecord> {
        let is_there = !self.removed.contains(&task);
        self.history.get(&task).and_then(|records| records.last()).filter(|_| is_there)
    }

    pub(super) fn write(&mut self, task: usize, record: TaskRecord, expect: u64) -> WriteReply {
        if self.latest(task).map_or(0, |latest| latest.seq) != expect {
            return WriteReply::Refused;
        }
        self.seq += 1;
        let stored = StoredRecord { seq: self.seq, record };
        self.history.entry(task).or_default().push(stored);
        WriteReply::Taken(self.seq)
    }

    pub(super) fn enqueue(&mut self, task: usize, attempt: u32, seq: u64) {
        self.copies += 1;
        self.queue.push(QueuedCopy { copy: self.copies, task, attempt, seq });
    }

    pub(super) fn ack(&mut self, copy: u64) {
        if let Some(at) = self.queue.iter().position(|queued| queued.copy == copy) {
            self.acked.push(self.queue.swap_remove(at));
        }
    }
}
