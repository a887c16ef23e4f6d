//! A run in numbers: a row for each process, the errors by their cause, the slowest tasks.
//!
//! Each code counts once, where it was decided; so the numbers add up to those of the run's report.
//! Where lines are missing, the report counts, and the numbers of the processes are lower.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Fate, Final, Micros, Missing, Party, Span, Status, Story};

/// So many tasks are told as the slowest.
const SLOWEST: usize = 10;

/// A run in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Flags saved.
    pub ok: u64,
    /// Codes without a flag.
    pub not_found: u64,
    /// Everything else that came to an end.
    pub error: u64,
    /// Of those saved, how many had not changed.
    pub unchanged: u64,
    /// Codes that came to no end, as far as the log tells.
    pub undone: u64,
    /// Codes whose end the run has counted, and of which no line is there.
    pub untold: u64,
    /// The lines that are missing.
    pub missing: Option<Missing>,
    /// What each process did, in the order in which they were first heard of.
    pub processes: Vec<Row>,
    /// Errors that belong to no process: of tasks that never ran.
    pub never_ran: u64,
    /// The errors, the most frequent first.
    pub errors: Vec<Group>,
    /// The tasks that took longest.
    pub slowest: Vec<Slow>,
}

/// What a process did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its name: `worker 0`.
    pub name: String,
    /// Its id.
    pub pid: u32,
    /// How many tasks were begun there.
    pub runs: u64,
    /// How many codes were decided there, and how.
    pub ok: u64,
    /// The same.
    pub not_found: u64,
    /// The same.
    pub error: u64,
    /// How many tasks were lost with it.
    pub lost: u64,
    /// The share of its time in which it was at work, over all that it could run at a time.
    pub busy: f64,
    /// The time that half of its tasks took at most, in milliseconds.
    pub median_ms: Option<f64>,
    /// The time that 95% of them took at most, in milliseconds.
    pub p95_ms: Option<f64>,
    /// What it saved.
    pub bytes: u64,
    /// Time on CPUs, in seconds.
    pub cpu_s: Option<f64>,
    /// The most memory that was resident at a time, in bytes.
    pub peak_memory: Option<u64>,
    /// How it ended; nothing if that is not known.
    pub how: Option<String>,
    /// Whether it ended as it should.
    pub is_regular: bool,
}

/// Errors of the same cause.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// What they have in common.
    pub cause: String,
    /// Whom they befell.
    pub codes: Vec<String>,
}

/// A task that took long.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slow {
    /// Whose flag.
    pub code: String,
    /// How long, in milliseconds.
    pub ms: f64,
    /// What became of it.
    pub fate: &'static str,
    /// Where.
    pub by: String,
    /// How many requests were tried.
    pub attempts: u32,
}

impl Story {
    /// The run in numbers, as far as its log tells.
    pub fn summary(&self) -> Summary {
        let now = self.period.map_or(0, |(_, end)| end);
        let finals = self.finals();
        let count = |status| finals.values().filter(|end| end.status == status).count() as u64;
        let wanted = self.setting.as_ref().map_or(finals.len(), |setting| setting.codes);
        let [ok, not_found, error] = [Status::Ok, Status::NotFound, Status::Error].map(count);
        let unchanged = finals.values().filter(|end| end.unchanged).count() as u64;
        // By the log; and, if that is not whole, by what the run itself has counted.
        let told = (ok, not_found, error, unchanged);
        let (ok, not_found, error, unchanged) = match (&self.missing, self.report) {
            (Some(_), Some(report)) => {
                (report.ok, report.not_found, report.error, report.unchanged)
            }
            _ => told,
        };
        let known = finals.len() as u64 - count(Status::NotDone);
        let untold = (ok + not_found + error).saturating_sub(known);
        let mut rows: Vec<Row> = self.parties.iter().map(empty).collect();
        let mut times: Vec<Vec<Micros>> = vec![Vec::new(); rows.len()];
        for span in &self.spans {
            let row = &mut rows[span.party];
            row.runs += 1;
            row.bytes += span.bytes.unwrap_or_default();
            row.lost += u64::from(span.fate == Fate::Lost);
            times[span.party].push(span.duration(now));
        }
        let mut never_ran = 0;
        for end in finals.values() {
            match end.span {
                _ if end.status == Status::NotDone => {}
                Some(span) => {
                    let row = &mut rows[self.spans[span].party];
                    *match end.status {
                        Status::Ok => &mut row.ok,
                        Status::NotFound => &mut row.not_found,
                        Status::Error | Status::NotDone => &mut row.error,
                    } += 1;
                }
                None => never_ran += 1,
            }
        }
        for ((row, party), times) in rows.iter_mut().zip(&self.parties).zip(&mut times) {
            let there = (party.end.unwrap_or(now) - party.begin).max(1) as f64;
            let slots = party.slots.max(1) as f64;
            row.busy = (times.iter().sum::<Micros>() as f64 / there / slots).min(1.0);
            times.sort_unstable();
            row.median_ms = quantile(times, 0.5);
            row.p95_ms = quantile(times, 0.95);
        }
        // Those that had one seat after each other stand together.
        let mut rows: Vec<_> = rows.into_iter().zip(&self.parties).collect();
        rows.sort_by_key(|(_, party)| (party.worker, party.begin));
        Summary {
            ok,
            not_found,
            error,
            unchanged,
            undone: (wanted.saturating_sub(finals.len()) as u64).saturating_sub(untold)
                + count(Status::NotDone),
            untold,
            missing: self.missing.clone(),
            processes: rows.into_iter().map(|(row, _)| row).collect(),
            never_ran,
            errors: groups(&finals),
            slowest: self.slowest(now),
        }
    }

    fn slowest(&self, now: Micros) -> Vec<Slow> {
        let mut spans: Vec<&Span> = self.spans.iter().collect();
        spans.sort_by_key(|span| std::cmp::Reverse(span.duration(now)));
        let told = spans.into_iter().take(SLOWEST).map(|span| Slow {
            code: span.code.clone(),
            ms: span.duration(now) as f64 / 1e3,
            fate: span.fate.as_str(),
            by: self.parties[span.party].name(),
            attempts: span.attempts,
        });
        told.collect()
    }
}

fn empty(party: &Party) -> Row {
    Row {
        name: party.name(),
        pid: party.pid,
        runs: 0,
        ok: 0,
        not_found: 0,
        error: 0,
        lost: 0,
        busy: 0.0,
        median_ms: None,
        p95_ms: None,
        bytes: 0,
        cpu_s: party.usage.cpu_s,
        peak_memory: party.usage.peak_memory,
        how: party.how.clone(),
        is_regular: party.is_regular,
    }
}

/// The smallest of the sorted times that this share of all do not exceed, in milliseconds.
fn quantile(sorted: &[Micros], share: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).map(|time| *time as f64 / 1e3)
}

fn groups(finals: &BTreeMap<String, Final>) -> Vec<Group> {
    let mut groups = BTreeMap::<&str, Vec<String>>::new();
    for (code, end) in finals.iter().filter(|(_, end)| end.status == Status::Error) {
        groups.entry(end.kind()).or_default().push(code.clone());
    }
    let groups = groups.into_iter();
    let mut groups: Vec<_> =
        groups.map(|(cause, codes)| Group { cause: cause.to_owned(), codes }).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.codes.len()));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_taken() {
        let times: Vec<Micros> = (1..=100).map(|ms| ms * 1000).collect();
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.95)), (Some(50.0), Some(95.0)));
        assert_eq!(quantile(&times[..1], 0.95), Some(1.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
