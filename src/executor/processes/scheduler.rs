//! The mind of the process pool: decides which worker gets which task, what a worker's end means
//! for the tasks it had, and when a replacement starts.
//!
//! ```text
//!            Submitted ─► pending ──Send──► in flight on one seat ──Replied──► Complete
//!                            ▲                      │
//!                            └──── Returned, or ────┘
//!                              the worker ended and
//!                              this had not begun
//! ```
//!
//! It is pure: events and the time go in, actions come out. It does no I/O, reads no clock, starts
//! no thread and knows nothing of JSON, so a test can drive it through any schedule (see
//! `simulation.rs`). What holds after each step:
//!
//! - a task is pending, or in flight on exactly one seat, or completed, and is completed once;
//! - a seat has at most one process;
//! - after a shutdown every task is completed before [`Action::End`].
//!
//! **Who is to blame.** A worker begins its calls in the order in which they were sent, on `slots`
//! threads. So of the calls that it has not answered, the first `slots` are the ones that run, and
//! only these can have killed it; the others go back to the head of the queue at no cost.
//!
//! **How many calls to send ahead.** While a worker does one call, the next may already lie in
//! its socket, which spares it a round trip. For short tasks that is most of the time, for long
//! ones it is nothing, while a call that lies behind a long one is stuck there. So the number
//! depends on how long tasks took so far, and calls that turn out to be stuck behind a long one
//! while another worker is idle are recalled.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::error::{Exit, PoolError};
use crate::executor::Shutdown;
use crate::task::TaskId;

/// Calls that lie ahead in a worker's socket never exceed this many bytes of text, nor
/// [`MOST_AHEAD`]: both are well below what fills a socket's buffer, so a send never blocks.
const BYTES_AHEAD: usize = 64 * 1024;
const MOST_AHEAD: usize = 32;
/// Calls sent ahead should keep a worker busy for about this long.
const WORK_AHEAD: Duration = Duration::from_micros(500);
/// Tasks that take longer than this gain nothing from lying ahead.
const LONG: Duration = Duration::from_millis(5);
/// A call that lies behind one that has run for this long is recalled if a worker is idle.
const STUCK: Duration = Duration::from_millis(5);
/// How long a worker may take to leave after it was told to.
const LEAVE: Duration = Duration::from_secs(5);

const FIRST_BACKOFF: Duration = Duration::from_millis(10);
/// Failures that lie further apart than this are no series.
const FORGIVEN: Duration = Duration::from_secs(60);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// What a scheduler is told at its start.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How many tasks each worker runs at a time; as many seats as entries.
    pub slots: Vec<usize>,
    /// How long a worker may take from its start until it is ready.
    pub start_timeout: Duration,
    /// After how many starts in a row that led to nothing the pool gives up.
    pub start_tries: u32,
}

/// A place for a worker process; filled again when the process ends.
pub(crate) type Seat = usize;

/// Counts the processes on a seat, so that news of an earlier one is not taken for news of the
/// present one.
pub(crate) type Generation = u64;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event<J> {
    Submitted {
        id: TaskId,
        job: J,
        bytes: usize,
    },
    Cancelled {
        id: TaskId,
    },
    WorkerReady {
        seat: Seat,
        generation: Generation,
    },
    /// The worker answered; `ran_for` as it says itself.
    Replied {
        seat: Seat,
        generation: Generation,
        id: TaskId,
        ran_for: Duration,
    },
    /// The worker gave the calls of these turns back, which it had not begun.
    Returned {
        seat: Seat,
        generation: Generation,
        from: u64,
        through: u64,
    },
    /// No process could be started, or it ended before it was ready.
    StartFailed {
        seat: Seat,
        generation: Generation,
        cause: String,
        again: Again,
    },
    /// A process that had been ready ended.
    WorkerExited {
        seat: Seat,
        generation: Generation,
        exit: Exit,
    },
    /// A time that [`Scheduler::wake_at`] named has come.
    Tick,
    ShutDown(Shutdown),
}

/// Whether a failed start says something about the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// The next attempt is made of something else (another program): at once.
    AtOnce,
    WithBackoff,
    /// It is certain to fail the same way.
    Never,
}

/// What is to be done about it, in this order.
#[derive(Debug)]
pub(crate) enum Action<J> {
    Spawn {
        seat: Seat,
        generation: Generation,
    },
    Send {
        seat: Seat,
        turn: u64,
        attempt: u32,
        job: J,
    },
    Recall {
        seat: Seat,
        from: u64,
        through: u64,
    },
    /// Let the worker leave: no call will follow.
    Dismiss {
        seat: Seat,
    },
    Kill {
        seat: Seat,
    },
    Complete {
        job: J,
        verdict: Verdict,
    },
    /// A job that had been handed over is pending again.
    TakenBack {
        job: J,
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
    },
    Cancelled,
    Broken(PoolError),
}

#[derive(Debug)]
pub(crate) struct Scheduler<J> {
    settings: Settings,
    tasks: HashMap<TaskId, Entry<J>>,
    /// The queue; ids of tasks that are no longer pending are skipped when they come up.
    queue: VecDeque<TaskId>,
    pending: usize,
    seats: Vec<SeatState>,
    /// How long tasks take, averaged with more weight on the latest.
    typical: Option<Duration>,
    /// Starts, and idle deaths, in a row without a task done in between.
    fruitless: u32,
    last_fruitless: Instant,
    phase: Phase,
    has_ended: bool,
}

#[derive(Debug)]
struct Entry<J> {
    job: J,
    bytes: usize,
    /// How often it was begun.
    begun: u32,
    is_pending: bool,
}

#[derive(Debug)]
struct SeatState {
    generation: Generation,
    stage: Stage,
    calls: VecDeque<Sent>,
    bytes: usize,
    /// Turns given out to this process.
    turns: u64,
    /// The turn up to which calls were recalled.
    recalled: u64,
}

#[derive(Debug)]
struct Sent {
    id: TaskId,
    turn: u64,
    bytes: usize,
    /// Since when it runs, as far as can be told from here: one of the worker's slots was free
    /// for it from then on.
    since: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No process, and none comes before this time.
    Vacant {
        until: Instant,
    },
    Starting {
        until: Instant,
    },
    Ready,
    /// Told to leave, or killed, and not gone yet.
    Leaving {
        until: Option<Instant>,
    },
    /// No process, for good.
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Open,
    ShuttingDown(Shutdown),
    Broken(PoolError),
}

impl<J: Clone> Scheduler<J> {
    /// A scheduler, and its first actions.
    pub(crate) fn new(settings: Settings, now: Instant) -> (Self, Vec<Action<J>>) {
        let seat = || SeatState {
            generation: 0,
            stage: Stage::Vacant { until: now },
            calls: VecDeque::new(),
            bytes: 0,
            turns: 0,
            recalled: 0,
        };
        let mut scheduler = Self {
            seats: settings.slots.iter().map(|_| seat()).collect(),
            settings,
            tasks: HashMap::new(),
            queue: VecDeque::new(),
            pending: 0,
            typical: None,
            fruitless: 0,
            last_fruitless: now,
            phase: Phase::Open,
            has_ended: false,
        };
        let mut actions = Vec::new();
        scheduler.fill_seats(now, &mut actions);
        (scheduler, actions)
    }

    /// Takes note of what happened and says what is to be done.
    pub(crate) fn handle(&mut self, event: Event<J>, now: Instant) -> Vec<Action<J>> {
        let mut actions = Vec::new();
        match event {
            Event::Submitted { id, job, bytes } => self.submitted(id, job, bytes, &mut actions),
            Event::Cancelled { id } => {
                if self.tasks.get(&id).is_some_and(|task| task.is_pending) {
                    self.complete(id, Verdict::Cancelled, &mut actions);
                }
            }
            Event::WorkerReady { seat, generation } => {
                if self.is_present(seat, generation)
                    && matches!(self.seats[seat].stage, Stage::Starting { .. })
                {
                    self.seats[seat].stage = Stage::Ready;
                }
            }
            Event::Replied { seat, generation, id, ran_for } => {
                if self.is_present(seat, generation) && self.answered(seat, id, now) {
                    self.learn(ran_for);
                    self.complete(id, Verdict::Answered, &mut actions);
                }
            }
            Event::Returned { seat, generation, from, through } => {
                if self.is_present(seat, generation) {
                    self.returned(seat, from..=through, now, &mut actions);
                }
            }
            Event::StartFailed { seat, generation, cause, again } => {
                if self.is_present(seat, generation) {
                    self.start_failed(seat, cause, again, now, &mut actions);
                }
            }
            Event::WorkerExited { seat, generation, exit } => {
                if self.is_present(seat, generation) {
                    self.exited(seat, exit, now, &mut actions);
                }
            }
            Event::Tick => self.tick(now, &mut actions),
            Event::ShutDown(how) => self.shut_down(how, &mut actions),
        }
        self.fill_seats(now, &mut actions);
        self.dispatch(now, &mut actions);
        self.recall_stuck(now, &mut actions);
        self.dismiss_if_done(now, &mut actions);
        actions
    }

    /// When to send the next [`Event::Tick`], if nothing else happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let stuck = if self.pending == 0 && self.has_idle_slot() {
            (0..self.seats.len()).filter_map(|seat| self.stuck_from(seat)).min()
        } else {
            None
        };
        let seats = self.seats.iter().filter_map(|state| match state.stage {
            Stage::Vacant { until } | Stage::Starting { until } => Some(until),
            Stage::Leaving { until } => until,
            Stage::Ready | Stage::Closed => None,
        });
        seats.chain(stuck).min()
    }

    fn submitted(&mut self, id: TaskId, job: J, bytes: usize, actions: &mut Vec<Action<J>>) {
        let refused = match &self.phase {
            Phase::Open => None,
            Phase::Broken(error) => Some(error.clone()),
            Phase::ShuttingDown(_) => Some(PoolError::ShutDown),
        };
        if let Some(error) = refused {
            return actions.push(Action::Complete { job, verdict: Verdict::Broken(error) });
        }
        self.tasks.insert(id, Entry { job, bytes, begun: 0, is_pending: true });
        self.queue.push_back(id);
        self.pending += 1;
    }

    fn is_present(&self, seat: Seat, generation: Generation) -> bool {
        self.seats[seat].generation == generation
            && !matches!(self.seats[seat].stage, Stage::Vacant { .. } | Stage::Closed)
    }

    /// Strikes a call off its seat's list; false if it was not on it.
    fn answered(&mut self, seat: Seat, id: TaskId, now: Instant) -> bool {
        let slots = self.settings.slots[seat];
        let state = &mut self.seats[seat];
        let Some(index) = state.calls.iter().position(|call| call.id == id) else {
            return false;
        };
        let call = state.calls.remove(index).expect("just found");
        state.bytes -= call.bytes;
        // The slot is free for the next in line.
        if let Some(next) = state.calls.get_mut(slots - 1) {
            next.since.get_or_insert(now);
        }
        true
    }

    /// Takes back the calls of these turns.
    fn returned(
        &mut self,
        seat: Seat,
        turns: RangeInclusive<u64>,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let calls = self.seats[seat].calls.iter().filter(|call| turns.contains(&call.turn));
        let ids: Vec<_> = calls.map(|call| call.id).collect();
        for &id in &ids {
            self.answered(seat, id, now);
        }
        self.take_back(ids, actions);
    }

    fn learn(&mut self, ran_for: Duration) {
        self.fruitless = 0;
        self.typical = Some(match self.typical {
            None => ran_for,
            Some(typical) => (typical * 7 + ran_for) / 8,
        });
    }

    fn complete(&mut self, id: TaskId, verdict: Verdict, actions: &mut Vec<Action<J>>) {
        // Whatever was killed in a shutdown was completed as cancelled before its worker's end.
        if let Some(task) = self.tasks.remove(&id) {
            self.pending -= usize::from(task.is_pending);
            actions.push(Action::Complete { job: task.job, verdict });
        }
    }

    /// Makes tasks pending again, ahead of those that wait already.
    fn take_back<I>(&mut self, ids: I, actions: &mut Vec<Action<J>>)
    where
        I: IntoIterator<Item = TaskId, IntoIter: DoubleEndedIterator>,
    {
        let is_open = matches!(self.phase, Phase::Open | Phase::ShuttingDown(Shutdown::Wait));
        for id in ids.into_iter().rev() {
            if !is_open {
                self.complete(id, Verdict::Cancelled, actions);
            } else if let Some(task) = self.tasks.get_mut(&id) {
                task.is_pending = true;
                self.pending += 1;
                self.queue.push_front(id);
                actions.push(Action::TakenBack { job: task.job.clone() });
            }
        }
    }

    fn exited(&mut self, seat: Seat, exit: Exit, now: Instant, actions: &mut Vec<Action<J>>) {
        let slots = self.settings.slots[seat];
        let state = &mut self.seats[seat];
        let was_leaving = matches!(state.stage, Stage::Leaving { .. });
        state.stage = Stage::Vacant { until: now };
        state.bytes = 0;
        let calls = std::mem::take(&mut state.calls);
        if calls.is_empty() && !was_leaving {
            self.back_off(seat, &format!("a worker ended without a task: {exit}"), now, actions);
        }
        for call in calls.iter().take(slots) {
            if let Some(task) = self.tasks.get_mut(&call.id) {
                task.begun += 1;
                let ran_for = now.saturating_duration_since(call.since.unwrap_or(now));
                let verdict = Verdict::Died { exit, attempts: task.begun, ran_for };
                self.complete(call.id, verdict, actions);
            }
        }
        self.take_back(calls.iter().skip(slots).map(|call| call.id), actions);
    }

    fn start_failed(
        &mut self,
        seat: Seat,
        cause: String,
        again: Again,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        self.seats[seat].stage = Stage::Vacant { until: now };
        if self.phase != Phase::Open && self.tasks.is_empty() {
            return; // Nobody needs it any more; it was most likely killed for that reason.
        }
        match again {
            Again::AtOnce => {}
            Again::WithBackoff => self.back_off(seat, &cause, now, actions),
            Again::Never => self.break_down(1, cause, actions),
        }
    }

    /// Leaves the seat vacant for a while, longer each time; gives up when it is of no use.
    fn back_off(&mut self, seat: Seat, cause: &str, now: Instant, actions: &mut Vec<Action<J>>) {
        if now.saturating_duration_since(self.last_fruitless) > FORGIVEN {
            self.fruitless = 0;
        }
        self.last_fruitless = now;
        self.fruitless += 1;
        // All seats may fail for one reason at one time: that is one try, not many.
        let tries = self.fruitless.div_ceil(u32::try_from(self.seats.len()).unwrap_or(u32::MAX));
        if tries >= self.settings.start_tries {
            return self.break_down(tries, cause.to_owned(), actions);
        }
        let delay = FIRST_BACKOFF * 2u32.saturating_pow(tries - 1);
        self.seats[seat].stage = Stage::Vacant { until: now + delay.min(LONGEST_BACKOFF) };
    }

    fn break_down(&mut self, tries: u32, cause: String, actions: &mut Vec<Action<J>>) {
        let error = PoolError::CannotStart { tries, cause };
        self.phase = Phase::Broken(error.clone());
        self.complete_all(&Verdict::Broken(error), actions);
        self.kill_all(actions);
    }

    /// Completes every task there is, in the order of submission.
    fn complete_all(&mut self, verdict: &Verdict, actions: &mut Vec<Action<J>>) {
        let mut ids: Vec<_> = self.tasks.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.complete(id, verdict.clone(), actions);
        }
        self.queue.clear();
    }

    fn kill_all(&mut self, actions: &mut Vec<Action<J>>) {
        for (seat, state) in self.seats.iter_mut().enumerate() {
            match state.stage {
                Stage::Vacant { .. } => state.stage = Stage::Closed,
                Stage::Starting { .. } | Stage::Ready | Stage::Leaving { .. } => {
                    state.stage = Stage::Leaving { until: None };
                    actions.push(Action::Kill { seat });
                }
                Stage::Closed => {}
            }
        }
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        for (seat, state) in self.seats.iter_mut().enumerate() {
            match state.stage {
                Stage::Starting { until } if until <= now => {
                    state.stage = Stage::Leaving { until: None };
                    actions.push(Action::Kill { seat });
                }
                Stage::Leaving { until: Some(until) } if until <= now => {
                    state.stage = Stage::Leaving { until: None };
                    actions.push(Action::Kill { seat });
                }
                _ => {}
            }
        }
    }

    fn shut_down(&mut self, how: Shutdown, actions: &mut Vec<Action<J>>) {
        match self.phase {
            Phase::Open => {}
            // Once more, and stricter.
            Phase::ShuttingDown(before) if how > before => {}
            _ => return,
        }
        self.phase = Phase::ShuttingDown(how);
        match how {
            Shutdown::Wait => {}
            Shutdown::CancelPending => {
                for id in std::mem::take(&mut self.queue) {
                    if self.tasks.get(&id).is_some_and(|task| task.is_pending) {
                        self.complete(id, Verdict::Cancelled, actions);
                    }
                }
                for seat in 0..self.seats.len() {
                    self.recall(seat, actions);
                }
            }
            Shutdown::Kill => {
                self.complete_all(&Verdict::Cancelled, actions);
                self.kill_all(actions);
            }
        }
    }

    /// Starts a process on each seat whose time has come.
    fn fill_seats(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let wanted = match self.phase {
            Phase::Open => true,
            Phase::ShuttingDown(_) => !self.tasks.is_empty(),
            Phase::Broken(_) => false,
        };
        for (seat, state) in self.seats.iter_mut().enumerate() {
            match state.stage {
                Stage::Vacant { .. } if !wanted => state.stage = Stage::Closed,
                Stage::Vacant { until } if until <= now => {
                    state.generation += 1;
                    state.turns = 0;
                    state.recalled = 0;
                    state.stage = Stage::Starting { until: now + self.settings.start_timeout };
                    actions.push(Action::Spawn { seat, generation: state.generation });
                }
                _ => {}
            }
        }
    }

    /// Hands pending tasks to the workers that have the least to do.
    fn dispatch(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let ahead = self.calls_ahead();
        while self.pending > 0 {
            let id = *self.queue.front().expect("what is pending is queued");
            let Some(task) = self.tasks.get_mut(&id).filter(|task| task.is_pending) else {
                self.queue.pop_front();
                continue;
            };
            let (slots, bytes) = (&self.settings.slots, task.bytes);
            let room = |seat: Seat, state: &SeatState| {
                let free = state.calls.len() < slots[seat];
                let room_ahead = state.calls.len() < slots[seat] + ahead
                    && state.bytes + bytes <= BYTES_AHEAD
                    // Not behind a call that takes long.
                    && state.calls.front().and_then(|call| call.since) > now.checked_sub(STUCK);
                state.stage == Stage::Ready && (free || room_ahead)
            };
            let emptiest = self
                .seats
                .iter_mut()
                .enumerate()
                .filter(|(seat, state)| room(*seat, state))
                .min_by_key(|(seat, state)| state.calls.len() * 1024 / slots[*seat]);
            let Some((seat, state)) = emptiest else { return };
            self.queue.pop_front();
            self.pending -= 1;
            task.is_pending = false;
            state.turns += 1;
            state.bytes += bytes;
            let since = (state.calls.len() < slots[seat]).then_some(now);
            state.calls.push_back(Sent { id, turn: state.turns, bytes, since });
            actions.push(Action::Send {
                seat,
                turn: state.turns,
                attempt: task.begun + 1,
                job: task.job.clone(),
            });
        }
    }

    /// How many calls a worker is given beyond those it runs.
    fn calls_ahead(&self) -> usize {
        match self.typical {
            Some(typical) if typical <= LONG => {
                let ahead = WORK_AHEAD.as_nanos().div_ceil(typical.as_nanos().max(1));
                usize::try_from(ahead).unwrap_or(MOST_AHEAD).min(MOST_AHEAD)
            }
            _ => 0,
        }
    }

    fn has_idle_slot(&self) -> bool {
        let slots = &self.settings.slots;
        self.seats
            .iter()
            .zip(slots)
            .any(|(state, &slots)| state.stage == Stage::Ready && state.calls.len() < slots)
    }

    /// Whether calls lie behind those that run on this seat, and were not recalled yet.
    fn has_calls_ahead(&self, seat: Seat) -> bool {
        let state = &self.seats[seat];
        state.stage == Stage::Ready
            && state.calls.len() > self.settings.slots[seat]
            && state.calls.back().is_some_and(|call| call.turn > state.recalled)
    }

    /// From when on the calls that lie ahead on this seat count as stuck.
    fn stuck_from(&self, seat: Seat) -> Option<Instant> {
        let since = self.seats[seat].calls.front()?.since?;
        self.has_calls_ahead(seat).then_some(since + STUCK)
    }

    fn recall_stuck(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        if self.pending > 0 || !self.has_idle_slot() {
            return;
        }
        for seat in 0..self.seats.len() {
            if self.stuck_from(seat).is_some_and(|from| from <= now) {
                self.recall(seat, actions);
            }
        }
    }

    /// Asks for the calls behind those that run.
    fn recall(&mut self, seat: Seat, actions: &mut Vec<Action<J>>) {
        if self.has_calls_ahead(seat) {
            let slots = self.settings.slots[seat];
            let state = &mut self.seats[seat];
            let from = state.calls[slots].turn.max(state.recalled + 1);
            state.recalled = state.turns;
            actions.push(Action::Recall { seat, from, through: state.turns });
        }
    }

    /// In a shutdown, lets workers go when there is nothing left for them, and notes the end.
    fn dismiss_if_done(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        if self.phase == Phase::Open || self.has_ended || !self.tasks.is_empty() {
            return;
        }
        for (seat, state) in self.seats.iter_mut().enumerate() {
            match state.stage {
                Stage::Ready => {
                    state.stage = Stage::Leaving { until: Some(now + LEAVE) };
                    actions.push(Action::Dismiss { seat });
                }
                // It has nothing yet that it could lose.
                Stage::Starting { .. } => {
                    state.stage = Stage::Leaving { until: None };
                    actions.push(Action::Kill { seat });
                }
                Stage::Vacant { .. } => state.stage = Stage::Closed,
                Stage::Leaving { .. } | Stage::Closed => {}
            }
        }
        if self.seats.iter().all(|state| state.stage == Stage::Closed) {
            self.has_ended = true;
            actions.push(Action::End);
        }
    }
}
