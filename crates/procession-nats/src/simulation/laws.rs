//! What must hold after each step, whatever happens.

use super::HostsWorld;
use crate::members::Members;
use crate::owner::{OwnedEnd, OwnerAction};
use crate::task_record::{RecordedState, Revocation, TaskRecord};

impl HostsWorld {
    /// Whether the server has taken a result of this task.
    fn has_result(&self, (owner, member): (usize, usize)) -> bool {
        let task = self.owners[owner].members[member];
        self.server.history.iter().any(|(owner, records)| {
            let member = self.owners[*owner].members.iter().position(|it| *it == task);
            member.is_some_and(|it| records.iter().any(|stored| stored.record.reported.has(it)))
        })
    }

    /// A run begins.
    pub(super) fn began(&mut self, place: (usize, usize), attempt: u32) {
        self.counts.begun += 1;
        let task = self.owners[place.0].members[place.1];
        assert!(!self.has_result(place), "task {task} begins again after its result");
        let begun = &mut self.tasks[task].begun;
        let of_attempt = begun.entry(attempt).or_default();
        *of_attempt += 1;
        assert_eq!(*of_attempt, 1, "attempt {attempt} of task {task} began twice");
        let all: u32 = begun.values().sum();
        assert!(all <= self.attempts, "task {task} began {all} times of {}", self.attempts);
    }

    /// A future is completed, in the latest coordinator or in an earlier one.
    pub(super) fn ended(&mut self, is_latest: bool, place: (usize, usize), end: OwnedEnd) {
        let (owner, task) = (place.0, self.owners[place.0].members[place.1]);
        let latest = self.server.history.get(&owner).and_then(|records| records.last());
        let state = latest.map(|latest| latest.record.state.clone());
        let is_bundle = self.owners[owner].members.len() > 1;
        assert_eq!(self.has_result(place), end == OwnedEnd::Done, "task {task}: {end:?}");
        match &end {
            OwnedEnd::Done => {
                self.counts.done += 1;
                if state == Some(RecordedState::Done) {
                    return self.ended_once(is_latest, task, end);
                }
                assert!(is_bundle, "a result without its record");
                self.counts.early += 1;
            }
            OwnedEnd::HostLost { attempts, .. } => {
                self.counts.lost += 1;
                let lost = |state| matches!(state, RecordedState::Revoked(Revocation::HostLost(_)));
                assert!(state.is_some_and(lost));
                assert_eq!(*attempts, self.attempts, "it had another attempt");
                assert!(!self.tasks[task].begun.is_empty() || self.has_claims(owner));
            }
            OwnedEnd::Cancelled => {
                self.counts.cancelled += 1;
                assert!(self.tasks[task].was_cancelled, "task {task} was never cancelled");
                match is_bundle {
                    true => assert!(matches!(state, Some(RecordedState::Revoked(_)))),
                    false => {
                        assert_eq!(state, Some(RecordedState::Revoked(Revocation::Cancelled)));
                    }
                }
            }
            OwnedEnd::RecordLost => panic!("this server loses no records"),
            OwnedEnd::OtherTask => panic!("each task has its own hash"),
        }
        self.ended_once(is_latest, task, end);
    }

    fn ended_once(&mut self, is_latest: bool, task: usize, end: OwnedEnd) {
        if is_latest {
            let before = self.tasks[task].end.replace(end);
            assert_eq!(before, None, "task {task} ended twice");
        }
    }

    fn has_claims(&self, owner: usize) -> bool {
        let records = self.server.history.get(&owner).into_iter().flatten();
        records.into_iter().any(|stored| matches!(stored.record.state, RecordedState::Claimed(_)))
    }

    /// The records of each task are a way through the picture in `task_record.rs`.
    pub(super) fn check_records(&self) {
        for (task, records) in &self.server.history {
            use RecordedState::{Claimed, Done, Queued, Revoked};
            let all = Members::first(self.owners[*task].members.len());
            let (mut before, mut reported) = (None::<&RecordedState>, Members::default());
            for TaskRecord { state, reported: now, .. } in records.iter().map(|it| &it.record) {
                let is_legal = match (before, state) {
                    (None, Queued) | (Some(Queued), Claimed(_)) => now.is_empty(),
                    (Some(Queued | Claimed(_)), Revoked(_)) => now.is_empty(),
                    (Some(Claimed(_)), Queued) => now.is_empty() && all.len() == 1,
                    // Each report has all results before it, and further ones.
                    (Some(Claimed(one)), Claimed(same)) => {
                        one.instance == same.instance
                            && reported.without(*now).is_empty()
                            && *now != reported
                            && *now != all
                    }
                    (Some(Claimed(_)), Done) => *now == all,
                    _ => false,
                };
                assert!(is_legal, "task {task}: {state:?} after {before:?}");
                (before, reported) = (Some(state), *now);
            }
            let is_claim =
                |it: &TaskRecord| matches!(it.state, Claimed(_)) && it.reported.is_empty();
            let claims = records.iter().filter(|it| is_claim(&it.record)).count();
            assert!(claims <= self.attempts as usize, "task {task} has {claims} claims");
        }
    }

    /// A run ends when it is killed.
    pub(super) fn check_kill(&self, at: usize, copy: u64) {
        let held = self.agents[at].held.iter().find(|held| held.copy == copy);
        let runs_on = held.is_some_and(|held| !held.killed.and(held.runs).is_empty());
        assert!(!runs_on, "a task was killed and runs on");
    }

    /// An agent that keeps its lease runs only tasks that it has: a task that was taken away, revoked, or done does
    /// not run.
    pub(super) fn check_claims(&self) {
        let agents = self.agents.iter().filter(|agent| !agent.is_dead && !agent.is_stopped);
        for agent in agents.filter(|it| !self.server.without_lease.contains(&it.instance)) {
            for held in agent.held.iter().filter(|held| !held.runs.is_empty()) {
                let latest = self.server.latest(held.task).map(|latest| &latest.record);
                let has_claim = latest.is_some_and(|record| match &record.state {
                    RecordedState::Claimed(claim) => {
                        let is_own = claim.instance == agent.instance;
                        let has_ended = !record.reported.and(held.runs).is_empty();
                        is_own && record.attempt == held.attempt && !has_ended
                    }
                    _ => false,
                });
                assert!(has_claim, "task {} runs without its claim: {latest:?}", held.task);
            }
        }
    }

    /// No two agents that keep their leases run the same task.
    pub(super) fn check_runs(&self) {
        let is_fine = |instance: &String| !self.server.without_lease.contains(instance);
        let agents = self.agents.iter().filter(|agent| !agent.is_dead && !agent.is_stopped);
        let held = agents.filter(|it| is_fine(&it.instance)).flat_map(|agent| &agent.held);
        let mut runs = vec![0; self.tasks.len()];
        for held in held {
            for member in held.runs.iter() {
                runs[self.owners[held.task].members[member]] += 1;
            }
        }
        assert!(runs.iter().all(|runs| *runs <= 1), "two hosts run the same task: {runs:?}");
    }
}

/// A task that was cancelled has no further attempt, and is not sent.
pub(super) fn check_attempt(task: usize, was_cancelled: bool, before: u32, action: &OwnerAction) {
    if let OwnerAction::Write { record, .. } = action
        && record.state == RecordedState::Queued
    {
        let is_new = record.attempt > before;
        assert!(!(was_cancelled && is_new), "task {task} was cancelled, and is queued again");
    }
    let is_sent = matches!(action, OwnerAction::Publish { .. });
    assert!(!(was_cancelled && is_sent), "task {task} was cancelled, and is sent");
}
