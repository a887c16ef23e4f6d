//! The calls of a worker index: which are sent, which run, and which are behind them.

use std::time::{Duration, Instant};

use super::{InFlightCall, Stage, WorkerState};
use crate::scheduler::chunks::ChunkId;
use crate::scheduler::messages::Begun;

impl WorkerState {
    /// Adds a call, which begins now if a slot is free. Returns its `seq`.
    pub(crate) fn give(
        &mut self,
        id: ChunkId,
        count: u32,
        bytes: usize,
        timeout: Option<Duration>,
        now: Instant,
    ) -> u64 {
        self.last_seq += 1;
        self.tasks_given += u64::from(count);
        self.bytes = self.bytes.saturating_add(bytes);
        let (seq, answered) = (self.last_seq, 0);
        let since = (self.calls.len() < self.slots).then_some(now);
        let could_run_since = since;
        self.calls.push_back(InFlightCall {
            id,
            seq,
            count,
            answered,
            bytes,
            timeout,
            stop_at: None,
            since,
            could_run_since,
            is_suspect: false,
        });
        seq
    }

    /// The next `count` tasks of a call were answered. A call with all tasks answered is removed.
    /// `None` if there is no such call.
    pub(crate) fn answered(&mut self, seq: u64, count: u32, now: Instant) -> Option<ChunkId> {
        let index = self.calls.iter().position(|call| call.seq == seq)?;
        let call = &mut self.calls[index];
        call.answered = call.answered.saturating_add(count).min(call.count);
        self.has_answered |= count > 0;
        // The answer is to a task before the one that is being ended, which has begun already.
        if self.ending.is_none_or(|ending| ending.seq != seq) {
            call.begins(now);
        }
        let id = call.id;
        if call.answered >= call.count {
            self.remove_call(index, now);
        }
        Some(id)
    }

    fn remove_call(&mut self, index: usize, now: Instant) {
        let call = self.calls.remove(index).expect("an index into the calls");
        self.bytes = self.bytes.saturating_sub(call.bytes);
        // The call was complete before it was ended.
        self.ending.take_if(|ending| ending.seq == call.seq);
        // The next call takes the free slot.
        if let Some(next) = self.calls.get_mut(self.slots - 1)
            && next.since.is_none()
        {
            next.begins(now);
        }
        if self.calls.is_empty() {
            self.idle_since = now;
        }
    }

    /// The worker returned the tasks of a call that had not begun. Returns the chunk of the call,
    /// and the number of tasks that stay with the worker.
    pub(crate) fn take_returned(&mut self, begun: &Begun, now: Instant) -> Option<(ChunkId, u32)> {
        let index = self.calls.iter().position(|call| call.seq == begun.seq)?;
        let call = &mut self.calls[index];
        // A claim may hold any number: at least the answered tasks stay, at most all.
        let count = begun.count.clamp(call.answered, call.count);
        self.tasks_given = self.tasks_given.saturating_sub(u64::from(call.count - count));
        call.count = count;
        let (id, staying) = (call.id, call.unanswered());
        if staying == 0 {
            self.remove_call(index, now);
        }
        Some((id, staying))
    }

    /// The number of calls that would begin at once.
    pub(crate) fn free_slots(&self) -> usize {
        match self.stage {
            Stage::Ready if self.ending.is_none() => self.slots.saturating_sub(self.calls.len()),
            _ => 0,
        }
    }

    /// The calls that have a slot.
    pub(crate) fn running(&self) -> impl Iterator<Item = &InFlightCall> {
        self.calls.iter().take(self.slots)
    }

    /// Whether a call ahead would run at once, beyond the quota.
    pub(crate) fn has_more_threads_than_slots(&self) -> bool {
        self.threads > self.slots
    }

    /// The `seq` of the first call with a task that has not begun, as far as known here.
    fn first_ahead(&self) -> Option<u64> {
        let has_rest = |call: &&InFlightCall| call.unanswered() > 1;
        let first = self.running().find(has_rest).or_else(|| self.calls.get(self.slots));
        first.map(|call| call.seq)
    }

    /// Whether there are tasks behind the running ones that were not recalled yet.
    pub(crate) fn has_calls_ahead(&self) -> bool {
        self.stage == Stage::Ready
            && self.first_ahead().is_some()
            && self.calls.back().is_some_and(|call| call.seq > self.recalled_through)
    }

    /// Notes a recall of all tasks behind the running ones. Returns the first and the last `seq` to
    /// recall.
    pub(crate) fn recall(&mut self) -> Option<(u64, u64)> {
        if !self.has_calls_ahead() {
            return None;
        }
        let from = self.first_ahead()?.max(self.recalled_through + 1);
        self.recalled_through = self.last_seq;
        Some((from, self.last_seq))
    }
}
