//! The end of a worker: which of its tasks are charged with an attempt, and which return to the
//! queue.
//!
//! | at the worker's end, a task | is |
//! |---|---|
//! | had begun, by its claim | charged with an attempt: `TimedOut` if the worker was killed after its deadline, else `Died` |
//! | had not begun, and could not have | put back at the head of the queue |
//! | had not begun, but a slot was free for it | put back; charged once its suspicion reaches [`BLAME_THRESHOLD`] |
//!
//! The last row is for claims that are false: a task can overwrite its own claim and then end its
//! worker. Without a limit it would end one worker after the other.
//!
//! The claim decides. Time decides in one case only: a worker is killed as stopped if it does not begin a call that has a
//! timeout, the first worker for 0.4 s, the next one for 0.3 s (`deadlines.rs`). Two such ends in a row charge the call,
//! as two ends for another cause do. A worker with a false claim and a worker that gets no CPU look the same.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Scheduler;
use super::chunks::ChunkId;
use super::lifecycle::MIN_LIFETIME;
use super::messages::{Action, Begun, Verdict, WorkerId, WorkerIndex};
use super::worker::{EndReason, EndedCall, InFlightCall, Stage};
use crate::error::Exit;
use crate::retries::Fault;

/// The suspicion at which a task is charged although its claim says that it had not begun: after
/// two workers in which no task had begun, or eight in which another one had.
const BLAME_THRESHOLD: u32 = 8;
/// Added when a worker ends in which no task had begun.
const SUSPICION_ALONE: u32 = 4;
/// Added when a worker ends in which another task had begun.
const SUSPICION_BESIDE_OTHERS: u32 = 1;

/// The number of new workers that could not receive a call until it is sent to no other.
const MAX_NOT_RECEIVED: u32 = 2;

/// A worker that ended, as it was before its exit.
struct EndedWorker<'b> {
    index: WorkerIndex,
    exit: Exit,
    stage: Stage,
    slots: usize,
    idle_for: Duration,
    /// When the pool decided to end it, if it did, and why.
    killed: Option<(Instant, EndReason)>,
    calls: VecDeque<InFlightCall>,
    begun: &'b [Begun],
}

impl EndedWorker<'_> {
    /// How far a call got, if a task of it had begun and was not answered.
    fn begun(&self, call: &InFlightCall) -> Option<&Begun> {
        let begun = self.begun.iter().find(|begun| begun.seq == call.seq);
        begun.filter(|begun| begun.count > call.answered)
    }

    fn has_begun_a_call(&self) -> bool {
        self.calls.iter().any(|call| self.begun(call).is_some())
    }

    /// The pool killed the worker because of one call.
    fn was_killed_for_a_call(&self) -> bool {
        matches!(
            self.killed,
            Some((_, EndReason::TimedOut | EndReason::Cancelled | EndReason::Stalled))
        )
    }

    /// The timeout of a call that is charged as `TimedOut`.
    fn exceeded_timeout(&self, call: &InFlightCall, is_blamed: bool) -> Option<Duration> {
        let (at, why) = self.killed?;
        let has_timed_out = match why {
            EndReason::TimedOut => call.timeout_at().is_some_and(|deadline| deadline <= at),
            EndReason::Stalled => is_blamed,
            EndReason::Cancelled | EndReason::Unneeded => false,
        };
        call.timeout.filter(|_| has_timed_out)
    }
}

impl<J: Clone> Scheduler<J> {
    pub(super) fn exited(
        &mut self,
        worker_id: WorkerId,
        exit: Exit,
        begun: &[Begun],
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let index = worker_id.worker_index;
        let worker = &mut self.workers[index];
        if worker.is_successor(worker_id) {
            worker.successor = None;
            worker.has_no_successor = true;
            let cause = format!("a worker ended without a task: {exit}");
            return self.note_early_failure(index, &cause, now, actions);
        }
        if !worker.is_current(worker_id) {
            return;
        }
        let (stage, slots, idle_since) = (worker.stage, worker.slots, worker.idle_since);
        let killed = match stage {
            Stage::Killed { at, why } => Some((at, why)),
            _ => worker.ending.map(|EndedCall { at, why, .. }| (at, why)),
        };
        let idle_for = now.saturating_duration_since(idle_since);
        let calls = worker.exited(now);
        let ended = EndedWorker { index, exit, stage, slots, idle_for, killed, calls, begun };
        let blamed = self.blame_unclaimed(&ended);
        self.note_useless_end(&ended, &blamed, now, actions);
        let mut not_begun = Vec::new();
        for call in &ended.calls {
            let is_blamed = blamed.contains(&call.id);
            not_begun.extend(self.charge_call(&ended, call, is_blamed, now, actions));
        }
        self.take_back(not_begun, actions);
    }

    /// Raises the suspicion of the calls that could have run and were not claimed. Returns those
    /// that are charged with an attempt.
    fn blame_unclaimed(&mut self, ended: &EndedWorker<'_>) -> Vec<ChunkId> {
        if let Some((_, EndReason::Cancelled | EndReason::Unneeded)) = ended.killed {
            return Vec::new();
        }
        let suspicion =
            if ended.has_begun_a_call() { SUSPICION_BESIDE_OTHERS } else { SUSPICION_ALONE };
        let mut blamed = Vec::new();
        let suspects = ended.calls.iter().take(ended.slots);
        for call in suspects.filter(|call| ended.begun(call).is_none()) {
            let Some(chunk) = self.chunks.get_mut(&call.id) else { continue };
            chunk.suspicion += suspicion;
            if chunk.suspicion >= BLAME_THRESHOLD {
                chunk.suspicion = 0;
                blamed.push(call.id);
            }
        }
        blamed
    }

    /// Counts an end that says that workers may be of no use at all, so that the pool gives up
    /// after a number of them.
    fn note_useless_end(
        &mut self,
        ended: &EndedWorker<'_>,
        blamed: &[ChunkId],
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let EndedWorker { index, exit, .. } = *ended;
        let is_idle = ended.calls.is_empty();
        let has_ready_worker = self.workers.iter().any(|worker| worker.stage == Stage::Ready);
        if ended.stage == Stage::Standby && has_ready_worker {
            // Treated as a failed start, which does not break the pool while a worker is ready.
            self.delay_start(index, now);
        } else if is_idle
            && matches!(ended.stage, Stage::Ready | Stage::Standby)
            && ended.idle_for < MIN_LIFETIME
        {
            let cause = format!("a worker ended without a task: {exit}");
            self.note_early_failure(index, &cause, now, actions);
        } else if !(is_idle || ended.has_begun_a_call())
            && blamed.is_empty()
            && ended.killed.is_none()
            && self.may_begin_tasks()
        {
            // The next worker gets the same calls. Without a count that could go on for ever.
            let cause = format!("a worker ended before it began what it was given: {exit}");
            self.note_early_failure(index, &cause, now, actions);
        }
    }

    /// Charges the tasks of a call that had begun. Returns the chunk of the others, if there are
    /// any.
    fn charge_call(
        &mut self,
        ended: &EndedWorker<'_>,
        call: &InFlightCall,
        is_blamed: bool,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) -> Option<ChunkId> {
        // More than one task is charged if replies were lost: whether those tasks ended is not
        // known.
        let (charged, ran_for) = match ended.begun(call) {
            Some(begun) => (begun.count.min(call.count) - call.answered, begun.ran_for),
            None if is_blamed => {
                (1, now.saturating_duration_since(call.could_run_since.unwrap_or(now)))
            }
            None => (0, Duration::ZERO),
        };
        let after = ended.exceeded_timeout(call, is_blamed);
        for _ in 0..charged {
            let task = self.split_off_first(call.id, 1);
            self.charge(task, after, ran_for, ended, now, actions);
            if task == call.id {
                return None;
            }
        }
        Some(call.id)
    }

    /// The worker reports that its process is not fit to run further tasks, so it is replaced. If
    /// it could not receive the call `seq`, that goes to another worker. If no task ran in this
    /// worker before, none of them is the cause: the call may be too large for any worker.
    pub(super) fn unfit(
        &mut self,
        worker_id: WorkerId,
        seq: Option<u64>,
        reason: String,
        actions: &mut Vec<Action<J>>,
    ) {
        let worker = &mut self.workers[worker_id.worker_index];
        if !worker.is_current(worker_id) {
            return;
        }
        worker.is_unfit = true;
        self.may_need_recycling = true;
        let call = seq.and_then(|seq| worker.calls.iter().find(|call| call.seq == seq));
        let Some((seq, id)) = call.map(|call| (call.seq, call.id)) else { return };
        let is_first = !worker.has_answered;
        // The claim decides whether it is taken back: it is not if it runs.
        actions.push(Action::Recall { worker_id, from: seq, through: seq });
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        chunk.not_received += u32::from(is_first);
        let workers = chunk.not_received;
        if workers >= MAX_NOT_RECEIVED {
            self.complete(id, Verdict::NotReceived { reason, workers }, actions);
        }
    }

    /// Charges one task with an attempt: it timed out `after` this time, or died with its worker.
    fn charge(
        &mut self,
        id: ChunkId,
        after: Option<Duration>,
        ran_for: Duration,
        ended: &EndedWorker<'_>,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        chunk.attempts += 1;
        let attempts = chunk.attempts;
        let (exit, is_collateral) = (ended.exit, ended.was_killed_for_a_call());
        let (fault, verdict) = match after {
            Some(allowed) => {
                // Without the grace period, which the time allowed for the call includes.
                let after = chunk.options.timeout.unwrap_or(allowed);
                (Fault::Timeout, Verdict::TimedOut { after, attempts })
            }
            None => (Fault::Crash, Verdict::Died { exit, attempts, ran_for, is_collateral }),
        };
        if !self.retry(id, fault, Some(&verdict), now, actions) {
            self.complete(id, verdict, actions);
        }
    }
}
