//! What must hold after each step, whatever happens.

use super::HostsWorld;
use crate::owner::{OwnedEnd, OwnerAction};
use crate::task_record::{RecordedState, Revocation};

impl HostsWorld {
    /// A run begins.
    pub(super) fn began(&mut self, task: usize, attempt: u32) {
        self.counts.begun += 1;
        let owned = &mut self.owners[task];
        let records = self.server.history.get(&task).into_iter().flatten();
        assert!(
            records.into_iter().all(|stored| stored.record.state != RecordedState::Done),
            "task {task} begins again after its result"
        );
        let begun = owned.begun.entry(attempt).or_default();
        *begun += 1;
        assert_eq!(*begun, 1, "attempt {attempt} of task {task} began twice");
        let all: u32 = owned.begun.values().sum();
        assert!(all <= self.attempts, "task {task} began {all} times of {}", self.attempts);
    }

    /// A future is completed, in the latest coordinator or in an earlier one.
    pub(super) fn ended(&mut self, is_latest: bool, task: usize, end: OwnedEnd) {
        let latest = self.server.history.get(&task).and_then(|records| records.last());
        let state = latest.map(|latest| latest.record.state.clone());
        match &end {
            OwnedEnd::Done => {
                self.counts.done += 1;
                assert_eq!(state, Some(RecordedState::Done), "a result without its record");
            }
            OwnedEnd::HostLost { attempts, .. } => {
                self.counts.lost += 1;
                let lost = |state| matches!(state, RecordedState::Revoked(Revocation::HostLost(_)));
                assert!(state.is_some_and(lost));
                assert_eq!(*attempts, self.attempts, "it had another attempt");
                assert!(!self.owners[task].begun.is_empty() || self.has_claims(task));
            }
            OwnedEnd::Cancelled => {
                self.counts.cancelled += 1;
                assert!(self.owners[task].was_cancelled, "nobody cancelled task {task}");
                assert_eq!(state, Some(RecordedState::Revoked(Revocation::Cancelled)));
            }
            OwnedEnd::RecordLost => panic!("this server loses no records"),
            OwnedEnd::OtherTask => panic!("each task has its own hash"),
        }
        if !is_latest {
            return;
        }
        let before = self.owners[task].end.replace(end);
        assert_eq!(before, None, "task {task} ended twice");
    }

    fn has_claims(&self, task: usize) -> bool {
        let records = self.server.history.get(&task).into_iter().flatten();
        records.into_iter().any(|stored| matches!(stored.record.state, RecordedState::Claimed(_)))
    }

    /// The records of each task are a way through the picture in `task_record.rs`.
    pub(super) fn check_records(&self) {
        for (task, records) in &self.server.history {
            let mut before: Option<&RecordedState> = None;
            for stored in records {
                use RecordedState::{Claimed, Done, Queued, Revoked};
                let state = &stored.record.state;
                let is_legal = matches!(
                    (before, state),
                    (None, Queued)
                        | (Some(Queued), Claimed(_) | Revoked(_))
                        | (Some(Claimed(_)), Done | Revoked(_) | Queued)
                );
                assert!(is_legal, "task {task}: {state:?} after {before:?}");
                before = Some(state);
            }
            let claims = records.iter().filter(|it| matches!(it.record.state, Claimed(_))).count();
            use RecordedState::Claimed;
            assert!(claims <= self.attempts as usize, "task {task} has {claims} claims");
        }
    }

    /// A run ends when it is killed.
    pub(super) fn check_kill(&self, at: usize, copy: u64) {
        let held = self.agents[at].held.iter().find(|held| held.copy == copy);
        let runs_on = held.is_some_and(|held| held.was_killed && held.runs);
        assert!(!runs_on, "a task was killed and runs on");
    }

    /// An agent that keeps its lease runs only tasks that it has: a task that was taken away, revoked, or done does
    /// not run.
    pub(super) fn check_claims(&self) {
        let agents = self.agents.iter().filter(|agent| !agent.is_dead && !agent.is_stopped);
        for agent in agents.filter(|it| !self.server.without_lease.contains(&it.instance)) {
            for held in agent.held.iter().filter(|held| held.runs) {
                let latest = self.server.latest(held.task).map(|latest| &latest.record);
                let has_claim = latest.is_some_and(|record| match &record.state {
                    RecordedState::Claimed(claim) => {
                        claim.instance == agent.instance && record.attempt == held.attempt
                    }
                    _ => false,
                });
                assert!(has_claim, "task {} runs without its claim: {latest:?}", held.task);
            }
        }
    }

    /// No two agents that keep their leases run the same task.
    pub(super) fn check_runs(&self) {
        for task in 0..self.owners.len() {
            let is_fine = |instance: &String| !self.server.without_lease.contains(instance);
            let agents = self.agents.iter().filter(|agent| !agent.is_dead && !agent.is_stopped);
            let runs = agents
                .filter(|agent| is_fine(&agent.instance))
                .flat_map(|agent| &agent.held)
                .filter(|held| held.task == task && held.runs)
                .count();
            assert!(runs <= 1, "task {task} runs {runs} times at the same time");
        }
    }
}

/// A task that was cancelled has no further attempt.
pub(super) fn check_attempt(task: usize, was_cancelled: bool, before: u32, action: &OwnerAction) {
    if let OwnerAction::Write { record, .. } = action
        && record.state == RecordedState::Queued
    {
        let is_new = record.attempt > before;
        assert!(!(was_cancelled && is_new), "task {task} was cancelled, and is queued again");
    }
}
