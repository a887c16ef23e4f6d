//! One worker index: its process, the calls of that process, and the successor of a process that is
//! due for recycling.

mod calls;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::chunks::ChunkId;
use super::messages::{WorkerId, WorkerIndex};
use crate::limits::RecyclingReason;

/// `now + duration`, cut to a century from now, so that it never overflows.
pub(crate) fn later(now: Instant, duration: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now + duration.min(CENTURY)
}

#[derive(Debug)]
pub(crate) struct WorkerState {
    worker_index: WorkerIndex,
    /// Active workers get calls; the others are spares. See `spares.rs`.
    pub is_active: bool,
    /// The number of tasks that the process runs at a time: at most its threads, and its quota.
    pub slots: usize,
    /// The part of the pool's concurrency that belongs to this index while it is active.
    pub quota: usize,
    /// The number of threads of the process, and as configured; a process that could not start all
    /// of them has fewer.
    threads: usize,
    max_threads: usize,
    /// The newest generation, which may be that of the successor.
    last_generation: u64,
    /// The generation of the process that is here, or was last.
    generation: u64,
    pub stage: Stage,
    /// Calls without a complete answer, by `seq`. The first `slots` of them run.
    pub calls: VecDeque<InFlightCall>,
    /// The sum of the encoded bytes of `calls`.
    pub bytes: usize,
    /// The `seq` of the newest call of this process.
    last_seq: u64,
    /// The number of tasks that the process was sent and has not returned.
    pub tasks_given: u64,
    /// Calls up to this `seq` were recalled.
    recalled_through: u64,
    /// The process uses more memory than [`Recycling`](crate::Recycling) allows.
    pub is_over_memory_limit: bool,
    /// The process has reached the age that [`Recycling`](crate::Recycling) allows.
    pub is_over_age: bool,
    /// Since when the process could get calls.
    pub active_since: Instant,
    /// The process has answered a task.
    pub has_answered: bool,
    /// The process has reported that it is not fit to run further tasks.
    pub is_unfit: bool,
    /// When `calls` became empty.
    pub idle_since: Instant,
    /// The call that is being ended, together with the process.
    pub ending: Option<EndedCall>,
    pub successor: Option<Successor>,
    /// The successor could not start. The next one is started after the exit of this process.
    pub has_no_successor: bool,
}

/// A call that was sent to a worker and is not answered.
#[derive(Debug)]
pub(crate) struct InFlightCall {
    pub id: ChunkId,
    pub seq: u64,
    /// The number of its tasks.
    pub count: u32,
    /// The number of its tasks that are answered.
    pub answered: u32,
    pub bytes: usize,
    pub timeout: Option<Duration>,
    /// When its task is ended, which was asked to stop.
    pub stop_at: Option<Instant>,
    /// When its current task began, as far as known: the first task begins at the latest when a
    /// slot is free; claims may move the time.
    pub since: Option<Instant>,
    /// When its current task could begin, by the coordinator's clock, and never in the future. Claims do not change this
    /// time, except the claim of a task whose reply is there and was not read yet.
    pub could_run_since: Option<Instant>,
    /// A worker has ended before it began this call, and this one has not said that it did.
    pub is_suspect: bool,
}

impl InFlightCall {
    fn unanswered(&self) -> u32 {
        self.count.saturating_sub(self.answered)
    }
}

/// The stages of a process: see the table in `scheduler.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Vacant { until: Option<Instant> },
    Starting { until: Instant },
    Standby,
    Ready,
    Leaving { until: Instant },
    Killed { at: Instant, why: EndReason },
    Closed,
}

/// Why the pool ends a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// A task, the start or the exit took too long.
    TimedOut,
    /// Its task was cancelled.
    Cancelled,
    Unneeded,
    /// It did not begin a call.
    Stalled,
}

/// A call whose end was ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndedCall {
    pub seq: u64,
    /// When the end was ordered.
    pub at: Instant,
    pub why: EndReason,
}

/// A process that takes the worker index over when its predecessor exits. It gets no call before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Successor {
    pub generation: u64,
    pub stage: Stage,
    pub threads: usize,
}

impl WorkerState {
    /// An index without a process. With `quota`, it is active.
    pub(crate) fn new(
        worker_index: WorkerIndex,
        threads: usize,
        quota: Option<usize>,
        now: Instant,
    ) -> Self {
        let (is_active, quota) = (quota.is_some(), quota.unwrap_or(threads));
        Self {
            worker_index,
            is_active,
            slots: quota.min(threads),
            quota,
            threads,
            max_threads: threads,
            last_generation: 0,
            generation: 0,
            stage: Stage::Vacant { until: None },
            calls: VecDeque::new(),
            bytes: 0,
            last_seq: 0,
            tasks_given: 0,
            recalled_through: 0,
            is_over_memory_limit: false,
            is_over_age: false,
            active_since: now,
            has_answered: false,
            is_unfit: false,
            idle_since: now,
            ending: None,
            successor: None,
            has_no_successor: false,
        }
    }

    pub(crate) fn worker_id(&self) -> WorkerId {
        WorkerId { worker_index: self.worker_index, generation: self.generation }
    }

    /// Whether a process exists, in any stage.
    pub(crate) fn has_process(&self) -> bool {
        !matches!(self.stage, Stage::Vacant { .. } | Stage::Closed)
    }

    /// Whether an active process exists that is neither leaving nor killed.
    pub(crate) fn is_staying(&self) -> bool {
        self.is_active && matches!(self.stage, Stage::Starting { .. } | Stage::Ready)
    }

    /// Whether nothing changes at this index until an event about its process.
    pub(crate) fn is_stable(&self) -> bool {
        matches!(self.stage, Stage::Ready | Stage::Standby) && self.successor.is_none()
    }

    /// Whether this is the process that exists now. Events of other generations are stale.
    pub(crate) fn is_current(&self, worker_id: WorkerId) -> bool {
        self.generation == worker_id.generation && self.has_process()
    }

    pub(crate) fn is_successor(&self, worker_id: WorkerId) -> bool {
        self.successor.is_some_and(|successor| successor.generation == worker_id.generation)
    }

    /// Whether the worker gets no further task: it was given `max_tasks`, uses too much memory, is too
    /// old, or is unfit.
    pub(crate) fn is_due_for_recycling(&self, max_tasks: Option<u64>) -> bool {
        self.must_give_calls_back() || max_tasks.is_some_and(|max| self.tasks_given >= max)
    }

    /// Whether the worker is due for recycling for a reason that tasks which it has do not know of.
    pub(crate) fn must_give_calls_back(&self) -> bool {
        self.is_over_memory_limit || self.is_over_age || self.is_unfit
    }

    /// Why a worker that is due for recycling is replaced. `None`: it is unfit.
    pub(crate) fn recycling_reason(&self) -> Option<RecyclingReason> {
        match self {
            Self { is_unfit: true, .. } => None,
            Self { is_over_memory_limit: true, .. } => Some(RecyclingReason::Memory),
            Self { is_over_age: true, .. } => Some(RecyclingReason::Age),
            _ => Some(RecyclingReason::Tasks),
        }
    }

    /// When the worker has this age, if it runs calls and has not reached it.
    pub(crate) fn reaches_age_at(&self, max_age: Duration) -> Option<Instant> {
        (self.stage == Stage::Ready && !self.is_over_age).then(|| later(self.active_since, max_age))
    }

    fn next_worker_id(&mut self) -> WorkerId {
        self.last_generation += 1;
        WorkerId { worker_index: self.worker_index, generation: self.last_generation }
    }

    /// A process that is starting reports that it has fewer threads than configured.
    pub(crate) fn narrow(&mut self, worker_id: WorkerId, threads: usize) {
        let threads = threads.clamp(1, self.max_threads);
        if self.is_current(worker_id) && matches!(self.stage, Stage::Starting { .. }) {
            self.threads = threads;
            self.slots = threads.min(self.quota);
        } else if let Some(successor) = &mut self.successor
            && successor.generation == worker_id.generation
            && matches!(successor.stage, Stage::Starting { .. })
        {
            successor.threads = threads;
        }
    }

    /// Starts a process where there is none.
    pub(crate) fn start(&mut self, until: Instant) -> WorkerId {
        let worker_id = self.next_worker_id();
        self.take_over(worker_id.generation, Stage::Starting { until }, self.max_threads);
        worker_id
    }

    /// Exchanges the roles of this spare, which stands by, and an active worker without a call.
    pub(crate) fn promote_over(&mut self, active: &mut Self, now: Instant) {
        std::mem::swap(&mut self.is_active, &mut active.is_active);
        std::mem::swap(&mut self.quota, &mut active.quota);
        self.stage = Stage::Ready;
        self.slots = self.threads.min(self.quota);
        (self.idle_since, self.active_since) = (now, now);
    }

    pub(crate) fn start_successor(&mut self, until: Instant) -> WorkerId {
        let worker_id = self.next_worker_id();
        let stage = Stage::Starting { until };
        let (generation, threads) = (worker_id.generation, self.max_threads);
        self.successor = Some(Successor { generation, stage, threads });
        worker_id
    }

    /// The process has exited: its successor takes over, if there is one. Returns its calls.
    pub(crate) fn exited(&mut self, now: Instant) -> VecDeque<InFlightCall> {
        let calls = std::mem::take(&mut self.calls);
        self.bytes = 0;
        self.ending = None;
        match self.successor.take() {
            Some(Successor { generation, stage, threads }) => {
                self.take_over(generation, stage, threads);
            }
            None => self.stage = Stage::Vacant { until: None },
        }
        (self.idle_since, self.active_since) = (now, now);
        calls
    }

    fn take_over(&mut self, generation: u64, stage: Stage, threads: usize) {
        self.generation = generation;
        self.stage = stage;
        self.threads = threads;
        self.slots = threads.min(self.quota);
        self.last_seq = 0;
        self.tasks_given = 0;
        self.recalled_through = 0;
        self.is_over_memory_limit = false;
        self.is_over_age = false;
        self.has_answered = false;
        self.is_unfit = false;
        self.has_no_successor = false;
    }
}
