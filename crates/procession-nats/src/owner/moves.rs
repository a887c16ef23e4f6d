//! What a [`TaskOwner`](super::TaskOwner) is told, what it asks for, and how tasks end.

use crate::cas_write::WriteReply;
use crate::members::Members;
use crate::task_record::{StoredRecord, TaskRecord};

/// What happens to a task at its coordinator.
#[derive(Debug, Clone)]
pub(crate) enum OwnerEvent {
    /// It was submitted.
    Submitted,
    /// The answer to the write, or the read, with this nonce.
    Replied { nonce: u64, reply: WriteReply },
    /// The queue has the message, or nothing was heard of it.
    Published { seq: u64, is_known: bool },
    /// A record arrived.
    Observed(StoredRecord),
    /// The server, asked after an outage, has no record of the task.
    RecordGone,
    /// The queue, asked after an outage, does not have the message.
    MessageGone,
    /// This instance of an agent has not renewed its lease.
    InstanceLost(String),
    /// The futures of these were cancelled.
    Cancelled(Members),
}

impl OwnerEvent {
    /// Whether the server has taken what was written.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(
            self,
            Self::Replied { reply: WriteReply::Taken(_), .. }
                | Self::Published { is_known: true, .. }
        )
    }
}

/// What is to be done for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnerAction {
    /// Write the record.
    Write { record: TaskRecord, expect: u64 },
    /// Read the latest record; the answer has this nonce.
    Read { nonce: u64 },
    /// Put the message into the queue, with the sequence number that its claim expects.
    Publish { attempt: u32, seq: u64 },
    /// The task has begun.
    Began,
    /// Those that are new have results, which follow the record that was observed, with those of all others.
    Results { new: Members, all: Members },
    /// Ask this instance to end these.
    Kill { instance: String, members: Members },
    /// The task has ended, or those members of a bundle that have no result. Nothing follows.
    End(OwnedEnd),
}

/// How a task ended, for its future.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnedEnd {
    /// With its results.
    Done,
    /// It was cancelled. The members of a bundle that were not are to be queued anew: no host had them.
    Cancelled,
    /// Its host was lost, and it has no further attempt. The members of a bundle may have one.
    HostLost { host: String, attempts: u32 },
    /// The server has lost the record, so it is not known whether the task has begun. The members of a bundle may have
    /// a further attempt.
    RecordLost,
    /// An earlier coordinator of the job has submitted another task in its place.
    OtherTask,
}

/// What becomes of a task when its owner has ended without a result for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberFate {
    /// It has ended as well.
    Ended(OwnedEnd),
    /// It is queued anew, as a task of its own.
    Again { attempt: u32 },
}
