//! Who works: when a process is started on a seat, replaced, let go or killed, and when the pool
//! gives up.

use std::time::{Duration, Instant};

use super::messages::{Action, Again, Verdict, WorkerId, WorkerIndex};
use super::worker::{EndReason, SeatState, Stage, Successor, later};
use super::{Phase, Scheduler};
use crate::error::PoolError;

/// How long a worker may take to leave after it was told to.
const LEAVE: Duration = Duration::from_secs(5);
/// Failures that lie further apart than this are no series.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// A worker that ends without a task sooner than this was of no use. One that was there for longer
/// was most likely killed by somebody.
pub(super) const MIN_LIFETIME: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// How long a pool without any worker goes on trying while the system is short of something.
const LONGEST_SHORTAGE: Duration = Duration::from_secs(30);

/// The pause after so many failures before.
fn backoff(failures: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(2u32.saturating_pow(failures)).min(LONGEST_BACKOFF)
}

impl<J: Clone> Scheduler<J> {
    pub(super) fn start_failed(
        &mut self,
        worker_id: WorkerId,
        cause: String,
        again: Again,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let state = &mut self.seats[worker_id.worker_index];
        if state.is_successor(worker_id) {
            state.successor = None;
            state.has_no_successor = again != Again::AtOnce;
        } else if state.is_present(worker_id) {
            state.vacate(now);
        } else {
            return;
        }
        if self.phase != Phase::Open && self.tasks.is_empty() {
            return; // Nobody needs it any more; it was most likely killed for that reason.
        }
        // What keeps one worker from starting must not end those that work.
        let is_at_work = self.seats.iter().any(|state| state.stage == Stage::Ready);
        match again {
            Again::AtOnce => {}
            Again::AfterShortage if self.is_short_for_too_long(is_at_work, now) => {
                self.break_down(self.failed_starts, cause, now, actions);
            }
            Again::AfterShortage => self.leave_vacant(worker_id.worker_index, now),
            Again::WithBackoff | Again::Never if is_at_work => {
                self.leave_vacant(worker_id.worker_index, now)
            }
            Again::WithBackoff => self.note_fruitless(worker_id.worker_index, &cause, now, actions),
            Again::Never => self.break_down(1, cause, now, actions),
            Again::Misused(how) => self.break_with(how.error(cause), now, actions),
        }
    }

    /// A worker is ready: whatever kept others from starting, it is no matter of all.
    pub(super) fn note_started(&mut self) {
        self.failed_starts = 0;
        self.short_since = None;
    }

    fn is_short_for_too_long(&mut self, is_at_work: bool, now: Instant) -> bool {
        if is_at_work {
            self.short_since = None;
            return false;
        }
        let since = *self.short_since.get_or_insert(now);
        now.saturating_duration_since(since) >= LONGEST_SHORTAGE
    }

    /// Leaves a seat vacant for a while, longer with each start that fails in a row.
    fn leave_vacant(&mut self, worker_index: WorkerIndex, now: Instant) {
        let seats = u32::try_from(self.seats.len()).unwrap_or(u32::MAX);
        let round = self.failed_starts / seats;
        self.failed_starts = self.failed_starts.saturating_add(1);
        if let Stage::Vacant { until } = &mut self.seats[worker_index].stage {
            *until = Some(now + backoff(round));
        }
    }

    /// Leaves the seat vacant for a while, longer each time; gives up when it is of no use.
    pub(super) fn note_fruitless(
        &mut self,
        worker_index: WorkerIndex,
        cause: &str,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        if now.saturating_duration_since(self.last_fruitless) > FAILURE_WINDOW {
            self.fruitless = 0;
        }
        self.last_fruitless = now;
        self.fruitless += 1;
        // All seats may fail for one reason at one time: that is one try, not many.
        let tries = self.fruitless.div_ceil(u32::try_from(self.seats.len()).unwrap_or(u32::MAX));
        if tries >= self.settings.start_tries {
            return self.break_down(tries, cause.to_owned(), now, actions);
        }
        if let Stage::Vacant { until } = &mut self.seats[worker_index].stage {
            *until = Some(now + backoff(tries - 1));
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

    /// Gives all jobs up, whatever state they are in; nothing is decided any more.
    pub(crate) fn abandon(&mut self) -> Vec<J> {
        self.tasks.drain().map(|(_, task)| task.job).collect()
    }

    /// Ends the process on a seat, and its successor if it is not needed, either.
    pub(super) fn kill(
        &mut self,
        worker_index: WorkerIndex,
        why: EndReason,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        self.is_settled = false;
        let state = &mut self.seats[worker_index];
        if why == EndReason::Unneeded {
            kill_successor(state, false, now, actions);
        }
        match state.stage {
            Stage::Starting { .. } | Stage::Ready | Stage::Leaving { .. } => {
                state.stage = Stage::Killed { at: now, why };
                let is_late = why != EndReason::Unneeded;
                actions.push(Action::Kill { worker_id: state.worker_id(), is_late });
            }
            Stage::Vacant { .. } | Stage::Killed { .. } | Stage::Closed => {}
        }
    }

    pub(super) fn kill_all(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        for worker_index in 0..self.seats.len() {
            self.kill(worker_index, EndReason::Unneeded, now, actions);
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
        let mut room = self.seats.iter().map(coming).fold(0, usize::saturating_add);
        for state in &mut self.seats {
            let is_wanted = occupied < min_workers || self.pending > room;
            if is_wanted && state.stage == (Stage::Vacant { until: None }) {
                let worker_id = state.fill(later(now, self.settings.start_timeout));
                actions.push(Action::Spawn { worker_id });
                occupied += 1;
                room = room.saturating_add(state.slots);
            }
        }
    }

    /// Workers that have served their time are let go when they have done what they have, and
    /// their successors start meanwhile.
    pub(super) fn replace_the_worn(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let most = self.settings.max_tasks;
        self.may_be_worn = false;
        for worker_index in 0..self.seats.len() {
            let state = &mut self.seats[worker_index];
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
                let worker_id = state.call_successor(later(now, self.settings.start_timeout));
                actions.push(Action::Spawn { worker_id });
            }
            if state.calls.is_empty() {
                state.stage = Stage::Leaving { until: now + LEAVE };
                actions.push(Action::Dismiss { worker_id: state.worker_id() });
            } else if state.is_over_memory_limit {
                self.recall(worker_index, actions);
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
        for worker_index in (0..self.seats.len()).rev() {
            if !self.may_shrink() {
                return;
            }
            let state = &mut self.seats[worker_index];
            if state.stage == Stage::Ready
                && state.calls.is_empty()
                && later(state.idle_since, timeout) <= now
            {
                self.is_settled = false;
                state.stage = Stage::Leaving { until: now + LEAVE };
                actions.push(Action::Dismiss { worker_id: state.worker_id() });
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
                    actions.push(Action::Dismiss { worker_id: state.worker_id() });
                }
                // What still runs was cancelled; and who is starting has nothing to lose.
                Stage::Ready | Stage::Starting { .. } => {
                    state.stage = Stage::Killed { at: now, why: EndReason::Unneeded };
                    actions.push(Action::Kill { worker_id: state.worker_id(), is_late: false });
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
    state.is_over_memory_limit || max_tasks.is_some_and(|most| state.given >= most)
}

pub(super) fn kill_successor<J>(
    state: &mut SeatState,
    is_late: bool,
    now: Instant,
    actions: &mut Vec<Action<J>>,
) {
    let worker_index = state.worker_id().worker_index;
    if let Some(Successor { generation, stage, .. }) = &mut state.successor
        && !matches!(stage, Stage::Killed { .. })
    {
        *stage = Stage::Killed { at: now, why: EndReason::Unneeded };
        let worker_id = WorkerId { worker_index, generation: *generation };
        actions.push(Action::Kill { worker_id, is_late });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;
    use crate::scheduler::{Begun, Event, Settings, TaskOptionsMade};
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
            let (terms, bytes) = (TaskOptionsMade::default(), 4);
            let task = Event::Submitted { id: TaskId(id), job: id, items: 1, bytes, terms };
            actions.extend(scheduler.handle([task], now));
        }
        let (mut workers, mut verdicts) = (0, Vec::new());
        while workers < 1_000 {
            let mut events = Vec::new();
            for action in actions.drain(..) {
                match action {
                    Action::Spawn { worker_id } => events.push(Event::WorkerReady { worker_id }),
                    Action::Send { worker_id, turn, .. } => {
                        let (ran_for, has_failed, is_over_memory_limit) =
                            (Duration::from_secs(1), false, false);
                        if turn as usize <= answers {
                            let replied = Event::Replied {
                                worker_id,
                                turn,
                                ran_for,
                                has_failed,
                                is_over_memory_limit,
                            };
                            events.push(replied);
                            continue;
                        }
                        workers += 1;
                        let begun = Begun { turn, items: begun, ran_for };
                        let exit = Exit::Signal(9);
                        events.push(Event::WorkerExited { worker_id, exit, begun: vec![begun] });
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

    /// A pool of two, of which no start but the first succeeds, for this long. Gives the number of
    /// starts that failed, and what became of the task that ran all the time.
    fn second_start_fails(again: Again, first: bool, for_long: Duration) -> (u32, Vec<Verdict>) {
        let settings = Settings {
            slots: vec![1; 2],
            min_workers: 2,
            idle_timeout: None,
            max_tasks: None,
            start_timeout: Duration::from_secs(10),
            start_tries: TRIES,
        };
        let begin = Instant::now();
        let mut now = begin;
        let (mut scheduler, mut actions) = Scheduler::new(settings, now);
        let (id, terms) = (TaskId(1), TaskOptionsMade::default());
        let task = Event::Submitted { id, job: 1, items: 1, bytes: 4, terms };
        actions.extend(scheduler.handle([task], now));
        let (mut failed, mut verdicts) = (0, Vec::new());
        while now < begin + for_long {
            let mut events = Vec::new();
            for action in actions.drain(..) {
                match action {
                    Action::Spawn { worker_id } if worker_id.worker_index == 0 && first => {
                        events.push(Event::WorkerReady { worker_id });
                    }
                    Action::Spawn { worker_id } => {
                        failed += 1;
                        let cause = "of a reason".to_owned();
                        events.push(Event::StartFailed { worker_id, cause, again });
                    }
                    Action::Kill { .. } if first => panic!("the worker at work is killed"),
                    Action::Complete { verdict, .. } => verdicts.push(verdict),
                    _ => {}
                }
            }
            if events.is_empty() {
                let Some(at) = scheduler.wake_at() else { break };
                now = at;
                events.push(Event::Tick);
            }
            for event in events {
                actions.extend(scheduler.handle([event], now));
            }
        }
        (failed, verdicts)
    }

    #[test]
    fn a_start_that_fails_does_not_end_a_worker_at_work() {
        for again in [Again::AfterShortage, Again::WithBackoff, Again::Never] {
            let (failed, verdicts) = second_start_fails(again, true, Duration::from_secs(300));
            // With a backoff of two seconds.
            assert!((100..400).contains(&failed), "{again:?}: {failed} starts");
            assert_eq!(verdicts, [], "{again:?}");
        }
    }

    #[test]
    fn a_shortage_breaks_a_pool_without_any_worker_only_after_a_while() {
        let short = Again::AfterShortage;
        let (failed, verdicts) = second_start_fails(short, false, Duration::from_secs(25));
        assert!(failed > 20 && verdicts.is_empty(), "{failed}, {verdicts:?}");
        let (_, verdicts) = second_start_fails(short, false, Duration::from_secs(60));
        assert!(matches!(&verdicts[..], [Verdict::Broken(PoolError::CannotStart { .. })]));
    }

    #[test]
    fn workers_that_begin_nothing_break_the_pool() {
        for seats in [1, 3] {
            let (workers, verdicts) = workers_that_end(seats, 0, 0);
            // Every second of those that are given the same call is that call's own affair.
            assert!(workers.div_ceil(seats as u32) <= 2 * TRIES, "{workers}, {seats} seats");
            let is_broken = |verdict: &&Verdict| {
                matches!(verdict, Verdict::Broken(PoolError::CannotStart { tries: TRIES, cause })
                    if cause.contains("before it began what it was given"))
            };
            let broken = verdicts.iter().filter(is_broken).count();
            let died = verdicts.iter().filter(|v| matches!(v, Verdict::Died { .. })).count();
            assert_eq!(broken + died, 20, "{verdicts:?}");
            assert!(died < TRIES as usize * seats, "{verdicts:?}");
        }
    }

    #[test]
    fn a_task_that_hides_its_claim_and_ends_its_worker_is_charged_the_second_time() {
        let settings = Settings {
            slots: vec![1],
            min_workers: 1,
            idle_timeout: None,
            max_tasks: None,
            start_timeout: Duration::from_secs(10),
            start_tries: 8,
        };
        let mut now = Instant::now();
        let (mut scheduler, mut actions) = Scheduler::new(settings, now);
        for id in 0..3 {
            let (terms, bytes) = (TaskOptionsMade::default(), 4);
            let task = Event::Submitted { id: TaskId(id), job: id, items: 1, bytes, terms };
            actions.extend(scheduler.handle([task], now));
        }
        let (mut runs, mut verdicts) = ([0; 3], Vec::new());
        while verdicts.len() < 3 {
            let mut events = Vec::new();
            for action in actions.drain(..) {
                match action {
                    Action::Spawn { worker_id } => events.push(Event::WorkerReady { worker_id }),
                    Action::Send { worker_id, job: 1, .. } => {
                        runs[1] += 1;
                        let (exit, begun) = (Exit::Signal(9), Vec::new());
                        events.push(Event::WorkerExited { worker_id, exit, begun });
                    }
                    Action::Send { worker_id, turn, job, .. } => {
                        runs[job as usize] += 1;
                        let (ran_for, has_failed, is_over_memory_limit) =
                            (Duration::MAX, false, false);
                        events.push(Event::Replied {
                            worker_id,
                            turn,
                            ran_for,
                            has_failed,
                            is_over_memory_limit,
                        });
                    }
                    Action::Complete { job, verdict, .. } => verdicts.push((job, verdict)),
                    _ => {}
                }
            }
            if events.is_empty() && verdicts.len() < 3 {
                now = scheduler.wake_at().expect("a vacant seat is filled").max(now);
                events.push(Event::Tick);
            }
            for event in events {
                now += Duration::from_millis(1);
                actions.extend(scheduler.handle([event], now));
            }
        }
        assert_eq!(runs, [1, 2, 1]);
        let died = Verdict::Died {
            exit: Exit::Signal(9),
            attempts: 1,
            ran_for: Duration::from_millis(1),
            is_collateral: false,
        };
        verdicts.sort_by_key(|(job, _)| *job);
        let [(_, first), (_, second), (_, third)] = &verdicts[..] else { panic!("three") };
        assert_eq!((first, second, third), (&Verdict::Answered, &died, &Verdict::Answered));
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
