//! Chunks, from submission to completion: split, taken back, retried, completed. The states are in
//! the table in `scheduler.rs`.

use std::time::Instant;

use super::dispatch::share;
use super::messages::{Action, ResolvedOptions, Verdict, WorkerIndex};
use super::worker::later;
use super::{Phase, Scheduler};
use crate::error::PoolError;
use crate::retries::Fault;
use crate::task::TaskId;

/// Identifies a chunk in its scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChunkId {
    /// The id under which the job was submitted: that of its first task.
    pub task: TaskId,
    /// 0 for the chunk as it was submitted. A chunk that was split off has a number of its own.
    split: u64,
}

impl ChunkId {
    /// The chunk as it was submitted, less the tasks that were split off.
    pub(crate) const fn whole(task: TaskId) -> Self {
        Self { task, split: 0 }
    }
}

/// Consecutive tasks of one job that are in the same state.
#[derive(Debug)]
pub(super) struct Chunk<J> {
    pub job: J,
    /// Index in the job of the first of these tasks.
    pub first: u32,
    /// The number of tasks.
    pub count: u32,
    /// The encoded length of these tasks.
    pub bytes: usize,
    pub options: ResolvedOptions,
    /// The number of attempts that began and ended.
    pub attempts: u32,
    /// How likely it is that the first task ended workers without having been claimed: see
    /// `blame.rs`.
    pub suspicion: u32,
    /// The number of new workers that could not receive it.
    pub not_received: u32,
    pub state: ChunkState,
    /// The result is not wanted any more. Tasks that run finish; the others do not begin.
    pub is_abandoned: bool,
    /// It was asked to stop, and its call has a time at which it is ended.
    pub has_stop_deadline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkState {
    Pending,
    Paused,
    InFlight(WorkerIndex),
}

impl<J> Chunk<J> {
    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.state, ChunkState::InFlight(_))
    }

    /// What it adds to [`Scheduler::timed`](super::Scheduler).
    pub(super) fn deadlines(&self) -> usize {
        usize::from(self.options.timeout.is_some()) + usize::from(self.has_stop_deadline)
    }
}

impl<J: Clone> Scheduler<J> {
    pub(super) fn submitted(
        &mut self,
        task: TaskId,
        job: J,
        count: u32,
        bytes: usize,
        options: ResolvedOptions,
        actions: &mut Vec<Action<J>>,
    ) {
        let refused = match &self.phase {
            Phase::Open => None,
            Phase::Broken(error) => Some(error.clone()),
            Phase::ShuttingDown(_) => Some(PoolError::ShutDown),
        };
        if let Some(error) = refused {
            let verdict = Verdict::Broken(error);
            return actions.push(Action::Complete { job, first: 0, count, verdict });
        }
        let id = ChunkId::whole(task);
        self.timed += usize::from(options.timeout.is_some());
        self.queue.push_back(options.priority, id);
        self.pending += 1;
        self.waiting_tasks += count as usize;
        let chunk = Chunk {
            job,
            first: 0,
            count,
            bytes,
            options,
            attempts: 0,
            suspicion: 0,
            not_received: 0,
            state: ChunkState::Pending,
            is_abandoned: false,
            has_stop_deadline: false,
        };
        self.chunks.insert(id, chunk);
    }

    /// Cancels the tasks of a job that have not begun. Running tasks finish: to end them would kill
    /// their worker, and the kill could hit another task.
    pub(super) fn abandoned(&mut self, task: TaskId, actions: &mut Vec<Action<J>>) {
        for id in self.ids_in_order(|id, _| id.task == task) {
            let Some(chunk) = self.chunks.get_mut(&id) else { continue };
            let ChunkState::InFlight(worker_index) = chunk.state else {
                self.complete(id, Verdict::Cancelled, actions);
                continue;
            };
            chunk.is_abandoned = true;
            // The claim decides which tasks have begun. The others come back and are cancelled
            // then.
            let worker = &self.workers[worker_index];
            if let Some(call) = worker.calls.iter().find(|call| call.id == id) {
                let (worker_id, seq) = (worker.worker_id(), call.seq);
                actions.push(Action::Recall { worker_id, from: seq, through: seq });
            }
        }
    }

    /// Splits the first `count` tasks off a chunk and returns the id of the new chunk, which is in
    /// the same state. The other tasks keep `id`. A chunk with no other tasks is not split.
    pub(super) fn split_off_first(&mut self, id: ChunkId, count: u32) -> ChunkId {
        let Some(chunk) = self.chunks.get_mut(&id) else { return id };
        if count >= chunk.count {
            return id;
        }
        let bytes = share(chunk.bytes, count, chunk.count);
        let new = Chunk { job: chunk.job.clone(), count, bytes, ..*chunk };
        let (state, deadlines) = (new.state, new.deadlines());
        chunk.first += count;
        chunk.count -= count;
        chunk.bytes -= bytes;
        chunk.suspicion = 0; // That of the first task, which is in the new chunk.
        self.timed += deadlines;
        self.pending += usize::from(state == ChunkState::Pending);
        self.paused += usize::from(state == ChunkState::Paused);
        self.splits += 1;
        let new_id = ChunkId { task: id.task, split: self.splits };
        self.chunks.insert(new_id, new);
        new_id
    }

    /// Splits all but the first `staying` tasks off a chunk and returns their id, if there are any.
    /// The first tasks keep `id`, under which they were sent.
    pub(super) fn split_off_rest(&mut self, id: ChunkId, staying: u32) -> Option<ChunkId> {
        let chunk = self.chunks.get(&id)?;
        if staying == 0 {
            return Some(id);
        }
        if staying >= chunk.count {
            return None;
        }
        let new_id = self.split_off_first(id, staying);
        let [Some(one), Some(other)] = self.chunks.get_disjoint_mut([&id, &new_id]) else {
            unreachable!("both chunks are in the table")
        };
        std::mem::swap(one, other);
        Some(new_id)
    }

    /// The first `count` tasks of a chunk are done, and their outputs delivered.
    pub(super) fn advance(&mut self, id: ChunkId, count: u32) {
        match self.chunks.get_mut(&id) {
            Some(chunk) if count < chunk.count => {
                chunk.first += count;
                chunk.count -= count;
                chunk.suspicion = 0;
            }
            _ => drop(self.remove(id)),
        }
    }

    fn remove(&mut self, id: ChunkId) -> Option<Chunk<J>> {
        let chunk = self.chunks.remove(&id)?;
        self.pending -= usize::from(chunk.state == ChunkState::Pending);
        self.paused -= usize::from(chunk.state == ChunkState::Paused);
        if !chunk.is_in_flight() {
            self.waiting_tasks -= chunk.count as usize;
        }
        self.timed -= chunk.deadlines();
        if !chunk.is_in_flight() {
            let chunks = &self.chunks;
            let is_waiting = |id| chunks.get(&id).is_some_and(|chunk| !chunk.is_in_flight());
            self.queue.tidy(self.pending + self.paused, is_waiting);
        }
        Some(chunk)
    }

    /// Schedules another attempt after a pause, and returns whether the options of the task allow
    /// one.
    pub(super) fn retry(
        &mut self,
        id: ChunkId,
        fault: Fault,
        ended: Option<&Verdict>,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) -> bool {
        if !self.may_begin_tasks() {
            return false;
        }
        let Some(chunk) = self.chunks.get_mut(&id) else { return false };
        if chunk.is_abandoned {
            return false;
        }
        let task = id.task.0.wrapping_add(u64::from(chunk.first));
        let pause = chunk.options.retries.pause(fault, chunk.attempts, task);
        let Some(pause) = pause else { return false };
        chunk.state = ChunkState::Paused;
        self.paused += 1;
        self.waiting_tasks += chunk.count as usize;
        self.queue.pause(later(now, pause), id);
        let (job, first, attempt) = (chunk.job.clone(), chunk.first, chunk.attempts + 1);
        let ended = ended.cloned();
        actions.push(Action::Retry { job, first, fault, attempt, pause, ended });
        true
    }

    /// Does nothing for a chunk that was completed before: a cancelled task is completed while its
    /// worker still runs it, and the worker's reply comes later.
    pub(super) fn complete(&mut self, id: ChunkId, verdict: Verdict, actions: &mut Vec<Action<J>>) {
        if let Some(Chunk { job, first, count, .. }) = self.remove(id) {
            actions.push(Action::Complete { job, first, count, verdict });
        }
    }

    /// Puts chunks that had not begun at the head of the queue, in the given order.
    pub(super) fn take_back<I>(&mut self, ids: I, actions: &mut Vec<Action<J>>)
    where
        I: IntoIterator<Item = ChunkId, IntoIter: DoubleEndedIterator>,
    {
        for id in ids.into_iter().rev() {
            let is_abandoned = self.chunks.get(&id).is_some_and(|chunk| chunk.is_abandoned);
            if !self.may_begin_tasks() || is_abandoned {
                self.complete(id, Verdict::Cancelled, actions);
            } else if let Some(chunk) = self.chunks.get_mut(&id) {
                chunk.state = ChunkState::Pending;
                self.pending += 1;
                self.waiting_tasks += chunk.count as usize;
                self.queue.push_front(chunk.options.priority, id);
                let (job, first, count) = (chunk.job.clone(), chunk.first, chunk.count);
                actions.push(Action::TakenBack { job, first, count });
            }
        }
    }

    /// Completes all tasks, in the order of submission.
    pub(super) fn complete_all(&mut self, verdict: &Verdict, actions: &mut Vec<Action<J>>) {
        for id in self.ids_in_order(|_, _| true) {
            self.complete(id, verdict.clone(), actions);
        }
        self.queue.clear();
    }

    /// The ids of some chunks, in the order of submission.
    pub(super) fn ids_in_order(
        &self,
        is_wanted: impl Fn(&ChunkId, &Chunk<J>) -> bool,
    ) -> Vec<ChunkId> {
        let wanted = self.chunks.iter().filter(|(id, chunk)| is_wanted(id, chunk));
        let mut wanted: Vec<_> = wanted.map(|(id, chunk)| (id.task, chunk.first, *id)).collect();
        wanted.sort_unstable();
        wanted.into_iter().map(|(_, _, id)| id).collect()
    }
}
