//! The process pool: its face, and how its parts hang together.
//!
//! ```text
//!   callers ── submit, cancel, shutdown ──┐                 ┌──► Complete: promise kept
//!   handler threads ── replies, ends ─────┼──► Scheduler ───┼──► Send, Recall: to a worker
//!   supervisor thread ── time, failures ──┘   (under lock)  └──► Spawn: to the supervisor
//! ```
//!
//! - [`scheduler`] decides and does nothing; [`Shared::handle`] does what it decided, after the
//!   lock was released.
//! - [`supervisor`] starts workers, [`handler`] talks to one of them each, [`child`] is a worker as
//!   the operating system sees it and [`post`] as the pool does.
//! - [`simulation`] tries the scheduler in a world of chance.

mod builder;
mod child;
mod handler;
mod limits;
mod meeting_place;
mod post;
mod program;
mod retries;
mod scheduler;
pub mod simulation;
mod stats;
mod supervisor;
mod terms;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

pub use builder::Builder;
pub use child::Stream;
pub use limits::{Limits, Recycling};
pub use meeting_place::PrivateDir;
pub use retries::{Fault, Retries};
pub use stats::{Stats, Times};
pub use terms::Terms;

use self::post::{Doom, Outgoing, Parcel, Post};
use self::program::{Program, Programs};
use self::scheduler::{Action, Event, Scheduler, Settings, TaskTerms, Tenant, Verdict};
use self::stats::Counts;
use self::supervisor::Order;
use super::callbacks::{self, Calling};
use super::job::Canceller;
use super::{Engine, Job, Shutdown};
use crate::error::{Death, Exit, PoolError, TaskError};
use crate::future::{Cancels, Future};
use crate::guard;
use crate::task::{Task, TaskId};
use crate::wire::{Call, INLINE_LIMIT, Recall, Reply, Status, Text, Whisper};

/// An executor that runs tasks in worker processes.
///
/// A worker may segfault, hang, leak or be killed: that costs the task that it ran, and a new
/// worker takes its place. See [`Builder`] for what can be set.
///
/// Dropped, the pool cancels all that is not finished, kills its workers and leaves nothing
/// behind; to have everything finished, [`shutdown`](super::Executor::shutdown) it with
/// [`Shutdown::Wait`].
pub struct ProcessPool {
    shared: Arc<Shared>,
}

/// Something that happened in a process pool and that an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolEvent {
    /// A worker is ready for tasks.
    WorkerStarted {
        /// Which worker, counted from 0.
        worker: usize,
        /// Its process id.
        pid: u32,
    },
    /// A worker that had been ready ended.
    WorkerExited {
        /// Which worker, counted from 0.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// How it ended: with code 0 if it was let go.
        exit: Exit,
    },
    /// A task was handed to a worker. It begins when those that were handed over before it are
    /// done; only short tasks are handed over ahead.
    TaskStarted {
        /// The task, as its future has it.
        task: TaskId,
        /// Which worker, counted from 0.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// Which attempt this is, counted from 1.
        attempt: u32,
    },
    /// A task came to grief and will be run again.
    TaskRetried {
        /// The task, as its future has it.
        task: TaskId,
        /// What came between.
        fault: Fault,
        /// Which attempt the next one is.
        attempt: u32,
        /// How long until then, at least.
        pause: Duration,
    },
    /// A task ran longer than it may, for the last time, and was ended with its worker.
    TaskTimedOut {
        /// The task, as its future has it.
        task: TaskId,
        /// How long it was allowed to run.
        after: Duration,
    },
    /// A program that was to serve as worker cannot, so another one is used.
    ProgramPassedOver {
        /// The program that was tried.
        program: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A line that a worker wrote to its standard output or error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output<'l> {
    /// Which worker, counted from 0.
    pub worker: usize,
    /// Its process id.
    pub pid: u32,
    /// Where it wrote to.
    pub stream: Stream,
    /// The line, without its end.
    pub line: &'l str,
}

/// All that the pool's threads have in common.
struct Shared {
    setup: Setup,
    mind: Mutex<Mind>,
    /// Signalled when fewer tasks are pending, for those that wait to submit one.
    room: Condvar,
    counts: Mutex<Counts>,
    orders: Sender<Order>,
    /// The pool's threads; those that have ended are let go from time to time.
    threads: Mutex<Vec<JoinHandle<()>>>,
    ended: Mutex<bool>,
    has_ended: Condvar,
}

/// What the builder settled.
struct Setup {
    scheduling: Settings,
    /// For tasks that come without terms of their own.
    terms: TaskTerms,
    max_pending: Option<usize>,
    max_memory: Option<u64>,
    limits: Limits,
    initializer: Option<Initializer>,
    programs: Programs,
    worker_env: Vec<(OsString, OsString)>,
    on_event: Option<OnEvent>,
    on_output: OnOutput,
}

type OnEvent = Box<dyn Fn(&PoolEvent) + Send + Sync>;
type OnOutput = Box<dyn Fn(&Output<'_>) + Send + Sync>;

/// The scheduler, and what must stay in step with it.
struct Mind {
    scheduler: Scheduler<Arc<Parcel>>,
    /// The processes that were decided on and have not ended.
    posts: HashMap<Tenant, Arc<Post>>,
    /// Tasks that were let in and have not reached the scheduler yet.
    entering: usize,
    /// When the supervisor will wake the scheduler by itself.
    wakes_at: Option<Instant>,
}

impl ProcessPool {
    /// A pool of one worker per CPU, which run this same program; it must call
    /// [`serve_if_asked`](crate::worker::serve_if_asked) first thing in `main`.
    pub fn new() -> Result<Self, PoolError> {
        Self::builder().build()
    }

    /// For a pool that is not like all others.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// How many worker processes the pool keeps.
    pub fn workers(&self) -> usize {
        self.shared.setup.scheduling.slots.len()
    }

    /// The process ids of the workers that live now.
    pub fn pids(&self) -> Vec<u32> {
        self.shared.pids(&self.shared.mind())
    }

    /// What the pool has done so far.
    pub fn stats(&self) -> Stats {
        let mind = self.shared.mind();
        let pids = self.shared.pids(&mind);
        let (pending, running) = mind.scheduler.not_begun_and_running();
        drop(mind);
        let counts = self.shared.counts();
        let Counts { done, failed, cancelled, retried, spawned, wait, run } = &*counts;
        Stats {
            pids,
            pending,
            running,
            done: *done,
            failed: *failed,
            cancelled: *cancelled,
            retried: *retried,
            respawned: spawned.saturating_sub(self.workers() as u64),
            wait: wait.clone(),
            run: run.clone(),
        }
    }

    /// Like [`submit`](super::Executor::submit), under terms of the task's own.
    pub fn submit_with<T: Task>(&self, terms: Terms, task: T) -> Future<T::Output> {
        let (job, future) = Job::new(task, self.canceller());
        self.shared.wait_for_room();
        self.shared.enter(job, terms.resolve(self.shared.setup.terms));
        future
    }

    /// Like [`submit`](super::Executor::submit), but gives the task back where that would wait,
    /// because as many tasks are pending as [`Builder::max_pending`] allows.
    pub fn try_submit<T: Task>(&self, task: T) -> Result<Future<T::Output>, Full<T>> {
        self.try_submit_with(Terms::new(), task)
    }

    /// [`try_submit`](Self::try_submit) under terms of the task's own.
    pub fn try_submit_with<T: Task>(
        &self,
        terms: Terms,
        task: T,
    ) -> Result<Future<T::Output>, Full<T>> {
        if !self.shared.try_take_room(&mut self.shared.mind()) {
            return Err(Full(task));
        }
        let (job, future) = Job::new(task, self.canceller());
        self.shared.enter(job, terms.resolve(self.shared.setup.terms));
        Ok(future)
    }

    fn start(setup: Setup) -> Result<Self, PoolError> {
        let now = Instant::now();
        let (scheduler, actions) = Scheduler::new(setup.scheduling.clone(), now);
        let (orders, receiver) = mpsc::channel();
        let shared = Arc::new(Shared {
            setup,
            mind: Mutex::new(Mind {
                scheduler,
                posts: HashMap::new(),
                entering: 0,
                wakes_at: None,
            }),
            room: Condvar::new(),
            counts: Mutex::default(),
            orders,
            threads: Mutex::default(),
            ended: Mutex::new(false),
            has_ended: Condvar::new(),
        });
        let supervised = Arc::clone(&shared);
        let supervisor = thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || supervisor::supervise(&supervised, &receiver))
            .map_err(|error| PoolError::System(format!("cannot start a thread: {error}")))?;
        shared.keep(supervisor);
        let mut mind = shared.mind();
        let outside = shared.perform_inside(&mut mind, actions);
        drop(mind);
        shared.perform_outside(outside, None);
        Ok(Self { shared })
    }
}

impl Shared {
    fn mind(&self) -> MutexGuard<'_, Mind> {
        self.mind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the scheduler what happened and does what it decides.
    fn handle(&self, event: Event<Arc<Parcel>>) {
        self.decide(event, None);
    }

    /// The same for a reply, which the scheduler may or may not want.
    fn answered(&self, event: Event<Arc<Parcel>>, reply: &Reply<&RawValue>) {
        self.decide(event, Some(Settling::Reply(reply)));
    }

    /// The same for the end of a worker that had been ready.
    fn exited(&self, post: &Post, exit: Exit, last_output: Vec<String>) {
        let tenant = post.tenant;
        let settling = Settling::Death { worker: tenant.seat, pid: post.pid(), last_output };
        self.decide(Event::WorkerExited { tenant, exit }, Some(settling));
    }

    fn decide(&self, event: Event<Arc<Parcel>>, settling: Option<Settling<'_>>) -> usize {
        let mut mind = self.mind();
        match &event {
            Event::Submitted { .. } => mind.entering -= 1,
            Event::WorkerExited { tenant, .. } | Event::StartFailed { tenant, .. } => {
                mind.posts.remove(tenant);
            }
            _ => {}
        }
        let actions = mind.scheduler.handle(event, Instant::now());
        let outside = self.perform_inside(&mut mind, actions);
        let wake_at = mind.scheduler.wake_at();
        let is_earlier = match (wake_at, mind.wakes_at) {
            (Some(at), Some(before)) => at < before,
            (at, None) => at.is_some(),
            (None, Some(_)) => false,
        };
        if is_earlier {
            mind.wakes_at = wake_at;
        }
        if self.setup.max_pending.is_some() && self.has_room(&mind) {
            self.room.notify_all();
        }
        drop(mind);
        if is_earlier {
            let _ = self.orders.send(Order::WakeEarlier);
        }
        self.perform_outside(outside, settling)
    }

    /// What must be in order with the scheduler's decisions: who sits where, and in which order
    /// calls are sent. The rest is left for after the lock.
    fn perform_inside(&self, mind: &mut Mind, actions: Vec<Action<Arc<Parcel>>>) -> Outside {
        let mut outside = Outside::default();
        for action in actions {
            match action {
                Action::Spawn { tenant } => {
                    let post = Arc::new(Post::new(tenant));
                    mind.posts.insert(tenant, Arc::clone(&post));
                    let _ = self.orders.send(Order::Start(post));
                    self.counts().spawned += 1;
                }
                Action::Send { tenant, turn, attempt, job: parcel } => {
                    let Some(post) = mind.posts.get(&tenant) else { continue };
                    parcel.set_running(true);
                    if self.setup.on_event.is_some() {
                        outside.events.push(PoolEvent::TaskStarted {
                            task: parcel.id,
                            worker: tenant.seat,
                            pid: post.pid(),
                            attempt,
                        });
                    }
                    post.put(Outgoing { turn, attempt, parcel });
                    outside.flush(post);
                }
                Action::Recall { tenant, from, through } => {
                    let recall = Recall { from, through };
                    outside.say(mind.posts.get(&tenant), Word::Recall(recall));
                }
                Action::EndCall { tenant, turn } => {
                    outside.say(mind.posts.get(&tenant), Word::End(turn));
                }
                Action::Dismiss { tenant } => {
                    outside.say(mind.posts.get(&tenant), Word::Dismiss);
                }
                Action::Kill { tenant, is_late } => {
                    outside.say(mind.posts.get(&tenant), Word::Kill { is_late });
                }
                Action::Retry { job, fault, attempt, pause } => {
                    job.set_running(false);
                    self.counts().retried += 1;
                    let task = job.id;
                    outside.events.push(PoolEvent::TaskRetried { task, fault, attempt, pause });
                }
                Action::Complete { job, verdict } => outside.completed.push((job, verdict)),
                Action::TakenBack { job } => job.set_running(false),
                Action::End => outside.is_the_end = true,
            }
        }
        outside
    }

    /// All the rest, some of which takes its time or calls the user's code. Gives the number of
    /// tasks that were completed.
    fn perform_outside(&self, outside: Outside, settling: Option<Settling<'_>>) -> usize {
        let Outside { flush, words, events, completed, is_the_end } = outside;
        // Workers first: they should not wait for the user's code.
        for post in flush {
            if let Some(from) = post.flush() {
                let tenant = post.tenant;
                self.handle(Event::Undelivered { tenant, from });
            }
        }
        for (post, word) in words {
            match word {
                Word::Recall(recall) => post.whisper(&Whisper::Recall(recall)),
                Word::End(turn) => post.whisper(&Whisper::End { turn }),
                Word::Dismiss => post.dismiss(),
                Word::Kill { is_late } => {
                    post.kill(if is_late { Doom::Late } else { Doom::Unneeded })
                }
            }
        }
        for event in events {
            self.report(|| event);
        }
        let number = completed.len();
        if number > 0 {
            let _calling = Calling::on_behalf_of(self);
            for (parcel, verdict) in completed {
                self.complete(&parcel, verdict, settling.as_ref());
            }
        }
        if is_the_end {
            let _ = self.orders.send(Order::End);
            *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.has_ended.notify_all();
        }
        number
    }

    /// When the scheduler wants to be woken; for the supervisor, which will do so.
    fn wake_at(&self) -> Option<Instant> {
        let mut mind = self.mind();
        mind.wakes_at = mind.scheduler.wake_at();
        mind.wakes_at
    }

    fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    fn slots(&self, worker: usize) -> usize {
        self.setup.scheduling.slots[worker]
    }

    /// How long a task may be to travel inside a message: together, those that a worker runs must
    /// leave room in its socket, so that nobody who sends to a worker that is stopped has to wait.
    fn inline_limit(&self) -> usize {
        INLINE_LIMIT / self.setup.scheduling.slots.iter().max().expect("at least one worker")
    }

    fn start_timeout(&self) -> Duration {
        self.setup.scheduling.start_timeout
    }

    fn limits(&self) -> Limits {
        self.setup.limits
    }

    fn initializer(&self) -> Option<&Initializer> {
        self.setup.initializer.as_ref()
    }

    /// Whether the worker uses more memory than it may.
    fn is_fat(&self, post: &Post) -> bool {
        self.setup.max_memory.is_some_and(|most| {
            limits::resident_memory(post.pid()).is_some_and(|memory| memory > most)
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pids(&self, mind: &Mind) -> Vec<u32> {
        let mut posts: Vec<_> = mind.posts.iter().filter(|(_, post)| post.is_there()).collect();
        posts.sort_unstable_by_key(|(tenant, _)| **tenant);
        posts.into_iter().map(|(_, post)| post.pid()).collect()
    }

    fn has_room(&self, mind: &Mind) -> bool {
        let waiting = || mind.scheduler.waiting() + mind.entering;
        self.setup.max_pending.is_none_or(|most| waiting() < most)
    }

    fn try_take_room(&self, mind: &mut Mind) -> bool {
        let has_room = self.has_room(mind);
        mind.entering += usize::from(has_room);
        has_room
    }

    /// Waits until one more task may be pending. A callback does not wait, for it may be its own
    /// thread that would have to make room.
    fn wait_for_room(&self) {
        let mut mind = self.mind();
        while !self.has_room(&mind) && !callbacks::is_within(self) {
            mind = self.room.wait(mind).unwrap_or_else(PoisonError::into_inner);
        }
        mind.entering += 1;
    }

    /// Takes in a job for which there is room.
    fn enter(&self, job: Job, terms: TaskTerms) {
        match job.encode() {
            Some(encoded) => {
                let job = Arc::new(Parcel::new(encoded, self.inline_limit()));
                let (id, bytes) = (job.id, job.bytes());
                self.handle(Event::Submitted { id, job, bytes, terms });
            }
            None => {
                self.mind().entering -= 1;
                self.room.notify_all();
            }
        }
    }

    fn program(&self) -> (usize, &Program) {
        self.setup.programs.current()
    }

    fn program_path(&self, rank: usize) -> &Path {
        self.setup.programs.path(rank)
    }

    /// Turns to the next program, if there is one.
    fn pass_over(&self, rank: usize, reason: &str) -> bool {
        let passed_over = self.setup.programs.pass_over(rank);
        if passed_over == Some(true) {
            let program = self.program_path(rank).to_owned();
            let reason = reason.to_owned();
            self.report(|| PoolEvent::ProgramPassedOver { program, reason });
        }
        passed_over.is_some()
    }

    fn worker_env(&self) -> &[(OsString, OsString)] {
        &self.setup.worker_env
    }

    fn report(&self, event: impl FnOnce() -> PoolEvent) {
        if let Some(on_event) = &self.setup.on_event {
            let _calling = Calling::on_behalf_of(self);
            let _ = guard::catch(|| on_event(&event()));
        }
    }

    fn said(&self, output: &Output<'_>) {
        let _calling = Calling::on_behalf_of(self);
        let _ = guard::catch(|| (self.setup.on_output)(output));
    }
}

/// What is left to do when the scheduler's lock was released.
#[derive(Default)]
struct Outside {
    flush: Vec<Arc<Post>>,
    words: Vec<(Arc<Post>, Word)>,
    events: Vec<PoolEvent>,
    completed: Vec<(Arc<Parcel>, Verdict)>,
    is_the_end: bool,
}

/// What a worker is told beside its calls.
enum Word {
    Recall(Recall),
    End(u64),
    Dismiss,
    Kill { is_late: bool },
}

impl Outside {
    fn say(&mut self, post: Option<&Arc<Post>>, word: Word) {
        // A process that has ended in the meantime needs nothing.
        self.words.extend(post.map(|post| (Arc::clone(post), word)));
    }

    fn flush(&mut self, post: &Arc<Post>) {
        if !self.flush.iter().any(|known| Arc::ptr_eq(known, post)) {
            self.flush.push(Arc::clone(post));
        }
    }
}

/// What an event brought along that the scheduler need not know.
enum Settling<'r> {
    Reply(&'r Reply<&'r RawValue>),
    Death { worker: usize, pid: u32, last_output: Vec<String> },
}

impl Shared {
    fn complete(&self, parcel: &Parcel, verdict: Verdict, settling: Option<&Settling<'_>>) {
        let error = match (verdict, settling) {
            (Verdict::Answered, Some(Settling::Reply(reply))) => {
                let ran_for = Duration::from_micros(reply.run_us);
                let mut counts = self.counts();
                let counter = match reply.status {
                    Status::Ok => &mut counts.done,
                    _ => &mut counts.failed,
                };
                *counter += 1;
                counts.run.note(ran_for);
                counts.wait.note(parcel.submitted.elapsed().saturating_sub(ran_for));
                drop(counts);
                if let Some(owed) = parcel.take_owed() {
                    owed.answer(reply);
                }
                return;
            }
            (
                Verdict::Died { exit, attempts, ran_for, is_collateral },
                Some(Settling::Death { worker, pid, last_output }),
            ) => TaskError::WorkerDied(Death {
                task: parcel.name.to_owned(),
                worker: *worker,
                pid: *pid,
                exit,
                attempts,
                ran_for,
                is_collateral,
                last_output: last_output.clone(),
            }),
            (Verdict::TimedOut { after, attempts }, _) => {
                self.report(|| PoolEvent::TaskTimedOut { task: parcel.id, after });
                TaskError::TimedOut { after, attempts }
            }
            (Verdict::Cancelled, _) => TaskError::Cancelled,
            (Verdict::Broken(error), _) => TaskError::PoolBroken(error),
            (verdict @ (Verdict::Answered | Verdict::Died { .. }), _) => {
                unreachable!("{verdict:?} without what it is made of")
            }
        };
        let mut counts = self.counts();
        let is_cancelled = error == TaskError::Cancelled;
        *if is_cancelled { &mut counts.cancelled } else { &mut counts.failed } += 1;
        drop(counts);
        parcel.fail(error);
    }
}

/// A task that each worker runs before all others.
struct Initializer {
    name: &'static str,
    json: String,
}

impl Initializer {
    fn new<T: Task>(task: &T) -> Result<Self, PoolError> {
        let json = serde_json::to_string(task).map_err(|error| {
            PoolError::Setting(format!("cannot encode the initializer as JSON: {error}"))
        })?;
        Ok(Self { name: T::NAME, json })
    }

    fn call(&self) -> Call {
        let task = Text::new(&self.json);
        Call { id: 0, turn: 0, attempt: 1, name: self.name.to_owned(), task }
    }
}

/// There is no room for a further pending task; holds the task that was to be submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many tasks are pending as the pool allows")]
pub struct Full<T>(pub T);

impl Engine for ProcessPool {
    fn enqueue(&self, job: Job) {
        self.shared.wait_for_room();
        self.shared.enter(job, self.shared.setup.terms);
    }

    fn ahead(&self) -> usize {
        // Enough for full outboxes, and as much again waiting.
        self.shared.setup.scheduling.slots.iter().sum::<usize>() * 2 + self.workers() * 64
    }

    fn canceller(&self) -> Option<Canceller> {
        let weak: Weak<Shared> = Arc::downgrade(&self.shared);
        Some(Canceller(weak))
    }

    fn shut_down(&self, how: Shutdown) {
        self.shared.handle(Event::ShutDown(how));
        if callbacks::is_within(&*self.shared) {
            return;
        }
        let mut ended = self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while !*ended {
            ended = self.shared.has_ended.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
        drop(ended);
        let threads = std::mem::take(
            &mut *self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Cancels for Shared {
    fn cancel(&self, id: TaskId) -> bool {
        self.decide(Event::Cancelled { id }, None) > 0
    }
}

impl Drop for ProcessPool {
    fn drop(&mut self) {
        self.shut_down(Shutdown::Kill);
    }
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPool")
            .field("workers", &self.workers())
            .field("pids", &self.pids())
            .finish_non_exhaustive()
    }
}
