//! The events and the actions of a [`TaskOwner`](super::TaskOwner), and the ends of tasks.

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
    /// `is_known`: the queue has confirmed the message. Else no confirmation came.
    Published { seq: u64, is_known: bool },
    /// A record arrived.
    Observed(StoredRecord),
    /// The latest record of the server is `stored`, which is earlier than the record with the number `known`. That
    /// record had come before the server was asked, so the server has lost it.
    Rewound { known: u64, stored: StoredRecord },
    /// The server, asked after an outage, has no record of the task.
    RecordGone,
    /// The queue, asked after an outage, does not have the message.
    MessageGone,
    /// This instance of an agent has not renewed its lease.
    InstanceLost(String),
    /// The futures of these members were cancelled.
    Cancelled(Members),
}

impl OwnerEvent {
    /// The latest record was read. `known` is the number of the latest record that had come before the read.
    pub(crate) fn read(known: u64, stored: StoredRecord) -> Self {
        if stored.seq < known { Self::Rewound { known, stored } } else { Self::Observed(stored) }
    }

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
    /// The results of the members `all` follow the record that was observed. Those of the members `new` have come for
    /// the first time.
    Results { new: Members, all: Members },
    /// Ask this instance to end these members.
    Kill { instance: String, members: Members },
    /// The task has ended, or the members of a bundle that have no result. Nothing follows.
    End(OwnedEnd),
}

/// How a task ended, for its future.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnedEnd {
    /// With its results.
    Done,
    /// It was cancelled. The members of a bundle that were not cancelled are queued again: no host had them.
    Cancelled,
    /// Its host was lost, and it has no further attempt. The members of a bundle may have one.
    HostLost { host: String, attempts: u32 },
    /// The server has lost the record, so it is not known whether the task has begun. The members of a bundle may have
    /// a further attempt.
    RecordLost,
    /// An earlier coordinator of the job has submitted another task in its place.
    OtherTask,
}

/// Whether a task ends or is queued again, after its owner has ended without a result for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberFate {
    /// It ends.
    Ended(OwnedEnd),
    /// It is queued again, as a task of its own.
    Again { attempt: u32 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::TaskOwner;
    use crate::task_record::{HostClaim, RecordedState};

    fn written(actions: &[OwnerAction]) -> (TaskRecord, u64) {
        match actions {
            [OwnerAction::Write { record, expect }] => (record.clone(), *expect),
            other => panic!("{other:?}"),
        }
    }

    /// A server that loses its power may forget a claim, and keep the record before it.
    #[test]
    fn a_task_whose_claim_the_server_has_lost_is_taken_away_from_its_host() {
        for attempts in [1, 2] {
            let mut owner = TaskOwner::new(attempts, None, 7);
            let (queued, _) = written(&owner.handle(OwnerEvent::Submitted));
            let stored = |seq, record: &TaskRecord| StoredRecord { seq, record: record.clone() };
            owner.handle(OwnerEvent::Observed(stored(4, &queued)));
            owner.handle(OwnerEvent::Published { seq: 4, is_known: true });
            let (instance, host) = ("i".to_owned(), "h".to_owned());
            let state = RecordedState::Claimed(HostClaim { instance, host, lease_ms: 1 });
            let claimed = TaskRecord { nonce: 1, state, ..queued.clone() };
            owner.handle(OwnerEvent::Observed(stored(5, &claimed)));
            let rewound = |known| OwnerEvent::Rewound { known, stored: stored(4, &queued) };
            // The server was asked before the claim came.
            assert!(owner.handle(rewound(4)).is_empty());
            let (record, expect) = written(&owner.handle(rewound(5)));
            assert_eq!((expect, record.attempt), (4, attempts));
            let taken = owner.handle(OwnerEvent::Observed(stored(5, &record)));
            match attempts {
                1 => assert!(matches!(taken[..], [OwnerAction::End(OwnedEnd::HostLost { .. })])),
                _ => assert_eq!(taken, [OwnerAction::Publish { attempt: 2, seq: 5 }]),
            }
        }
    }

    #[test]
    fn a_task_that_waits_is_queued_anew_if_the_server_has_lost_that_it_does() {
        let mut owner = TaskOwner::new(2, None, 7);
        let (queued, _) = written(&owner.handle(OwnerEvent::Submitted));
        let earlier = StoredRecord { seq: 2, record: queued.clone() };
        owner.handle(OwnerEvent::Observed(StoredRecord { seq: 4, record: queued }));
        owner.handle(OwnerEvent::Published { seq: 4, is_known: true });
        let (record, expect) =
            written(&owner.handle(OwnerEvent::Rewound { known: 4, stored: earlier }));
        assert_eq!((expect, record.state), (2, RecordedState::Queued));
    }
}
