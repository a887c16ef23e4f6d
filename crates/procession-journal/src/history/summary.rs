//! A run in numbers: a row for each process, the errors by cause, the slowest tasks.
//!
//! Each code counts once, in the process whose span decided its outcome, so the numbers add up to those
//! of the run's own report. Where lines are missing, the report counts for the run, and the numbers of
//! the processes are lower.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    FinalOutcome, FinalStatus, Micros, MissingLines, ProcessRecord, RunHistory, Span, SpanOutcome,
};

/// The number of slowest tasks in a summary.
const SLOWEST: usize = 10;

/// A run in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogSummary {
    /// Flags saved; tasks of another program that ended with an output.
    pub ok: u64,
    /// Codes without a flag.
    pub not_found: u64,
    /// Codes that were tried and failed.
    pub error: u64,
    /// Number of saved flags that had not changed.
    pub unchanged: u64,
    /// Codes without an outcome in the log.
    #[serde(rename = "undone")]
    pub not_done: u64,
    /// Codes that the run's report counts, and whose lines are missing.
    #[serde(rename = "untold")]
    pub without_line: u64,
    /// The lines that are missing.
    pub missing: Option<MissingLines>,
    /// The processes, by worker index and begin.
    pub processes: Vec<ProcessSummary>,
    /// Errors of tasks that never ran, which belong to no process.
    pub never_ran: u64,
    /// The errors by cause, the most frequent first.
    pub errors: Vec<ErrorGroup>,
    /// The tasks that took longest.
    pub slowest: Vec<SlowTask>,
}

/// The work of one process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessSummary {
    /// Name of the process: `worker 0`.
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// Number of task runs that began there.
    pub runs: u64,
    /// Number of codes that ended there with a saved flag.
    pub ok: u64,
    /// Number of codes that ended there without a flag.
    pub not_found: u64,
    /// Number of codes that ended there in an error.
    pub error: u64,
    /// Number of tasks that were lost with the process.
    pub lost: u64,
    /// Share of its slots' time in which tasks ran, 0 to 1.
    pub busy: f64,
    /// Median duration of its tasks, in milliseconds.
    pub median_ms: Option<f64>,
    /// 95th percentile of the durations, in milliseconds.
    pub p95_ms: Option<f64>,
    /// Size of all flags that it saved, in bytes.
    pub bytes: u64,
    /// CPU time, in seconds.
    pub cpu_s: Option<f64>,
    /// Peak of the resident memory, in bytes.
    pub peak_memory: Option<u64>,
    /// How the process ended, if that is known.
    pub how: Option<String>,
    /// Whether this end was expected.
    pub is_regular: bool,
}

/// Errors with the same cause.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorGroup {
    /// What the errors have in common.
    pub cause: String,
    /// The codes that ended in them.
    pub codes: Vec<String>,
}

/// A task that took long.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlowTask {
    /// Country code of the task.
    pub code: String,
    /// Duration, in milliseconds.
    pub ms: f64,
    /// How it ended.
    #[serde(rename = "fate")]
    pub outcome: &'static str,
    /// Name of the process that ran it.
    pub by: String,
    /// Number of requests.
    pub attempts: u32,
}

/// How many codes ended in which way.
struct FinalCounts {
    ok: u64,
    not_found: u64,
    error: u64,
    unchanged: u64,
    not_done: u64,
    /// Those with an outcome in the log, whatever it is.
    known: u64,
}

impl FinalCounts {
    fn add_sums(&mut self, spans: &[Span]) {
        for span in spans.iter().filter(|span| span.is_sum()) {
            add(&mut self.ok, span.count.saturating_sub(span.failed));
            add(&mut self.error, span.failed);
            add(&mut self.known, span.count);
        }
    }

    fn of(outcomes: &BTreeMap<String, FinalOutcome>) -> Self {
        let count = |is_counted: fn(&FinalOutcome) -> bool| {
            outcomes.values().filter(|outcome| is_counted(outcome)).count() as u64
        };
        Self {
            ok: count(|outcome| outcome.status == FinalStatus::Ok),
            not_found: count(|outcome| outcome.status == FinalStatus::NotFound),
            error: count(|outcome| outcome.status == FinalStatus::Error),
            unchanged: count(|outcome| outcome.unchanged),
            not_done: count(|outcome| outcome.status == FinalStatus::NotDone),
            known: outcomes.len() as u64,
        }
    }
}

impl RunHistory {
    /// The run in numbers, as far as its log records it.
    pub fn summary(&self) -> LogSummary {
        let outcomes = self.final_outcomes();
        let mut counts = FinalCounts::of(&outcomes);
        counts.add_sums(&self.spans);
        let now = self.period.map_or(0, |(_, end)| end);
        let (processes, retried, false_errors) = self.process_summaries(&outcomes, now);
        counts.error = counts.error.saturating_sub(retried);
        counts.known = counts.known.saturating_sub(retried);
        let wanted = self.settings.as_ref().map_or(counts.known, |run| run.codes as u64);
        // Where lines are missing, the numbers of the run's own report are right.
        if let (Some(_), Some(report)) = (&self.missing, self.report) {
            (counts.ok, counts.not_found) = (report.ok, report.not_found);
            (counts.error, counts.unchanged) = (report.error, report.unchanged);
        }
        let FinalCounts { ok, not_found, error, unchanged, not_done, known } = counts;
        let ended = ok.saturating_add(not_found).saturating_add(error);
        let without_line = ended.saturating_sub(known.saturating_sub(not_done));
        let not_known = wanted.saturating_sub(known).saturating_sub(without_line);
        LogSummary {
            ok,
            not_found,
            error,
            unchanged,
            not_done: not_known.saturating_add(not_done),
            without_line,
            missing: self.missing.clone(),
            processes,
            never_ran: outcomes.values().filter(|outcome| never_ran(outcome)).count() as u64,
            errors: self.error_groups(&outcomes, false_errors),
            slowest: self.slowest(SLOWEST),
        }
    }

    /// The processes, and the number of failed runs that were no errors, since the tasks were run again, and
    /// that the coordinator has only counted. The last part has for each process how many of them are among the
    /// runs that have lines of their own.
    fn process_summaries(
        &self,
        outcomes: &BTreeMap<String, FinalOutcome>,
        now: Micros,
    ) -> (Vec<ProcessSummary>, u64, Vec<u64>) {
        let mut rows: Vec<_> = self.processes.iter().map(empty_row).collect();
        let mut times: Vec<Vec<(Micros, u64)>> = vec![Vec::new(); rows.len()];
        let mut busy: Vec<Micros> = vec![0; rows.len()];
        for span in &self.spans {
            let row = &mut rows[span.process];
            add(&mut row.runs, span.count);
            add(&mut row.bytes, span.bytes.unwrap_or_default());
            row.lost += u64::from(span.outcome == SpanOutcome::Lost);
            if span.is_sum() {
                add(&mut row.ok, span.count.saturating_sub(span.failed));
                add(&mut row.error, span.failed);
            }
            times[span.process].push((span.mean_duration(now), span.count));
            busy[span.process] = span.busy_time(now).saturating_add(busy[span.process]);
        }
        let mut listed = vec![0_u64; rows.len()];
        for outcome in outcomes.values() {
            if let Some(span) = outcome.span {
                let process = self.spans[span].process;
                listed[process] += u64::from(outcome.status == FinalStatus::Error);
                let row = &mut rows[process];
                match outcome.status {
                    FinalStatus::Ok => add(&mut row.ok, 1),
                    FinalStatus::NotFound => add(&mut row.not_found, 1),
                    FinalStatus::Error => add(&mut row.error, 1),
                    FinalStatus::NotDone => {}
                }
            }
        }
        let mut retried = 0;
        let processes = rows.iter_mut().zip(&self.processes);
        for (((row, process), times), busy) in processes.zip(&mut times).zip(busy) {
            // A process that was killed may have lost the sums that contain these runs.
            let no_errors = process.retried.min(row.error);
            row.error -= no_errors;
            add(&mut retried, no_errors);
            let lifetime = (process.end.unwrap_or(now) - process.begin).max(1) as f64;
            let slots = process.slots.max(1) as f64;
            row.busy = (busy as f64 / lifetime / slots).min(1.0);
            times.sort_unstable();
            row.median_ms = quantile(times, 0.5);
            row.p95_ms = quantile(times, 0.95);
        }
        let false_errors =
            listed.iter().zip(&rows).map(|(listed, row)| listed.saturating_sub(row.error));
        let false_errors = false_errors.collect();
        // The processes with the same worker index stand together.
        let mut rows: Vec<_> = rows.into_iter().zip(&self.processes).collect();
        rows.sort_by_key(|(_, process)| (process.worker, process.begin));
        (rows.into_iter().map(|(row, _)| row).collect(), retried, false_errors)
    }

    /// The errors by cause. `left_out` has a number for each process: that many of its failures were no errors, and it is
    /// not recorded which. So the first of them are left out.
    fn error_groups(
        &self,
        outcomes: &BTreeMap<String, FinalOutcome>,
        mut left_out: Vec<u64>,
    ) -> Vec<ErrorGroup> {
        let mut groups = BTreeMap::<&str, Vec<String>>::new();
        for (code, outcome) in outcomes.iter().filter(|(_, it)| it.status == FinalStatus::Error) {
            let process = outcome.span.map(|span| self.spans[span].process);
            match process.map(|process| &mut left_out[process]) {
                Some(left_out @ 1..) => *left_out -= 1,
                _ => groups.entry(outcome.kind()).or_default().push(code.clone()),
            }
        }
        let groups = groups.into_iter();
        let mut groups: Vec<_> =
            groups.map(|(cause, codes)| ErrorGroup { cause: cause.to_owned(), codes }).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.codes.len()));
        groups
    }

    /// The tasks that took longest, up to this number.
    pub fn slowest(&self, most: usize) -> Vec<SlowTask> {
        let now = self.period.map_or(0, |(_, end)| end);
        let mut spans: Vec<&Span> = self.spans.iter().filter(|span| !span.is_sum()).collect();
        spans.sort_by_key(|span| std::cmp::Reverse(span.duration(now)));
        let slowest = spans.into_iter().take(most).map(|span| SlowTask {
            code: span.code.clone(),
            ms: span.duration(now) as f64 / 1e3,
            outcome: span.outcome.as_str(),
            by: self.processes[span.process].name(),
            attempts: span.attempts,
        });
        slowest.collect()
    }
}

/// Adds to a sum of numbers that a line may have, which are any.
fn add(sum: &mut u64, number: u64) {
    *sum = sum.saturating_add(number);
}

fn never_ran(outcome: &FinalOutcome) -> bool {
    outcome.span.is_none() && outcome.status != FinalStatus::NotDone
}

fn empty_row(process: &ProcessRecord) -> ProcessSummary {
    ProcessSummary {
        name: process.name(),
        pid: process.pid,
        runs: 0,
        ok: 0,
        not_found: 0,
        error: 0,
        lost: 0,
        busy: 0.0,
        median_ms: None,
        p95_ms: None,
        bytes: 0,
        cpu_s: process.usage.cpu_s,
        peak_memory: process.usage.peak_memory,
        how: process.how.clone(),
        is_regular: process.is_regular,
    }
}

/// The smallest of the sorted times that this share of all tasks do not exceed, in milliseconds. Each
/// time is that of a number of tasks.
fn quantile(sorted: &[(Micros, u64)], share: f64) -> Option<f64> {
    let all = sorted.iter().fold(0, |all: u64, (_, count)| all.saturating_add(*count));
    let mut rank = ((all as f64 * share).ceil() as u64).max(1);
    for (time, count) in sorted {
        match rank.checked_sub(*count) {
            Some(rest @ 1..) => rank = rest,
            _ => return Some(*time as f64 / 1e3),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_measured_times() {
        let times: Vec<(Micros, u64)> = (1..=100).map(|ms| (ms * 1000, 1)).collect();
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.95)), (Some(50.0), Some(95.0)));
        assert_eq!(quantile(&times[..1], 0.95), Some(1.0));
        assert_eq!(quantile(&[], 0.5), None);
        let many = [(1000, 98), (5000, 2)];
        assert_eq!((quantile(&many, 0.95), quantile(&many, 0.99)), (Some(1.0), Some(5.0)));
    }
}
