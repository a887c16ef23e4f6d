//! Bounds the number of spans: short tasks that follow each other are joined to one span.
//!
//! A worker bounds the lines that it writes, and a run may have any number of workers. At
//! [`MAX_SPANS`] the tasks that ended well and are among the shorter three quarters of these are joined,
//! slot by slot. The slow, the failed and the lost stay as they are, and so do tasks with a country code
//! and those that ran more than once. If the spans that stay are more than half of the limit, the limit
//! becomes twice their number.

use std::collections::HashMap;

use super::{Annotation, Micros, RunHistory, Span, SpanOutcome, TaskKey};

/// The number of spans at which short ones are joined for the first time. A history has more if the
/// spans that must stay are more than half as many.
pub const MAX_SPANS: usize = 50_000;

impl RunHistory {
    pub(super) fn fold_if_large(&mut self) {
        let limit = MAX_SPANS.max(self.min_fold);
        if self.spans.len() >= limit {
            self.fold();
            // Where most spans must stay, they are not searched again for each new one.
            self.min_fold = self.spans.len() * 2;
        }
    }

    pub(super) fn fold(&mut self) {
        let (begin, end) = self.period.unwrap_or_default();
        let may_join = self.joinable();
        let lanes: usize = self.processes.iter().map(|process| process.slots).sum();
        // At most this many spans of this length have room in all lanes together.
        let time = (end - begin).max(1).saturating_mul(lanes.max(1) as Micros);
        let room = time / (MAX_SPANS as Micros / 4);
        let mut kept: Vec<Span> = Vec::with_capacity(self.spans.len() / 2);
        let mut indices = vec![0; self.spans.len()];
        // The last span of each lane, if another may be joined to it.
        let mut last: HashMap<(usize, usize), usize> = HashMap::new();
        for (index, span) in std::mem::take(&mut self.spans).into_iter().enumerate() {
            let lane = (span.process, span.slot);
            let other = last.get(&lane).copied().filter(|_| may_join[index]);
            let joined = other.filter(|other| span.end.unwrap_or(end) - kept[*other].begin <= room);
            if let Some(other) = joined {
                self.joined += u64::from(!span.is_sum());
                self.joined += u64::from(!kept[other].is_sum());
                self.sums += 1;
                join(&mut kept[other], span, self.sums);
                indices[index] = other;
                continue;
            }
            indices[index] = kept.len();
            match may_join[index] {
                true => last.insert(lane, kept.len()),
                false => last.remove(&lane),
            };
            kept.push(span);
        }
        self.spans = kept;
        self.joins += 1;
        self.open.values_mut().for_each(|span| *span = indices[*span]);
        for annotation in &mut self.annotations {
            if let Annotation::Retried { span: Some(span), .. } = annotation {
                *span = indices[*span];
            }
        }
        for (_, outcome) in self.coordinator_outcomes.values_mut() {
            if let Some(span) = &mut outcome.span {
                *span = indices[*span];
            }
        }
        let spans = &self.spans;
        self.by_key.retain(|key, span| {
            *span = indices[*span];
            spans[*span].key == *key
        });
    }

    /// Of each span, whether it may be joined: it ended well and is among the shorter three quarters.
    fn joinable(&self) -> Vec<bool> {
        let ended_well = |span: &Span| {
            span.outcome == SpanOutcome::Ok
                && !matches!(span.key, TaskKey::Code(_))
                && span.tries.is_empty()
                && !span.is_retried
                // Another run of the task is an error or was lost: this one has to outweigh it.
                && span.attempts <= 1
                && span.run <= 1
                && !self.coordinator_outcomes.contains_key(&span.key)
        };
        let duration = |span: &Span| span.mean_duration(Micros::MAX);
        let mut times: Vec<_> =
            self.spans.iter().filter(|span| ended_well(span)).map(duration).collect();
        times.sort_unstable();
        // Of equally long tasks all are joined.
        let longest = times.get(times.len() * 3 / 4).copied().unwrap_or_default();
        self.spans.iter().map(|span| ended_well(span) && duration(span) <= longest).collect()
    }
}

/// Adds a later span of the same lane to a span, which becomes a sum.
fn join(sum: &mut Span, span: Span, number: u64) {
    if sum.code != span.code {
        sum.code = "several kinds".to_owned();
    }
    sum.busy = sum.busy_time(Micros::MAX).saturating_add(span.busy_time(Micros::MAX));
    if !sum.is_sum() {
        sum.key = TaskKey::Sum(number);
    }
    sum.count = sum.count.saturating_add(span.count);
    sum.failed = sum.failed.saturating_add(span.failed);
    sum.end = sum.end.max(span.end);
    sum.bytes = match (sum.bytes, span.bytes) {
        (None, None) => None,
        (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
    };
    sum.revision = sum.revision.max(span.revision);
}
