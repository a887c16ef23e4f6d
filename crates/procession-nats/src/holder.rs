//! [`TaskHolder`]: an agent's side of one delivery of a task, a pure state machine.

use crate::cas_write::{CasWrite, WriteReply, WriteStep};
use crate::task_record::{HostClaim, RecordedState, TaskRecord};

/// An agent's view of a task that was delivered to it.
#[derive(Debug)]
pub(crate) struct TaskHolder {
    nonces: fastrand::Rng,
    attempt: u32,
    input: Option<u64>,
    is_killed: bool,
    state: HolderState,
}

#[derive(Debug)]
enum HolderState {
    Claiming(CasWrite),
    Running { claim_seq: u64 },
    Reporting(CasWrite),
    Over,
}

/// What happens to a task at an agent.
#[derive(Debug, Clone)]
pub(crate) enum HolderEvent {
    /// The answer to the write, or the read, with this nonce.
    Replied { nonce: u64, reply: WriteReply },
    /// The task has run, or was ended, and has a result.
    Ran,
    /// The coordinator asks to end it.
    Kill,
    /// The agent has not renewed its lease.
    Fenced,
}

/// What is to be done for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HolderAction {
    /// Write the record; that of a result is followed by the result.
    Write { record: TaskRecord, expect: u64 },
    /// Read the latest record; the answer has this nonce.
    Read { nonce: u64 },
    /// Acknowledge the delivery: this message is not needed any more.
    Ack,
    /// Run the task. Its result is the event [`HolderEvent::Ran`].
    Run,
    /// Do not run the task: it is cancelled. The result that says so is the event [`HolderEvent::Ran`].
    Refuse,
    /// End the task, which runs, or whose payload is on its way.
    End,
    /// Forget the task. Nothing follows.
    Forget,
}

impl TaskHolder {
    /// A delivery, whose claim expects the record with the number `queued_seq`; and its first action. `input` is
    /// in the records of the task.
    pub(crate) fn new(
        attempt: u32,
        queued_seq: u64,
        input: Option<u64>,
        claim: HostClaim,
        seed: u64,
    ) -> (Self, HolderAction) {
        let mut nonces = fastrand::Rng::with_seed(seed);
        let state = RecordedState::Claimed(claim);
        let record = TaskRecord { nonce: nonces.u64(..), attempt, input, state };
        let action = HolderAction::Write { record: record.clone(), expect: queued_seq };
        let state = HolderState::Claiming(CasWrite { record, expect: queued_seq });
        (Self { nonces, attempt, input, is_killed: false, state }, action)
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

    /// Whether it has the claim and no result yet.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, HolderState::Running { .. })
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
            HolderEvent::Ran => match self.state {
                HolderState::Running { claim_seq } => {
                    let nonce = self.nonces.u64(..);
                    let (attempt, input) = (self.attempt, self.input);
                    let record = TaskRecord { nonce, attempt, input, state: RecordedState::Done };
                    let write = CasWrite { record: record.clone(), expect: claim_seq };
                    self.state = HolderState::Reporting(write);
                    vec![HolderAction::Write { record, expect: claim_seq }]
                }
                _ => Vec::new(),
            },
            HolderEvent::Kill => {
                let is_first = !std::mem::replace(&mut self.is_killed, true);
                if is_first && self.is_running() { vec![HolderAction::End] } else { Vec::new() }
            }
            HolderEvent::Fenced => {
                let before = std::mem::replace(&mut self.state, HolderState::Over);
                match before {
                    HolderState::Running { .. } => vec![HolderAction::End, HolderAction::Forget],
                    HolderState::Over => Vec::new(),
                    _ => vec![HolderAction::Forget],
                }
            }
        }
    }

    fn replied(&mut self, nonce: u64, reply: WriteReply) -> Vec<HolderAction> {
        let (HolderState::Claiming(write) | HolderState::Reporting(write)) = &self.state else {
            return Vec::new();
        };
        let claims = matches!(self.state, HolderState::Claiming(_));
        match write.step(reply) {
            WriteStep::Send => {
                let (record, expect) = (write.record.clone(), write.expect);
                vec![HolderAction::Write { record, expect }]
            }
            WriteStep::Read => vec![HolderAction::Read { nonce }],
            WriteStep::Won(claim_seq) if claims => {
                self.state = HolderState::Running { claim_seq };
                vec![
                    HolderAction::Ack,
                    if self.is_killed { HolderAction::Refuse } else { HolderAction::Run },
                ]
            }
            WriteStep::Beaten(_) if claims => {
                self.state = HolderState::Over;
                vec![HolderAction::Ack, HolderAction::Forget]
            }
            WriteStep::Won(_) | WriteStep::Beaten(_) => {
                self.state = HolderState::Over;
                vec![HolderAction::Forget]
            }
        }
    }
}
