//! The laws, checked after each step of a schedule against the simulation's own record of events.

mod early;

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::workers::{Order, SimulatedProcess, Viewed};
use super::world::{Place, World};
use crate::retries::Fault;
use crate::scheduler::{Begun, Claimed, Event, Verdict, WorkerId};

/// No claim of a worker postpones a deadline for longer.
const MAX_POSTPONEMENT: Duration = Duration::from_millis(450);
/// No worker may leave a call unbegun for longer after its deadline.
const LONGEST_UNBEGUN: Duration = Duration::from_millis(400);
/// The maximum sum of the weights of ends of workers for one attempt. A sum of 8 counts as an attempt. So the maximum is
/// 7, which is no attempt yet, and 4 for the next end.
const MOST_WEIGHT: u32 = 11;
/// Tasks behind a running one are looked at this often, as long as they were not recalled.
const STUCK_AFTER: Duration = Duration::from_millis(5);

impl World {
    /// The laws about the whole world. Those about single actions are checked where the actions are
    /// carried out.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.note_active();
        if self.ended && !self.processes.is_empty() {
            return Err("the scheduler returned `End` with processes left".to_owned());
        }
        for (worker_id, reason) in std::mem::take(&mut self.must_be_killed) {
            if self.processes.get(&worker_id).is_some_and(|process| !process.is_killed) {
                return Err(format!("{worker_id:?} was not killed: {reason}"));
            }
        }
        for (worker_id, reason) in std::mem::take(&mut self.must_stay) {
            if self.processes.get(&worker_id).is_some_and(|process| process.is_killed) {
                return Err(format!("{worker_id:?} was killed too early: {reason}"));
            }
        }
        self.no_slot_is_free_while_a_task_is_pending()?;
        self.tasks_behind_running_ones_are_looked_at()?;
        let was_ticked = std::mem::take(&mut self.was_ticked);
        self.deadlines_will_fire(was_ticked)
    }

    fn no_slot_is_free_while_a_task_is_pending(&self) -> Result<(), String> {
        let Some(id) = self.pending.first() else { return Ok(()) };
        for (worker_id, process) in &self.processes {
            let is_due_for_recycling = self.max_tasks.is_some_and(|most| process.given >= most);
            let is_free = process.view.len() < process.slots;
            if is_free
                && self.may_get_calls(*worker_id, process)
                && !is_due_for_recycling
                && !process.is_over_memory_limit
                && !self.is_over_age(process)
            {
                return Err(format!("task {id} was pending while {worker_id:?} had a free slot"));
            }
        }
        let stands_by = |(worker_id, process): &(&WorkerId, &SimulatedProcess)| {
            !self.active.contains(&worker_id.worker_index) && process.may_stay()
        };
        if let Some((worker_id, _)) = self.processes.iter().find(stands_by)
            && let Some(index) = self.active.iter().find(|index| !self.goes_on(**index))
        {
            return Err(format!(
                "task {id} was pending while {worker_id:?} stood by and worker {index} had gone"
            ));
        }
        // A process is there, or an event is due.
        let is_due = self.scheduler.wake_at().is_some() || !self.late_events.is_empty();
        match self.processes.is_empty() && !is_due {
            true => Err(format!("task {id} was pending, and nothing is due")),
            false => Ok(()),
        }
    }

    /// The scheduler finds out whether tasks have to be recalled when it wakes, so it must wake soon.
    fn tasks_behind_running_ones_are_looked_at(&self) -> Result<(), String> {
        let is_soon = |at: Instant| at <= self.now + STUCK_AFTER;
        if self.scheduler.wake_at().is_some_and(is_soon) {
            return Ok(());
        }
        for (worker_id, process) in &self.processes {
            if !self.may_get_calls(*worker_id, process) {
                continue;
            }
            let calls = process.view.iter().enumerate();
            let mut calls = calls.filter(|(_, call)| call.seq > process.recalled_through);
            // One task runs of each call that has a slot.
            let has_ahead = |(index, call): &(usize, &Viewed)| {
                call.tasks.len() > usize::from(*index < process.slots)
            };
            if let Some((_, Viewed { seq, .. })) = calls.find(has_ahead) {
                return Err(format!("nothing will recall tasks of call {seq} of {worker_id:?}"));
            }
        }
        Ok(())
    }

    /// Notes which processes can get calls from now on.
    fn note_active(&mut self) {
        let active = self.processes.iter().filter(|(worker_id, process)| {
            process.active_since.is_none() && self.may_get_calls(**worker_id, process)
        });
        let active: Vec<_> = active.map(|(worker_id, _)| *worker_id).collect();
        for worker_id in active {
            self.processes.get_mut(&worker_id).expect("just seen").active_since = Some(self.now);
        }
    }

    /// When a process reaches the age at which it is replaced.
    fn reaches_age_at(&self, process: &SimulatedProcess) -> Option<Instant> {
        Some(process.active_since? + self.max_age?)
    }

    fn is_over_age(&self, process: &SimulatedProcess) -> bool {
        self.reaches_age_at(process).is_some_and(|at| at <= self.now)
    }

    /// Whether a process is the one of its worker index that gets calls.
    fn may_get_calls(&self, worker_id: WorkerId, process: &SimulatedProcess) -> bool {
        let mut present =
            self.processes.keys().filter(|other| other.worker_index == worker_id.worker_index);
        let is_current = present.next() == Some(&worker_id);
        let is_active = self.active.contains(&worker_id.worker_index);
        is_active && is_current && process.may_stay() && process.ending.is_none()
    }

    /// Each call with a deadline is being ended, or the scheduler wakes by then. So does it for
    /// each pause.
    fn deadlines_will_fire(&self, was_ticked: bool) -> Result<(), String> {
        let wake_at = self.scheduler.wake_at();
        if let Some((until, id)) = self.paused.first()
            && wake_at.is_none_or(|at| at > *until)
        {
            return Err(format!("the pause of task {id} is missed by `wake_at`"));
        }
        for (worker_id, process) in &self.processes {
            if let Some(seq) = process.ending
                && !process.will_end_or_report(seq)
            {
                return Err(format!(
                    "nothing will come of the order to end call {seq} of {worker_id:?}"
                ));
            }
            if !self.may_get_calls(*worker_id, process) {
                continue;
            }
            if let Some(at) = self.reaches_age_at(process).filter(|at| *at > self.now)
                && wake_at.is_none_or(|wake_at| wake_at > at)
            {
                return Err(format!("the age of {worker_id:?} is missed by `wake_at`"));
            }
            let running = process.view.iter().take(process.slots);
            let Some(latest) = running.filter_map(Viewed::latest_end).min() else { continue };
            if was_ticked && latest <= self.now {
                return Err(format!("a deadline of {worker_id:?} passed without an action"));
            }
            if wake_at.is_none_or(|at| at > latest) {
                let late = wake_at.map(|at| at.saturating_duration_since(latest));
                return Err(format!(
                    "a deadline of {worker_id:?} is missed by `wake_at`: {late:?}"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn may_be_sent(&self, worker_id: WorkerId) -> Result<(), String> {
        let process = self.processes.get(&worker_id).filter(|process| process.is_ready);
        let Some(process) = process else {
            return Err(format!("a call was sent to {worker_id:?}, which is not ready"));
        };
        if !self.active.contains(&worker_id.worker_index) {
            return Err(format!("a call was sent to {worker_id:?}, which is a spare"));
        }
        if self.is_over_age(process) {
            return Err(format!("a call was sent to {worker_id:?}, which is too old"));
        }
        let first = process.view.front().filter(|_| process.view.len() >= process.slots);
        if let Some(since) = first.and_then(|call| call.could_run_since)
            && since + STUCK_AFTER < self.now
        {
            return Err(format!("a call was sent to {worker_id:?}, behind one that takes long"));
        }
        match process {
            SimulatedProcess { is_over_memory_limit: true, .. } => {
                Err("a call was sent to a worker that is to be recycled")
            }
            SimulatedProcess { is_dismissed: true, .. } => {
                Err("a call was sent to a worker that was dismissed")
            }
            SimulatedProcess { is_killed: true, .. } => {
                Err("a call was sent to a worker that was killed")
            }
            _ => Ok(()),
        }
        .map_err(str::to_owned)
    }

    pub(super) fn sent(
        &mut self,
        id: u64,
        worker_id: WorkerId,
        attempt: u32,
    ) -> Result<(), String> {
        let is_liar = self.processes.get(&worker_id).is_some_and(|process| process.is_liar);
        let before = self.put(id, Place::Sent(worker_id));
        let task = self.tasks.get_mut(&id).expect("a task that was submitted");
        if let Some(verdict) = &task.verdict {
            return Err(format!("task {id} was sent after it ended: {verdict:?}"));
        }
        if let Place::Sent(_) | Place::Done = before {
            return Err(format!("task {id} was sent while it was {before:?}"));
        }
        let is_next = task.sent == task.begun && attempt == task.begun + 1 || task.is_doubtful;
        if attempt > task.allowed || !is_next {
            return Err(format!("task {id} was sent as attempt {attempt}"));
        }
        task.sent += 1;
        task.met_liar |= is_liar;
        task.is_doubtful |= is_liar;
        if self.is_closing {
            return Err(format!("task {id} was sent though pending ones are cancelled"));
        }
        // Among tasks of equal priority, those that were sent before go first.
        let is_fresh = self.fresh.contains(&(Reverse(task.priority), id));
        if let Some((Reverse(first), before)) = self.fresh.first()
            && (task.priority < *first || is_fresh && *before != id)
        {
            return Err(format!("task {id} was sent before task {before}"));
        }
        if let Some((Reverse(first), before)) = self.returned.first()
            && is_fresh
            && *first >= task.priority
        {
            return Err(format!(
                "task {id} was sent before task {before}, which had been sent earlier"
            ));
        }
        self.fresh.remove(&(Reverse(task.priority), id));
        Ok(())
    }

    pub(super) fn begun(&mut self, id: u64) -> Result<(), String> {
        let task = self.tasks.get_mut(&id).expect("a task that was submitted");
        task.begun += 1;
        if task.begun > task.allowed && !task.is_doubtful {
            return Err(format!("task {id} was begun {} times of {}", task.begun, task.allowed));
        }
        Ok(())
    }

    /// A worker ended: notes the tasks that may be charged with that.
    pub(super) fn note_end(
        &mut self,
        process: &SimulatedProcess,
        begun: &[Begun],
    ) -> Result<(), String> {
        let slots = process.slots;
        let was_ended = process.is_killed || process.was_ended || process.ending.is_some();
        let are_alone = self.slots.iter().all(|slots| *slots == 1);
        let claimed = |call: &Viewed| {
            begun.iter().find(|begun| begun.seq == call.seq).map_or(0, |begun| begun.count)
        };
        let has_begun = process.view.iter().any(|call| claimed(call) > call.answered);
        for call in process.view.iter().take(slots) {
            let Some(task) = call.tasks.front().and_then(|id| self.tasks.get_mut(id)) else {
                continue;
            };
            let claimed = claimed(call);
            task.unclaimed += u32::from(claimed <= call.answered);
            if was_ended {
                continue;
            }
            task.ends += 1;
            // As `blame.rs` weighs it: eight are an attempt. Another call that has begun is rare where each worker has
            // one slot: this one was taken back from it, and that was not known yet.
            let weight = match claimed > call.answered {
                true => 8,
                false if has_begun => 1,
                false => 4,
            };
            // Before this end it had an attempt left.
            let is_too_heavy = task.weight > MOST_WEIGHT * task.allowed - 4;
            if (is_too_heavy && are_alone && !task.met_liar) || task.ends > 8 * task.allowed {
                let (id, ends) = (call.tasks[0], task.ends);
                return Err(format!("task {id} ended {ends} workers of {}", task.allowed));
            }
            task.weight += weight;
        }
        Ok(())
    }

    pub(super) fn taken_back(&mut self, id: u64) -> Result<(), String> {
        let task = self.tasks.get_mut(&id).expect("a task that was submitted");
        if task.begun >= task.sent && !task.is_doubtful {
            return Err(format!("task {id} had begun when it was taken back"));
        }
        task.sent -= 1;
        match self.put(id, Place::Pending) {
            Place::Sent(_) => Ok(()),
            before => Err(format!("task {id} was taken back while it was {before:?}")),
        }
    }

    pub(super) fn retried(
        &mut self,
        id: u64,
        attempt: u32,
        fault: Fault,
        until: Instant,
    ) -> Result<(), String> {
        if fault != Fault::Failure {
            self.blamed(id)?;
        }
        if fault == Fault::Timeout {
            self.may_have_timed_out(id)?;
        }
        let task = self.tasks.get_mut(&id).expect("a task that was submitted");
        if self.too_long == Some(id) && fault != Fault::Timeout && !task.is_doubtful {
            return Err(format!(
                "task {id} ran for too long and is retried after another fault: {fault:?}"
            ));
        }
        if attempt > task.allowed || self.is_closing || task.verdict.is_some() || task.is_stopping {
            return Err(format!("task {id} gets attempt {attempt}"));
        }
        self.put(id, Place::Paused(until));
        Ok(())
    }

    /// Checks that a task may be charged with an attempt: it had begun, or two workers ended that
    /// claimed it had not.
    fn blamed(&mut self, id: u64) -> Result<(), String> {
        let task = self.tasks.get_mut(&id).expect("a task that was submitted");
        let had_begun = task.begun == task.sent;
        if had_begun && !task.hides {
            return Ok(());
        }
        if task.unclaimed >= 2 {
            self.summary.blamed += 1;
            task.unclaimed = 0;
            task.begun = task.sent;
        } else if !task.is_doubtful {
            return Err(format!("task {id} was blamed and had not begun"));
        }
        Ok(())
    }

    pub(super) fn completed(&mut self, id: u64, verdict: &Verdict) -> Result<(), String> {
        match verdict {
            Verdict::Answered => self.summary.answered += 1,
            Verdict::Died { .. } => self.summary.died += 1,
            Verdict::TimedOut { .. } => self.summary.timed_out += 1,
            Verdict::Cancelled => self.summary.cancelled += 1,
            Verdict::Broken(_) => self.summary.broken += 1,
            Verdict::NotReceived { workers, .. } => {
                return Err(format!("task {id} was given up after {workers} workers"));
            }
        }
        if matches!(verdict, Verdict::Died { .. } | Verdict::TimedOut { .. }) {
            self.blamed(id)?;
        }
        if matches!(verdict, Verdict::TimedOut { .. }) {
            self.may_have_timed_out(id)?;
        }
        let task = self.tasks.get_mut(&id).expect("a task that was submitted");
        let is_certain = !task.is_doubtful;
        let is_victim = matches!(verdict, Verdict::Died { is_collateral: false, .. });
        if self.one_was_ended && is_victim && is_certain {
            return Err(format!(
                "task {id} died with a worker that was ended for a call, and is not collateral"
            ));
        }
        if self.too_long == Some(id) && matches!(verdict, Verdict::Died { .. }) && is_certain {
            return Err(format!("task {id} ran for too long and did not end as `TimedOut`"));
        }
        let priority = task.priority;
        let before = task.verdict.replace(verdict.clone());
        self.put(id, Place::Done);
        self.fresh.remove(&(Reverse(priority), id));
        match before {
            Some(before) => Err(format!("task {id} was completed twice, before: {before:?}")),
            None => Ok(()),
        }
    }
}

impl Viewed {
    /// When the scheduler must check the call at the latest, whatever the claim.
    fn latest_end(&self) -> Option<Instant> {
        let since = self.could_run_since.zip(self.timeout);
        let latest = since.map(|(since, timeout)| since + timeout + MAX_POSTPONEMENT);
        [latest, self.stop_by].into_iter().flatten().min()
    }

    /// Why a call must be ended against its claim, if it must.
    pub(super) fn must_end(&self, claimed: Claimed, now: Instant) -> Option<String> {
        let waited = now.saturating_duration_since(self.could_run_since?);
        if claimed == Claimed::NotBegun && waited >= LONGEST_UNBEGUN {
            return Some(format!("call {} has not begun for {waited:?}", self.seq));
        }
        let timeout = self.timeout?;
        let is_late = waited >= timeout + MAX_POSTPONEMENT;
        is_late.then(|| format!("call {} of {timeout:?} could run for {waited:?}", self.seq))
    }
}

impl SimulatedProcess {
    /// Whether the process ends, or `NotEnded` is reported, after the order to end a call.
    fn will_end_or_report(&self, seq: u64) -> bool {
        let is_ordered = |order: &Order| matches!(order, Order::End { seq: of, .. } if *of == seq);
        let is_reported =
            |event: &Event<u64>| matches!(event, Event::NotEnded { seq: of, .. } if *of == seq);
        self.is_killed
            || self.is_dead
            || self.orders.iter().any(is_ordered)
            || self.reports.iter().any(is_reported)
    }
}
