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
mod post;
mod program;
mod scheduler;
pub mod simulation;
mod supervisor;

use std::cell::Cell;
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

use self::post::{Outgoing, Parcel, Post};
use self::program::{Program, Programs};
use self::scheduler::{Action, Event, Scheduler, Seat, Settings, Verdict};
use self::supervisor::Order;
use super::job::Canceller;
use super::{Engine, Job, Shutdown};
use crate::error::{Death, Exit, PoolError, TaskError};
use crate::future::Cancels;
use crate::guard;
use crate::task::TaskId;
use crate::wire::{Recall, Reply};

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
    orders: Sender<Order>,
    /// The pool's threads; those that have ended are let go from time to time.
    threads: Mutex<Vec<JoinHandle<()>>>,
    ended: Mutex<bool>,
    has_ended: Condvar,
}

/// What the builder settled.
struct Setup {
    slots: Vec<usize>,
    start_timeout: Duration,
    programs: Programs,
    worker_env: Vec<(OsString, OsString)>,
    on_event: Box<dyn Fn(&PoolEvent) + Send + Sync>,
    on_output: Box<dyn Fn(&Output<'_>) + Send + Sync>,
}

/// The scheduler, and what must stay in step with it.
struct Mind {
    scheduler: Scheduler<Arc<Parcel>>,
    /// The present process on each seat.
    posts: Vec<Arc<Post>>,
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
        self.shared.setup.slots.len()
    }

    /// The process ids of the workers that live now.
    pub fn pids(&self) -> Vec<u32> {
        let mind = self.shared.mind();
        mind.posts.iter().map(|post| post.pid()).filter(|&pid| pid != 0).collect()
    }

    fn start(setup: Setup) -> Result<Self, PoolError> {
        let now = Instant::now();
        let (scheduler, actions) = Scheduler::new(
            Settings {
                slots: setup.slots.clone(),
                start_timeout: setup.start_timeout,
                start_tries: START_TRIES,
            },
            now,
        );
        let posts = (0..setup.slots.len()).map(|seat| Arc::new(Post::new(seat, 0))).collect();
        let (orders, receiver) = mpsc::channel();
        let shared = Arc::new(Shared {
            setup,
            mind: Mutex::new(Mind { scheduler, posts, wakes_at: None }),
            orders,
            threads: Mutex::default(),
            ended: Mutex::new(false),
            has_ended: Condvar::new(),
        });
        let supervised = Arc::clone(&shared);
        let supervisor = thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || {
                mark_as_pool_thread();
                supervisor::supervise(&supervised, &receiver);
            })
            .map_err(|error| PoolError::System(format!("cannot start a thread: {error}")))?;
        shared.keep(supervisor);
        let mut mind = shared.mind();
        let outside = shared.perform_inside(&mut mind, actions);
        drop(mind);
        shared.perform_outside(outside, None);
        Ok(Self { shared })
    }
}

/// How many fruitless starts in a row it takes to give up: with the delays between them, after
/// somewhat more than a second.
const START_TRIES: u32 = 8;

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
        let (seat, generation) = (post.seat, post.generation);
        let settling = Settling::Death { worker: seat, pid: post.pid(), last_output };
        self.decide(Event::WorkerExited { seat, generation, exit }, Some(settling));
    }

    fn decide(&self, event: Event<Arc<Parcel>>, settling: Option<Settling<'_>>) -> usize {
        let mut mind = self.mind();
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
                Action::Spawn { seat, generation } => {
                    let post = Arc::new(Post::new(seat, generation));
                    mind.posts[seat] = Arc::clone(&post);
                    let _ = self.orders.send(Order::Start(post));
                }
                Action::Send { seat, turn, attempt, job: parcel } => {
                    let post = &mind.posts[seat];
                    parcel.set_running(true);
                    post.put(Outgoing { turn, attempt, parcel });
                    outside.flush(post);
                }
                Action::Recall { seat, from, through } => {
                    let recall = Recall { from, through };
                    outside.rest.push(Deed::Recall(Arc::clone(&mind.posts[seat]), recall));
                }
                Action::Dismiss { seat } => {
                    outside.rest.push(Deed::Dismiss(Arc::clone(&mind.posts[seat])));
                }
                Action::Kill { seat } => {
                    outside.rest.push(Deed::Kill(Arc::clone(&mind.posts[seat])));
                }
                Action::Complete { job, verdict } => {
                    outside.rest.push(Deed::Complete(job, verdict));
                }
                Action::TakenBack { job } => job.set_running(false),
                Action::End => outside.rest.push(Deed::End),
            }
        }
        outside
    }

    /// All the rest, some of which takes its time or calls the user's code. Gives the number of
    /// tasks that were completed.
    fn perform_outside(&self, outside: Outside, settling: Option<Settling<'_>>) -> usize {
        // Workers first: they should not wait for the user's code.
        for post in outside.flush {
            post.flush();
        }
        let mut completed = 0;
        for deed in outside.rest {
            match deed {
                Deed::Recall(post, recall) => post.recall(recall),
                Deed::Dismiss(post) => post.dismiss(),
                Deed::Kill(post) => post.kill(),
                Deed::Complete(parcel, verdict) => {
                    completed += 1;
                    complete(&parcel, verdict, settling.as_ref());
                }
                Deed::End => {
                    let _ = self.orders.send(Order::End);
                    *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    self.has_ended.notify_all();
                }
            }
        }
        completed
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

    fn slots(&self, seat: Seat) -> usize {
        self.setup.slots[seat]
    }

    fn start_timeout(&self) -> Duration {
        self.setup.start_timeout
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
            self.report(&PoolEvent::ProgramPassedOver { program, reason: reason.to_owned() });
        }
        passed_over.is_some()
    }

    fn worker_env(&self) -> &[(OsString, OsString)] {
        &self.setup.worker_env
    }

    fn report(&self, event: &PoolEvent) {
        let _ = guard::catch(|| (self.setup.on_event)(event));
    }

    fn said(&self, output: &Output<'_>) {
        let _ = guard::catch(|| (self.setup.on_output)(output));
    }
}

/// What is left to do when the scheduler's lock was released.
#[derive(Default)]
struct Outside {
    flush: Vec<Arc<Post>>,
    rest: Vec<Deed>,
}

enum Deed {
    Recall(Arc<Post>, Recall),
    Dismiss(Arc<Post>),
    Kill(Arc<Post>),
    Complete(Arc<Parcel>, Verdict),
    End,
}

impl Outside {
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

fn complete(parcel: &Parcel, verdict: Verdict, settling: Option<&Settling<'_>>) {
    let error = match (verdict, settling) {
        (Verdict::Answered, Some(Settling::Reply(reply))) => {
            if let Some(owed) = parcel.take_owed() {
                owed.answer(reply);
            }
            return;
        }
        (
            Verdict::Died { exit, attempts, ran_for },
            Some(Settling::Death { worker, pid, last_output }),
        ) => TaskError::WorkerDied(Death {
            worker: *worker,
            pid: *pid,
            exit,
            attempts,
            ran_for,
            last_output: last_output.clone(),
        }),
        (Verdict::Cancelled, _) => TaskError::Cancelled,
        (Verdict::Broken(error), _) => TaskError::PoolBroken(error),
        (verdict @ (Verdict::Answered | Verdict::Died { .. }), _) => {
            unreachable!("{verdict:?} without what it is made of")
        }
    };
    parcel.fail(error);
}

impl Engine for ProcessPool {
    fn enqueue(&self, job: Job) {
        if let Some(encoded) = job.encode() {
            let parcel = Arc::new(Parcel::new(encoded));
            let (id, bytes) = (parcel.id, parcel.bytes());
            self.shared.handle(Event::Submitted { id, job: parcel, bytes });
        }
    }

    fn ahead(&self) -> usize {
        // Enough for full outboxes, and as much again waiting.
        self.shared.setup.slots.iter().sum::<usize>() * 2 + self.workers() * 64
    }

    fn canceller(&self) -> Option<Canceller> {
        let weak: Weak<Shared> = Arc::downgrade(&self.shared);
        Some(Canceller(weak))
    }

    fn shut_down(&self, how: Shutdown) {
        self.shared.handle(Event::ShutDown(how));
        if is_pool_thread() {
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

thread_local! {
    static IS_POOL_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Callbacks run on these threads, and a callback cannot wait for its own thread to end.
fn mark_as_pool_thread() {
    IS_POOL_THREAD.set(true);
}

fn is_pool_thread() -> bool {
    IS_POOL_THREAD.get()
}
