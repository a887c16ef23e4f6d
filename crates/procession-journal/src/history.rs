//! A run as its log records it: its processes, where and when each task ran, and the outcome.
//!
//! ```text
//!   entries, by time ─► RunHistory: settings, processes, spans, annotations, report
//!                         │
//!                         ├─► final_outcomes: one for each code ─► summary, resume
//!                         └─► lanes                             ─► timeline, dashboard
//! ```
//!
//! A line may have any numbers, so sums of them saturate.
//!
//! A history can be read while the run continues: each entry adds to it, and [`Span::revision`] marks
//! the spans that have changed. No entry may be assumed to be present: a log may be of another version,
//! or of a run that was killed.

mod apply;
mod cpu;
mod final_outcome;
mod fold;
mod span;
mod summary;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

pub use final_outcome::{FinalOutcome, FinalStatus};
pub use fold::MAX_SPANS;
pub use span::{Annotation, FailedTry, Span, SpanOutcome, TaskKey};
pub use summary::{ErrorGroup, LogSummary, ProcessSummary, SlowTask};

use serde::Serialize;

use super::entry::ProcessKind;
use super::event::{ResourceUsage, RunReport, RunSettings};

/// A time, in microseconds since 1970.
pub type Micros = i64;

/// The number of slots of a process, at most. A higher number in a line is one that no process has
/// written, and counts as the last slot: each slot is a lane of the timeline.
pub const MAX_SLOTS: usize = 1 << 15;

/// A run as its log records it.
///
/// ```
/// use procession_journal::{LogEntry, RunHistory};
///
/// # fn main() -> Result<(), serde_json::Error> {
/// let log = r#"
/// {"ts":"2026-11-22T23:49:32Z","level":"info","process":"coordinator","pid":46,"event":"worker_started","child":0,"child_pid":47}
/// {"ts":"2026-11-22T23:49:33Z","level":"info","process":"worker","worker":0,"pid":47,"event":"task","id":7,"name":"thumb","slot":0,"status":"error","elapsed_ms":250.0,"attempt":1,"error":"no such file"}
/// "#;
/// let mut history = RunHistory::default();
/// for line in log.trim().lines() {
///     history.add(LogEntry::from_json(line.as_bytes())?);
/// }
/// assert!(history.is_open()); // no line says that the coordinator has ended
/// history.close(); // it was killed
/// let summary = history.summary();
/// assert_eq!((summary.ok, summary.error), (0, 1));
/// assert_eq!(history.failed().len(), 1);
/// assert_eq!(history.final_outcomes().len(), 1);
/// assert_eq!(history.slowest(3)[0].ms, 250.0);
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct RunHistory {
    /// The settings of the run.
    pub settings: Option<RunSettings>,
    /// The processes, in the order of their first entries.
    pub processes: Vec<ProcessRecord>,
    /// The runs of tasks, in the order in which they began, as far as that is known.
    pub spans: Vec<Span>,
    /// Events that are not runs of tasks.
    pub annotations: Vec<Annotation>,
    /// The results that the run itself reported.
    pub report: Option<RunReport>,
    /// The lines that are missing from the log.
    pub missing: Option<MissingLines>,
    /// The times of the first and the last entry.
    pub period: Option<(Micros, Micros)>,
    /// Grows with each entry.
    pub revision: u64,
    /// Whether each run of a task counts, even of the same code.
    pub counts_every_task: bool,
    process_indices: HashMap<(ProcessKind, Option<usize>, u32), usize>,
    /// The spans that have begun and not ended, by process and slot.
    open: HashMap<(usize, usize), usize>,
    /// Number of times that spans were joined, which changes their indices.
    pub joins: u64,
    /// Number of tasks that are drawn as part of a sum because there are too many spans.
    pub joined: u64,
    /// Number of sums.
    sums: u64,
    /// The number of spans at which they are joined again, if it is above the usual one.
    min_fold: usize,
    /// The last span of each task.
    by_key: HashMap<TaskKey, usize>,
    /// The titles and outcomes that the coordinator recorded for tasks that returned none.
    coordinator_outcomes: HashMap<TaskKey, (String, FinalOutcome)>,
    /// The codes whose errors the coordinator has received.
    received_errors: HashSet<String>,
}

/// Lines that could not be written into the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingLines {
    /// Number of lines, of all processes.
    pub lines: u64,
    /// Why the first line was lost.
    pub why: String,
}

impl fmt::Display for MissingLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines {
            1 => write!(f, "1 line is missing: {}", self.why),
            lines => write!(f, "{lines} lines are missing: {}", self.why),
        }
    }
}

/// A process of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessRecord {
    /// The kind of process.
    pub kind: ProcessKind,
    /// Worker index, if it is a worker.
    pub worker: Option<usize>,
    /// Process id.
    pub pid: u32,
    /// Time of the first entry of or about the process.
    pub begin: Micros,
    /// Time of the last one.
    pub last: Micros,
    /// When the process ended, if that is known.
    pub end: Option<Micros>,
    /// How it ended, in words.
    pub how: Option<String>,
    /// Whether this end was expected.
    pub is_regular: bool,
    /// What the process used.
    pub usage: ResourceUsage,
    /// Its CPU time, as its lines record it.
    cpu: cpu::CpuSamples,
    /// How many tasks it ran at a time.
    pub slots: usize,
    /// Number of failed runs of tasks that were run again, without those that have lines of their own.
    pub retried: u64,
    /// Version of the program and format of the log, if the process recorded them.
    pub version: Option<(String, u32)>,
    /// End of the last task of each slot: tasks without a recorded slot get one that is free.
    slot_ends: BTreeMap<usize, Micros>,
}

impl ProcessRecord {
    fn new(kind: ProcessKind, worker: Option<usize>, pid: u32, at: Micros) -> Self {
        Self {
            kind,
            worker,
            pid,
            begin: at,
            last: at,
            end: None,
            how: None,
            is_regular: false,
            usage: ResourceUsage::default(),
            cpu: cpu::CpuSamples::default(),
            slots: 0,
            retried: 0,
            version: None,
            slot_ends: BTreeMap::new(),
        }
    }

    /// The name of the process for users: `worker 0`.
    pub fn name(&self) -> String {
        match (&self.kind, self.worker) {
            (ProcessKind::Worker, Some(worker)) => format!("worker {worker}"),
            (kind, _) => kind.to_string(),
        }
    }

    /// What the process had used at its end.
    fn usage_at(&mut self, at: Micros, usage: ResourceUsage) {
        if let Some(cpu_s) = usage.cpu_s {
            self.cpu.add(at, cpu_s);
        }
        self.usage = usage;
    }

    /// The first slot whose last task had ended at `begin`.
    fn free_slot(&self, begin: Micros) -> usize {
        let is_free = |slot: &usize| self.slot_ends.get(slot).is_none_or(|end| *end <= begin);
        (0..MAX_SLOTS - 1).find(is_free).unwrap_or(MAX_SLOTS - 1)
    }

    fn end_slot(&mut self, slot: usize, at: Micros) {
        self.slot_ends.insert(slot, at);
    }

    /// Whether the log is older than the field `format`.
    fn has_first_format(&self) -> bool {
        self.version.as_ref().is_some_and(|(_, format)| *format == 0)
    }
}

impl RunHistory {
    /// Whether the log records no end of the coordinator.
    pub fn is_open(&self) -> bool {
        let mut processes = self.processes.iter();
        let coordinator = processes.find(|process| process.kind == ProcessKind::Coordinator);
        coordinator.is_none_or(|coordinator| coordinator.end.is_none())
    }

    /// Extends the period to `now` if tasks are running: they run on though no entry says so.
    pub fn extend_to(&mut self, now: Micros) {
        if let Some((_, end)) = &mut self.period
            && !self.open.is_empty()
        {
            *end = now.max(*end);
        }
    }

    /// Ends the history: no entry will follow. Tasks that have not ended are lost.
    pub fn close(&mut self) {
        let Some((_, end)) = self.period else { return };
        self.revision += 1;
        for index in 0..self.spans.len() {
            if self.is_unconfirmed_error(&self.spans[index]) {
                self.touch(index).outcome = SpanOutcome::Lost;
            }
        }
        for (_, span) in std::mem::take(&mut self.open) {
            let last = self.processes[self.spans[span].process].end.unwrap_or(end);
            self.lose(span, last);
        }
    }

    /// Marks each process without a recorded end as ended regularly.
    pub fn end_regularly(&mut self) {
        for process in &mut self.processes {
            if process.how.is_none() {
                (process.how, process.is_regular) = (Some("ended".to_owned()), true);
            }
        }
    }

    fn touch(&mut self, span: usize) -> &mut Span {
        self.spans[span].revision = self.revision;
        &mut self.spans[span]
    }

    fn lose(&mut self, span: usize, at: Micros) {
        let span = self.touch(span);
        (span.end, span.outcome) = (Some(at), SpanOutcome::Lost);
    }
}

#[cfg(test)]
mod tests;
