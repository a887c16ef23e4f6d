//! What becomes of the tasks themselves: taken in, cut into pieces where that has to be, made
//! pending again, tried again, completed.
//!
//! An entry is one task, or several that were submitted together and are still in the same place.

use std::time::Instant;

use super::dispatch::share;
use super::messages::{Action, ResolvedOptions, Verdict, WorkerIndex};
use super::worker::later;
use super::{Phase, Scheduler};
use crate::error::PoolError;
use crate::retries::Fault;
use crate::task::TaskId;

#[derive(Debug)]
pub(super) struct Entry<J> {
    pub job: J,
    /// Which of the job's tasks, and how many: those that are left to be done.
    pub first: u32,
    pub items: u32,
    /// Under which id the job was submitted.
    pub origin: TaskId,
    pub bytes: usize,
    pub options: ResolvedOptions,
    /// How often it was begun and came to an end.
    pub begun: u32,
    /// How likely it is that the first of them ended workers that had not claimed it: see
    /// `convicted`.
    pub suspicion: u32,
    /// How many workers could not receive it.
    pub not_received: u32,
    pub place: Place,
    /// No one reads its outcome any more: what has begun ends, and the rest is not begun.
    pub is_abandoned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Pending,
    Paused,
    InFlight(WorkerIndex),
}

impl<J: Clone> Scheduler<J> {
    pub(super) fn submitted(
        &mut self,
        id: TaskId,
        job: J,
        items: u32,
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
            return actions.push(Action::Complete { job, first: 0, items, verdict });
        }
        self.timed += usize::from(options.timeout.is_some());
        self.queue.push_back(options.priority, id);
        self.pending += 1;
        let (origin, place) = (id, Place::Pending);
        let (first, begun, suspicion, not_received, is_abandoned) = (0, 0, 0, 0, false);
        let entry = Entry {
            job,
            first,
            items,
            origin,
            bytes,
            options,
            begun,
            suspicion,
            not_received,
            place,
            is_abandoned,
        };
        self.tasks.insert(id, entry);
    }

    /// Cancels what has not begun of a submission. What runs ends by itself: to end it would cost
    /// its worker process, and another task there could be hit.
    pub(super) fn abandoned(&mut self, origin: TaskId, actions: &mut Vec<Action<J>>) {
        let sub_chunks = self.tasks.iter().filter(|(_, task)| task.origin == origin);
        let mut sub_chunks: Vec<_> = sub_chunks.map(|(piece, _)| *piece).collect();
        sub_chunks.sort_unstable();
        for id in sub_chunks {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let Place::InFlight(worker_index) = task.place else {
                self.complete(id, Verdict::Cancelled, actions);
                continue;
            };
            task.is_abandoned = true;
            // The worker's claim decides what has begun. What has not comes back, and is cancelled.
            let state = &self.workers[worker_index];
            if let Some(call) = state.calls.iter().find(|call| call.id == id) {
                let (worker_id, seq) = (state.worker_id(), call.seq);
                actions.push(Action::Recall { worker_id, from: seq, through: seq });
            }
        }
    }

    /// Cuts the first so many tasks off an entry, which keeps the others; gives the id of what was
    /// cut off, which is in the same place. If that is all there is, it is the entry itself.
    pub(super) fn cut(&mut self, id: TaskId, items: u32) -> TaskId {
        let Some(task) = self.tasks.get_mut(&id) else { return id };
        if items >= task.items {
            return id;
        }
        let bytes = share(task.bytes, items, task.items);
        let &mut Entry {
            first,
            origin,
            options,
            begun,
            suspicion,
            not_received,
            place,
            is_abandoned,
            ..
        } = task;
        let job = task.job.clone();
        let piece = Entry {
            job,
            first,
            items,
            origin,
            bytes,
            options,
            begun,
            suspicion,
            not_received,
            place,
            is_abandoned,
        };
        task.first += items;
        task.items -= items;
        task.bytes -= bytes;
        task.suspicion = 0; // It was the first one's.
        self.timed += usize::from(options.timeout.is_some());
        self.pending += usize::from(place == Place::Pending);
        self.paused += usize::from(place == Place::Paused);
        self.sub_chunks += 1;
        // From the other end, where no task's own id ever comes.
        let sub_chunk_id = TaskId(u64::MAX - self.sub_chunks);
        self.tasks.insert(sub_chunk_id, piece);
        sub_chunk_id
    }

    /// Cuts all but the first so many tasks off an entry; gives the id of these others, if there
    /// are any.
    pub(super) fn cut_rest(&mut self, id: TaskId, staying: u32) -> Option<TaskId> {
        let task = self.tasks.get(&id)?;
        if staying == 0 {
            return Some(id);
        }
        if staying >= task.items {
            return None;
        }
        // What stays with the worker has to keep the id by which it was sent.
        let stays = self.cut(id, staying);
        let [Some(one), Some(other)] = self.tasks.get_disjoint_mut([&id, &stays]) else {
            unreachable!("both are there")
        };
        std::mem::swap(one, other);
        Some(stays)
    }

    /// The first so many tasks of an entry are done.
    pub(super) fn advance(&mut self, id: TaskId, items: u32) {
        match self.tasks.get_mut(&id) {
            Some(task) if items < task.items => {
                task.first += items;
                task.items -= items;
                task.suspicion = 0;
            }
            _ => drop(self.forget(id)),
        }
    }

    /// What was done needs no entry any more.
    pub(super) fn forget(&mut self, id: TaskId) -> Option<Entry<J>> {
        let task = self.tasks.remove(&id)?;
        self.pending -= usize::from(task.place == Place::Pending);
        self.paused -= usize::from(task.place == Place::Paused);
        self.timed -= usize::from(task.options.timeout.is_some());
        if !matches!(task.place, Place::InFlight(_)) {
            let tasks = &self.tasks;
            let is_waiting =
                |id| tasks.get(&id).is_some_and(|task| !matches!(task.place, Place::InFlight(_)));
            self.queue.tidy(self.pending + self.paused, is_waiting);
        }
        Some(task)
    }

    /// Lets the task run once more, after a pause, if its terms allow that.
    pub(super) fn retry(
        &mut self,
        id: TaskId,
        fault: Fault,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) -> bool {
        if !self.may_begin_tasks() {
            return false;
        }
        let Some(task) = self.tasks.get_mut(&id) else { return false };
        if task.is_abandoned {
            return false;
        }
        let Some(pause) = task.options.retries.pause(fault, task.begun, id.0) else { return false };
        task.place = Place::Paused;
        self.paused += 1;
        self.queue.pause(later(now, pause), id);
        let (job, first, attempt) = (task.job.clone(), task.first, task.begun + 1);
        actions.push(Action::Retry { job, first, fault, attempt, pause });
        true
    }

    pub(super) fn complete(&mut self, id: TaskId, verdict: Verdict, actions: &mut Vec<Action<J>>) {
        // Cancelled tasks are completed before their worker has noticed, and answers.
        if let Some(Entry { job, first, items, .. }) = self.forget(id) {
            actions.push(Action::Complete { job, first, items, verdict });
        }
    }

    /// Makes tasks pending again that were not begun, ahead of those that wait already.
    pub(super) fn take_back<I>(&mut self, ids: I, actions: &mut Vec<Action<J>>)
    where
        I: IntoIterator<Item = TaskId, IntoIter: DoubleEndedIterator>,
    {
        for id in ids.into_iter().rev() {
            if !self.may_begin_tasks() || self.tasks.get(&id).is_some_and(|task| task.is_abandoned)
            {
                self.complete(id, Verdict::Cancelled, actions);
            } else if let Some(task) = self.tasks.get_mut(&id) {
                task.place = Place::Pending;
                self.pending += 1;
                self.queue.push_front(task.options.priority, id);
                let (job, first, items) = (task.job.clone(), task.first, task.items);
                actions.push(Action::TakenBack { job, first, items });
            }
        }
    }

    /// Completes every task there is, in the order of submission.
    pub(super) fn complete_all(&mut self, verdict: &Verdict, actions: &mut Vec<Action<J>>) {
        let mut ids: Vec<_> = self.tasks.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.complete(id, verdict.clone(), actions);
        }
        self.queue.clear();
    }
}
