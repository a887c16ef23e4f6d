//! [`TaskOwner`]: the coordinator's side of one task or of a bundle, a pure state machine. Events in, actions out; the
//! simulation and the [`Cluster`](crate::Cluster) drive the same code.
//!
//! A bundle is queued once. It is revoked if a member is cancelled before a host has claimed it, or if its host is
//! lost. Then each member that may still run is queued again, as a task of its own ([`MemberFate`]).

mod moves;

pub(crate) use moves::{MemberFate, OwnedEnd, OwnerAction, OwnerEvent};

use crate::cas_write::{CasWrite, WriteReply, WriteStep};
use crate::members::Members;
use crate::task_record::{HostClaim, RecordedState, Revocation, StoredRecord, TaskRecord};

/// The coordinator's view of one task, or of a bundle.
#[derive(Debug)]
pub(crate) struct TaskOwner {
    nonces: fastrand::Rng,
    members: Members,
    /// The members without a result.
    open: Members,
    /// The members whose futures were cancelled.
    cancelled: Members,
    /// The number of the attempt that is queued or runs.
    attempt: u32,
    /// The highest number of attempts.
    attempts: u32,
    /// The hash of the task, if its records may be those of an earlier coordinator.
    input: Option<u64>,
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

impl TaskOwner {
    /// A task that may be begun `attempts` times. The seed makes its nonces. With the hash of its input, it
    /// takes over the records that it finds, if they have the same.
    pub(crate) fn new(attempts: u32, input: Option<u64>, seed: u64) -> Self {
        let (members, cancelled) = (Members::first(1), Members::default());
        Self {
            nonces: fastrand::Rng::with_seed(seed),
            members,
            open: members,
            cancelled,
            attempt: 1,
            attempts: attempts.max(1),
            input,
            seq: 0,
            state: OwnerState::New,
        }
    }

    /// The same, but its first run is this attempt.
    pub(crate) fn begins_with(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }

    /// A bundle of this number of tasks, which begin for the first time.
    pub(crate) fn of_bundle(members: usize, seed: u64) -> Self {
        let members = Members::first(members);
        Self { members, open: members, ..Self::new(1, None, seed) }
    }

    /// The number of the current attempt.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The number of the latest record that is known. 0: none.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The members without a result.
    pub(crate) fn open(&self) -> Members {
        self.open
    }

    /// The members without a result whose futures were cancelled.
    pub(crate) fn cancelled(&self) -> Members {
        self.cancelled.and(self.open)
    }

    fn is_bundle(&self) -> bool {
        self.members.len() > 1
    }

    /// Whether the futures of all members without a result were cancelled.
    fn is_cancelled(&self) -> bool {
        self.cancelled() == self.open
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

    /// Whether a member without a result ends, or is queued again, after `end`. `attempts` is the maximum number of its
    /// attempts.
    pub(crate) fn fate(&self, member: usize, end: &OwnedEnd, attempts: u32) -> MemberFate {
        if !self.is_bundle() {
            return MemberFate::Ended(end.clone());
        }
        match end {
            OwnedEnd::Done | OwnedEnd::OtherTask => MemberFate::Ended(end.clone()),
            _ if self.cancelled.has(member) => MemberFate::Ended(OwnedEnd::Cancelled),
            OwnedEnd::Cancelled => MemberFate::Again { attempt: self.attempt },
            OwnedEnd::HostLost { .. } | OwnedEnd::RecordLost if self.attempt < attempts => {
                MemberFate::Again { attempt: self.attempt + 1 }
            }
            OwnedEnd::HostLost { .. } | OwnedEnd::RecordLost => MemberFate::Ended(end.clone()),
        }
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
            OwnerEvent::Rewound { known, stored } => {
                if known == self.seq && stored.seq < known {
                    self.rewound(stored.seq, &mut actions);
                }
            }
            OwnerEvent::RecordGone => self.record_gone(&mut actions),
            OwnerEvent::MessageGone => {
                if let OwnerState::Waiting = self.state {
                    self.publish(&mut actions);
                }
            }
            OwnerEvent::InstanceLost(instance) => self.instance_lost(&instance, &mut actions),
            OwnerEvent::Cancelled(members) => self.cancel(members, &mut actions),
        }
        actions
    }

    fn write(&mut self, intent: Intent, expect: u64, actions: &mut Vec<OwnerAction>) {
        let state = match &intent {
            Intent::Queue => RecordedState::Queued,
            Intent::Revoke(why) => RecordedState::Revoked(why.clone()),
        };
        let (nonce, attempt, input) = (self.nonces.u64(..), self.attempt, self.input);
        let record = TaskRecord { nonce, attempt, input, reported: Members::default(), state };
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
            Intent::Queue if !self.cancelled().is_empty() => {
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
                let has_begun = self.claim().is_some_and(|it| it.instance == claim.instance);
                let instance = claim.instance.clone();
                self.state = OwnerState::Running(claim);
                actions.extend((!has_begun).then_some(OwnerAction::Began));
                self.reported(record.reported, actions);
                self.kill(instance, actions);
            }
            RecordedState::Done => {
                self.reported(record.reported, actions);
                self.end(OwnedEnd::Done, actions);
            }
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
        if self.is_cancelled() {
            self.write(Intent::Revoke(Revocation::Cancelled), seq, actions);
        } else {
            self.publish(actions);
        }
    }

    /// Takes the results of these members. Some of them may have come before.
    fn reported(&mut self, members: Members, actions: &mut Vec<OwnerAction>) {
        let new = members.and(self.open);
        self.open = self.open.without(new);
        let results = OwnerAction::Results { new, all: members };
        actions.extend((!new.is_empty()).then_some(results));
    }

    fn kill(&self, instance: String, actions: &mut Vec<OwnerAction>) {
        let members = self.cancelled();
        let kill = OwnerAction::Kill { instance, members };
        actions.extend((!members.is_empty()).then_some(kill));
    }

    /// The server has lost records. If one was a claim or has results, the agent will give up the task. If it was the
    /// `Queued` record, the message in the queue names a record that is gone. If the server's answer was only late, it
    /// refuses what is written now.
    fn rewound(&mut self, seq: u64, actions: &mut Vec<OwnerAction>) {
        match &self.state {
            OwnerState::Running(claim) => {
                let instance = claim.instance.clone();
                self.seq = seq;
                self.instance_lost(&instance, actions);
            }
            OwnerState::Waiting => self.write(Intent::Queue, seq, actions),
            _ => {}
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
        if self.is_cancelled() {
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
        if self.is_cancelled() && !self.is_bundle() {
            self.write(Intent::Revoke(Revocation::Cancelled), seq, actions);
        } else if self.attempt < self.attempts {
            self.attempt += 1;
            self.write(Intent::Queue, seq, actions);
        } else {
            self.write(Intent::Revoke(Revocation::HostLost(claim.host)), seq, actions);
        }
    }

    fn cancel(&mut self, members: Members, actions: &mut Vec<OwnerAction>) {
        let new = members.and(self.open).without(self.cancelled);
        self.cancelled = self.cancelled.or(new);
        match &self.state {
            OwnerState::New => self.end(OwnedEnd::Cancelled, actions),
            OwnerState::Publishing | OwnerState::Waiting if !new.is_empty() => {
                let seq = self.seq;
                self.write(Intent::Revoke(Revocation::Cancelled), seq, actions);
            }
            OwnerState::Running(claim) => self.kill(claim.instance.clone(), actions),
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
