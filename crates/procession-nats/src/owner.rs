//! [`TaskOwner`]: the coordinator's side of one task, a pure state machine. Events in, actions out; the
//! simulation and the [`Cluster`](crate::Cluster) drive the same code.

use crate::cas_write::{CasWrite, WriteReply, WriteStep};
use crate::task_record::{HostClaim, RecordedState, Revocation, StoredRecord, TaskRecord};

/// The coordinator's view of one task.
#[derive(Debug)]
pub(crate) struct TaskOwner {
    nonces: fastrand::Rng,
    /// The number of the attempt that is queued or runs.
    attempt: u32,
    /// The highest number of attempts.
    attempts: u32,
    /// The hash of the task, if its records may be those of an earlier coordinator.
    input: Option<u64>,
    is_cancelled: bool,
    /// The latest record that is known. 0: none.
    seq: u64,
    state: OwnerState,
}

#[derive(Debug)]
enum OwnerState {
    New,
    Writing {
        write: CasWrite,
        intent: Intent,
    },
    /// The message is on its way to the queue.
    Publishing,
    Waiting,
    Running(HostClaim),
    Ended,
}

#[derive(Debug, Clone)]
enum Intent {
    Queue,
    Revoke(Revocation),
}

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
    /// The future was cancelled.
    Cancelled,
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
    /// Ask this instance to end the task.
    Kill { instance: String },
    /// The task has ended. Nothing follows.
    End(OwnedEnd),
}

/// How a task ended, for its future.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnedEnd {
    /// With the result that follows its record.
    Done,
    /// It was cancelled.
    Cancelled,
    /// Its host was lost, and it has no further attempt.
    HostLost { host: String, attempts: u32 },
    /// The server has lost the record, so it is not known whether the task has begun.
    RecordLost,
    /// An earlier coordinator of the job has submitted another task in its place.
    OtherTask,
}

impl TaskOwner {
    /// A task that may be begun `attempts` times. The seed makes its nonces. With the hash of its input, it
    /// takes over the records that it finds, if they have the same.
    pub(crate) fn new(attempts: u32, input: Option<u64>, seed: u64) -> Self {
        Self {
            nonces: fastrand::Rng::with_seed(seed),
            attempt: 1,
            attempts: attempts.max(1),
            input,
            is_cancelled: false,
            seq: 0,
            state: OwnerState::New,
        }
    }

    /// The number of the current attempt.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The number of the latest record that is known. 0: none.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether it was asked to be cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }

    /// The claim that it runs under.
    pub(crate) fn claim(&self) -> Option<&HostClaim> {
        match &self.state {
            OwnerState::Running(claim) => Some(claim),
            _ => None,
        }
    }

    /// The sequence number of its `Queued` record, if its message is in the queue and no agent has claimed it.
    pub(crate) fn queued(&self) -> Option<u64> {
        matches!(self.state, OwnerState::Waiting).then_some(self.seq)
    }

    /// The nonce of the write whose outcome it waits for.
    pub(crate) fn writes(&self) -> Option<u64> {
        match &self.state {
            OwnerState::Writing { write, .. } => Some(write.record.nonce),
            _ => None,
        }
    }

    /// The sequence number of its `Queued` record, if its message is on its way into the queue.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn publishes(&self) -> Option<u64> {
        matches!(self.state, OwnerState::Publishing).then_some(self.seq)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, OwnerState::Ended)
    }

    /// Takes an event. Events that come late, or twice, have no effect.
    pub(crate) fn handle(&mut self, event: OwnerEvent) -> Vec<OwnerAction> {
        let mut actions = Vec::new();
        match event {
            OwnerEvent::Submitted if matches!(self.state, OwnerState::New) => {
                self.write(Intent::Queue, 0, &mut actions);
            }
            OwnerEvent::Submitted => {}
            OwnerEvent::Replied { nonce, reply } => self.replied(nonce, reply, &mut actions),
            OwnerEvent::Published { seq, is_known } => {
                if matches!(self.state, OwnerState::Publishing) && seq == self.seq {
                    if is_known {
                        self.state = OwnerState::Waiting;
                    } else {
                        actions.push(OwnerAction::Publish { attempt: self.attempt, seq });
                    }
                }
            }
            OwnerEvent::Observed(stored) if stored.seq > self.seq => {
                self.observed(stored, &mut actions);
            }
            OwnerEvent::Observed(_) => {}
            OwnerEvent::RecordGone => self.record_gone(&mut actions),
            OwnerEvent::MessageGone => {
                if let OwnerState::Waiting = self.state {
                    self.publish(&mut actions);
                }
            }
            OwnerEvent::InstanceLost(instance) => self.instance_lost(&instance, &mut actions),
            OwnerEvent::Cancelled => self.cancelled(&mut actions),
        }
        actions
    }

    fn write(&mut self, intent: Intent, expect: u64, actions: &mut Vec<OwnerAction>) {
        let state = match &intent {
            Intent::Queue => RecordedState::Queued,
            Intent::Revoke(why) => RecordedState::Revoked(why.clone()),
        };
        let (nonce, attempt, input) = (self.nonces.u64(..), self.attempt, self.input);
        let record = TaskRecord { nonce, attempt, input, state };
        actions.push(OwnerAction::Write { record: record.clone(), expect });
        self.state = OwnerState::Writing { write: CasWrite { record, expect }, intent };
    }

    fn publish(&mut self, actions: &mut Vec<OwnerAction>) {
        self.state = OwnerState::Publishing;
        actions.push(OwnerAction::Publish { attempt: self.attempt, seq: self.seq });
    }

    fn end(&mut self, end: OwnedEnd, actions: &mut Vec<OwnerAction>) {
        self.state = OwnerState::Ended;
        actions.push(OwnerAction::End(end));
    }

    fn replied(&mut self, nonce: u64, reply: WriteReply, actions: &mut Vec<OwnerAction>) {
        let OwnerState::Writing { write, .. } = &self.state else { return };
        if write.record.nonce != nonce {
            return;
        }
        match write.step(reply) {
            WriteStep::Send => {
                let (record, expect) = (write.record.clone(), write.expect);
                actions.push(OwnerAction::Write { record, expect });
            }
            WriteStep::Read => actions.push(OwnerAction::Read { nonce }),
            WriteStep::Won(seq) => self.won(seq, actions),
            WriteStep::Beaten(latest) => self.beaten(latest, actions),
        }
    }

    fn beaten(&mut self, latest: Option<StoredRecord>, actions: &mut Vec<OwnerAction>) {
        let OwnerState::Writing { intent, .. } = &self.state else { return };
        let intent = intent.clone();
        match latest {
            // Only after a loss at the server: it has an earlier record, or none.
            Some(stored) if self.is_earlier(&stored, &intent) => {
                self.write(intent, stored.seq, actions);
            }
            Some(stored) => self.observed(stored, actions),
            None if matches!(intent, Intent::Queue) => self.write(intent, 0, actions),
            None => self.lost(actions),
        }
    }

    /// Whether an intent is carried out although this record was not expected.
    fn is_earlier(&self, stored: &StoredRecord, intent: &Intent) -> bool {
        let is_queued = stored.record.state == RecordedState::Queued;
        let is_ours = stored.record.input == self.input;
        let adopts = matches!(intent, Intent::Queue)
            && self.input.is_some()
            && stored.record.attempt >= self.attempt;
        is_queued && is_ours && !adopts
    }

    /// The record that was to be written is the latest one.
    fn won(&mut self, seq: u64, actions: &mut Vec<OwnerAction>) {
        let OwnerState::Writing { intent, .. } = &self.state else { return };
        let intent = intent.clone();
        self.seq = seq;
        match intent {
            Intent::Queue if self.is_cancelled => {
                self.write(Intent::Revoke(Revocation::Cancelled), seq, actions);
            }
            Intent::Queue => self.publish(actions),
            Intent::Revoke(why) => self.revoked(why, actions),
        }
    }

    fn revoked(&mut self, why: Revocation, actions: &mut Vec<OwnerAction>) {
        let end = match why {
            Revocation::HostLost(host) => OwnedEnd::HostLost { host, attempts: self.attempt },
            Revocation::Cancelled => OwnedEnd::Cancelled,
        };
        self.end(end, actions);
    }

    fn observed(&mut self, stored: StoredRecord, actions: &mut Vec<OwnerAction>) {
        let StoredRecord { seq, record } = stored;
        if self.has_ended() || matches!(self.state, OwnerState::New) {
            return;
        }
        if self.writes() == Some(record.nonce) {
            return self.won(seq, actions);
        }
        if record.input != self.input {
            return self.end(OwnedEnd::OtherTask, actions);
        }
        self.attempt = self.attempt.max(record.attempt);
        match record.state {
            RecordedState::Queued => self.was_queued(seq, record.attempt, actions),
            RecordedState::Claimed(claim) => {
                self.seq = seq;
                let instance = claim.instance.clone();
                self.state = OwnerState::Running(claim);
                actions.push(OwnerAction::Began);
                if self.is_cancelled {
                    actions.push(OwnerAction::Kill { instance });
                }
            }
            RecordedState::Done => self.end(OwnedEnd::Done, actions),
            RecordedState::Revoked(why) => self.revoked(why, actions),
        }
    }

    /// The latest record that is known was written by another coordinator of the job, or is a late copy of an
    /// earlier one of this one. The message is sent, or sent again: of its copies one can be claimed.
    fn was_queued(&mut self, seq: u64, attempt: u32, actions: &mut Vec<OwnerAction>) {
        if self.input.is_none() || attempt < self.attempt {
            return;
        }
        self.seq = seq;
        if self.is_cancelled {
            self.write(Intent::Revoke(Revocation::Cancelled), seq, actions);
        } else {
            self.publish(actions);
        }
    }

    fn record_gone(&mut self, actions: &mut Vec<OwnerAction>) {
        if matches!(
            self.state,
            OwnerState::Publishing | OwnerState::Waiting | OwnerState::Running(_)
        ) {
            self.lost(actions);
        }
    }

    /// Nobody knows whether the attempt has begun, so it counts.
    fn lost(&mut self, actions: &mut Vec<OwnerAction>) {
        self.seq = 0;
        if self.is_cancelled {
            self.end(OwnedEnd::Cancelled, actions);
        } else if self.attempt < self.attempts {
            self.attempt += 1;
            self.write(Intent::Queue, 0, actions);
        } else {
            self.end(OwnedEnd::RecordLost, actions);
        }
    }

    fn instance_lost(&mut self, instance: &str, actions: &mut Vec<OwnerAction>) {
        let OwnerState::Running(claim) = &self.state else { return };
        if claim.instance != instance {
            return;
        }
        let (claim, seq) = (claim.clone(), self.seq);
        if self.is_cancelled {
            self.write(Intent::Revoke(Revocation::Cancelled), seq, actions);
        } else if self.attempt < self.attempts {
            self.attempt += 1;
            self.write(Intent::Queue, seq, actions);
        } else {
            self.write(Intent::Revoke(Revocation::HostLost(claim.host)), seq, actions);
        }
    }

    fn cancelled(&mut self, actions: &mut Vec<OwnerAction>) {
        let is_first = !std::mem::replace(&mut self.is_cancelled, true);
        match &self.state {
            OwnerState::New => self.end(OwnedEnd::Cancelled, actions),
            OwnerState::Publishing | OwnerState::Waiting if is_first => {
                let seq = self.seq;
                self.write(Intent::Revoke(Revocation::Cancelled), seq, actions);
            }
            OwnerState::Running(claim) => {
                actions.push(OwnerAction::Kill { instance: claim.instance.clone() });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A revocation may be taken by the server, and heard of only when another one was written in its place.
    #[test]
    fn a_task_that_was_lost_with_its_host_is_never_said_to_be_cancelled() {
        let mut owner = TaskOwner::new(1, None, 7);
        let record = |actions: &[OwnerAction]| match actions {
            [OwnerAction::Write { record, .. }] => record.clone(),
            other => panic!("{other:?}"),
        };
        let stored = |seq, record| OwnerEvent::Observed(StoredRecord { seq, record });
        let queued = record(&owner.handle(OwnerEvent::Submitted));
        owner.handle(stored(1, queued.clone()));
        let (instance, host) = ("i".to_owned(), "h".to_owned());
        let claim = HostClaim { instance, host, lease_ms: 1 };
        let claimed =
            TaskRecord { nonce: 1, state: RecordedState::Claimed(claim), ..queued.clone() };
        owner.handle(stored(2, claimed));
        let lost = record(&owner.handle(OwnerEvent::InstanceLost("i".to_owned())));
        // A server that has started again answers with an earlier record.
        let reply = WriteReply::Latest(Some(StoredRecord { seq: 1, record: queued }));
        let again = record(&owner.handle(OwnerEvent::Replied { nonce: lost.nonce, reply }));
        assert_ne!(again.nonce, lost.nonce);
        let end = OwnedEnd::HostLost { host: "h".to_owned(), attempts: 1 };
        assert_eq!(owner.handle(stored(3, lost)), [OwnerAction::End(end)]);
    }
}
