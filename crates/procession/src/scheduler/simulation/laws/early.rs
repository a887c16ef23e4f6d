//! The laws of what must not come too early: the order to end a call, the end of its process against its claim, and the
//! verdict `TimedOut`. That these do not come too late is in `laws.rs`.

use std::time::{Duration, Instant};

use super::MAX_POSTPONEMENT;
use crate::scheduler::simulation::workers::{SimulatedProcess, Viewed};
use crate::scheduler::simulation::world::World;
use crate::scheduler::{Begun, Claimed, WorkerId};

/// No worker is killed because it has not begun a call for a shorter time.
const SHORTEST_UNBEGUN: Duration = Duration::from_millis(300);

impl World {
    /// A call is ordered to end. With `allowed` its time is up.
    pub(in super::super) fn may_be_ended(
        &self,
        worker_id: WorkerId,
        seq: u64,
        allowed: Option<Duration>,
    ) -> Result<(), String> {
        let process = self.processes.get(&worker_id).ok_or("`EndCall` for no process")?;
        let mut calls = process.view.iter();
        let call = calls.find(|call| call.seq == seq).ok_or("`EndCall` for no call")?;
        // Of a cancelled call nobody needs the result: it may end sooner than its tasks might have.
        let is_cancelled = call.tasks.iter().all(|id| self.tasks[id].verdict.is_some());
        match allowed.is_some() && !is_cancelled && call.has_time_left(self.now) {
            true => Err(format!("call {seq} of {worker_id:?} was ended before its time was up")),
            false => Ok(()),
        }
    }

    /// A process ended: notes the tasks that had time left. A task that has not begun, by its claim, is charged by the
    /// number of workers that ended, whatever the time.
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
    /// Whether it could run for less than its timeout.
    fn has_time_left(&self, now: Instant) -> bool {
        match self.could_run_since.zip(self.timeout) {
            Some((since, timeout)) => now < since + timeout,
            None => true,
        }
    }

    /// Why its process must not be killed yet because of what its claim says, if it must not.
    pub(in super::super) fn must_stay(&self, claimed: Claimed, now: Instant) -> Option<String> {
        let since = self.could_run_since.unwrap_or(now);
        let waited = now.saturating_duration_since(since);
        let least = match claimed {
            Claimed::NotBegun => SHORTEST_UNBEGUN,
            // Also where it has no time left: the claim may say that it began that late.
            Claimed::RunsFor(_) | Claimed::Ended { .. } => MAX_POSTPONEMENT,
        };
        (waited < least).then(|| {
            format!("call {} could run for {waited:?}, and its claim is {claimed:?}", self.seq)
        })
    }
}
