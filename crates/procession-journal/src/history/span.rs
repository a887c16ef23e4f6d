//! One run of a task, and the events that are not runs of tasks.

use std::borrow::Cow;

use super::Micros;
use crate::event::{NamedTask, TaskEnd, TaskSums};

/// What identifies a task in its run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskKey {
    /// A country code.
    Code(String),
    /// The id of a task without a code.
    Id(u64),
    /// The number of a sum of short tasks.
    Sum(u64),
}

impl TaskKey {
    /// The key of a task, if the event names one.
    pub(super) fn of(code: &str, name: &NamedTask) -> Option<Self> {
        match name.id {
            Some(id) if code.is_empty() => Some(Self::Id(id)),
            _ if code.is_empty() => None,
            _ => Some(Self::Code(code.to_owned())),
        }
    }

    /// The title together with what distinguishes it from other tasks of this title.
    pub(super) fn named(&self, title: &str) -> String {
        match self {
            Self::Id(id) => format!("{title} #{id}"),
            Self::Code(_) | Self::Sum(_) => title.to_owned(),
        }
    }
}

/// The title of a task: its code, its label, or its kind.
pub(super) fn title(code: &str, NamedTask { id, name, label }: &NamedTask) -> String {
    match (label, name, id) {
        _ if !code.is_empty() => code.to_owned(),
        (Some(label), _, _) => label.clone(),
        (None, Some(name), _) => name.clone(),
        (None, None, Some(id)) => format!("task {id}"),
        (None, None, None) => "a task".to_owned(),
    }
}

/// One run of a task, in one process; or short tasks that ran there one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Index of the process that ran it.
    pub process: usize,
    /// Slot in that process: no two spans of a process overlap in the same slot.
    pub slot: usize,
    /// What identifies the task.
    pub key: TaskKey,
    /// Title of the task: its country code, its label, or its kind.
    pub code: String,
    /// Number of tasks.
    pub count: u64,
    /// Number of those that failed, of several tasks.
    pub failed: u64,
    /// Sum of their durations, of several tasks.
    pub busy: Micros,
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
    /// Whether the span failed or was lost, and the task is run again.
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
    /// Whether this is a failed run of a task that is run again.
    pub(super) fn is_no_end(&self) -> bool {
        self.is_retried && self.outcome == SpanOutcome::Error && matches!(self.key, TaskKey::Id(_))
    }

    pub(super) fn begun(
        process: usize,
        slot: usize,
        (key, code): (TaskKey, String),
        run: u32,
        at: Micros,
    ) -> Self {
        Self {
            process,
            slot,
            key,
            code,
            count: 1,
            failed: 0,
            busy: 0,
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

    /// Several short tasks, the last of which ended at `end`.
    pub(super) fn of_sums(process: usize, number: u64, sums: &TaskSums, end: Micros) -> Self {
        let begin = end - micros(sums.period_ms);
        let all =
            |of: fn(&crate::TaskSum) -> u64| sums.tasks.iter().map(of).fold(0, u64::saturating_add);
        let kinds = sums.tasks.iter().map(|sum| sum.name.as_str());
        let title = titles(kinds);
        let bytes = all(|sum| sum.bytes);
        Self {
            count: all(|sum| sum.count),
            failed: all(|sum| sum.failed).min(all(|sum| sum.count)),
            busy: micros(sums.tasks.iter().map(|sum| sum.run_ms).sum::<f64>()),
            bytes: (bytes > 0).then_some(bytes),
            end: Some(end),
            outcome: SpanOutcome::Ok,
            ..Self::begun(process, sums.slot, (TaskKey::Sum(number), title), 1, begin)
        }
    }

    /// The text in its bar: the title, with the number of several tasks.
    pub fn label(&self) -> Cow<'_, str> {
        match self.is_sum() {
            true => format!("{} {}", self.count, self.code).into(),
            false => self.code.as_str().into(),
        }
    }

    /// Whether it stands for several tasks.
    pub fn is_sum(&self) -> bool {
        matches!(self.key, TaskKey::Sum(_))
    }

    /// The mean duration of its tasks; of a task that has not ended, until `now`.
    pub fn mean_duration(&self, now: Micros) -> Micros {
        match self.is_sum() {
            true => self.busy / Micros::try_from(self.count).unwrap_or(Micros::MAX).max(1),
            false => self.duration(now),
        }
    }

    /// The time in which its tasks ran.
    pub(super) fn busy_time(&self, now: Micros) -> Micros {
        if self.is_sum() { self.busy } else { self.duration(now) }
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

/// Milliseconds of a line in microseconds; a line may have any number.
pub(super) fn micros(ms: f64) -> Micros {
    (ms * 1e3).clamp(0.0, 1e15) as Micros
}

/// The kinds of short tasks, in the title of their sum.
fn titles<'k>(mut kinds: impl Iterator<Item = &'k str>) -> String {
    let first = kinds.next().unwrap_or("short tasks").to_owned();
    match kinds.count() {
        0 => first,
        others => format!("{first} and {others} more kinds"),
    }
}
