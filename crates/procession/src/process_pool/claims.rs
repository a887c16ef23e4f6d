//! Which claim in the shared memory stands for which of a worker's calls: the coordinator's own
//! book, which no worker can write in.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::work_item::WorkItem;
use crate::scheduler::Begun;
use crate::transport::{self, Garbled, Progress, SharedRegion};

/// A worker's claims, by number, and those that are free.
#[derive(Default)]
pub(crate) struct Claims {
    calls: Vec<Option<Sent>>,
    free: Vec<u32>,
}

/// A call that a worker has.
pub(crate) struct Sent {
    pub seq: u64,
    pub work_item: Arc<WorkItem>,
    /// Which of the parcel's tasks it consists of; those that were taken back are not counted.
    pub first: u32,
    pub items: u32,
    /// How many of these were answered.
    pub answered: u32,
}

impl Claims {
    /// The claim that will be given out next, if one is free.
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

    /// Gives out the claim that was the next.
    pub(crate) fn publish(
        &mut self,
        region: &SharedRegion,
        claim: u32,
        call: Sent,
        short_seq: u32,
    ) {
        let next = self.free.pop();
        debug_assert_eq!(next, Some(claim), "the claim that was the next");
        self.calls[claim as usize] = Some(call);
        if let Some(claim) = region.claim(claim) {
            claim.publish(short_seq);
        }
    }

    /// So many tasks of the call were answered: gives its turn, its parcel and the first of these
    /// tasks. With all of them answered, the claim is free. An answer that makes no sense answers
    /// nothing: what it pretends to answer is still to blame for the worker's end.
    pub(crate) fn answered(
        &mut self,
        claim: u64,
        items: u32,
        makes_sense: impl FnOnce(&WorkItem, u32) -> bool,
    ) -> Result<(u64, Arc<WorkItem>, u32), Garbled> {
        let claim = u32::try_from(claim).map_err(|_| Garbled)?;
        let place = self.calls.get_mut(claim as usize).ok_or(Garbled)?;
        let call = place.as_mut().ok_or(Garbled)?;
        let first = call.first + call.answered;
        if call.answered + items > call.items || !makes_sense(&call.work_item, first) {
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

    /// The claim of this turn's call.
    pub(crate) fn of(&self, seq: u64) -> Option<u32> {
        self.given_out().find(|(_, call)| call.seq == seq).map(|(claim, _)| claim)
    }

    pub(crate) fn seq_of(&self, claim: u64) -> Option<u64> {
        Some(self.call_of(claim)?.seq)
    }

    pub(crate) fn next_unanswered(&self, claim: u64) -> Option<u64> {
        let Sent { work_item, first, answered, .. } = self.call_of(claim)?;
        Some(work_item.id.0 + u64::from(first + answered))
    }

    fn call_of(&self, claim: u64) -> Option<&Sent> {
        self.calls.get(usize::try_from(claim).ok()?)?.as_ref()
    }

    /// Takes back what was not begun of the calls of these turns, and says what was.
    pub(crate) fn revoke(
        &mut self,
        region: &SharedRegion,
        seqs: &RangeInclusive<u64>,
    ) -> Vec<Begun> {
        let mut struck = Vec::new();
        for (claim, place) in (0..).zip(&mut self.calls) {
            let Some(call) = place.as_mut().filter(|call| seqs.contains(&call.seq)) else {
                continue;
            };
            let Some(items) = region.claim(claim).map(|claim| claim.revoke()) else { continue };
            if items < call.items {
                call.items = items.max(call.answered);
                struck.push(Begun { seq: call.seq, items, ran_for: Duration::ZERO });
            }
            if call.answered == call.items {
                *place = None;
                self.free.push(claim);
            }
        }
        struck
    }

    /// How far the call of this turn has got.
    pub(crate) fn progress(&self, region: &SharedRegion, seq: u64) -> Option<Progress> {
        Some(region.claim(self.of(seq)?)?.progress(transport::now()))
    }

    /// The calls that were begun and not answered, at this time.
    pub(crate) fn begun(&self, region: &SharedRegion, at: u64) -> Vec<Begun> {
        let begun = |(claim, call): (u32, &Sent)| {
            let Progress { begun: items, runs_for } = region.claim(claim)?.progress(at);
            let ran_for = runs_for.unwrap_or_default();
            (items > 0).then_some(Begun { seq: call.seq, items, ran_for })
        };
        self.given_out().filter_map(begun).collect()
    }

    /// Whether the worker has no call.
    pub(crate) fn are_free(&self) -> bool {
        self.given_out().next().is_none()
    }

    fn given_out(&self) -> impl Iterator<Item = (u32, &Sent)> {
        (0..).zip(&self.calls).filter_map(|(claim, call)| Some((claim, call.as_ref()?)))
    }
}
