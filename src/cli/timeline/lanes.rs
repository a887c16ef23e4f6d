//! The lanes of a run: one for each worker, and for each thread inside it.

use procession_journal::{ProcessKind, RunHistory};
use procession_journal::{ProcessRecord, Span};

/// The spans of one slot, in the order of their begins.
pub(super) struct Lane<'s> {
    pub process: &'s ProcessRecord,
    /// Which of the parties that is.
    pub index: usize,
    pub slot: usize,
    pub spans: Vec<&'s Span>,
}

/// All lanes, by worker index, begin of the process, and slot. A process without tasks has a lane only
/// if it is a worker.
pub(super) fn of(history: &RunHistory) -> Vec<Lane<'_>> {
    let mut processes: Vec<_> = history.processes.iter().enumerate().collect();
    processes.sort_by_key(|(_, process)| (process.worker, process.begin));
    let mut lanes = Vec::new();
    let mut first = vec![0; history.processes.len()];
    for (index, process) in processes {
        first[index] = lanes.len();
        let least = usize::from(process.worker.is_some());
        let slots = 0..process.slots.max(least);
        lanes.extend(slots.map(|slot| Lane { process, index, slot, spans: Vec::new() }));
    }
    for span in &history.spans {
        lanes[first[span.process] + span.slot].spans.push(span);
    }
    lanes
}

/// The word for a slot of this kind of process.
pub(super) fn slot_name(process: &ProcessRecord) -> &'static str {
    if process.kind == ProcessKind::Coordinator { "thread" } else { "slot" }
}
