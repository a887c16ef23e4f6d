//! Who works: when a process is started on a seat, replaced, let go or killed, and when the pool
//! gives up.

use std::time::{Duration, Instant};

use super::seat::{SeatState, Stage, Successor, Why, later};
use super::vocabulary::{Action, Again, Seat, Tenant, Verdict};
use super::{Phase, Scheduler};
use crate::error::PoolError;

/// How long a worker may take to leave after it was told to.
const LEAVE: Duration = Duration::from_secs(5);
/// Failures that lie further apart than this are no series.
const FORGIVEN: Duration = Duration::from_secs(60);
/// A worker that ends without a task sooner than this was of no use. One that was there for longer
/// was most likely killed by somebody.
pub(super) const STILLBORN: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

impl<J: Clone> Scheduler<J> {
    pub(super) fn start_failed(
        &mut self,
        tenant: Tenant,
        cause: String,
        again: Again,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let state = &mut self.seats[tenant.seat];
        if state.is_successor(tenant) {
            state.successor = None;
            state.has_no_successor = again != Again::AtOnce;
        } else if state.is_present(tenant) {
            state.vacate(now);
        } else {
            return;
        }
        if self.phase != Phase::Open && self.tasks.is_empty() {
            return; // Nobody needs it any more; it was most likely killed for that reason.
        }
        match again {
            Again::AtOnce => {}
            Again::WithBackoff => self.note_fruitless(tenant.seat, &cause, now, actions),
            Again::Never => self.break_down(1, cause, now, actions),
            Again::Misused(how) => self.break_with(how.error(cause), now, actions),
        }
    }

    /// Leaves the seat vacant for a while, longer each time; gives up when it is of no use.
    pub(super) fn note_fruitless(
        &mut self,
        seat: Seat,
        cause: &str,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        if now.saturating_duration_since(self.last_fruitless) > FORGIVEN {
            self.fruitless = 0;
        }
        self.last_fruitless = now;
        self.fruitless += 1;
        // All seats may fail for one reason at one time: that is one try, not many.
        let tries = self.fruitless.div_ceil(u32::try_from(self.seats.len()).unwrap_or(u32::MAX));
        if tries >= self.settings.start_tries {
            return self.break_down(tries, cause.to_owned(), now, actions);
        }
        let delay = FIRST_BACKOFF * 2u32.saturating_pow(tries - 1);
        if let Stage::Vacant { until } = &mut self.seats[seat].stage {
            *until = Some(now + delay.min(LONGEST_BACKOFF));
        }
    }

    pub(super) fn break_down(
        &mut self,
        tries: u32,
        cause: String,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        self.break_with(PoolError::CannotStart { tries, cause }, now, actions);
    }

    fn break_with(&mut self, error: PoolError, now: Instant, actions: &mut Vec<Action<J>>) {
        self.phase = Phase::Broken(error.clone());
        self.complete_all(&Verdict::Broken(error), actions);
        self.kill_all(now, actions);
    }

    /// Ends the process on a seat, and its successor if it is not needed, either.
    pub(super) fn kill(
        &mut self,
        seat: Seat,
        why: Why,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        self.is_settled = false;
        let state = &mut self.seats[seat];
        if why == Why::Unneeded {
            kill_successor(state, false, now, actions);
        }
        match state.stage {
            Stage::Starting { .. } | Stage::Ready | Stage::Leaving { .. } => {
                state.stage = Stage::Killed { at: now, why };
                let is_late = why != Why::Unneeded;
                actions.push(Action::Kill { tenant: state.tenant(), is_late });
            }
            Stage::Vacant { .. } | Stage::Killed { .. } | Stage::Closed => {}
        }
    }

    pub(super) fn kill_all(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        for seat in 0..self.seats.len() {
            self.kill(seat, Why::Unneeded, now, actions);
        }
    }

    /// Starts processes on vacant seats: those that are always wanted, and others as long as there
    /// are more tasks than slots for them.
    pub(super) fn fill_seats(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let min_workers = match self.phase {
            Phase::Open => self.settings.min_workers,
            Phase::ShuttingDown(_) => 0,
            Phase::Broken(_) => return,
        };
        if self.seats.iter().all(|state| !matches!(state.stage, Stage::Vacant { .. })) {
            return;
        }
        let mut occupied = self.seats.iter().filter(|state| state.is_occupied()).count();
        let coming = |state: &SeatState| match state.stage {
            Stage::Starting { .. } => state.slots,
            _ => state.free_slots(),
        };
        let mut room: usize = self.seats.iter().map(coming).sum();
        for state in &mut self.seats {
            let is_wanted = occupied < min_workers || self.pending > room;
            if is_wanted && state.stage == (Stage::Vacant { until: None }) {
                let tenant = state.fill(later(now, self.settings.start_timeout));
                actions.push(Action::Spawn { tenant });
                occupied += 1;
                room += state.slots;
            }
        }
    }

    /// Workers that have served their time are let go when they have done what they have, and
    /// their successors start meanwhile.
    pub(super) fn replace_the_worn(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let most = self.settings.max_tasks;
        self.may_be_worn = false;
        for seat in 0..self.seats.len() {
            let state = &mut self.seats[seat];
            if state.stage != Stage::Ready || !is_worn(state, most) {
                continue;
            }
            (self.may_be_worn, self.is_settled) = (true, false);
            let is_wanted = match self.phase {
                Phase::Open => true,
                Phase::ShuttingDown(_) => self.pending > 0,
                Phase::Broken(_) => false,
            };
            if is_wanted && state.successor.is_none() && !state.has_no_successor {
                let tenant = state.call_successor(later(now, self.settings.start_timeout));
                actions.push(Action::Spawn { tenant });
            }
            if state.calls.is_empty() {
                state.stage = Stage::Leaving { until: now + LEAVE };
                actions.push(Action::Dismiss { tenant: state.tenant() });
            } else if state.is_fat {
                self.recall(seat, actions);
            }
        }
    }

    pub(super) fn may_shrink(&self) -> bool {
        self.settings.idle_timeout.is_some()
            && self.phase == Phase::Open
            && self.seats.iter().filter(|state| state.is_staying()).count()
                > self.settings.min_workers
    }

    pub(super) fn dismiss_the_idle(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let Some(timeout) = self.settings.idle_timeout else { return };
        // From the last seat on, since the first ones are given tasks first.
        for seat in (0..self.seats.len()).rev() {
            if !self.may_shrink() {
                return;
            }
            let state = &mut self.seats[seat];
            if state.stage == Stage::Ready
                && state.calls.is_empty()
                && later(state.idle_since, timeout) <= now
            {
                self.is_settled = false;
                state.stage = Stage::Leaving { until: now + LEAVE };
                actions.push(Action::Dismiss { tenant: state.tenant() });
            }
        }
    }

    /// In a shutdown, lets workers go when there is nothing left for them, and notes the end.
    pub(super) fn end_if_done(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        if self.phase == Phase::Open || self.has_ended || !self.tasks.is_empty() {
            return;
        }
        for state in &mut self.seats {
            kill_successor(state, false, now, actions);
            match state.stage {
                Stage::Ready if state.calls.is_empty() => {
                    state.stage = Stage::Leaving { until: now + LEAVE };
                    actions.push(Action::Dismiss { tenant: state.tenant() });
                }
                // What still runs was cancelled; and who is starting has nothing to lose.
                Stage::Ready | Stage::Starting { .. } => {
                    state.stage = Stage::Killed { at: now, why: Why::Unneeded };
                    actions.push(Action::Kill { tenant: state.tenant(), is_late: false });
                }
                Stage::Vacant { .. } => state.stage = Stage::Closed,
                Stage::Leaving { .. } | Stage::Killed { .. } | Stage::Closed => {}
            }
        }
        if self.seats.iter().all(|state| state.stage == Stage::Closed) {
            self.has_ended = true;
            actions.push(Action::End);
        }
    }
}

/// Whether the worker gets no further task: it has done as many as it may, or grown too large.
pub(super) fn is_worn(state: &SeatState, max_tasks: Option<u64>) -> bool {
    state.is_fat || max_tasks.is_some_and(|most| state.given >= most)
}

pub(super) fn kill_successor<J>(
    state: &mut SeatState,
    is_late: bool,
    now: Instant,
    actions: &mut Vec<Action<J>>,
) {
    let seat = state.tenant().seat;
    if let Some(Successor { generation, stage }) = &mut state.successor
        && !matches!(stage, Stage::Killed { .. })
    {
        *stage = Stage::Killed { at: now, why: Why::Unneeded };
        let tenant = Tenant { seat, generation: *generation };
        actions.push(Action::Kill { tenant, is_late });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;
    use crate::executor::processes::scheduler::{Begun, Event, Settings, TaskTerms};
    use crate::task::TaskId;

    const TRIES: u32 = 5;

    /// A pool whose workers end as soon as they have a call, after so many answers each. Gives the
    /// number of workers that there were, and what became of the calls, until nothing is left to do
    /// or there were very many workers.
    fn workers_that_end(seats: usize, answers: usize, begun: u32) -> (u32, Vec<Verdict>) {
        let settings = Settings {
            slots: vec![1; seats],
            min_workers: seats,
            idle_timeout: None,
            max_tasks: None,
            start_timeout: Duration::from_secs(10),
            start_tries: TRIES,
        };
        let mut now = Instant::now();
        let (mut scheduler, mut actions) = Scheduler::new(settings, now);
        for id in 0..20 {
            let (terms, bytes) = (TaskTerms::default(), 4);
            let task = Event::Submitted { id: TaskId(id), job: id, items: 1, bytes, terms };
            actions.extend(scheduler.handle([task], now));
        }
        let (mut workers, mut verdicts) = (0, Vec::new());
        while workers < 1_000 {
            let mut events = Vec::new();
            for action in actions.drain(..) {
                match action {
                    Action::Spawn { tenant } => events.push(Event::WorkerReady { tenant }),
                    Action::Send { tenant, turn, .. } => {
                        let (ran_for, has_failed, is_fat) = (Duration::from_secs(1), false, false);
                        if turn as usize <= answers {
                            let replied =
                                Event::Replied { tenant, turn, ran_for, has_failed, is_fat };
                            events.push(replied);
                            continue;
                        }
                        workers += 1;
                        let begun = Begun { turn, items: begun, ran_for };
                        let exit = Exit::Signal(9);
                        events.push(Event::WorkerExited { tenant, exit, begun: vec![begun] });
                    }
                    Action::Complete { verdict, .. } => verdicts.push(verdict),
                    _ => {}
                }
            }
            if events.is_empty() {
                match scheduler.wake_at() {
                    Some(at) => now = at,
                    None => break,
                }
                events.push(Event::Tick);
            }
            for event in events {
                now += Duration::from_millis(1);
                actions.extend(scheduler.handle([event], now));
            }
        }
        (workers, verdicts)
    }

    #[test]
    fn workers_that_begin_nothing_break_the_pool() {
        for seats in [1, 3] {
            let (workers, verdicts) = workers_that_end(seats, 0, 0);
            assert_eq!(workers.div_ceil(seats as u32), TRIES, "{seats} seats");
            let is_clear = |verdict: &Verdict| {
                matches!(verdict, Verdict::Broken(PoolError::CannotStart { tries: TRIES, cause })
                    if cause.contains("before it began what it was given"))
            };
            assert!(verdicts.len() == 20 && verdicts.iter().all(is_clear), "{verdicts:?}");
        }
    }

    #[test]
    fn workers_that_do_something_before_are_good_for_the_pool() {
        let (workers, verdicts) = workers_that_end(1, 1, 0);
        assert!(workers >= 19, "{workers}");
        assert_eq!(verdicts, vec![Verdict::Answered; 20]);
    }

    #[test]
    fn workers_that_die_of_their_tasks_do_not_break_the_pool() {
        let (workers, verdicts) = workers_that_end(3, 0, 1);
        assert_eq!((workers, verdicts.len()), (20, 20));
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Died { .. })));
    }
}
