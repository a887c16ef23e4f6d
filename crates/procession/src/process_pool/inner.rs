//! [`PoolInner`]: what all threads of a pool share. It passes events to the scheduler under the lock
//! of [`PoolState`], and has the actions carried out (see [`effects`](super::effects)).

use std::ffi::OsString;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::clock::Clock;
use super::completion::CompletionData;
use super::control_groups::ControlGroups;
use super::crash_keeper::CrashKeeper;
use super::endings::PoolThread;
use super::initializer::{Initializer, InitializerKind};
use super::listeners::Listeners;
use super::program::Programs;
use super::room;
use super::start_dir::StartDirSlot;
use super::state::PoolState;
use super::stats::Counts;
use super::supervisor::SupervisorMessage;
use super::template::Template;
use super::work_item::{ItemPool, WorkItem};
use crate::error::PoolError;
use crate::executor::callbacks::{self, CallQueues};
use crate::limits::Limits;
use crate::panics;
use crate::sandbox::{Sandbox, SandboxReport};
use crate::scheduler::{Event, MAX_CALLS_AHEAD, ResolvedOptions, Settings};
use crate::transport::MOST_BYTES;
use crate::waiting::{CallSink, CallSinkGuard, RoleGuard};
use procession_os::fork::Origin;

/// What the threads of a pool share. `README.md` beside this file says which thread takes which of
/// its locks, and in which order.
pub(super) struct PoolInner {
    pub(super) setup: Setup,
    pub(super) state: Mutex<PoolState>,
    /// Notified when fewer tasks are pending. Waits on `state`.
    pub(super) room: Condvar,
    pub(super) counts: Mutex<Counts>,
    pub(super) item_pool: ItemPool,
    pub(super) listeners: Listeners,
    /// One queue per worker, for the callbacks of its tasks; the last one is for tasks without a
    /// worker.
    pub(super) callbacks: CallQueues,
    pub(super) supervisor: Sender<SupervisorMessage>,
    /// The threads of the pool, the supervisor first. Threads that have ended are removed when one
    /// is added.
    pub(super) threads: Mutex<Vec<PoolThread>>,
    /// Held while the threads are joined, so that each of several shutdowns returns after they have ended.
    pub(super) joining: Mutex<()>,
    /// Set when a thread of the pool has panicked: the scheduler is not used any more.
    pub(super) collapsed: OnceLock<PoolError>,
    /// The process in which the pool was built. A forked copy of it has no threads.
    pub(super) origin: Origin,
    pub(super) clock: Clock,
    pub(super) end: EndSignal,
    /// That of the worker that reported last.
    pub(super) sandbox_report: Mutex<Option<SandboxReport>>,
    pub(super) start_dir: StartDirSlot,
}

/// The settings of a pool, checked by its builder.
pub(super) struct Setup {
    pub(super) scheduling: Settings,
    /// Options of tasks that are submitted without options of their own.
    pub(super) options: ResolvedOptions,
    pub(super) max_pending: Option<usize>,
    /// In bytes of resident memory. A worker above it is recycled.
    pub(super) max_memory: Option<u64>,
    pub(super) limits: Limits,
    /// Stack size of each thread, here and in the workers, in bytes. `None`: the default of the
    /// standard library.
    pub(super) stack: Option<usize>,
    pub(super) initializer: Option<Initializer>,
    pub(super) template: Option<Arc<Template>>,
    /// What each worker runs itself, where there are no templates.
    pub(super) preload: Option<Initializer>,
    pub(super) programs: Programs,
    pub(super) worker_env: Vec<(OsString, OsString)>,
    pub(super) build_id: String,
    pub(super) sandbox: Sandbox,
    pub(super) control_groups: ControlGroups,
    pub(super) crash_keeper: Option<CrashKeeper>,
}

impl Setup {
    /// Number of calls that a worker may have at a time.
    pub(super) fn max_calls(&self, worker: usize) -> usize {
        // Twice the number of calls that are in flight at a time, so that a call never waits for a free
        // claim: if the ring of calls is empty, no reply would announce one.
        2 * (self.scheduling.threads(worker) + MAX_CALLS_AHEAD)
    }

    /// What has run in each worker before all tasks of the program, in itself or in the template.
    pub(super) fn preload(&self) -> Option<&Initializer> {
        self.template.as_ref().map(|template| template.preload()).or(self.preload.as_ref())
    }

    /// What each worker runs itself before all other tasks.
    pub(super) fn first_task(&self, kind: InitializerKind) -> Option<&Initializer> {
        match kind {
            InitializerKind::Preload => self.preload.as_ref(),
            InitializerKind::Initializer => self.initializer.as_ref(),
        }
    }

    /// The limit of the memory of a worker, in bytes, if there is one.
    pub(super) fn most_memory(&self) -> Option<u64> {
        let limits = [self.limits.most_address_space(), self.sandbox.most_memory()];
        limits.into_iter().flatten().min()
    }

    /// What the segments of a worker may take in each direction, in bytes.
    pub(super) fn segment_bytes(&self) -> u64 {
        // They count in what its memory is limited to, and here in what `ulimit -v` allows.
        const SHARE: u64 = 16;
        if procession_os::memory::is_limited() {
            return 0;
        }
        let total = self.sandbox.total_memory_bytes();
        let limits = [self.limits.most_address_space(), self.max_memory, total];
        limits
            .into_iter()
            .flatten()
            .map(|limit| limit / SHARE)
            .min()
            .unwrap_or(u64::MAX)
            .min(MOST_BYTES)
    }
}

/// Set once, when the last worker has ended and every task is complete.
#[derive(Default)]
pub(super) struct EndSignal {
    has_ended: Mutex<bool>,
    changed: Condvar,
}

impl EndSignal {
    pub(super) fn set(&self) {
        *self.has_ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(super) fn wait(&self) {
        let mut has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        while !*has_ended {
            has_ended = self.changed.wait(has_ended).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl PoolInner {
    pub(super) fn lock_state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes an event to the scheduler and carries out its actions.
    pub(super) fn handle(&self, event: Event<Arc<WorkItem>>) {
        self.decide(event, None);
    }

    /// The same, with the data of the results that the event brings. Returns the number of
    /// completions, and of tasks that will be completed after their grace period.
    pub(super) fn decide(
        &self,
        event: Event<Arc<WorkItem>>,
        data: Option<CompletionData<'_>>,
    ) -> usize {
        let mut state = self.lock_state();
        state.track(&event);
        self.decide_all(state, [event], data)
    }

    /// The same, for several events that are decided upon together. They must be of kinds that
    /// [`PoolState::track`] ignores, or have been tracked.
    pub(super) fn decide_all(
        &self,
        mut state: MutexGuard<'_, PoolState>,
        events: impl IntoIterator<Item = Event<Arc<WorkItem>>>,
        data: Option<CompletionData<'_>>,
    ) -> usize {
        if let Some(error) = self.collapsed.get() {
            drop(state);
            events.into_iter().for_each(|event| self.refuse(event, error));
            return 0;
        }
        let now = self.clock.now();
        let actions = match panics::catch(|| state.scheduler.handle(events, now)) {
            Ok(actions) => actions,
            Err(panic) => {
                drop(state);
                self.collapse(&panic);
                return 0;
            }
        };
        let effects = self.apply_actions(&mut state, actions);
        let is_earlier = state.note_earlier_wake_up();
        let wakers = self.take_room_wakers(&mut state);
        drop(state);
        room::wake(wakers);
        if is_earlier {
            let _ = self.supervisor.send(SupervisorMessage::CheckAgain);
        }
        self.run_effects(effects, data)
    }

    /// Notes which layers of the sandbox a worker has.
    pub(super) fn note_sandbox(&self, report: &SandboxReport) {
        let report = &report.behind(&self.setup.control_groups.layers());
        let mut last = self.sandbox_report.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() != Some(report) {
            *last = Some(report.clone());
        }
    }

    /// The time of the next `Tick`, for the supervisor, which sends it.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let mut state = self.lock_state();
        state.wakes_at = state.scheduler.wake_at();
        state.wakes_at
    }

    /// Marks this thread as one that delivers results, until the guards are dropped: its waits for
    /// tasks of this pool are refused, and callbacks are called on another thread, the one for this
    /// worker's tasks.
    pub(super) fn begin_delivering(&self, worker: Option<usize>) -> (RoleGuard, CallSinkGuard) {
        let queue = self.callbacks.get(worker.unwrap_or(usize::MAX));
        let sink = CallSinkGuard::new(queue as Arc<dyn CallSink>);
        (RoleGuard::delivers(callbacks::address(self)), sink)
    }
}
