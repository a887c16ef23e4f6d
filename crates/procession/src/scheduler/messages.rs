//! The scheduler's events and actions, and the types in them.

use std::time::Duration;

use crate::error::{Exit, PoolError};
use crate::executor::Shutdown;
use crate::limits::RecyclingReason;
use crate::retries::{Fault, Retries};
use crate::task::TaskId;
use crate::task_options::TaskOptions;

/// The settings of a scheduler, which never change.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The number of tasks that each active worker runs at a time.
    pub slots: Vec<usize>,
    /// The number of workers that are started in advance and stand by, beyond the active ones.
    pub spares: usize,
    /// The number of workers that are kept without tasks.
    pub min_workers: usize,
    /// A worker beyond `min_workers` that is idle for this long is dismissed.
    pub idle_timeout: Option<Duration>,
    /// The number of tasks after which a worker is replaced.
    pub max_tasks: Option<u64>,
    /// The time after which a worker is replaced, since it could get calls.
    pub max_age: Option<Duration>,
    /// The time from the start of a worker until it must be ready.
    pub start_timeout: Duration,
    /// The number of useless starts in a row after which the pool gives up.
    pub start_tries: u32,
}

impl Settings {
    /// The number of worker indices: those of active workers and of spares.
    pub(crate) fn indices(&self) -> usize {
        self.slots.len() + self.spares
    }

    /// The number of threads of the processes at a worker index. A spare can take the place of any
    /// active worker, and the indices of both change their roles, so with spares all have the same.
    pub(crate) fn threads(&self, worker_index: WorkerIndex) -> usize {
        match self.slots.get(worker_index) {
            Some(&slots) if self.spares == 0 => slots,
            _ => self.slots.iter().copied().max().unwrap_or(1),
        }
    }
}

/// The options of a task: its own, or else the pool's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ResolvedOptions {
    /// The longest run time of an attempt.
    pub timeout: Option<Duration>,
    /// The time from the request to stop until the end by force. `None`: there is no such request.
    pub grace: Option<Duration>,
    /// Tasks of higher priority are sent first.
    pub priority: i32,
    pub retries: Retries,
}

impl ResolvedOptions {
    /// The run time after which a task is to stop by itself, and that after which it is ended.
    pub(crate) fn soft_and_hard_timeout(&self) -> (Option<Duration>, Option<Duration>) {
        let grace = self.grace.unwrap_or_default();
        let hard = self.timeout.map(|timeout| timeout.saturating_add(grace));
        (self.timeout.filter(|_| self.grace.is_some()), hard)
    }
}

impl TaskOptions {
    /// The options of the task, with those of the pool where none is set.
    pub(crate) fn resolve(self, pool: ResolvedOptions) -> ResolvedOptions {
        ResolvedOptions {
            timeout: self.timeout.unwrap_or(pool.timeout),
            grace: self.grace.or(pool.grace).filter(|grace| !grace.is_zero()),
            priority: self.priority,
            retries: self.retries.unwrap_or(pool.retries),
        }
    }
}

/// Counts the workers of a pool, spares included, from 0. When the process at a worker index ends,
/// another one follows it.
pub(crate) type WorkerIndex = usize;

/// A worker process: worker index and generation. Events of an older generation are stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WorkerId {
    pub worker_index: WorkerIndex,
    pub generation: u64,
}

/// The progress of a call, from its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    pub seq: u64,
    /// The number of its tasks that have begun.
    pub count: u32,
    /// The run time of the last of these.
    pub ran_for: Duration,
}

/// Why a call was not ended, from its claim. A worker can write any claim, so the scheduler lets a
/// claim postpone the end for a bounded time only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// The call has not begun, or was not even sent.
    NotBegun,
    /// Its task has run for less than it is allowed.
    RunsFor(Duration),
    /// The task has ended, or another task of the same call runs. The reply has not been read.
    Ended {
        /// The coordinator is reading replies, among which this one may be.
        is_being_read: bool,
    },
}

/// Something that happened, in the order in which the scheduler is to handle it.
#[derive(Debug)]
pub(crate) enum Event<J> {
    /// A job of `count` tasks. They may be sent in one call or in several.
    Submitted {
        id: TaskId,
        job: J,
        count: u32,
        bytes: usize,
        options: ResolvedOptions,
    },
    /// Cancels a job of one task, which is ended if it runs.
    Cancelled {
        id: TaskId,
    },
    /// Cancels the tasks of a job that have not begun. Running tasks finish.
    Abandoned {
        id: TaskId,
    },
    WorkerReady {
        worker_id: WorkerId,
    },
    /// A starting worker has fewer slots than configured.
    Narrowed {
        worker_id: WorkerId,
        slots: usize,
    },
    /// The worker answered the next task of a call.
    Replied {
        worker_id: WorkerId,
        seq: u64,
        /// Measured by the worker.
        ran_for: Duration,
        /// The task returned an error or panicked.
        has_failed: bool,
        /// The worker uses more memory than it may.
        is_over_memory_limit: bool,
    },
    /// The worker returned the outputs of the next `count` tasks of a call. They are delivered
    /// already.
    Progressed {
        worker_id: WorkerId,
        seq: u64,
        count: u32,
        /// The average of these tasks.
        ran_for: Duration,
        is_over_memory_limit: bool,
    },
    /// The worker's process is not fit to run further tasks. If `seq` is given, it could not
    /// receive that call, and has not begun it.
    Unfit {
        worker_id: WorkerId,
        seq: Option<u64>,
        reason: String,
    },
    /// These calls were recalled. The tasks that had begun stay with the worker.
    Returned {
        worker_id: WorkerId,
        calls: Vec<Begun>,
    },
    /// A process could not be started, or ended before it was ready.
    StartFailed {
        worker_id: WorkerId,
        cause: String,
        next_start: NextStart,
    },
    /// A process that had been ready ended.
    WorkerExited {
        worker_id: WorkerId,
        exit: Exit,
        /// The calls that had begun and were not answered.
        begun: Vec<Begun>,
    },
    /// [`Action::EndCall`] had no effect, because of the call's claim.
    NotEnded {
        worker_id: WorkerId,
        seq: u64,
        claimed: Claimed,
    },
    /// The time of [`Scheduler::wake_at`](super::Scheduler::wake_at) has come.
    Tick,
    ShutDown(Shutdown),
}

impl<J> Event<J> {
    /// Whether the event itself changes no [`Stage`](super::worker::Stage).
    pub(crate) fn is_about_tasks(&self) -> bool {
        matches!(
            self,
            Self::Submitted { .. }
                | Self::Cancelled { .. }
                | Self::Abandoned { .. }
                | Self::Replied { .. }
                | Self::Progressed { .. }
                | Self::Returned { .. }
        )
    }
}

/// After a failed start: whether and when the next one is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextStart {
    /// At once, because it uses another program.
    AtOnce,
    WithBackoff,
    /// With backoff. The cause is a lack of a system resource, and not the program.
    AfterShortage,
    /// It would fail in the same way.
    Never,
    /// The same, because the program cannot be a worker.
    Unfit(UnfitProgram),
}

/// Why a program cannot be a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnfitProgram {
    /// It does not call `serve_if_asked`.
    NotServing,
    /// It starts the worker as a child of its own.
    Wrapper,
    /// It lacks a layer of the sandbox.
    Unconfined,
}

const HOW_TO_SERVE: &str = "Put #[procession::main] above the main of that program, or call \
    procession::worker::serve_if_asked(registry) first thing there. Under `cargo test`, put \
    #[procession::test] in place of #[test] at one test of the file or more. For another program as \
    the worker, see Builder::worker_program";

impl UnfitProgram {
    pub(crate) fn error(self, cause: String) -> PoolError {
        match self {
            // The advice is part of the field, so that the `Debug` text, which `main` and `unwrap`
            // print, has it as well.
            Self::NotServing => {
                PoolError::WorkerNotServing { cause: format!("{cause}. {HOW_TO_SERVE}") }
            }
            Self::Wrapper => PoolError::WorkerWrapped { cause },
            Self::Unconfined => {
                let (layer, why) = cause.split_once(": ").unwrap_or(("", &cause));
                PoolError::SandboxUnavailable { layer: layer.to_owned(), why: why.to_owned() }
            }
        }
    }
}

/// Something that the coordinator must do.
#[derive(Debug)]
pub(crate) enum Action<J> {
    Spawn {
        worker_id: WorkerId,
    },
    /// Send the tasks `first..first + count` of a job as one call.
    Send {
        worker_id: WorkerId,
        seq: u64,
        attempt: u32,
        /// The time after which each task is to stop by itself.
        stop_after: Option<Duration>,
        job: J,
        first: u32,
        count: u32,
    },
    /// Take back the tasks of the calls `from..=through` that have not begun, and report
    /// `Returned`.
    Recall {
        worker_id: WorkerId,
        from: u64,
        through: u64,
    },
    /// End a call by killing its process, or report `NotEnded`.
    EndCall {
        worker_id: WorkerId,
        seq: u64,
        /// The call is ended if it has run for at least this long. `None` means cancelled: it is
        /// ended if it runs, and taken back if it has not begun.
        allowed: Option<Duration>,
    },
    /// Ask the task of a call to stop. If it has not begun, take it back and report `Returned`.
    AskToStop {
        worker_id: WorkerId,
        seq: u64,
        /// It is ended by force after its grace period.
        will_end: bool,
    },
    /// This spare has become active: it gets calls from now on.
    Promote {
        worker_id: WorkerId,
        /// The index that was active and is a spare now.
        replaces: WorkerIndex,
    },
    /// Let the process exit. It gets no further call.
    Dismiss {
        worker_id: WorkerId,
        /// Why it is replaced, if it is.
        recycled: Option<RecyclingReason>,
    },
    Kill {
        worker_id: WorkerId,
        /// A task, the start or the exit took too long. Else the process is not needed any more.
        is_late: bool,
    },
    /// The tasks `first..first + count` of a job are done.
    Complete {
        job: J,
        first: u32,
        count: u32,
        verdict: Verdict,
    },
    /// Tasks that were in flight are pending again. They are not charged with an attempt.
    #[cfg_attr(
        not(any(test, feature = "simulation")),
        expect(dead_code, reason = "only the simulation reads which of the tasks")
    )]
    TakenBack {
        job: J,
        first: u32,
        count: u32,
    },
    /// The task `first` of a job has another attempt after `pause`.
    Retry {
        job: J,
        first: u32,
        fault: Fault,
        attempt: u32,
        pause: Duration,
        /// How the last attempt ended, if it ended its worker.
        ended: Option<Verdict>,
    },
    /// The shutdown is complete: no worker exists, and none will be started.
    End,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// With the reply of the event that is being handled.
    Answered,
    /// With its worker.
    Died {
        exit: Exit,
        attempts: u32,
        ran_for: Duration,
        /// The pool killed the worker because of another task.
        is_collateral: bool,
    },
    /// It ran for longer than its timeout `after`, and its worker was killed.
    TimedOut {
        after: Duration,
        attempts: u32,
    },
    Cancelled,
    /// This number of workers could not receive it, the last one for this reason.
    NotReceived {
        reason: String,
        workers: u32,
    },
    Broken(PoolError),
}
