//! [`Claims`]: which claim in the shared region belongs to which call of a worker. The table lies in
//! the memory of the coordinator, so a worker cannot change it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::work_item::WorkItem;
use crate::scheduler::Begun;
use crate::transport::{self, Garbled, Progress, SharedRegion};

/// The claims of a worker, by number, and the numbers of the free ones.
#[derive(Default)]
pub(crate) struct Claims {
    calls: Vec<Option<SentCall>>,
    free: Vec<u32>,
}

/// A call that was sent to a worker and has not been answered completely.
pub(crate) struct SentCall {
    pub seq: u64,
    pub work_item: Arc<WorkItem>,
    /// Index, in the work item, of the first task of the call.
    pub first: u32,
    /// Number of tasks, without those that were taken back.
    pub items: u32,
    /// Number of tasks that were answered.
    pub answered: u32,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

impl SentCall {
    /// Whether it has this task, unanswered.
    fn has_task(&self, id: u64) -> bool {
        let first = self.work_item.id.0 + u64::from(self.first);
        (first + u64::from(self.answered)..first + u64::from(self.items)).contains(&id)
    }
}

impl Claims {
    /// The claim of the next call, if one is free.
    pub(crate) fn next(&mut self, region: &SharedRegion) -> Option<u32> {
        if let Some(claim) = self.free.last() {
            return Some(*claim);
        }
        let claim = u32::try_from(self.calls.len()).ok()?;
        region.claim(claim)?;
        self.calls.push(None);
        self.free.push(claim);
        Some(claim)
    }

    /// Assigns the claim that [`next`](Self::next) returned to a call, and publishes it to the worker.
    pub(crate) fn publish(
        &mut self,
        region: &SharedRegion,
        claim: u32,
        call: SentCall,
        short_seq: u32,
    ) {
        let next = self.free.pop();
        debug_assert_eq!(next, Some(claim), "the claim that `next` returned");
        self.calls[claim as usize] = Some(call);
        if let Some(claim) = region.claim(claim) {
            claim.publish(short_seq);
        }
    }

    /// Counts the next `items` tasks of a call as answered, and frees the claim after the last task.
    /// Returns the sequence number of the call, its work item, and the index of the first of these
    /// tasks.
    ///
    /// An invalid answer changes nothing: the call still counts as running if the worker then ends.
    pub(crate) fn answered(
        &mut self,
        claim: u64,
        items: u32,
        is_valid: impl FnOnce(&WorkItem, u32) -> bool,
    ) -> Result<(u64, Arc<WorkItem>, u32), Garbled> {
        let claim = u32::try_from(claim).map_err(|_| Garbled)?;
        let place = self.calls.get_mut(claim as usize).ok_or(Garbled)?;
        let call = place.as_mut().ok_or(Garbled)?;
        let first = call.first + call.answered;
        if call.answered + items > call.items || !is_valid(&call.work_item, first) {
            return Err(Garbled);
        }
        let answered = (call.seq, Arc::clone(&call.work_item), first);
        call.answered += items;
        if call.answered == call.items {
            *place = None;
            self.free.push(claim);
        }
        Ok(answered)
    }

    /// The claim of the call with this sequence number.
    pub(crate) fn of(&self, seq: u64) -> Option<u32> {
        self.assigned().find(|(_, call)| call.seq == seq).map(|(claim, _)| claim)
    }

    /// The sequence number of the call with this claim.
    pub(crate) fn seq_of(&self, claim: u64) -> Option<u64> {
        Some(self.call_of(claim)?.seq)
    }

    /// The id of the first task of the call with this claim that is not answered.
    pub(crate) fn next_unanswered(&self, claim: u64) -> Option<u64> {
        let SentCall { work_item, first, answered, .. } = self.call_of(claim)?;
        Some(work_item.id.0 + u64::from(first + answered))
    }

    /// Whether a call has this task, unanswered.
    pub(crate) fn have_task(&self, id: u64) -> bool {
        self.with_task(id).is_some()
    }

    fn with_task(&self, id: u64) -> Option<&SentCall> {
        self.assigned().map(|(_, call)| call).find(|call| call.has_task(id))
    }

    /// The work item of this task and the number of its attempt, if a call has it, unanswered.
    pub(crate) fn work_item_of(&self, id: u64) -> Option<(Arc<WorkItem>, u32)> {
        self.with_task(id).map(|call| (Arc::clone(&call.work_item), call.attempt))
    }

    fn call_of(&self, claim: u64) -> Option<&SentCall> {
        self.calls.get(usize::try_from(claim).ok()?)?.as_ref()
    }

    /// Takes back the tasks that have not begun, of all calls with these sequence numbers. Returns
    /// the calls that are shorter now, with the number of tasks that had begun.
    pub(crate) fn revoke(
        &mut self,
        region: &SharedRegion,
        seqs: &RangeInclusive<u64>,
    ) -> Vec<Begun> {
        let mut shortened = Vec::new();
        for (claim, place) in (0..).zip(&mut self.calls) {
            let Some(call) = place.as_mut().filter(|call| seqs.contains(&call.seq)) else {
                continue;
            };
            let Some(items) = region.claim(claim).map(|claim| claim.revoke()) else { continue };
            if items < call.items {
                call.items = items.max(call.answered);
                shortened.push(Begun { seq: call.seq, count: items, ran_for: Duration::ZERO });
            }
            if call.answered == call.items {
                *place = None;
                self.free.push(claim);
            }
        }
        shortened
    }

    /// Asks the task of a call to stop.
    pub(crate) fn ask_to_stop(&self, region: &SharedRegion, seq: u64) {
        if let Some(claim) = self.of(seq).and_then(|claim| region.claim(claim)) {
            claim.ask_to_stop();
        }
    }

    /// The worker's progress with the call of this sequence number.
    pub(crate) fn progress(&self, region: &SharedRegion, seq: u64) -> Option<Progress> {
        Some(region.claim(self.of(seq)?)?.progress(transport::now()))
    }

    /// The calls that have begun and are not answered, with their run times at the time `at`, in
    /// nanoseconds of the clock of the claims.
    pub(crate) fn begun(&self, region: &SharedRegion, at: u64) -> Vec<Begun> {
        let begun = |(claim, call): (u32, &SentCall)| {
            let Progress { begun: items, runs_for } = region.claim(claim)?.progress(at);
            let ran_for = runs_for.unwrap_or_default();
            (items > 0).then_some(Begun { seq: call.seq, count: items, ran_for })
        };
        self.assigned().filter_map(begun).collect()
    }

    /// Whether the worker has no call.
    pub(crate) fn are_free(&self) -> bool {
        self.assigned().next().is_none()
    }

    fn assigned(&self) -> impl Iterator<Item = (u32, &SentCall)> {
        (0..).zip(&self.calls).filter_map(|(claim, call)| Some((claim, call.as_ref()?)))
    }
}
