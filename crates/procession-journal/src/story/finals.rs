//! What became of each code in the end, so that every one counts once.
//!
//! A task may have run several times. What the coordinator said of it is the last word, since that
//! is what it reported; else its last run that ended.

use std::collections::BTreeMap;

use super::{Fate, Span, Story};
use crate::entry::Process;
use crate::event::Event;

/// What became of a code in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Final {
    /// How it ended.
    pub status: Status,
    /// What errors of this kind have in common.
    pub cause: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Whether it ran at all.
    pub has_run: bool,
    /// Whether the flag had not changed.
    pub unchanged: bool,
    /// The span that decided it, or the last one before it was decided.
    pub span: Option<usize>,
}

/// How a code ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The flag is saved.
    Ok,
    /// There is no such flag.
    NotFound,
    /// Anything else.
    Error,
    /// The run did not get to it.
    NotDone,
}

impl Final {
    pub(super) fn of(task: &Event, span: Option<usize>) -> Option<Self> {
        let Event::Task { status, cause, error, attempt, unchanged, .. } = task else {
            return None;
        };
        let status = match status.as_str() {
            "ok" => Status::Ok,
            "not_found" => Status::NotFound,
            "not_done" => Status::NotDone,
            // So they were told before they had a status of their own.
            _ if *attempt == 0 => Status::NotDone,
            _ => Status::Error,
        };
        let (cause, error) = (cause.clone(), error.clone());
        let has_run = *attempt > 0 && status != Status::NotDone;
        Some(Self { status, cause, error, has_run, unchanged: *unchanged, span })
    }

    fn of_span(index: usize, span: &Span) -> Option<Self> {
        let status = match span.fate {
            Fate::Ok => Status::Ok,
            Fate::NotFound => Status::NotFound,
            Fate::Error => Status::Error,
            Fate::Running | Fate::Lost => return None,
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

    /// What this error has in common with others, for grouping them.
    pub fn kind(&self) -> &str {
        self.cause.as_deref().or(self.error.as_deref()).unwrap_or("unknown")
    }
}

impl Story {
    /// What became of each code, as far as it came to an end.
    pub fn finals(&self) -> BTreeMap<String, Final> {
        let mut finals = BTreeMap::new();
        for (index, span) in self.spans.iter().enumerate() {
            if self.is_hearsay(span) {
                continue;
            }
            if let Some(end) = Final::of_span(index, span) {
                let code = match self.counts_each {
                    true => format!("{} ({})", span.code, index + 1),
                    false => span.code.clone(),
                };
                finals.insert(code, end);
            }
        }
        for (code, verdict) in &self.verdicts {
            finals.insert(code.clone(), verdict.clone());
        }
        finals
    }

    /// Whether this is an error of which the coordinator did not live to hear.
    pub(super) fn is_hearsay(&self, span: &Span) -> bool {
        let party = &self.parties[span.party];
        span.fate == Fate::Error
            && self.report.is_none()
            && party.process == Process::Worker
            && party.version.as_ref().is_some_and(|(_, format)| *format > 0)
            && !self.received.contains(&span.code)
    }

    /// The codes that were asked for and have come to no end, or were never begun: what is left to
    /// do. `None` if the log does not tell what was asked for.
    pub fn undone(&self) -> Option<Vec<String>> {
        let finals = self.finals();
        let wanted = &self.setting.as_ref()?.wanted;
        if wanted.is_empty() {
            return None;
        }
        let is_undone = |code: &&String| finals.get(*code).is_none_or(|end| !end.has_run);
        Some(wanted.iter().filter(is_undone).cloned().collect())
    }

    /// The codes that were tried and ended in an error.
    pub fn failed(&self) -> Vec<String> {
        let finals = self.finals().into_iter();
        let failed = finals.filter(|(_, end)| end.status == Status::Error && end.has_run);
        failed.map(|(code, _)| code).collect()
    }
}
