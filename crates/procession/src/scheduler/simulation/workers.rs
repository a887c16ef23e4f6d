//! A simulated worker process, the memory that it shares with the coordinator, and what the
//! coordinator's threads and the scheduler know of it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::world::SimTask;
use crate::scheduler::{Begun, Claimed, Event, WorkerId};

/// A worker process, with the calls and orders for it.
#[derive(Default)]
pub(super) struct SimulatedProcess {
    pub is_ready: bool,
    pub is_killed: bool,
    pub is_dismissed: bool,
    /// It was ended because of a call.
    pub was_ended: bool,
    /// The number of tasks that it runs at a time.
    pub slots: usize,
    /// The task that had run for too long, for which it was ended.
    pub too_long: Option<u64>,
    /// The scheduler knows that the process uses too much memory, or is unfit for further tasks.
    pub is_over_memory_limit: bool,
    /// Since when it could get calls.
    pub active_since: Option<Instant>,
    /// It has exited. The scheduler does not know that yet, and may still send it calls.
    pub is_dead: bool,
    /// It is suspended: it begins no tasks and answers none.
    pub is_stopped: bool,
    /// Its claims are random.
    pub is_liar: bool,
    /// Calls that were not written into the memory yet.
    pub outbox: VecDeque<SimulatedCall>,
    /// The number of calls for which the memory has room.
    pub room: usize,
    /// Calls that it has not begun.
    pub calls: VecDeque<SimulatedCall>,
    pub running: Vec<SimulatedCall>,
    /// Its calls as the coordinator's threads know them, by `seq`.
    pub claims: BTreeMap<u64, ClaimedCall>,
    /// Its calls as the scheduler knows them.
    pub view: VecDeque<Viewed>,
    /// The number of tasks that it was sent and has not returned, as the scheduler knows it.
    pub given: u64,
    /// The last call of which tasks were recalled.
    pub recalled_through: u64,
    /// The call that the scheduler has ordered to end.
    pub ending: Option<u64>,
    /// Actions that the coordinator's threads have not carried out yet.
    pub orders: Vec<Order>,
    /// Events from these actions that the scheduler has not handled yet.
    pub reports: Vec<Event<u64>>,
    /// Replies that the coordinator has not read yet; they outlive the process.
    pub replies: VecDeque<SimulatedReply>,
    /// Replies behind one that did not fit its call.
    pub lost: Vec<SimulatedReply>,
}

/// A call in the memory, or at work.
pub(super) struct SimulatedCall {
    pub seq: u64,
    /// The tasks that have not ended, in order. Of a running call, the first one runs.
    pub tasks: VecDeque<u64>,
    /// The number of tasks that have begun.
    pub begun: u32,
}

/// A call as the coordinator's threads know it.
pub(super) struct ClaimedCall {
    /// The tasks that are not answered.
    pub tasks: VecDeque<u64>,
    pub count: u32,
    pub answered: u32,
}

/// A call as the scheduler sees it.
pub(super) struct Viewed {
    pub seq: u64,
    /// The tasks that are not answered.
    pub tasks: VecDeque<u64>,
    pub answered: u32,
    pub timeout: Option<Duration>,
    /// When it is ended, because it was asked to stop.
    pub stop_by: Option<Instant>,
    /// When a slot was free for it, by the coordinator's clock.
    pub could_run_since: Option<Instant>,
}

pub(super) struct SimulatedReply {
    pub seq: u64,
    pub task: u64,
}

pub(super) enum Order {
    Recall { from: u64, through: u64 },
    End { seq: u64, allowed: Option<Duration> },
    Stop { seq: u64 },
}

impl SimulatedProcess {
    /// Writes calls into the memory. False if there is no room for the next one.
    pub(super) fn write(&mut self) -> bool {
        while self.calls.len() < self.room
            && let Some(call) = self.outbox.pop_front()
        {
            let count = call.tasks.len() as u32;
            let claimed_call = ClaimedCall { tasks: call.tasks.clone(), count, answered: 0 };
            self.claims.insert(call.seq, claimed_call);
            self.calls.push_back(call);
        }
        self.outbox.is_empty()
    }

    /// Whether it is ready and is not to end.
    pub(super) fn may_stay(&self) -> bool {
        self.is_ready && !(self.is_killed || self.is_dismissed)
    }

    fn is_at_work(&self) -> bool {
        !(self.is_dead || self.is_stopped)
    }

    /// Begins a call, and returns its first task.
    pub(super) fn begin_one(&mut self) -> Option<u64> {
        if !self.is_at_work() || self.running.len() >= self.slots {
            return None;
        }
        let mut call = self.calls.pop_front()?;
        call.begun = 1;
        let first = call.tasks.front().copied();
        self.running.push(call);
        first
    }

    /// Ends a running task, and returns the next one of its call, which begins.
    pub(super) fn finish_one(
        &mut self,
        rng: &mut Rng,
        tasks: &BTreeMap<u64, SimTask>,
    ) -> Option<u64> {
        if !self.is_at_work() || self.running.is_empty() {
            return None;
        }
        let index = rng.usize(0..self.running.len());
        let call = &mut self.running[index];
        let first = &tasks[call.tasks.front()?];
        if first.hangs {
            return None;
        }
        if first.hides {
            self.is_dead = true;
            return None;
        }
        let task = call.tasks.pop_front()?;
        self.replies.push_back(SimulatedReply { seq: call.seq, task });
        let next = call.tasks.front().copied();
        match next {
            Some(_) => call.begun += 1,
            None => drop(self.running.swap_remove(index)),
        }
        next
    }

    /// The task of a reply, as the coordinator's threads know it. `None` if the reply does not fit
    /// its call.
    pub(super) fn answered(&mut self, reply: &SimulatedReply) -> Option<u64> {
        let call = self.claims.get_mut(&reply.seq)?;
        let task = *call.tasks.front().filter(|task| **task == reply.task)?;
        call.tasks.pop_front();
        call.answered += 1;
        if call.tasks.is_empty() {
            self.claims.remove(&reply.seq);
        }
        Some(task)
    }

    /// The number of tasks of a call that have begun, by its claim, and whether that is true.
    fn claimed(&self, seq: u64, rng: &mut Rng, tasks: &BTreeMap<u64, SimTask>) -> (u32, bool) {
        let running = self.running.iter().find(|call| call.seq == seq);
        let replies = self.replies.iter().chain(&self.lost);
        let unread = replies.filter(|reply| reply.seq == seq).count() as u32;
        let answered = self.claims.get(&seq).map_or(0, |call| call.answered);
        let truth = running.map_or(answered + unread, |call| call.begun);
        let hides = running.and_then(|call| call.tasks.front()).is_some_and(|id| tasks[id].hides);
        match (self.is_liar && rng.u8(0..3) > 0, hides) {
            (true, _) => (*rng.choice(&[0, 0, 1, 2, 7, 1 << 20]).expect("six"), false),
            (false, true) => (0, false),
            (false, false) => (truth, true),
        }
    }

    /// After its exit: the calls that had begun and were not answered, by their claims.
    pub(super) fn begun(
        &self,
        rng: &mut Rng,
        tasks: &BTreeMap<u64, SimTask>,
        lies: &mut u64,
    ) -> Vec<Begun> {
        let mut begun = Vec::new();
        for &seq in self.claims.keys() {
            let (count, is_true) = self.claimed(seq, rng, tasks);
            *lies += u64::from(!is_true);
            let longest = if is_true { 50_000 } else { u64::MAX / 2 };
            let ran_for = Duration::from_micros(rng.u64(0..longest));
            begun.extend((count > 0).then_some(Begun { seq, count, ran_for }));
        }
        begun
    }

    /// The coordinator's threads carry out an action, in any order.
    pub(super) fn carry_out_one(
        &mut self,
        worker_id: WorkerId,
        rng: &mut Rng,
        tasks: &BTreeMap<u64, SimTask>,
        lies: &mut u64,
    ) {
        match self.orders.swap_remove(rng.usize(0..self.orders.len())) {
            Order::Recall { from, through } => {
                self.take_back(worker_id, from..=through, rng, tasks)
            }
            Order::Stop { seq } => {
                self.take_back(worker_id, seq..=seq, rng, tasks);
                let is_it = |call: &SimulatedCall| call.seq == seq && rng.bool();
                let index = self.running.iter().position(is_it).filter(|_| self.is_at_work());
                if let Some(index) = index {
                    // It returns what it has.
                    let task = self.running.swap_remove(index).tasks[0];
                    self.replies.push_back(SimulatedReply { seq, task });
                }
            }
            Order::End { seq, allowed } => {
                let claimed = self.end(worker_id, seq, allowed, rng, tasks, lies);
                self.reports.extend(claimed.map(|claimed| Event::NotEnded {
                    worker_id,
                    seq,
                    claimed,
                }));
            }
        }
    }

    /// Ends the process because of a call, or returns why not.
    fn end(
        &mut self,
        worker_id: WorkerId,
        seq: u64,
        allowed: Option<Duration>,
        rng: &mut Rng,
        tasks: &BTreeMap<u64, SimTask>,
        lies: &mut u64,
    ) -> Option<Claimed> {
        let is_being_read = !self.replies.is_empty();
        if !self.claims.contains_key(&seq) && !self.outbox.iter().any(|call| call.seq == seq) {
            return Some(Claimed::Ended { is_being_read: true });
        }
        let index = self.running.iter().position(|running| running.seq == seq);
        let hides = index.is_some_and(|index| tasks[&self.running[index].tasks[0]].hides);
        if hides || self.is_liar && rng.u8(0..4) > 0 {
            *lies += 1;
            let claimed = match (rng.u8(0..3), allowed) {
                (1, Some(allowed)) if !hides => Claimed::RunsFor(allowed.mul_f64(rng.f64())),
                (2, _) if !hides => Claimed::Ended { is_being_read },
                _ => Claimed::NotBegun,
            };
            if claimed == Claimed::NotBegun && allowed.is_none() {
                self.take_back(worker_id, seq..=seq, rng, tasks);
            }
            return Some(claimed);
        }
        match (index, allowed) {
            // It may have begun later than the coordinator knows,
            (Some(_), Some(allowed)) if rng.u8(0..3) == 0 => Some(Claimed::RunsFor(allowed / 2)),
            // or it ends while the calls behind it are taken back.
            (Some(index), _)
                if !tasks[&self.running[index].tasks[0]].hangs
                    && self.is_at_work()
                    && rng.u8(0..4) == 0 =>
            {
                self.take_back(worker_id, 0..=u64::MAX, rng, tasks);
                let task = self.running.swap_remove(index).tasks[0];
                self.replies.push_back(SimulatedReply { seq, task });
                Some(Claimed::Ended { is_being_read: true })
            }
            (Some(index), allowed) => {
                self.is_dead = true;
                self.was_ended = true;
                self.too_long = allowed.map(|_| self.running[index].tasks[0]);
                None
            }
            (None, _) if self.replies.iter().any(|reply| reply.seq == seq) => {
                Some(Claimed::Ended { is_being_read: true })
            }
            (None, allowed) => {
                if allowed.is_none() {
                    self.take_back(worker_id, seq..=seq, rng, tasks);
                }
                Some(Claimed::NotBegun)
            }
        }
    }

    /// Takes back the tasks of these calls that have not begun, by their claims.
    fn take_back(
        &mut self,
        worker_id: WorkerId,
        seqs: RangeInclusive<u64>,
        rng: &mut Rng,
        tasks: &BTreeMap<u64, SimTask>,
    ) {
        let mut back = Vec::new();
        let meant: Vec<_> = self.claims.range(seqs.clone()).map(|(seq, _)| *seq).collect();
        for seq in meant {
            let (count, is_true) = self.claimed(seq, rng, tasks);
            let call = self.claims.get_mut(&seq).expect("just seen");
            if count < call.count {
                call.count = count.max(call.answered);
                call.tasks.truncate((call.count - call.answered) as usize);
                back.push(Begun { seq, count, ran_for: Duration::ZERO });
                if call.tasks.is_empty() {
                    self.claims.remove(&seq);
                }
            }
            self.revoke(seq, is_true);
        }
        self.outbox.retain(|call| {
            let is_meant = seqs.contains(&call.seq);
            let ran_for = Duration::ZERO;
            back.extend(is_meant.then_some(Begun { seq: call.seq, count: 0, ran_for }));
            !is_meant
        });
        if !back.is_empty() {
            self.reports.push(Event::Returned { worker_id, calls: back });
        }
    }

    /// A worker with true claims begins no task that was taken back.
    fn revoke(&mut self, seq: u64, is_true: bool) {
        if is_true {
            self.calls.retain(|call| call.seq != seq);
            // The first one runs, the others are behind it.
            for call in self.running.iter_mut().filter(|call| call.seq == seq) {
                call.tasks.truncate(1);
            }
        }
    }
}
