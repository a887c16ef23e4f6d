//! The lanes of a run: one for each worker, and for each thread inside it.

use procession_journal::Story;
use procession_journal::story::{Party, Span};

/// The tasks that ran in one place, one after the other.
pub(super) struct Lane<'s> {
    pub party: &'s Party,
    /// Which of the parties that is.
    pub index: usize,
    pub slot: usize,
    pub spans: Vec<&'s Span>,
}

/// All lanes: by worker, its successors behind it, then by slot. Who never ran a task has none,
/// unless it is a worker.
pub(super) fn of(story: &Story) -> Vec<Lane<'_>> {
    let mut parties: Vec<_> = story.parties.iter().enumerate().collect();
    parties.sort_by_key(|(_, party)| (party.worker, party.begin));
    let mut lanes = Vec::new();
    let mut first = vec![0; story.parties.len()];
    for (index, party) in parties {
        first[index] = lanes.len();
        let least = usize::from(party.worker.is_some());
        let slots = 0..party.slots.max(least);
        lanes.extend(slots.map(|slot| Lane { party, index, slot, spans: Vec::new() }));
    }
    for span in &story.spans {
        lanes[first[span.party] + span.slot].spans.push(span);
    }
    lanes
}

/// What a slot of this kind of process is called.
pub(super) fn slot_name(party: &Party) -> &'static str {
    if party.worker.is_some() { "slot" } else { "thread" }
}
