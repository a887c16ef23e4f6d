//! The laws of what must not come too early: the order to end a call, the end of its process against its claim, and the
//! verdict `TimedOut`. That these do not come too late is in `laws.rs`.

use std::time::{Duration, Instant};

use super::MAX_POSTPONEMENT;
use crate::scheduler::simulation::workers::{SimulatedProcess, Viewed};
use crate::scheduler::simulation::world::World;
use crate::scheduler::{Begun, Claimed, WorkerId};

/// A worker that has not begun a call may be killed for that only after this time.
const SHORTEST_UNBEGUN: Duration = Duration::from_millis(300);

impl World {
    /// Whether the scheduler may order the end of a call now. With `allowed`, its reason is that the call has had its
    /// time.
    pub(in super::super) fn may_be_ended(
        &self,
        worker_id: WorkerId,
        seq: u64,
        allowed: Option<Duration>,
    ) -> Result<(), String> {
        let process = self.processes.get(&worker_id).ok_or("`EndCall` for no process")?;
        let mut calls = process.view.iter();
        let call = calls.find(|call| call.seq == seq).ok_or("`EndCall` for no call")?;
        // The tasks of a cancelled call have their verdicts, so the call may be ended before its timeout.
        let is_cancelled = call.tasks.iter().all(|id| self.tasks[id].verdict.is_some());
        match allowed.is_some() && !is_cancelled && call.has_time_left(self.now) {
            true => Err(format!("call {seq} of {worker_id:?} was ended before its time was up")),
            false => Ok(()),
        }
    }

    /// A process has ended: notes its tasks that had time left. A task that had not begun, by its claim, is not noted:
    /// it is charged by the number of workers that ended with it, not by time.
    pub(in super::super) fn note_tasks_in_time(
        &mut self,
        process: &SimulatedProcess,
        begun: &[Begun],
    ) {
        let has_begun = |call: &&Viewed| {
            begun.iter().any(|begun| begun.seq == call.seq && begun.count > call.answered)
        };
        let calls = process.view.iter().filter(has_begun);
        let in_time = calls.filter(|call| call.has_time_left(self.now));
        self.in_time = in_time.flat_map(|call| call.tasks.iter().copied()).collect();
    }

    /// An attempt of a task has ended as `TimedOut`, whether or not there will be another one.
    pub(super) fn may_have_timed_out(&self, id: u64) -> Result<(), String> {
        match self.in_time.contains(&id) && !self.tasks[&id].is_doubtful {
            true => Err(format!("task {id} ended as `TimedOut` before its time was up")),
            false => Ok(()),
        }
    }
}

impl Viewed {
    /// Whether less than its timeout has passed since it could run.
    fn has_time_left(&self, now: Instant) -> bool {
        match self.could_run_since.zip(self.timeout) {
            Some((since, timeout)) => now < since + timeout,
            None => true,
        }
    }

    /// The reason why its process must not be killed yet, by what its claim says. `None`: the process may be killed.
    pub(in super::super) fn must_stay(&self, claimed: Claimed, now: Instant) -> Option<String> {
        let since = self.could_run_since.unwrap_or(now);
        let waited = now.saturating_duration_since(since);
        let least = match claimed {
            Claimed::NotBegun => SHORTEST_UNBEGUN,
            // Also after the timeout of the call: its claim may say that the task began late.
            Claimed::RunsFor(_) | Claimed::Ended { .. } => MAX_POSTPONEMENT,
        };
        (waited < least).then(|| {
            format!("call {} could run for {waited:?}, and its claim is {claimed:?}", self.seq)
        })
    }
}
