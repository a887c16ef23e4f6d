//! One run of a task, and the events that are not runs of tasks.

use super::Micros;
use crate::event::TaskEnd;

/// One run of a task, in one process.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Index of the process that ran it.
    pub process: usize,
    /// Slot in that process: no two spans of a process overlap in the same slot.
    pub slot: usize,
    /// Country code of the task.
    pub code: String,
    /// How many times the task has been started, this time included.
    pub run: u32,
    /// When it began.
    pub begin: Micros,
    /// When it ended, or was lost.
    pub end: Option<Micros>,
    /// How it ended.
    pub outcome: SpanOutcome,
    /// Whether the flag that was saved before is still the newest.
    pub unchanged: bool,
    /// Status of the last HTTP response.
    pub http: Option<u16>,
    /// Size of the saved flag, in bytes.
    pub bytes: Option<u64>,
    /// Number of requests, those of earlier runs included.
    pub attempts: u32,
    /// The error.
    pub error: Option<String>,
    /// What errors of this kind have in common.
    pub cause: Option<String>,
    /// The tries that failed and were followed by another.
    pub tries: Vec<FailedTry>,
    /// Whether the span was lost and the task is run again.
    pub is_retried: bool,
    /// Whether its worker was killed because the task exceeded its timeout.
    pub timed_out: bool,
    /// Revision of the history at the last change of the span.
    pub revision: u64,
}

/// How a span ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanOutcome {
    /// It has not ended.
    Running,
    /// The flag is saved.
    Ok,
    /// There is no such flag.
    NotFound,
    /// It ended in an error.
    Error,
    /// Its process ended before it did.
    Lost,
}

impl SpanOutcome {
    /// The name in pages and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            SpanOutcome::Running => "running",
            SpanOutcome::Ok => "ok",
            SpanOutcome::NotFound => "not_found",
            SpanOutcome::Error => "error",
            SpanOutcome::Lost => "lost",
        }
    }
}

/// A request that failed and was sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedTry {
    /// When it failed.
    pub at: Micros,
    /// Number of the try, from 1.
    pub attempt: u32,
    /// The error.
    pub error: String,
    /// Pause before the next try, in milliseconds.
    pub pause_ms: f64,
}

/// An event that is not a run of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Annotation {
    /// A worker ended unexpectedly.
    Died {
        /// When.
        at: Micros,
        /// Index of the process.
        process: usize,
        /// How it ended, in words.
        how: String,
    },
    /// A task will be run again.
    Retried {
        /// When this was decided.
        at: Micros,
        /// Country code of the task, if that is known.
        code: Option<String>,
        /// The cause: `crash`, `timeout` or `failure`.
        fault: String,
        /// How many times the task will have been started with the next run.
        run: u32,
        /// Index of the span of the run before.
        span: Option<usize>,
    },
    /// A task exceeded its timeout and has no attempt left.
    TimedOut {
        /// When.
        at: Micros,
        /// Country code of the task, if that is known.
        code: Option<String>,
    },
}

impl Span {
    pub(super) fn begun(process: usize, slot: usize, code: String, run: u32, at: Micros) -> Self {
        Self {
            process,
            slot,
            code,
            run,
            begin: at,
            end: None,
            outcome: SpanOutcome::Running,
            unchanged: false,
            http: None,
            bytes: None,
            attempts: 0,
            error: None,
            cause: None,
            tries: Vec::new(),
            is_retried: false,
            timed_out: false,
            revision: 0,
        }
    }

    /// The duration; of a span that has not ended, until `now`.
    pub fn duration(&self, now: Micros) -> Micros {
        (self.end.unwrap_or(now) - self.begin).max(0)
    }

    pub(super) fn end_with(&mut self, task: TaskEnd, at: Micros) {
        let TaskEnd { status, http, bytes, unchanged, attempt, error, cause, .. } = task;
        self.end = Some(at.max(self.begin));
        self.outcome = match status.as_str() {
            "ok" => SpanOutcome::Ok,
            "not_found" => SpanOutcome::NotFound,
            _ => SpanOutcome::Error,
        };
        (self.unchanged, self.http, self.bytes) = (unchanged, http, bytes);
        (self.attempts, self.error, self.cause) = (attempt, error, cause);
    }
}
