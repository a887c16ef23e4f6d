//! One seat: the process on it, the calls that it has, and its successor, if it is about to be
//! replaced.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::messages::{Begun, Claimed, WorkerId, WorkerIndex};
use crate::task::TaskId;

/// The time after this long; a century counts as never, so that no sum overflows.
pub(crate) fn later(now: Instant, duration: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now + duration.min(NEVER)
}

#[derive(Debug)]
pub(crate) struct WorkerState {
    worker_index: WorkerIndex,
    /// How many tasks the worker runs at a time.
    pub slots: usize,
    /// The same for a worker that has started all its threads.
    most_slots: usize,
    /// The generation that was given out last.
    generations: u64,
    /// The generation of the process that is here, or was last.
    pub present: u64,
    pub stage: Stage,
    /// Calls without an answer, in the order of their turns.
    pub calls: VecDeque<Sent>,
    /// The bytes of their texts.
    pub bytes: usize,
    /// Turns given out to this process.
    pub seqs: u64,
    /// Tasks that it was given and has not returned.
    pub given: u64,
    /// The turn up to which calls were recalled.
    pub recalled: u64,
    /// It uses more memory than it may.
    pub is_over_memory_limit: bool,
    /// It has answered a task.
    pub has_answered: bool,
    /// It says that it is in no state to run further tasks.
    pub is_unfit: bool,
    /// Since when it has had nothing to do.
    pub idle_since: Instant,
    /// The call that is to be ended, together with the process.
    pub ending: Option<EndedCall>,
    /// The process that will take this one's place; it gets no task before.
    pub successor: Option<Successor>,
    /// Its successor could not start; the next one is called when this one is gone.
    pub has_no_successor: bool,
}

/// A call on its way to a worker, or at work there.
#[derive(Debug)]
pub(crate) struct Sent {
    pub id: TaskId,
    pub seq: u64,
    /// How many tasks it consists of, and how many of them are answered.
    pub items: u32,
    pub answered: u32,
    pub bytes: usize,
    pub timeout: Option<Duration>,
    /// Since when it runs, as far as can be told from here: one of the worker's slots was free
    /// for it from then on.
    pub since: Option<Instant>,
    /// Since when it could run by the coordinator's own clock, whatever the worker claims.
    pub could_run_since: Option<Instant>,
}

impl Sent {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        Some(later(self.since?, self.timeout?))
    }

    /// It runs, or could, from this time on.
    fn begins(&mut self, now: Instant) {
        self.since = Some(now);
        self.could_run_since = Some(now);
    }

    /// How many of its tasks have no answer.
    pub(crate) fn left(&self) -> u32 {
        self.items.saturating_sub(self.answered)
    }
}

/// What follows from the claim of a call that was not ended though its time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Respite {
    /// It is looked at again later.
    Granted,
    /// The worker does not begin the call.
    Stalled,
    /// The call has had its time and [`STALLED`] by the coordinator's clock.
    OverDue,
}

/// A worker that does not begin a call with a deadline for this long is of no use: it is stopped,
/// or the machine is in great trouble. No claim of a worker can put off a deadline for longer.
pub(crate) const STALLED: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No process; and none comes before this time, if there is one.
    Vacant {
        until: Option<Instant>,
    },
    Starting {
        until: Instant,
    },
    Ready,
    /// Told to leave, to be killed if it has not by then.
    Leaving {
        until: Instant,
    },
    /// Killed, and not gone yet.
    Killed {
        at: Instant,
        why: EndReason,
    },
    /// No process, for good.
    Closed,
}

/// Why the pool killed a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    TimedOut,
    Cancelled,
    Unneeded,
    /// It does not begin what it has.
    Stalled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndedCall {
    pub seq: u64,
    /// When that was decided.
    pub at: Instant,
    pub why: EndReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Successor {
    pub generation: u64,
    pub stage: Stage,
    pub slots: usize,
}

impl WorkerState {
    pub(crate) fn new(worker_index: WorkerIndex, slots: usize, now: Instant) -> Self {
        Self {
            worker_index,
            slots,
            most_slots: slots,
            generations: 0,
            present: 0,
            stage: Stage::Vacant { until: None },
            calls: VecDeque::new(),
            bytes: 0,
            seqs: 0,
            given: 0,
            recalled: 0,
            is_over_memory_limit: false,
            has_answered: false,
            is_unfit: false,
            idle_since: now,
            ending: None,
            successor: None,
            has_no_successor: false,
        }
    }

    pub(crate) fn worker_id(&self) -> WorkerId {
        WorkerId { worker_index: self.worker_index, generation: self.present }
    }

    /// Whether there is a process on the seat, whatever it does.
    pub(crate) fn is_occupied(&self) -> bool {
        !matches!(self.stage, Stage::Vacant { .. } | Stage::Closed)
    }

    /// Whether there is a process that is neither leaving nor killed.
    pub(crate) fn is_staying(&self) -> bool {
        matches!(self.stage, Stage::Starting { .. } | Stage::Ready)
    }

    /// Whether this is the process that sits here now.
    pub(crate) fn is_present(&self, worker_id: WorkerId) -> bool {
        self.present == worker_id.generation && self.is_occupied()
    }

    pub(crate) fn is_successor(&self, worker_id: WorkerId) -> bool {
        self.successor.is_some_and(|successor| successor.generation == worker_id.generation)
    }

    fn next_tenant(&mut self) -> WorkerId {
        self.generations += 1;
        WorkerId { worker_index: self.worker_index, generation: self.generations }
    }

    /// A process that is starting can run fewer tasks at a time than was asked for.
    pub(crate) fn narrow(&mut self, worker_id: WorkerId, slots: usize) {
        let slots = slots.clamp(1, self.most_slots);
        if self.is_present(worker_id) && matches!(self.stage, Stage::Starting { .. }) {
            self.slots = slots;
        } else if let Some(successor) = &mut self.successor
            && successor.generation == worker_id.generation
            && matches!(successor.stage, Stage::Starting { .. })
        {
            successor.slots = slots;
        }
    }

    /// Seats a new process on a vacant seat.
    pub(crate) fn fill(&mut self, until: Instant) -> WorkerId {
        let worker_id = self.next_tenant();
        self.occupy(worker_id.generation, Stage::Starting { until }, self.most_slots);
        worker_id
    }

    /// Calls the process that will follow this one.
    pub(crate) fn call_successor(&mut self, until: Instant) -> WorkerId {
        let worker_id = self.next_tenant();
        let stage = Stage::Starting { until };
        let (generation, slots) = (worker_id.generation, self.most_slots);
        self.successor = Some(Successor { generation, stage, slots });
        worker_id
    }

    /// The process is gone: its successor takes the seat, if there is one. Gives its calls.
    pub(crate) fn vacate(&mut self, now: Instant) -> VecDeque<Sent> {
        let calls = std::mem::take(&mut self.calls);
        self.bytes = 0;
        self.ending = None;
        match self.successor.take() {
            Some(Successor { generation, stage, slots }) => {
                self.occupy(generation, stage, slots);
            }
            None => self.stage = Stage::Vacant { until: None },
        }
        self.idle_since = now;
        calls
    }

    fn occupy(&mut self, generation: u64, stage: Stage, slots: usize) {
        self.present = generation;
        self.stage = stage;
        self.slots = slots;
        self.seqs = 0;
        self.given = 0;
        self.recalled = 0;
        self.is_over_memory_limit = false;
        self.has_answered = false;
        self.is_unfit = false;
        self.has_no_successor = false;
    }

    /// Gives the process a call, which begins at once if a slot is free.
    pub(crate) fn give(
        &mut self,
        id: TaskId,
        items: u32,
        bytes: usize,
        timeout: Option<Duration>,
        now: Instant,
    ) -> u64 {
        self.seqs += 1;
        self.given += u64::from(items);
        self.bytes = self.bytes.saturating_add(bytes);
        let (seq, answered) = (self.seqs, 0);
        let since = (self.calls.len() < self.slots).then_some(now);
        let could_run_since = since;
        self.calls.push_back(Sent {
            id,
            seq,
            items,
            answered,
            bytes,
            timeout,
            since,
            could_run_since,
        });
        seq
    }

    /// So many of the tasks of a call were answered; when all are, it is struck off the list. Gives
    /// the id; none if it was not on the list.
    pub(crate) fn answered(&mut self, seq: u64, items: u32, now: Instant) -> Option<TaskId> {
        let index = self.calls.iter().position(|call| call.seq == seq)?;
        let call = &mut self.calls[index];
        call.answered = call.answered.saturating_add(items).min(call.items);
        self.has_answered |= items > 0;
        // What is about to be ended runs since before: this is old news of what came before it.
        if self.ending.is_none_or(|ending| ending.seq != seq) {
            call.begins(now);
        }
        let id = call.id;
        if call.answered >= call.items {
            self.revoke(index, now);
        }
        Some(id)
    }

    /// Strikes a call off the list.
    fn revoke(&mut self, index: usize, now: Instant) -> Sent {
        let call = self.calls.remove(index).expect("a call on the list");
        self.bytes = self.bytes.saturating_sub(call.bytes);
        // It was faster than the word to end it.
        self.ending.take_if(|ending| ending.seq == call.seq);
        // The slot is free for the next in line.
        if let Some(next) = self.calls.get_mut(self.slots - 1)
            && next.since.is_none()
        {
            next.begins(now);
        }
        if self.calls.is_empty() {
            self.idle_since = now;
        }
        call
    }

    /// Takes back what was not begun of a call: gives its id, and how many of its tasks stay with
    /// the worker.
    pub(crate) fn take_returned(&mut self, begun: &Begun, now: Instant) -> Option<(TaskId, u32)> {
        let index = self.calls.iter().position(|call| call.seq == begun.seq)?;
        let call = &mut self.calls[index];
        // Neither more than it was given nor less than it has answered, whatever it claims.
        let items = begun.items.clamp(call.answered, call.items);
        self.given = self.given.saturating_sub(u64::from(call.items - items));
        call.items = items;
        let (id, staying) = (call.id, call.left());
        if staying == 0 {
            self.revoke(index, now);
        }
        Some((id, staying))
    }

    /// The call was not ended, because of what its claim says. A claim may move the beginning of
    /// the call by [`STALLED`] at most.
    pub(crate) fn put_off(&mut self, seq: u64, claimed: Claimed, now: Instant) -> Respite {
        self.ending.take_if(|ending| ending.seq == seq);
        let Some(call) = self.calls.iter_mut().find(|call| call.seq == seq) else {
            return Respite::Granted;
        };
        if let Claimed::Ended { is_being_read: true } = claimed {
            // It is the coordinator that takes long: it looks again after the same respite.
            let looks_again = later(now, STALLED);
            call.since = call.timeout.and_then(|timeout| looks_again.checked_sub(timeout));
            call.since = call.since.or(Some(now));
            call.could_run_since = call.since.and_then(|since| since.checked_sub(STALLED));
            return Respite::Granted;
        }
        let could_run_since = *call.could_run_since.get_or_insert(call.since.unwrap_or(now));
        let waited = now.saturating_duration_since(could_run_since);
        if claimed == Claimed::NotBegun && waited >= STALLED {
            return Respite::Stalled;
        }
        if call.timeout.is_some_and(|timeout| waited >= timeout.saturating_add(STALLED)) {
            call.since = Some(could_run_since);
            return Respite::OverDue;
        }
        let since = match claimed {
            Claimed::RunsFor(ran_for) => now.checked_sub(ran_for).or(call.since).unwrap_or(now),
            Claimed::NotBegun | Claimed::Ended { .. } => now,
        };
        call.since = Some(since.min(later(could_run_since, STALLED)));
        Respite::Granted
    }

    /// How many more calls could begin at once.
    pub(crate) fn free_slots(&self) -> usize {
        match self.stage {
            Stage::Ready if self.ending.is_none() => self.slots.saturating_sub(self.calls.len()),
            _ => 0,
        }
    }

    /// The calls that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Sent> {
        self.calls.iter().take(self.slots)
    }

    /// The first running call that has run for too long.
    pub(crate) fn overdue(&self, now: Instant) -> Option<usize> {
        let is_overdue = |call: &Sent| call.deadline().is_some_and(|deadline| deadline <= now);
        self.running().position(is_overdue)
    }

    /// When the first of the running calls will have run for too long.
    pub(crate) fn first_deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Ready if self.ending.is_none() => {
                self.running().filter_map(Sent::deadline).min()
            }
            _ => None,
        }
    }

    /// The turn of the first call of which something has not begun, as far as can be told.
    fn first_ahead(&self) -> Option<u64> {
        let has_rest = |call: &&Sent| self.slots == 1 && call.left() > 1;
        let first = self.calls.front().filter(has_rest).or_else(|| self.calls.get(self.slots));
        first.map(|call| call.seq)
    }

    /// Whether tasks lie behind those that run, and were not recalled yet.
    pub(crate) fn has_tasks_ahead(&self) -> bool {
        self.stage == Stage::Ready
            && self.first_ahead().is_some()
            && self.calls.back().is_some_and(|call| call.seq > self.recalled)
    }

    /// The turns of the calls of which something may lie behind what runs, and was not recalled
    /// yet; now it is.
    pub(crate) fn recall(&mut self) -> Option<(u64, u64)> {
        if !self.has_tasks_ahead() {
            return None;
        }
        let from = self.first_ahead()?.max(self.recalled + 1);
        self.recalled = self.seqs;
        Some((from, self.seqs))
    }
}
