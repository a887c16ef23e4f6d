//! The words in which the scheduler is spoken to, and answers. No logic here.

use std::time::Duration;

use crate::error::{Exit, PoolError};
use crate::executor::Shutdown;
use crate::retries::{Fault, Retries};
use crate::task::TaskId;

/// What a scheduler is told at its start.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How many tasks each worker runs at a time; as many seats as entries.
    pub slots: Vec<usize>,
    /// How many seats are filled even if there is nothing to do.
    pub min_workers: usize,
    /// After how long without a task a worker beyond these is let go.
    pub idle_timeout: Option<Duration>,
    /// After how many tasks a worker is replaced.
    pub max_tasks: Option<u64>,
    /// How long a worker may take from its start until it is ready.
    pub start_timeout: Duration,
    /// After how many starts in a row that led to nothing the pool gives up.
    pub start_tries: u32,
}

/// Under which terms a task is run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ResolvedOptions {
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// Tasks of higher priority go first.
    pub priority: i32,
    pub retries: Retries,
}

/// A place for a worker process; filled again when the process ends.
pub(crate) type WorkerIndex = usize;

/// A worker process: on which seat, and the how manieth there, so that news of an earlier one is
/// not taken for news of the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WorkerId {
    pub worker_index: WorkerIndex,
    pub generation: u64,
}

/// How far a worker got with the call of this turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    pub seq: u64,
    /// How many of its tasks were begun.
    pub items: u32,
    /// For how long the last of them has run.
    pub ran_for: Duration,
}

/// Why a call was not ended. A worker may claim what it likes, so this can put off the end of a call
/// only by a bounded time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// It has not begun, or was not even sent.
    NotBegun,
    /// It has run for less than it may.
    RunsFor(Duration),
    /// Its task has ended, or another one of the same call runs; the reply has not been read.
    Ended {
        /// Replies are being read that may include the one to this call.
        is_being_read: bool,
    },
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event<J> {
    /// One task, or several that are sent together as far as that is good.
    Submitted {
        id: TaskId,
        job: J,
        items: u32,
        bytes: usize,
        options: ResolvedOptions,
    },
    Cancelled {
        id: TaskId,
    },
    /// Of what was submitted under this id, what has not begun is cancelled; what runs ends by
    /// itself.
    Abandoned {
        id: TaskId,
    },
    WorkerReady {
        worker_id: WorkerId,
    },
    /// A worker that is about to be ready can run fewer tasks at a time than was asked for.
    Narrowed {
        worker_id: WorkerId,
        slots: usize,
    },
    /// The worker answered the call of this turn; or its next task, where it has several.
    Replied {
        worker_id: WorkerId,
        seq: u64,
        /// As it says itself.
        ran_for: Duration,
        /// With an error or a panic.
        has_failed: bool,
        /// It has grown beyond the memory that it may use.
        is_over_memory_limit: bool,
    },
    /// The worker gave the outputs of so many of the tasks of a call, and they were passed on.
    Progressed {
        worker_id: WorkerId,
        seq: u64,
        items: u32,
        /// Each of them, on average.
        ran_for: Duration,
        is_over_memory_limit: bool,
    },
    /// The worker says that its process is in no state to run further tasks; and that it could not
    /// receive the call of this number, if one is named, and has not begun it.
    Unfit {
        worker_id: WorkerId,
        seq: Option<u64>,
        reason: String,
    },
    /// These calls were taken back from the worker, but for those of their tasks that it had begun.
    Returned {
        worker_id: WorkerId,
        calls: Vec<Begun>,
    },
    /// No process could be started, or it ended before it was ready.
    StartFailed {
        worker_id: WorkerId,
        cause: String,
        again: Again,
    },
    /// A process that had been ready ended.
    WorkerExited {
        worker_id: WorkerId,
        exit: Exit,
        /// The calls that it had begun and not answered.
        begun: Vec<Begun>,
    },
    /// The call of this turn was to be ended, but its claim says that it should not.
    NotYet {
        worker_id: WorkerId,
        seq: u64,
        claimed: Claimed,
    },
    /// A time that [`Scheduler::wake_at`](super::Scheduler::wake_at) named has come.
    Tick,
    ShutDown(Shutdown),
}

impl<J> Event<J> {
    /// Whether it leaves the processes as they are, whatever is decided because of it.
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

/// Whether a failed start says something about the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// The next attempt is made of something else (another program): at once.
    AtOnce,
    WithBackoff,
    /// The system is short of something, which says nothing about the program.
    AfterShortage,
    /// It is certain to fail the same way.
    Never,
    /// The same, because the worker program is not made for it.
    Misused(Misuse),
}

/// What is wrong with a worker program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misuse {
    NotServing,
    Wrapper,
}

impl Misuse {
    pub(crate) fn error(self, cause: String) -> PoolError {
        match self {
            Self::NotServing => PoolError::WorkerNotServing { cause },
            Self::Wrapper => PoolError::WorkerWrapped { cause },
        }
    }
}

/// What is to be done about it, in this order.
#[derive(Debug)]
pub(crate) enum Action<J> {
    Spawn {
        worker_id: WorkerId,
    },
    Send {
        worker_id: WorkerId,
        seq: u64,
        attempt: u32,
        job: J,
        /// Which of the job's tasks, and how many.
        first: u32,
        items: u32,
    },
    /// Take back those of the calls of these turns that have not begun.
    Recall {
        worker_id: WorkerId,
        from: u64,
        through: u64,
    },
    /// End the call of this turn, together with its process, if it still runs.
    EndCall {
        worker_id: WorkerId,
        seq: u64,
        /// Unless it has run for less than this. Nobody waits for it if there is no such time:
        /// then it is taken back if it has not begun.
        allowed: Option<Duration>,
    },
    /// Let the worker leave: no call will follow.
    Dismiss {
        worker_id: WorkerId,
    },
    Kill {
        worker_id: WorkerId,
        /// Because it took too long, be it to start, to work or to leave; else because nobody
        /// needs it any more.
        is_late: bool,
    },
    Complete {
        job: J,
        /// Which of the job's tasks, and how many.
        first: u32,
        items: u32,
        verdict: Verdict,
    },
    /// Tasks that had been handed over are pending again, at no cost.
    #[cfg_attr(
        not(any(test, feature = "simulation")),
        expect(dead_code, reason = "only the simulation asks which of a job's tasks")
    )]
    TakenBack {
        job: J,
        first: u32,
        items: u32,
    },
    /// A task will be run again after a pause.
    Retry {
        job: J,
        first: u32,
        fault: Fault,
        attempt: u32,
        pause: Duration,
    },
    /// No worker is left and none will come.
    End,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// With the reply that was just reported.
    Answered,
    /// With its worker.
    Died {
        exit: Exit,
        attempts: u32,
        ran_for: Duration,
        /// The pool itself ended the worker, because of another task.
        is_collateral: bool,
    },
    /// It ran longer than it may, and was ended with its worker.
    TimedOut {
        after: Duration,
        attempts: u32,
    },
    Cancelled,
    /// Several workers could not receive it, the last of them for this reason.
    NotReceived {
        reason: String,
        workers: u32,
    },
    Broken(PoolError),
}
