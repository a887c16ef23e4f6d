//! The final outcome of each code: each code counts once.
//!
//! A task may have run several times. The outcome that the coordinator recorded decides, since it is
//! the one that it reported; else the last run that ended decides.

use std::collections::{BTreeMap, HashMap};

use super::{RunHistory, Span, SpanOutcome, TaskKey};
use crate::entry::ProcessKind;
use crate::event::TaskEnd;

/// The final outcome of a code.
#[derive(Debug, Clone, PartialEq)]
pub struct FinalOutcome {
    /// How it ended.
    pub status: FinalStatus,
    /// What errors of this kind have in common.
    pub cause: Option<String>,
    /// The error.
    pub error: Option<String>,
    /// Whether the task ran at all.
    pub has_run: bool,
    /// Whether the flag had not changed.
    pub unchanged: bool,
    /// The span that decided the outcome, or the last one before it was decided.
    pub span: Option<usize>,
}

/// How a code ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalStatus {
    /// The flag is saved.
    Ok,
    /// There is no such flag.
    NotFound,
    /// Anything else.
    Error,
    /// The run did not reach the code.
    NotDone,
}

impl FinalOutcome {
    pub(super) fn of_task(task: &TaskEnd, span: Option<usize>) -> Self {
        let status = match task.status.as_str() {
            "ok" => FinalStatus::Ok,
            "not_found" => FinalStatus::NotFound,
            "not_done" => FinalStatus::NotDone,
            // Older versions had no status for this.
            _ if task.attempt == 0 => FinalStatus::NotDone,
            _ => FinalStatus::Error,
        };
        Self {
            status,
            cause: task.cause.clone(),
            error: task.error.clone(),
            has_run: task.attempt > 0 && status != FinalStatus::NotDone,
            unchanged: task.unchanged,
            span,
        }
    }

    fn of_span(index: usize, span: &Span) -> Option<Self> {
        let status = match span.outcome {
            SpanOutcome::Ok => FinalStatus::Ok,
            SpanOutcome::NotFound => FinalStatus::NotFound,
            SpanOutcome::Error => FinalStatus::Error,
            SpanOutcome::Running | SpanOutcome::Lost => return None,
        };
        Some(Self {
            status,
            cause: span.cause.clone(),
            error: span.error.clone(),
            has_run: true,
            unchanged: span.unchanged,
            span: Some(index),
        })
    }

    /// What errors are grouped by.
    pub fn kind(&self) -> &str {
        self.cause.as_deref().or(self.error.as_deref()).unwrap_or("unknown")
    }
}

impl RunHistory {
    /// The final outcome of each task that has one, by its code or title. Sums are not contained.
    pub fn final_outcomes(&self) -> BTreeMap<String, FinalOutcome> {
        let mut outcomes = BTreeMap::new();
        // A later run of a task may have another title, such as a label.
        let mut titles = HashMap::<&TaskKey, String>::new();
        for (index, span) in self.spans.iter().enumerate() {
            if span.is_sum() || span.is_no_end() || self.is_unconfirmed_error(span) {
                continue;
            }
            let Some(outcome) = FinalOutcome::of_span(index, span) else { continue };
            let title = match self.counts_every_task {
                true => format!("{} ({})", span.code, index + 1),
                false => span.key.named(&span.code),
            };
            if !self.counts_every_task
                && let Some(older) = titles.insert(&span.key, title.clone())
            {
                outcomes.remove(&older);
            }
            outcomes.insert(title, outcome);
        }
        for (key, (title, outcome)) in &self.coordinator_outcomes {
            // The process of the task may know a label that the coordinator does not.
            let span = self.by_key.get(key).filter(|_| matches!(key, TaskKey::Id(_)));
            let title = key.named(span.map_or(title, |span| &self.spans[*span].code));
            if let Some(older) = titles.remove(key) {
                outcomes.remove(&older);
            }
            outcomes.insert(title, outcome.clone());
        }
        outcomes
    }

    /// Whether this is an error that a coordinator that was killed never received.
    pub(super) fn is_unconfirmed_error(&self, span: &Span) -> bool {
        let process = &self.processes[span.process];
        span.outcome == SpanOutcome::Error
            && matches!(span.key, TaskKey::Code(_))
            && self.report.is_none()
            && process.kind == ProcessKind::Worker
            && process.version.as_ref().is_some_and(|(_, format)| *format > 0)
            && !self.received_errors.contains(&span.code)
    }

    /// The requested codes without an outcome: what is left to do. `None` if the log does not
    /// record the requested codes.
    pub fn not_done(&self) -> Option<Vec<String>> {
        let outcomes = self.final_outcomes();
        let wanted = &self.settings.as_ref()?.wanted;
        if wanted.is_empty() {
            return None;
        }
        let is_left = |code: &&String| outcomes.get(*code).is_none_or(|outcome| !outcome.has_run);
        Some(wanted.iter().filter(is_left).cloned().collect())
    }

    /// The codes that were tried and ended in an error.
    pub fn failed(&self) -> Vec<String> {
        let outcomes = self.final_outcomes().into_iter();
        let failed =
            outcomes.filter(|(_, outcome)| outcome.status == FinalStatus::Error && outcome.has_run);
        failed.map(|(code, _)| code).collect()
    }
}
