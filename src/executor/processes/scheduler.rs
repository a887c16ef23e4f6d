//! The mind of the process pool: decides which worker gets which task, what a worker's end means
//! for the tasks it had, and when a replacement starts.
//!
//! ```text
//!            Submitted ─► pending ──Send──► in flight on one seat ──Replied──► Complete
//!                          ▲    ▲                 │        │
//!                          │    └── Returned, ────┘        │ failed, timed out, or its worker
//!                          │     or not begun when the     │ died; and it may be tried again
//!                          │     worker ended              ▼
//!                          └────────── in time ────────── paused
//! ```
//!
//! It is pure: events and the time go in, actions come out. It does no I/O, reads no clock, starts
//! no thread and knows nothing of JSON, so a test can drive it through any schedule (see
//! `simulation.rs`). What holds after each step:
//!
//! - a task is pending, or paused, or in flight on exactly one seat, or completed, and is completed
//!   once;
//! - it is begun no more often than its terms allow;
//! - a seat has at most one process at work; the successor of one that is to be replaced may start
//!   beside it, but gets no task before it has left;
//! - after a shutdown every task is completed before [`Action::End`].
//!
//! **Who is to blame.** A worker claims each call before it begins it, in memory that outlives it
//! (see `wire/exchange.rs`), so it is known which calls had begun when it died. Only these can have
//! killed it; the others go back to the head of the queue at no cost.
//!
//! **Ending one task.** To end a running task is to end its process. What it has not begun is
//! taken back first, so the next task is not hit by mistake. With one slot nobody else is hurt.
//! With several, a deadline still ends the process, and the other tasks die with it; a cancel does
//! not.
//!
//! **How many calls to send ahead.** While a worker does one call, the next may already lie
//! before it, which spares it a round trip. For short tasks that is most of the time, for long
//! ones it is nothing, while a call that lies behind a long one is stuck there. So the number
//! depends on how long tasks took so far, and calls that turn out to be stuck behind a long one
//! while another worker is idle are taken back.

mod queue;
mod seat;
mod staffing;
mod vocabulary;

use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

use self::queue::Queue;
use self::seat::{Ending, SeatState, Sent, Stage, Successor, Why, later};
use self::staffing::{STILLBORN, is_worn, kill_successor};
pub(crate) use self::vocabulary::{
    Action, Again, Begun, Event, Seat, Settings, TaskTerms, Tenant, Verdict,
};
use super::retries::Fault;
use crate::error::{Exit, PoolError};
use crate::executor::Shutdown;
use crate::task::TaskId;

/// Calls that lie ahead never exceed this many bytes of text, nor [`MOST_AHEAD`]: both are well
/// below what fills the memory that is shared with a worker.
const BYTES_AHEAD: usize = 64 * 1024;
pub(crate) const MOST_AHEAD: usize = 256;
/// Tasks that are sent together are never more than this.
const MOST_IN_A_FRAME: u32 = 1024;
/// Calls sent ahead should keep a worker busy for about this long.
const WORK_AHEAD: Duration = Duration::from_millis(1);
/// About what it takes to wake a worker.
const WAKE: Duration = Duration::from_micros(50);
const MOST_PACKED: usize = 32;
/// Tasks that take longer than this gain nothing from lying ahead.
const LONG: Duration = Duration::from_millis(5);
/// A call that lies behind one that has run for this long is recalled if a worker is idle.
const STUCK: Duration = Duration::from_millis(5);
/// A worker that does not begin a call with a deadline for this long is of no use: it is stopped,
/// or the machine is in great trouble.
const STALLED: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Scheduler<J> {
    settings: Settings,
    tasks: FxHashMap<TaskId, Entry<J>>,
    queue: Queue,
    /// How many entries are in the queue and still pending.
    pending: usize,
    /// How many pieces were cut off what was submitted, for their ids.
    pieces: u64,
    /// How many wait for their next attempt.
    paused: usize,
    seats: Vec<SeatState>,
    /// How many tasks have a timeout: without any, deadlines need not be looked for.
    timed: usize,
    /// Every seat has its process, ready, and nobody comes or goes.
    is_settled: bool,
    /// Some worker may have grown too large, or done its number of tasks.
    may_be_worn: bool,
    /// When to look for calls that lie behind a long one.
    stuck_check: Option<Instant>,
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
    /// Which of the job's tasks, and how many: those that are left to be done.
    first: u32,
    items: u32,
    /// Under which id the job was submitted.
    origin: TaskId,
    bytes: usize,
    terms: TaskTerms,
    /// How often it was begun and came to an end.
    begun: u32,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Pending,
    Paused,
    InFlight(Seat),
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
        let seats = settings.slots.iter().enumerate();
        let mut scheduler = Self {
            seats: seats.map(|(seat, &slots)| SeatState::new(seat, slots, now)).collect(),
            settings,
            tasks: FxHashMap::default(),
            queue: Queue::default(),
            pending: 0,
            pieces: 0,
            is_settled: false,
            may_be_worn: false,
            stuck_check: None,
            paused: 0,
            timed: 0,
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

    /// Takes note of what happened and says what is to be done; several events that are known
    /// together are decided upon together.
    pub(crate) fn handle(
        &mut self,
        events: impl IntoIterator<Item = Event<J>>,
        now: Instant,
    ) -> Vec<Action<J>> {
        let mut actions = Vec::new();
        for event in events {
            self.is_settled &= event.is_about_tasks();
            self.take_note(event, now, &mut actions);
        }
        // What is done for every single task must not depend on the number of workers.
        if !self.is_settled {
            self.fill_seats(now, &mut actions);
        }
        self.dispatch(now, &mut actions);
        if self.stuck_check.is_some_and(|at| at <= now) {
            self.recall_stuck(now, &mut actions);
        }
        if self.may_be_worn || self.settings.max_tasks.is_some() {
            self.replace_the_worn(now, &mut actions);
        }
        self.dismiss_the_idle(now, &mut actions);
        self.end_if_done(now, &mut actions);
        if !self.is_settled {
            let is_settled =
                |state: &SeatState| state.stage == Stage::Ready && state.successor.is_none();
            self.is_settled = self.seats.iter().all(is_settled);
        }
        actions
    }

    /// When to send the next [`Event::Tick`], if nothing else happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let mut earliest = self.queue.due_at();
        let mut at = |time: Option<Instant>| {
            earliest = match (earliest, time) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        };
        at(self.stuck_check);
        let excess = self.may_shrink();
        if self.is_settled && self.timed == 0 && !excess {
            return earliest;
        }
        for state in &self.seats {
            if let Some(Successor { stage: Stage::Starting { until }, .. }) = state.successor {
                at(Some(until));
            }
            match state.stage {
                Stage::Vacant { until } => at(until),
                Stage::Starting { until } | Stage::Leaving { until } => at(Some(until)),
                Stage::Ready => {
                    if self.timed > 0 {
                        at(state.first_deadline());
                    }
                    if excess && state.calls.is_empty() {
                        let timeout = self.settings.idle_timeout;
                        at(timeout.map(|timeout| later(state.idle_since, timeout)));
                    }
                }
                Stage::Killed { .. } | Stage::Closed => {}
            }
        }
        earliest
    }

    /// The call by which a task was sent, if it is the only one that its worker has.
    pub(crate) fn only_call(&self, id: TaskId) -> Option<(Tenant, u64)> {
        let Place::InFlight(seat) = self.tasks.get(&id)?.place else { return None };
        let state = &self.seats[seat];
        let call = state.calls.front().filter(|call| state.calls.len() == 1 && call.id == id)?;
        Some((state.tenant(), call.turn))
    }

    /// How many tasks wait for a worker, or for their next attempt.
    pub(crate) fn waiting(&self) -> usize {
        self.pending + self.paused
    }

    /// How many tasks it is good to send together: as many as keep a worker busy for about as long
    /// as it should be, by what tasks took so far.
    pub(crate) fn frame(&self) -> u32 {
        match self.typical {
            Some(typical) if typical <= LONG => {
                let items = WORK_AHEAD.as_nanos() / typical.as_nanos().max(1);
                u32::try_from(items).unwrap_or(u32::MAX).clamp(1, MOST_IN_A_FRAME)
            }
            _ => 1,
        }
    }

    /// How many tasks have not begun, and how many run. Those that were cancelled are not counted,
    /// whatever their worker still does.
    pub(crate) fn not_begun_and_running(&self) -> (usize, usize) {
        let running = self.seats.iter().flat_map(SeatState::running);
        let running = running.filter(|call| self.tasks.contains_key(&call.id)).count();
        let all: usize = self.tasks.values().map(|task| task.items as usize).sum();
        (all - running, running)
    }

    fn take_note(&mut self, event: Event<J>, now: Instant, actions: &mut Vec<Action<J>>) {
        match event {
            Event::Submitted { id, job, items, bytes, terms } => {
                self.submitted(id, job, items, bytes, terms, actions);
            }
            Event::Cancelled { id } => self.cancelled(id, now, actions),
            Event::Abandoned { id } => {
                let pieces = self.tasks.iter().filter(|(_, task)| task.origin == id);
                let mut pieces: Vec<_> = pieces.map(|(piece, _)| *piece).collect();
                pieces.sort_unstable();
                for piece in pieces {
                    self.cancelled(piece, now, actions);
                }
            }
            Event::WorkerReady { tenant } => self.ready(tenant, now),
            Event::Replied { tenant, turn, ran_for, has_failed, is_fat } => {
                let state = &mut self.seats[tenant.seat];
                if state.is_present(tenant)
                    && let Some(id) = state.answered(turn, 1, now)
                {
                    state.is_fat |= is_fat;
                    self.may_be_worn |= is_fat;
                    self.learn(ran_for);
                    let id = self.cut(id, 1);
                    self.answered(id, has_failed, now, actions);
                }
            }
            Event::Progressed { tenant, turn, items, ran_for, is_fat } => {
                let state = &mut self.seats[tenant.seat];
                if state.is_present(tenant)
                    && let Some(id) = state.answered(turn, items, now)
                {
                    state.is_fat |= is_fat;
                    self.may_be_worn |= is_fat;
                    self.learn(ran_for);
                    self.advance(id, items);
                }
            }
            Event::Returned { tenant, calls } => {
                let state = &mut self.seats[tenant.seat];
                if state.is_present(tenant) {
                    let returned = calls.iter().filter_map(|call| state.take_returned(call, now));
                    let returned: Vec<_> = returned.collect();
                    let mut back = Vec::new();
                    for (id, staying) in returned {
                        back.extend(self.cut_rest(id, staying));
                    }
                    self.take_back(back, actions);
                }
            }
            Event::StartFailed { tenant, cause, again } => {
                self.start_failed(tenant, cause, again, now, actions);
            }
            Event::WorkerExited { tenant, exit, begun } => {
                self.exited(tenant, exit, &begun, now, actions);
            }
            Event::NotYet { tenant, turn, ran_for } => {
                let state = &mut self.seats[tenant.seat];
                if state.is_present(tenant) && state.begin_again(turn, ran_for, now) >= STALLED {
                    self.kill(tenant.seat, Why::Stalled, now, actions);
                }
            }
            Event::Tick => self.tick(now, actions),
            Event::ShutDown(how) => self.shut_down(how, now, actions),
        }
    }

    fn submitted(
        &mut self,
        id: TaskId,
        job: J,
        items: u32,
        bytes: usize,
        terms: TaskTerms,
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
        self.timed += usize::from(terms.timeout.is_some());
        self.queue.push_back(terms.priority, id);
        self.pending += 1;
        let (origin, place) = (id, Place::Pending);
        self.tasks
            .insert(id, Entry { job, first: 0, items, origin, bytes, terms, begun: 0, place });
    }

    /// Cuts the first so many tasks off an entry, which keeps the others; gives the id of what was
    /// cut off, which is in the same place. If that is all there is, it is the entry itself.
    fn cut(&mut self, id: TaskId, items: u32) -> TaskId {
        let Some(task) = self.tasks.get_mut(&id) else { return id };
        if items >= task.items {
            return id;
        }
        let share = usize::try_from(task.bytes as u64 * u64::from(items) / u64::from(task.items));
        let bytes = share.unwrap_or(task.bytes);
        let &mut Entry { first, origin, terms, begun, place, .. } = task;
        let piece =
            Entry { job: task.job.clone(), first, items, origin, bytes, terms, begun, place };
        task.first += items;
        task.items -= items;
        task.bytes -= bytes;
        self.timed += usize::from(terms.timeout.is_some());
        self.pending += usize::from(place == Place::Pending);
        self.paused += usize::from(place == Place::Paused);
        self.pieces += 1;
        // From the other end, where no task's own id ever comes.
        let piece_id = TaskId(u64::MAX - self.pieces);
        self.tasks.insert(piece_id, piece);
        piece_id
    }

    /// Cuts all but the first so many tasks off an entry; gives the id of these others, if there
    /// are any.
    fn cut_rest(&mut self, id: TaskId, staying: u32) -> Option<TaskId> {
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
    fn advance(&mut self, id: TaskId, items: u32) {
        match self.tasks.get_mut(&id) {
            Some(task) if items < task.items => {
                task.first += items;
                task.items -= items;
            }
            _ => drop(self.forget(id)),
        }
    }

    /// What was done needs no entry any more.
    fn forget(&mut self, id: TaskId) -> Option<Entry<J>> {
        let task = self.tasks.remove(&id)?;
        self.pending -= usize::from(task.place == Place::Pending);
        self.paused -= usize::from(task.place == Place::Paused);
        self.timed -= usize::from(task.terms.timeout.is_some());
        Some(task)
    }

    fn cancelled(&mut self, id: TaskId, now: Instant, actions: &mut Vec<Action<J>>) {
        let Some(task) = self.tasks.get(&id) else { return };
        if let Place::InFlight(seat) = task.place {
            let state = &mut self.seats[seat];
            let index = state.calls.iter().position(|call| call.id == id);
            let Some(index) = index.filter(|_| state.stage == Stage::Ready) else { return };
            if index < state.slots && state.slots > 1 {
                return; // Others run in the same process.
            } else if index < state.slots {
                self.end_call(seat, index, Why::Cancelled, now, actions);
            } else {
                let (tenant, turn) = (state.tenant(), state.calls[index].turn);
                actions.push(Action::Recall { tenant, from: turn, through: turn });
                // Should it begin nevertheless, because the recall came too late, it is ended.
                if state.slots == 1 {
                    state.calls[index].timeout = Some(STUCK);
                    self.timed += 1; // Until the pool's end, which does no harm.
                }
            }
        }
        self.complete(id, Verdict::Cancelled, actions);
    }

    fn ready(&mut self, tenant: Tenant, now: Instant) {
        let state = &mut self.seats[tenant.seat];
        if state.is_present(tenant) && matches!(state.stage, Stage::Starting { .. }) {
            state.stage = Stage::Ready;
            state.idle_since = now;
        } else if let Some(successor) = &mut state.successor
            && successor.generation == tenant.generation
            && matches!(successor.stage, Stage::Starting { .. })
        {
            successor.stage = Stage::Ready;
        }
    }

    fn learn(&mut self, ran_for: Duration) {
        self.fruitless = 0;
        self.typical = Some(match self.typical {
            None => ran_for,
            Some(typical) => (typical * 7 + ran_for) / 8,
        });
    }

    fn answered(
        &mut self,
        id: TaskId,
        has_failed: bool,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.begun += 1;
        if !(has_failed && self.retry(id, Fault::Failure, now, actions)) {
            self.complete(id, Verdict::Answered, actions);
        }
    }

    /// Lets the task run once more, after a pause, if its terms allow that.
    fn retry(
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
        let Some(pause) = task.terms.retries.pause(fault, task.begun, id.0) else { return false };
        task.place = Place::Paused;
        self.paused += 1;
        self.queue.pause(later(now, pause), id);
        let (job, first, attempt) = (task.job.clone(), task.first, task.begun + 1);
        actions.push(Action::Retry { job, first, fault, attempt, pause });
        true
    }

    fn may_begin_tasks(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::ShuttingDown(Shutdown::Wait))
    }

    fn complete(&mut self, id: TaskId, verdict: Verdict, actions: &mut Vec<Action<J>>) {
        // Cancelled tasks are completed before their worker has noticed, and answers.
        if let Some(Entry { job, first, items, .. }) = self.forget(id) {
            actions.push(Action::Complete { job, first, items, verdict });
        }
    }

    /// Makes tasks pending again that were not begun, ahead of those that wait already.
    fn take_back<I>(&mut self, ids: I, actions: &mut Vec<Action<J>>)
    where
        I: IntoIterator<Item = TaskId, IntoIter: DoubleEndedIterator>,
    {
        for id in ids.into_iter().rev() {
            if !self.may_begin_tasks() {
                self.complete(id, Verdict::Cancelled, actions);
            } else if let Some(task) = self.tasks.get_mut(&id) {
                task.place = Place::Pending;
                self.pending += 1;
                self.queue.push_front(task.terms.priority, id);
                let (job, first, items) = (task.job.clone(), task.first, task.items);
                actions.push(Action::TakenBack { job, first, items });
            }
        }
    }

    fn exited(
        &mut self,
        tenant: Tenant,
        exit: Exit,
        begun: &[Begun],
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let state = &mut self.seats[tenant.seat];
        if state.is_successor(tenant) {
            state.successor = None;
            state.has_no_successor = true;
            let cause = format!("a worker ended without a task: {exit}");
            return self.note_fruitless(tenant.seat, &cause, now, actions);
        }
        if !state.is_present(tenant) {
            return;
        }
        let (stage, idle_since) = (state.stage, state.idle_since);
        let killed = match stage {
            Stage::Killed { at, why } => Some((at, why)),
            _ => state.ending.map(|Ending { at, why, .. }| (at, why)),
        };
        let calls = state.vacate(now);
        // Those of a call's tasks that were answered are no matter any more, so it is the first of
        // the others that was begun, if any was.
        let begun_of = |call: &Sent| {
            let begun = begun.iter().find(|begun| begun.turn == call.turn);
            begun.filter(|begun| begun.items > call.answered)
        };
        let was_idle_for = now.saturating_duration_since(idle_since);
        let has_begun = calls.iter().any(|call| begun_of(call).is_some());
        if calls.is_empty() && stage == Stage::Ready && was_idle_for < STILLBORN {
            let cause = format!("a worker ended without a task: {exit}");
            self.note_fruitless(tenant.seat, &cause, now, actions);
        } else if !(calls.is_empty() || has_begun) && killed.is_none() && self.may_begin_tasks() {
            // The next one is given these calls, too, and that must come to an end.
            let cause = format!("a worker ended before it began what it was given: {exit}");
            self.note_fruitless(tenant.seat, &cause, now, actions);
        }
        let mut not_begun = Vec::new();
        for call in &calls {
            let Some(begun) = begun_of(call) else {
                not_begun.push(call.id);
                continue;
            };
            let (culprit, ran_for) = (self.cut(call.id, 1), begun.ran_for);
            if culprit != call.id {
                not_begun.push(call.id);
            }
            let Some(task) = self.tasks.get_mut(&culprit) else { continue };
            task.begun += 1;
            let attempts = task.begun;
            let timed_out = killed.is_some_and(|(at, why)| {
                why == Why::TimedOut && call.deadline().is_some_and(|deadline| deadline <= at)
            });
            let (fault, verdict) = if timed_out {
                let after = call.timeout.unwrap_or(ran_for);
                (Fault::Timeout, Verdict::TimedOut { after, attempts })
            } else {
                let why = killed.map(|(_, why)| why);
                let is_collateral =
                    matches!(why, Some(Why::TimedOut | Why::Cancelled | Why::Stalled));
                (Fault::Crash, Verdict::Died { exit, attempts, ran_for, is_collateral })
            };
            if !self.retry(culprit, fault, now, actions) {
                self.complete(culprit, verdict, actions);
            }
        }
        self.take_back(not_begun, actions);
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

    /// Ends a running call, and with it its process, if it has not finished the call meanwhile.
    fn end_call(
        &mut self,
        seat: Seat,
        index: usize,
        why: Why,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let state = &mut self.seats[seat];
        if state.ending.is_none() {
            let Sent { turn, timeout, .. } = state.calls[index];
            let allowed = timeout.filter(|_| why == Why::TimedOut);
            state.ending = Some(Ending { turn, at: now, why });
            actions.push(Action::EndCall { tenant: state.tenant(), turn, allowed });
        }
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        while let Some(id) = self.queue.pop_due(now) {
            if let Some(task) = self.tasks.get_mut(&id).filter(|task| task.place == Place::Paused) {
                task.place = Place::Pending;
                self.paused -= 1;
                self.pending += 1;
                self.queue.push_front(task.terms.priority, id);
            }
        }
        for seat in 0..self.seats.len() {
            let state = &mut self.seats[seat];
            if let Some(Successor { stage: Stage::Starting { until }, .. }) = state.successor
                && until <= now
            {
                kill_successor(state, true, now, actions);
            }
            match state.stage {
                Stage::Vacant { until: Some(until) } if until <= now => {
                    state.stage = Stage::Vacant { until: None };
                }
                Stage::Starting { until } | Stage::Leaving { until } if until <= now => {
                    self.kill(seat, Why::TimedOut, now, actions);
                }
                Stage::Ready => {
                    if let (None, Some(index)) = (state.ending, state.overdue(now)) {
                        self.end_call(seat, index, Why::TimedOut, now, actions);
                    }
                }
                _ => {}
            }
        }
    }

    fn shut_down(&mut self, how: Shutdown, now: Instant, actions: &mut Vec<Action<J>>) {
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
                let waiting = |task: &Entry<J>| !matches!(task.place, Place::InFlight(_));
                let mut ids: Vec<_> = self
                    .tasks
                    .iter()
                    .filter(|(_, task)| waiting(task))
                    .map(|(id, _)| *id)
                    .collect();
                ids.sort_unstable();
                for id in ids {
                    self.complete(id, Verdict::Cancelled, actions);
                }
                for seat in 0..self.seats.len() {
                    self.recall(seat, actions);
                }
            }
            Shutdown::Kill => {
                self.complete_all(&Verdict::Cancelled, actions);
                self.kill_all(now, actions);
            }
        }
    }

    /// Hands pending tasks to the workers that have the least to do.
    fn dispatch(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let (ahead, frame, packed) = (self.calls_ahead(), self.frame(), self.calls_packed());
        while self.pending > 0 {
            let id = self.queue.front().expect("what is pending is queued");
            let is_pending = |task: &&Entry<J>| task.place == Place::Pending;
            let Some(task) = self.tasks.get(&id).filter(is_pending) else {
                self.queue.pop();
                continue;
            };
            let items = task.items.min(frame);
            // Of what is a frame of its own, one lies ahead.
            let ahead = if items > 1 { ahead.min(1) } else { ahead };
            let bytes = task.bytes * items as usize / task.items as usize;
            let most = self.settings.max_tasks;
            let room = |state: &&mut SeatState| {
                let free = state.calls.len() < state.slots;
                let room_ahead = state.calls.len() < state.slots + ahead
                    && state.bytes + bytes <= BYTES_AHEAD
                    // Not behind a call that takes long.
                    && state.calls.front().and_then(|call| call.since) > now.checked_sub(STUCK);
                let is_sound = state.stage == Stage::Ready && state.ending.is_none();
                is_sound && !is_worn(state, most) && (free || room_ahead)
            };
            // Rather one that is awake and soon free than one that would have to be woken; else
            // the one that has the least to do.
            let is_awake = |state: &&mut SeatState| {
                !state.calls.is_empty() && state.calls.len() < packed && room(state)
            };
            let awake = if packed > 1 { self.seats.iter_mut().find(is_awake) } else { None };
            let load = |state: &&mut SeatState| state.calls.len() * 1024 / state.slots;
            let Some(state) = (match awake {
                Some(awake) => Some(awake),
                None => self.seats.iter_mut().filter(room).min_by_key(load),
            }) else {
                return;
            };
            let (tenant, left) = (state.tenant(), most.map_or(u64::MAX, |most| most - state.given));
            let items = items.min(u32::try_from(left).unwrap_or(u32::MAX));
            let whole = self.cut(id, items);
            if whole == id {
                self.queue.pop();
            }
            self.pending -= 1;
            let task = self.tasks.get_mut(&whole).expect("just cut off");
            task.place = Place::InFlight(tenant.seat);
            let (first, attempt, job) = (task.first, task.begun + 1, task.job.clone());
            let state = &mut self.seats[tenant.seat];
            let turn = state.give(whole, items, task.bytes, task.terms.timeout, now);
            if items > 1 || state.calls.len() > state.slots {
                self.stuck_check.get_or_insert(now + STUCK);
            }
            actions.push(Action::Send { tenant, turn, attempt, job, first, items });
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

    /// How many calls a worker may have until another one is woken for the next: as many as take
    /// about as long as to wake it.
    fn calls_packed(&self) -> usize {
        let Some(typical) = self.typical else { return 1 };
        let packed = WAKE.as_nanos() / typical.as_nanos().max(1);
        usize::try_from(packed).unwrap_or(MOST_PACKED).min(MOST_PACKED)
    }

    fn has_free_slot(&self) -> bool {
        self.seats.iter().any(|state| state.free_slots() > 0)
    }

    /// Takes back what lies behind a call that takes long, if somebody is free for it.
    fn recall_stuck(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        if self.pending == 0 && self.has_free_slot() {
            for seat in 0..self.seats.len() {
                if stuck_from(&self.seats[seat]).is_some_and(|from| from <= now) {
                    self.recall(seat, actions);
                }
            }
        }
        let next = self.seats.iter().filter_map(stuck_from).min();
        self.stuck_check = next.map(|next| next.max(now + STUCK));
    }

    /// Takes back what lies behind the calls that run.
    fn recall(&mut self, seat: Seat, actions: &mut Vec<Action<J>>) {
        let state = &mut self.seats[seat];
        if let Some((from, through)) = state.recall() {
            actions.push(Action::Recall { tenant: state.tenant(), from, through });
        }
    }
}

/// From when on the calls that lie ahead on this seat count as stuck.
fn stuck_from(state: &SeatState) -> Option<Instant> {
    let since = state.calls.front()?.since?;
    state.has_tasks_ahead().then_some(since + STUCK)
}
