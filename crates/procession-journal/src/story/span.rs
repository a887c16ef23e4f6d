//! A task where it ran, and what happened besides.

use super::Micros;
use crate::event::Event;

/// One run of a task, in one process.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Which of the parties ran it.
    pub party: usize,
    /// Where in it: no two spans of a party overlap in the same slot.
    pub slot: usize,
    /// Whose flag it was about.
    pub code: String,
    /// How often the task was begun, this time included.
    pub run: u32,
    /// When it began.
    pub begin: Micros,
    /// When it ended, or was lost.
    pub end: Option<Micros>,
    /// What became of it.
    pub fate: Fate,
    /// Whether the flag that was saved before is still the newest.
    pub unchanged: bool,
    /// The last HTTP status.
    pub http: Option<u16>,
    /// The size of what was saved.
    pub bytes: Option<u64>,
    /// How many requests were tried, those of earlier runs included.
    pub attempts: u32,
    /// What went wrong.
    pub error: Option<String>,
    /// What errors of this kind have in common.
    pub cause: Option<String>,
    /// The tries that failed and were followed by another.
    pub tries: Vec<Try>,
    /// Whether it was lost, and the task is run again.
    pub is_retried: bool,
    /// Whether its process was ended because it ran longer than it may.
    pub is_late: bool,
    /// The story's when it was changed last.
    pub revision: u64,
}

/// What became of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
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

impl Fate {
    /// As it stands in the pages and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Fate::Running => "running",
            Fate::Ok => "ok",
            Fate::NotFound => "not_found",
            Fate::Error => "error",
            Fate::Lost => "lost",
        }
    }
}

/// A request that failed and was tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Try {
    /// When it failed.
    pub at: Micros,
    /// The number of the try, from 1.
    pub attempt: u32,
    /// What went wrong.
    pub error: String,
    /// The pause before the next one, in milliseconds.
    pub pause_ms: f64,
}

/// Something that happened besides the tasks.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    /// A worker ended in another way than it should.
    Died {
        /// When.
        at: Micros,
        /// Which of the parties.
        party: usize,
        /// How, in words.
        how: String,
    },
    /// A task will be run again.
    Retried {
        /// When that was decided.
        at: Micros,
        /// Which, if that is known.
        code: Option<String>,
        /// What came between.
        fault: String,
        /// How often it will have been begun.
        run: u32,
        /// Its run before.
        span: Option<usize>,
    },
    /// A task ran longer than it may, for the last time.
    TimedOut {
        /// When.
        at: Micros,
        /// Which, if that is known.
        code: Option<String>,
    },
}

impl Span {
    pub(super) fn begun(party: usize, slot: usize, code: String, run: u32, at: Micros) -> Self {
        Self {
            party,
            slot,
            code,
            run,
            begin: at,
            end: None,
            fate: Fate::Running,
            unchanged: false,
            http: None,
            bytes: None,
            attempts: 0,
            error: None,
            cause: None,
            tries: Vec::new(),
            is_retried: false,
            is_late: false,
            revision: 0,
        }
    }

    /// How long it took; of one that has not ended, until `now`.
    pub fn duration(&self, now: Micros) -> Micros {
        (self.end.unwrap_or(now) - self.begin).max(0)
    }

    pub(super) fn end_with(&mut self, task: Event, at: Micros) {
        let Event::Task { status, http, bytes, unchanged, attempt, error, cause, .. } = task else {
            return;
        };
        self.end = Some(at.max(self.begin));
        self.fate = match status.as_str() {
            "ok" => Fate::Ok,
            "not_found" => Fate::NotFound,
            _ => Fate::Error,
        };
        (self.unchanged, self.http, self.bytes) = (unchanged, http, bytes);
        (self.attempts, self.error, self.cause) = (attempt, error, cause);
    }
}
