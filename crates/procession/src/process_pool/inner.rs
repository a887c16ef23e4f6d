//! The state that all threads of a pool share: the scheduler under its lock. It carries out the
//! scheduler's actions.
//!
//! What must stay in the order of the decisions (who sits where, which call lies before which) is
//! done under the lock; everything that takes time, or calls the user's code, after it.

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::clock::Clock;
use super::completion::Settling;
use super::endings::PoolThread;
use super::program::{Program, Programs};
use super::receive;
use super::stats::Counts;
use super::supervisor::Order;
use super::trace;
use super::work_item::{self, ItemPool, WorkItem};
use super::worker_handle::{KillReason, Outgoing, TerminateOutcome, WorkerHandle};
use super::{Output, PoolEvent};
use crate::codec;
use crate::error::{Exit, PoolError, TaskError};
use crate::executor::Batch;
use crate::executor::callbacks::{self, CallQueues};
use crate::executor::job::{AnyPromise, Encoded, Job, Text};
use crate::future::{self, Future, TaskControl, Waiter, Wake};
use crate::limits::{self, Limits};
use crate::panics;
use crate::progress_lines::{OnSay, Said};
use crate::scheduler::{
    Action, Begun, Event, MOST_AHEAD, ResolvedOptions, Scheduler, Settings, Verdict, WorkerId,
    WorkerIndex,
};
use crate::task::{Task, TaskId};
use crate::transport::Reply;
use crate::waiting::{self, Acting, Need, ReplySender, Through};
use procession_os::fork::Origin;

/// All that the pool's threads have in common.
pub(super) struct PoolInner {
    pub(super) setup: Setup,
    pub(super) state: Mutex<PoolState>,
    /// Signalled when fewer tasks are pending, for those that wait to submit one.
    pub(super) room: Condvar,
    pub(super) counts: Mutex<Counts>,
    pub(super) item_pool: ItemPool,
    /// For the callbacks of the tasks of each worker; the last for those of no worker.
    pub(super) callbacks: CallQueues,
    pub(super) orders: Sender<Order>,
    /// The pool's threads, the supervisor first; those that have ended are let go from time to time.
    pub(super) threads: Mutex<Vec<PoolThread>>,
    /// Why nothing is decided any more: one of the pool's threads has died.
    pub(super) collapsed: OnceLock<PoolError>,
    /// The process that has the pool.
    pub(super) origin: Origin,
    pub(super) clock: Clock,
    pub(super) ended: Mutex<bool>,
    pub(super) has_ended: Condvar,
}

/// What the builder settled.
pub(super) struct Setup {
    pub(super) scheduling: Settings,
    /// For tasks that come without terms of their own.
    pub(super) options: ResolvedOptions,
    pub(super) max_pending: Option<usize>,
    pub(super) max_memory: Option<u64>,
    pub(super) limits: Limits,
    /// Of each thread, here and in the workers, in bytes, where it is not the usual one.
    pub(super) stack: Option<usize>,
    pub(super) initializer: Option<Initializer>,
    pub(super) programs: Programs,
    pub(super) worker_env: Vec<(OsString, OsString)>,
    pub(super) build_id: String,
    pub(super) on_event: Option<OnEvent>,
    /// Whether it wants to hear of each task that starts.
    pub(super) tells_of_starts: bool,
    pub(super) on_output: OnOutput,
    pub(super) on_say: OnSay,
}

pub(super) type OnOutput = Box<dyn Fn(&Output<'_>) + Send + Sync>;

pub(super) type OnEvent = Box<dyn Fn(&PoolEvent) + Send + Sync>;

/// The scheduler, and what must stay in step with it.
pub(super) struct PoolState {
    pub(super) scheduler: Scheduler<Arc<WorkItem>>,
    /// The processes that were decided on and have not ended.
    pub(super) handles: FxHashMap<WorkerId, Arc<WorkerHandle>>,
    /// Seats whose last process did not leave because it was let go.
    pub(super) lost: HashSet<WorkerIndex>,
    /// Tasks that were let in and have not reached the scheduler yet.
    pub(super) entering: usize,
    /// When the supervisor will wake the scheduler by itself.
    pub(super) wakes_at: Option<Instant>,
}

impl PoolState {
    /// Takes note of what the scheduler is about to be told.
    fn keep_in_step(&mut self, event: &Event<Arc<WorkItem>>) {
        match event {
            Event::Submitted { .. } => self.entering = self.entering.saturating_sub(1),
            Event::WorkerExited { worker_id, .. } | Event::StartFailed { worker_id, .. } => {
                let handle = self.handles.remove(worker_id);
                if handle.is_some_and(|handle| !handle.is_dismissed()) {
                    self.lost.insert(worker_id.worker_index);
                }
            }
            _ => {}
        }
    }
}

impl PoolInner {
    pub(super) fn lock_state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the scheduler what happened and does what it decides.
    pub(super) fn handle(&self, event: Event<Arc<WorkItem>>) {
        self.decide(event, None);
    }

    /// The same for replies, which the scheduler may or may not want.
    pub(super) fn answered(&self, events: Vec<Event<Arc<WorkItem>>>, replies: &[Reply<'_>]) {
        self.decide_all(
            self.lock_state(),
            events,
            Some(Settling::Replies { replies, next: Cell::new(0) }),
        );
    }

    /// The same for the end of a worker that had been ready.
    pub(super) fn exited(&self, handle: &WorkerHandle, exit: Exit, last_output: Vec<String>) {
        let worker_id = handle.worker_id;
        let settling =
            Settling::Death { worker: worker_id.worker_index, pid: handle.pid(), last_output };
        let begun = handle.begun();
        self.decide(Event::WorkerExited { worker_id, exit, begun }, Some(settling));
    }

    pub(super) fn decide(
        &self,
        event: Event<Arc<WorkItem>>,
        settling: Option<Settling<'_>>,
    ) -> usize {
        let mut state = self.lock_state();
        state.keep_in_step(&event);
        self.decide_all(state, [event], settling)
    }

    fn decide_all(
        &self,
        mut state: MutexGuard<'_, PoolState>,
        events: impl IntoIterator<Item = Event<Arc<WorkItem>>>,
        settling: Option<Settling<'_>>,
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
        let wake_at = state.scheduler.wake_at();
        let is_earlier = match (wake_at, state.wakes_at) {
            (Some(at), Some(before)) => at < before,
            (at, None) => at.is_some(),
            (None, Some(_)) => false,
        };
        if is_earlier {
            state.wakes_at = wake_at;
        }
        if self.setup.max_pending.is_some() && self.has_room(&state) {
            self.room.notify_all();
        }
        drop(state);
        if is_earlier {
            let _ = self.orders.send(Order::WakeEarlier);
        }
        self.run_effects(effects, settling)
    }

    /// What must be in order with the scheduler's decisions: who sits where, and in which order
    /// calls are sent. The rest is left for after the lock.
    pub(super) fn apply_actions(
        &self,
        state: &mut PoolState,
        actions: Vec<Action<Arc<WorkItem>>>,
    ) -> DeferredEffects {
        let mut effects = DeferredEffects::default();
        for action in actions {
            match action {
                Action::Spawn { worker_id } => {
                    let is_successor = state
                        .handles
                        .keys()
                        .any(|other| other.worker_index == worker_id.worker_index);
                    if state.lost.remove(&worker_id.worker_index) || is_successor {
                        self.counts().respawned += 1;
                    }
                    let handle = Arc::new(WorkerHandle::new(worker_id));
                    state.handles.insert(worker_id, Arc::clone(&handle));
                    let _ = self.orders.send(Order::Start(handle));
                }
                Action::Send { worker_id, seq, attempt, job: work_item, first, items } => {
                    let Some(handle) = state.handles.get(&worker_id) else { continue };
                    work_item.set_running(true);
                    if self.setup.tells_of_starts || trace::follows_tasks() {
                        effects.events.push(PoolEvent::TaskStarted {
                            task: work_item.id,
                            worker: worker_id.worker_index,
                            pid: handle.pid(),
                            attempt,
                        });
                    }
                    handle.put(Outgoing { seq, attempt, work_item, items: first..first + items });
                    effects.flush(handle);
                }
                Action::Recall { worker_id, from, through } => {
                    effects.say(state.handles.get(&worker_id), Command::TakeBack(from..=through));
                }
                Action::EndCall { worker_id, seq, allowed } => {
                    effects.say(state.handles.get(&worker_id), Command::End { seq, allowed });
                }
                Action::Dismiss { worker_id } => {
                    effects.say(state.handles.get(&worker_id), Command::Dismiss);
                }
                Action::Kill { worker_id, is_late } => {
                    effects.say(state.handles.get(&worker_id), Command::Kill { is_late });
                }
                Action::Retry { job, first, fault, attempt, pause } => {
                    job.set_running(false);
                    self.counts().retried += 1;
                    let task = TaskId(job.id.0 + u64::from(first));
                    effects.events.push(PoolEvent::TaskRetried { task, fault, attempt, pause });
                }
                Action::Complete { job, first, items, verdict } => {
                    effects.completed.push((job, first..first + items, verdict));
                }
                Action::TakenBack { job, .. } => job.set_running(false),
                Action::End => effects.is_the_end = true,
            }
        }
        effects
    }

    /// All the rest, some of which takes its time or calls the user's code. Gives the number of
    /// tasks that were completed.
    pub(super) fn run_effects(
        &self,
        effects: DeferredEffects,
        settling: Option<Settling<'_>>,
    ) -> usize {
        let DeferredEffects { flush, words, events, completed, is_the_end } = effects;
        // Workers first: they should not wait for the user's code.
        for handle in flush {
            handle.flush();
        }
        for (handle, word) in words {
            match word {
                Command::TakeBack(seqs) => self.returned(&handle, handle.take_back(seqs)),
                Command::End { seq, allowed } => self.end_call(&handle, seq, allowed),
                Command::Dismiss => handle.dismiss(),
                Command::Kill { is_late } => {
                    handle.kill(if is_late { KillReason::Late } else { KillReason::Unneeded })
                }
            }
        }
        for event in events {
            self.report(|| event);
        }
        let number = completed.len();
        if number > 0 {
            callbacks::deliver(self, || self.complete_all(completed, settling.as_ref()));
        }
        if is_the_end {
            let _ = self.orders.send(Order::End);
            self.note_the_end();
        }
        number
    }

    fn complete_all(&self, completed: Vec<Completed>, settling: Option<&Settling<'_>>) {
        let mut delivered = Vec::with_capacity(completed.len());
        for (mut work_item, items, verdict) in completed {
            self.complete(&work_item, items, verdict, settling);
            if Arc::get_mut(&mut work_item).is_some_and(WorkItem::empty) {
                delivered.push(work_item);
            }
        }
        self.item_pool.keep(delivered);
    }

    /// To be held by a thread as long as it passes on what a worker replied; or what concerns no
    /// worker. It must not wait for the pool's tasks, so it has callbacks called elsewhere.
    pub(super) fn deliver_for(&self, worker: Option<usize>) -> (Acting, Through) {
        let queue = self.callbacks.get(worker.unwrap_or(usize::MAX));
        let through = Through::reply_sender(queue as Arc<dyn ReplySender>);
        (Acting::delivers(callbacks::address(self)), through)
    }

    pub(super) fn note_the_end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.has_ended.notify_all();
    }

    fn returned(&self, handle: &WorkerHandle, calls: Vec<Begun>) {
        if !calls.is_empty() {
            self.handle(Event::Returned { worker_id: handle.worker_id, calls });
        }
    }

    fn end_call(&self, handle: &WorkerHandle, seq: u64, allowed: Option<Duration>) {
        let (outcome, back) = handle.end_call(seq, allowed);
        self.returned(handle, back);
        if let TerminateOutcome::Suspended(claimed) = outcome {
            self.handle(Event::NotYet { worker_id: handle.worker_id, seq, claimed });
        }
    }

    /// When the scheduler wants to be woken; for the supervisor, which will do so.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let mut state = self.lock_state();
        state.wakes_at = state.scheduler.wake_at();
        state.wakes_at
    }

    pub(super) fn threads(&self) -> MutexGuard<'_, Vec<PoolThread>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn slots(&self, worker: usize) -> usize {
        self.setup.scheduling.slots[worker]
    }

    /// How many calls a worker may have at a time.
    pub(super) fn most_calls(&self, worker: usize) -> usize {
        // Twice as many as are ever sent: a call that found no place while nothing is unread
        // would be tried over and over.
        2 * (self.slots(worker) + MOST_AHEAD)
    }

    pub(super) fn start_timeout(&self) -> Duration {
        self.setup.scheduling.start_timeout
    }

    pub(super) fn limits(&self) -> Limits {
        self.setup.limits
    }

    pub(super) fn initializer(&self) -> Option<&Initializer> {
        self.setup.initializer.as_ref()
    }

    /// Whether the worker uses more memory than it may.
    pub(super) fn is_over_memory_limit(&self, handle: &WorkerHandle) -> bool {
        self.setup.max_memory.is_some_and(|most| {
            limits::resident_memory(handle.pid()).is_some_and(|memory| memory > most)
        })
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pids(&self, state: &PoolState) -> Vec<u32> {
        let mut handles: Vec<_> =
            state.handles.iter().filter(|(_, handle)| handle.is_there()).collect();
        handles.sort_unstable_by_key(|(worker_id, _)| **worker_id);
        handles.into_iter().map(|(_, handle)| handle.pid()).collect()
    }

    pub(super) fn has_room(&self, state: &PoolState) -> bool {
        let waiting = || state.scheduler.waiting() + state.entering;
        self.setup.max_pending.is_none_or(|most| waiting() < most)
    }

    pub(super) fn try_take_room(&self, state: &mut PoolState) -> bool {
        let has_room = self.has_room(state);
        state.entering += usize::from(has_room && self.setup.max_pending.is_some());
        has_room
    }

    /// Waits until one more task may be pending. A callback does not wait, for it may be its own
    /// thread that would have to make room.
    pub(super) fn wait_for_room(&self) {
        if self.setup.max_pending.is_none() || self.origin.is_forked() {
            return;
        }
        let _waiting = waiting::begin([], Need::Time);
        let mut state = self.lock_state();
        while !self.has_room(&state)
            && !callbacks::is_within(self)
            && self.collapsed.get().is_none()
        {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.entering += 1;
    }

    /// Takes in a job for which there is room.
    pub(super) fn enter(&self, job: Job, options: ResolvedOptions) {
        if self.origin.is_forked() {
            return job.fail(TaskError::PoolBroken(PoolError::Forked));
        }
        // What is encoded may submit as well, and must not wait for room that this has taken.
        let acting = self.setup.max_pending.map(|_| Acting::serves(callbacks::address(self), None));
        let encoded = job.encode();
        drop(acting);
        let encoded = encoded.and_then(|encoded| match work_item::refusal(&encoded) {
            None => Some(encoded),
            Some(error) => {
                encoded.owed.fail(error);
                None
            }
        });
        match encoded {
            Some(encoded) => {
                self.submitted(self.item_pool.pack(encoded), options);
            }
            None if self.setup.max_pending.is_some() => {
                self.lock_state().entering -= 1;
                self.room.notify_all();
            }
            None => {}
        }
    }

    /// Takes in tasks that are handed over together.
    pub(super) fn enter_batch(&self, batch: Batch) {
        let work_item = Arc::new(WorkItem::of_many(batch));
        if self.origin.is_forked() {
            work_item.fail(0..work_item.items(), TaskError::PoolBroken(PoolError::Forked));
            return;
        }
        self.submitted(work_item, self.setup.options);
    }

    fn submitted(&self, job: Arc<WorkItem>, options: ResolvedOptions) {
        let (id, items, bytes) = (job.id, job.items(), job.bytes());
        self.handle(Event::Submitted { id, job, items, bytes, options });
    }

    /// How many tasks it is good to hand over together. Where each of them is reported, or
    /// counts against a limit, or would find several at work in its process, they go one by one.
    pub(super) fn chunk_size(&self) -> usize {
        let Setup { scheduling, max_pending, tells_of_starts, .. } = &self.setup;
        let is_plain = max_pending.is_none()
            && !tells_of_starts
            && !trace::follows_tasks()
            && scheduling.slots.iter().all(|slots| *slots == 1);
        if is_plain && !self.origin.is_forked() {
            self.lock_state().scheduler.chunk_size() as usize
        } else {
            1
        }
    }

    pub(super) fn program(&self) -> (usize, &Program) {
        self.setup.programs.current()
    }

    pub(super) fn program_path(&self, rank: usize) -> &Path {
        self.setup.programs.path(rank)
    }

    pub(super) fn is_this_program(&self, rank: usize) -> bool {
        self.setup.programs.is_this(rank)
    }

    pub(super) fn note_that_it_serves(&self, rank: usize) {
        self.setup.programs.note_that_it_serves(rank);
    }

    pub(super) fn is_known_to_serve(&self, rank: usize) -> bool {
        self.setup.programs.is_known_to_serve(rank)
    }

    /// Turns to the next program, if there is one.
    pub(super) fn pass_over(&self, rank: usize, reason: &str) -> bool {
        let passed_over = self.setup.programs.pass_over(rank);
        if passed_over == Some(true) {
            let program = self.program_path(rank).to_owned();
            let reason = reason.to_owned();
            self.report(|| PoolEvent::ProgramPassedOver { program, reason });
        }
        passed_over.is_some()
    }

    pub(super) fn worker_env(&self) -> &[(OsString, OsString)] {
        &self.setup.worker_env
    }

    pub(super) fn report(&self, event: impl FnOnce() -> PoolEvent) {
        let on_event = self.setup.on_event.as_ref();
        if on_event.is_none() && !trace::is_on() {
            return;
        }
        let _acting = Acting::delivers(callbacks::address(self));
        let event = event();
        let _ = panics::catch(|| trace::tell(&event));
        let _ = panics::catch(|| on_event.map(|on_event| on_event(&event)));
    }

    pub(super) fn said(&self, output: &Output<'_>) {
        let _acting = Acting::delivers(callbacks::address(self));
        let _ = panics::catch(|| (self.setup.on_output)(output));
    }

    /// Passes on what a task says.
    pub(super) fn heard(&self, handle: &WorkerHandle, task: TaskId, line: &str) {
        let (worker, pid) = (handle.worker(), handle.pid());
        let _acting = Acting::delivers(callbacks::address(self));
        let _ = panics::catch(|| (self.setup.on_say)(&Said { task, worker, pid, line }));
    }
}

/// What is left to do when the scheduler's lock was released.
#[derive(Default)]
pub(super) struct DeferredEffects {
    flush: Vec<Arc<WorkerHandle>>,
    words: Vec<(Arc<WorkerHandle>, Command)>,
    events: Vec<PoolEvent>,
    completed: Vec<Completed>,
    is_the_end: bool,
}

/// Tasks of a parcel, and how they ended.
type Completed = (Arc<WorkItem>, Range<u32>, Verdict);

/// What a worker is told beside its calls.
pub(super) enum Command {
    TakeBack(RangeInclusive<u64>),
    End { seq: u64, allowed: Option<Duration> },
    Dismiss,
    Kill { is_late: bool },
}

impl DeferredEffects {
    pub(super) fn say(&mut self, handle: Option<&Arc<WorkerHandle>>, word: Command) {
        // A process that has ended in the meantime needs nothing.
        self.words.extend(handle.map(|handle| (Arc::clone(handle), word)));
    }

    pub(super) fn flush(&mut self, handle: &Arc<WorkerHandle>) {
        if !self.flush.iter().any(|known| Arc::ptr_eq(known, handle)) {
            self.flush.push(Arc::clone(handle));
        }
    }
}

/// The output of an initializer, which is not looked at.
#[derive(Debug, Serialize)]
pub(super) struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A task that each worker runs before all others.
pub(super) struct Initializer {
    name: &'static str,
    text: Text,
}

impl Initializer {
    pub(super) fn new<T: Task>(task: &T) -> Result<Self, PoolError> {
        let mut text = Vec::new();
        // Each worker would need the blobs, so they stay in the text.
        let encoded = codec::encode_without_blobs(T::ENCODING, task, &mut text);
        encoded.map_err(|refusal| {
            let error = refusal.into_error("task", T::NAME);
            PoolError::Setting(format!("the initializer cannot be sent: {error}"))
        })?;
        Ok(Self { name: T::NAME, text: Text::from_vec(text) })
    }

    /// The task for one worker, and its future.
    pub(super) fn work_item(&self) -> (Arc<WorkItem>, Future<Ignored>) {
        let id = TaskId(0);
        let (promise, future) = future::promise(id, None);
        let owed = AnyPromise::new(promise);
        let encoded =
            Encoded { id, name: self.name, text: self.text.clone(), blobs: Vec::new(), owed };
        (Arc::new(WorkItem::new(encoded)), future)
    }
}

impl TaskControl for PoolInner {
    fn cancel(&self, id: TaskId) -> bool {
        !self.origin.is_forked() && self.decide(Event::Cancelled { id }, None) > 0
    }

    /// Where the task is the only one that its worker has, its reply need not take the way over
    /// the worker's handler: one thread less to wake, which is most of the time of a short task.
    fn fetch(&self, id: TaskId, waiter: &dyn Waiter) {
        if self.origin.is_forked() {
            return;
        }
        let state = self.lock_state();
        let Some((worker_id, seq)) = state.scheduler.only_call(id) else { return };
        let Some(handle) = state.handles.get(&worker_id).map(Arc::clone) else { return };
        drop(state);
        waiter.wake_by(Some(Arc::clone(&handle) as Arc<dyn Wake>));
        let is_done = || waiter.is_done();
        handle.lend(seq, &is_done, || {
            // The channel library's panics must not reach the caller, no more than the handler.
            let _delivering = self.deliver_for(Some(handle.worker()));
            let received = panics::catch(|| receive::lend_a_hand(self, &handle, is_done));
            match received {
                Ok(Ok(were_there)) => were_there,
                _ => {
                    handle.kill(KillReason::Unusable);
                    false
                }
            }
        });
        waiter.wake_by(None);
    }
}
