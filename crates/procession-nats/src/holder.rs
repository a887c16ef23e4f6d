//! [`TaskHolder`]: an agent's side of one delivery of a task or a bundle, a pure state machine.

use crate::cas_write::{CasWrite, WriteReply, WriteStep};
use crate::members::Members;
use crate::task_record::{HostClaim, RecordedState, TaskRecord};

/// An agent's view of a task, or of a bundle of tasks, that was delivered to it.
#[derive(Debug)]
pub(crate) struct TaskHolder {
    nonces: fastrand::Rng,
    attempt: u32,
    input: Option<u64>,
    claim: HostClaim,
    members: Members,
    /// The members that have results.
    finished: Members,
    killed: Members,
    state: HolderState,
}

#[derive(Debug)]
enum HolderState {
    Claiming(CasWrite),
    /// The agent has the claim. `seq` is the number of its latest record: that of the claim, or of a report of results.
    Running {
        seq: u64,
    },
    Reporting(CasWrite),
    Over,
}

/// What happens to a task at an agent.
#[derive(Debug, Clone)]
pub(crate) enum HolderEvent {
    /// The answer to the write, or the read, with this nonce.
    Replied { nonce: u64, reply: WriteReply },
    /// These members have run, or were ended, and have results.
    Ran(Members),
    /// The coordinator asks to end these members.
    Kill(Members),
    /// The agent has not renewed its lease.
    Fenced,
}

/// What is to be done for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HolderAction {
    /// Write the record; it is followed by the results that it reports.
    Write { record: TaskRecord, expect: u64 },
    /// Read the latest record; the answer has this nonce.
    Read { nonce: u64 },
    /// Acknowledge the delivery: this message is not needed any more.
    Ack,
    /// Run these members. Their results are the event [`HolderEvent::Ran`].
    Run(Members),
    /// Do not run these members: they are cancelled. The results that say so are the event [`HolderEvent::Ran`].
    Refuse(Members),
    /// End these members, which run, or whose payload is being fetched.
    End(Members),
    /// Forget the task. Nothing follows.
    Forget,
}

impl TaskHolder {
    /// A delivery, whose claim expects the record with the number `queued_seq`; and its first action. `input` is
    /// in the records of the task.
    pub(crate) fn new(
        attempt: u32,
        queued_seq: u64,
        members: Members,
        input: Option<u64>,
        claim: HostClaim,
        seed: u64,
    ) -> (Self, HolderAction) {
        let mut nonces = fastrand::Rng::with_seed(seed);
        let state = RecordedState::Claimed(claim.clone());
        let (nonce, reported) = (nonces.u64(..), Members::default());
        let record = TaskRecord { nonce, attempt, input, reported, state };
        let action = HolderAction::Write { record: record.clone(), expect: queued_seq };
        let state = HolderState::Claiming(CasWrite { record, expect: queued_seq });
        let (finished, killed) = (Members::default(), Members::default());
        (Self { nonces, attempt, input, claim, members, finished, killed, state }, action)
    }

    /// The nonce of the write whose outcome it waits for.
    pub(crate) fn writes(&self) -> Option<u64> {
        match &self.state {
            HolderState::Claiming(write) | HolderState::Reporting(write) => {
                Some(write.record.nonce)
            }
            _ => None,
        }
    }

    /// The members that run.
    pub(crate) fn unfinished(&self) -> Members {
        match self.state {
            HolderState::Running { .. } | HolderState::Reporting(_) => {
                self.members.without(self.finished)
            }
            HolderState::Claiming(_) | HolderState::Over => Members::default(),
        }
    }

    /// Whether nothing follows.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, HolderState::Over)
    }

    /// Takes an event. Events that come late, or twice, have no effect.
    pub(crate) fn handle(&mut self, event: HolderEvent) -> Vec<HolderAction> {
        match event {
            HolderEvent::Replied { nonce, reply } if self.writes() == Some(nonce) => {
                self.replied(nonce, reply)
            }
            HolderEvent::Replied { .. } => Vec::new(),
            HolderEvent::Ran(members) => {
                let new = members.and(self.unfinished());
                self.finished = self.finished.or(new);
                if new.is_empty() { Vec::new() } else { self.report() }
            }
            HolderEvent::Kill(members) => {
                let new = members.without(self.killed);
                self.killed = self.killed.or(new);
                end_of(new.and(self.unfinished()))
            }
            HolderEvent::Fenced => {
                let over = self.is_over();
                self.give_up(if over { &[] } else { &[HolderAction::Forget] })
            }
        }
    }

    /// Ends the members that run.
    fn give_up(&mut self, then: &[HolderAction]) -> Vec<HolderAction> {
        let mut actions = end_of(self.unfinished());
        self.state = HolderState::Over;
        actions.extend_from_slice(then);
        actions
    }

    /// Writes a record of all results, unless another write is on its way.
    fn report(&mut self) -> Vec<HolderAction> {
        let HolderState::Running { seq } = self.state else { return Vec::new() };
        let state = match self.finished == self.members {
            true => RecordedState::Done,
            false => RecordedState::Claimed(self.claim.clone()),
        };
        let (nonce, attempt, input) = (self.nonces.u64(..), self.attempt, self.input);
        let record = TaskRecord { nonce, attempt, input, reported: self.finished, state };
        self.state = HolderState::Reporting(CasWrite { record: record.clone(), expect: seq });
        vec![HolderAction::Write { record, expect: seq }]
    }

    fn replied(&mut self, nonce: u64, reply: WriteReply) -> Vec<HolderAction> {
        let (HolderState::Claiming(write) | HolderState::Reporting(write)) = &self.state else {
            return Vec::new();
        };
        let claims = matches!(self.state, HolderState::Claiming(_));
        let (reported, is_done) =
            (write.record.reported, write.record.state == RecordedState::Done);
        match write.step(reply) {
            WriteStep::Send => {
                let (record, expect) = (write.record.clone(), write.expect);
                vec![HolderAction::Write { record, expect }]
            }
            WriteStep::Read => vec![HolderAction::Read { nonce }],
            WriteStep::Won(seq) if claims => {
                self.state = HolderState::Running { seq };
                let (refused, run) =
                    (self.killed.and(self.members), self.members.without(self.killed));
                let mut actions = vec![HolderAction::Ack];
                actions.extend((!refused.is_empty()).then_some(HolderAction::Refuse(refused)));
                actions.extend((!run.is_empty()).then_some(HolderAction::Run(run)));
                actions
            }
            WriteStep::Beaten(_) if claims => {
                self.state = HolderState::Over;
                vec![HolderAction::Ack, HolderAction::Forget]
            }
            WriteStep::Won(seq) if !is_done => {
                self.state = HolderState::Running { seq };
                if self.finished == reported { Vec::new() } else { self.report() }
            }
            WriteStep::Won(_) | WriteStep::Beaten(_) => self.give_up(&[HolderAction::Forget]),
        }
    }
}

fn end_of(members: Members) -> Vec<HolderAction> {
    if members.is_empty() { Vec::new() } else { vec![HolderAction::End(members)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_of_a_bundle_is_ended_when_it_was_taken_away() {
        let (instance, host) = ("i".to_owned(), "h".to_owned());
        let claim = HostClaim { instance, host, lease_ms: 1 };
        let (mut holder, _) = TaskHolder::new(1, 4, Members::first(3), None, claim, 7);
        let reply = |holder: &TaskHolder, reply| HolderEvent::Replied {
            nonce: holder.writes().expect("a write"),
            reply,
        };
        let won = reply(&holder, WriteReply::Taken(5));
        let run = HolderAction::Run(Members::first(3));
        assert_eq!(holder.handle(won), [HolderAction::Ack, run]);
        let written = holder.handle(HolderEvent::Ran(Members::one(1)));
        let [HolderAction::Write { record, expect: 5 }] = &written[..] else {
            panic!("{written:?}");
        };
        assert_eq!(record.reported, Members::one(1));
        // The second result waits for the answer to the first one.
        assert!(holder.handle(HolderEvent::Ran(Members::one(0))).is_empty());
        let refused = reply(&holder, WriteReply::Refused);
        assert!(matches!(holder.handle(refused)[..], [HolderAction::Read { .. }]));
        let gone = reply(&holder, WriteReply::Latest(None));
        let end = HolderAction::End(Members::one(2));
        assert_eq!(holder.handle(gone), [end, HolderAction::Forget]);
        assert!(holder.is_over());
    }
}
