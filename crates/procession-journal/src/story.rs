//! What a run's log tells: who took part, where and when each task ran, and what became of it.
//!
//! ```text
//!   entries, by time ─► Story: setting, parties, spans, marks, report
//!                         │
//!                         ├─► finals: one end for each code ─► summary, resume
//!                         └─► lanes                         ─► timeline, dashboard
//! ```
//!
//! A story can be read while it goes on: each entry adds to it, and [`Span::revision`] tells what
//! has changed. Must never depend on an entry being there: a log may be of another version, or of
//! a run that was killed.

mod finals;
mod span;
mod summary;

use std::collections::{HashMap, HashSet};
use std::fmt;

pub use finals::{Final, Status};
pub use span::{Fate, Mark, Span, Try};
pub use summary::{Group, Row, Slow, Summary};

use serde::Serialize;

use super::entry::{Entry, Process};
use super::event::{Event, Terms, Usage};

/// A time, in microseconds since 1970.
pub type Micros = i64;

/// What a run's log tells.
#[derive(Debug, Default)]
pub struct Story {
    /// What was asked for.
    pub setting: Option<Setting>,
    /// The processes, in the order in which they were first heard of.
    pub parties: Vec<Party>,
    /// The tasks where they ran, in the order in which they began, as far as that is known.
    pub spans: Vec<Span>,
    /// What else happened.
    pub marks: Vec<Mark>,
    /// What the run came to, by its own account.
    pub report: Option<Report>,
    /// What is missing from its log.
    pub missing: Option<Missing>,
    /// The times of the first and the last of all that happened.
    pub period: Option<(Micros, Micros)>,
    /// Grows with each entry.
    pub revision: u64,
    /// Whether each task counts, also where it is about the same as another.
    pub counts_each: bool,
    known: HashMap<(Process, Option<usize>, u32), usize>,
    /// The spans that have begun and not ended, by their party and slot.
    open: HashMap<(usize, usize), usize>,
    /// The last span of each code.
    by_code: HashMap<String, usize>,
    /// What the coordinator said of tasks that gave no answer.
    verdicts: HashMap<String, Final>,
    /// The codes whose errors it has received.
    received: HashSet<String>,
}

/// How a run was to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// `sequential`, `threads` or `processes`.
    pub mode: String,
    /// The server: label or URL.
    pub server: String,
    /// How many codes are asked for.
    pub codes: usize,
    /// Which; empty in logs of older versions.
    pub wanted: Vec<String>,
    /// Worker processes.
    pub workers: usize,
    /// Most concurrent requests.
    pub connections: usize,
    /// Where the flags are saved.
    pub dest: String,
    /// What else it takes to go on with it.
    pub terms: Option<Terms>,
    /// The run that it goes on with.
    pub continues: Option<String>,
}

/// What a run came to, by its own account.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Flags saved.
    pub ok: u64,
    /// Codes without a flag.
    pub not_found: u64,
    /// Everything else that was tried.
    pub error: u64,
    /// Codes that the run did not get to; in older logs they are among the errors.
    pub not_done: Option<u64>,
    /// Of those saved, how many had not changed.
    pub unchanged: u64,
    /// The time of the run, in seconds.
    pub elapsed_s: f64,
    /// The exit code of the program.
    pub exit_code: i32,
}

/// Lines that could not be written into the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// How many, of all processes.
    pub lines: u64,
    /// Why the first one was lost.
    pub why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines {
            1 => write!(f, "1 line is missing: {}", self.why),
            lines => write!(f, "{lines} lines are missing: {}", self.why),
        }
    }
}

/// A process that took part.
#[derive(Debug, Clone, PartialEq)]
pub struct Party {
    /// What kind.
    pub process: Process,
    /// Which worker, if it is one.
    pub worker: Option<usize>,
    /// Its id.
    pub pid: u32,
    /// When it was first heard of.
    pub begin: Micros,
    /// When it was last heard of.
    pub last: Micros,
    /// When it ended, if that is known.
    pub end: Option<Micros>,
    /// How it ended, in words.
    pub how: Option<String>,
    /// Whether it ended as it should.
    pub is_regular: bool,
    /// What it used.
    pub usage: Usage,
    /// How many of its tasks ran at a time.
    pub slots: usize,
    /// The version of the program and the number of its log's format, if it told.
    pub version: Option<(String, u32)>,
    /// When the last task of each slot ended, to find a slot for those that do not tell theirs.
    slot_ends: Vec<Micros>,
}

impl Party {
    /// Its name for people.
    pub fn name(&self) -> String {
        match (&self.process, self.worker) {
            (Process::Worker, Some(worker)) => format!("worker {worker}"),
            (process, _) => process.to_string(),
        }
    }
}

impl Story {
    /// Adds what an entry tells.
    pub fn add(&mut self, entry: Entry) {
        let Entry { ts, level: _, process, worker, pid, event, extra: _ } = entry;
        let at = ts.as_microsecond();
        self.revision += 1;
        self.period = match self.period {
            None => Some((at, at)),
            Some((begin, end)) => Some((begin.min(at), end.max(at))),
        };
        let party = self.party(process, worker, pid, at);
        self.parties[party].last = self.parties[party].last.max(at);
        match event {
            Event::Start { version, format, .. } => {
                self.parties[party].version = Some((version, format));
            }
            Event::TaskStarted { code, slot, run } => self.begin(party, slot, code, run, at),
            Event::TryFailed { code, slot, attempt, error, pause_ms } => {
                self.try_failed(party, slot, &code, Try { at, attempt, error, pause_ms });
            }
            event @ Event::Task { .. } => self.task(party, event, at),
            Event::TaskRetried { code, fault, run, .. } => {
                let span = code.as_ref().and_then(|code| self.by_code.get(code)).copied();
                if let Some(span) = span {
                    let span = self.touch(span);
                    span.is_retried = true;
                    span.is_late |= fault == "timeout";
                }
                self.marks.push(Mark::Retried { at, code, fault, run, span });
            }
            Event::ErrorReceived { code } => drop(self.received.insert(code)),
            Event::TaskTimedOut { code, .. } => {
                let span = code.as_ref().and_then(|code| self.by_code.get(code)).copied();
                if let Some(span) = span {
                    self.touch(span).is_late = true;
                }
                self.marks.push(Mark::TimedOut { at, code });
            }
            Event::WorkerStarted { child, child_pid } => {
                self.party(Process::Worker, Some(child), child_pid, at);
            }
            Event::WorkerNotStarted { child, child_pid, why: _, was_needed } => {
                let party = self.party(Process::Worker, Some(child), child_pid, at);
                let how = if was_needed { "did not start" } else { "not needed" };
                let ended = &mut self.parties[party];
                (ended.end, ended.how) = (Some(at), Some(how.to_owned()));
                ended.is_regular = !was_needed;
            }
            Event::WorkerExited { child, child_pid, how, is_regular, usage } => {
                let party = self.party(Process::Worker, Some(child), child_pid, at);
                self.exited(party, at, how, is_regular, usage);
            }
            Event::Run {
                mode,
                server,
                codes,
                workers,
                connections,
                dest,
                wanted,
                terms,
                continues,
            } => {
                self.setting = Some(Setting {
                    mode,
                    server,
                    codes,
                    wanted,
                    workers,
                    connections,
                    dest,
                    terms,
                    continues,
                });
            }
            Event::Summary {
                ok,
                not_found,
                error,
                not_done,
                unchanged,
                elapsed_s,
                exit_code,
                usage,
            } => {
                self.parties[party].usage = usage;
                let report =
                    Report { ok, not_found, error, not_done, unchanged, elapsed_s, exit_code };
                self.report = Some(report);
            }
            Event::LinesLost { lines, why } => {
                let known = self.missing.as_ref().map_or(0, |missing| missing.lines);
                self.missing = Some(Missing { lines: lines.max(known), why });
            }
            Event::Exit { exit_code, .. } => {
                let party = &mut self.parties[party];
                party.end.get_or_insert(at);
                party.how.get_or_insert_with(|| format!("exit code {exit_code}"));
                party.is_regular |= exit_code == 0;
            }
            Event::Output { .. } | Event::Other(_) => {}
        }
    }

    /// Whether the run goes on, as far as its log tells: nothing says that it ended.
    pub fn is_open(&self) -> bool {
        let coordinator = self.parties.iter().find(|party| party.process == Process::Coordinator);
        coordinator.is_none_or(|coordinator| coordinator.end.is_none())
    }

    /// Says that it still goes on, as a task does that has not ended, though nothing more was
    /// heard of it.
    pub fn goes_on_at(&mut self, now: Micros) {
        if let Some((_, end)) = &mut self.period
            && !self.open.is_empty()
        {
            *end = now.max(*end);
        }
    }

    /// Says that nothing more will come. What was not ended by then was lost.
    pub fn close(&mut self) {
        let Some((_, end)) = self.period else { return };
        self.revision += 1;
        for index in 0..self.spans.len() {
            if self.is_hearsay(&self.spans[index]) {
                self.touch(index).fate = Fate::Lost;
            }
        }
        for (_, span) in std::mem::take(&mut self.open) {
            let last = self.parties[self.spans[span].party].end.unwrap_or(end);
            let span = self.touch(span);
            (span.end, span.fate) = (Some(last), Fate::Lost);
        }
    }

    /// Notes that those ended in order of whom nobody told how.
    pub fn dismiss(&mut self) {
        for party in &mut self.parties {
            if party.how.is_none() {
                (party.how, party.is_regular) = (Some("ended".to_owned()), true);
            }
        }
    }

    fn party(&mut self, process: Process, worker: Option<usize>, pid: u32, at: Micros) -> usize {
        let parties = &mut self.parties;
        // A pid alone would not do: it may be used again within a long run.
        *self.known.entry((process.clone(), worker, pid)).or_insert_with(|| {
            parties.push(Party {
                process,
                worker,
                pid,
                begin: at,
                last: at,
                end: None,
                how: None,
                is_regular: false,
                usage: Usage::default(),
                slots: 0,
                version: None,
                slot_ends: Vec::new(),
            });
            parties.len() - 1
        })
    }

    fn touch(&mut self, span: usize) -> &mut Span {
        self.spans[span].revision = self.revision;
        &mut self.spans[span]
    }

    fn begin(&mut self, party: usize, slot: usize, code: String, run: u32, at: Micros) {
        // It may be known only at its end, and have begun before anything else was heard of.
        self.period = self.period.map(|(begin, end)| (begin.min(at), end));
        let slots = &mut self.parties[party].slots;
        *slots = (*slots).max(slot + 1);
        self.by_code.insert(code.clone(), self.spans.len());
        if let Some(unended) = self.open.insert((party, slot), self.spans.len()) {
            let span = self.touch(unended);
            (span.end, span.fate) = (Some(at), Fate::Lost);
        }
        let mut span = Span::begun(party, slot, code, run, at);
        span.revision = self.revision;
        self.spans.push(span);
    }

    fn try_failed(&mut self, party: usize, slot: usize, code: &str, failed: Try) {
        let open = self.open.get(&(party, slot)).copied();
        if let Some(span) = open.filter(|&span| self.spans[span].code == code) {
            self.touch(span).tries.push(failed);
        }
    }

    fn task(&mut self, party: usize, task: Event, at: Micros) {
        let Event::Task { code, slot, elapsed_ms, child_pid, .. } = &task else { return };
        let is_here = match slot {
            Some(_) => true,
            // Before slots were told, the coordinator spoke for tasks of others in processes only.
            None => {
                self.parties[party].process != Process::Coordinator
                    || (child_pid.is_none()
                        && self.setting.as_ref().is_some_and(|run| run.mode != "processes")
                        && self.parties[party]
                            .version
                            .as_ref()
                            .is_some_and(|(_, format)| *format == 0))
            }
        };
        if !is_here {
            if let Some(verdict) = Final::of(&task, self.by_code.get(code).copied()) {
                self.verdicts.insert(code.clone(), verdict);
            }
            return;
        }
        let open = slot.and_then(|slot| self.open.get(&(party, slot)).copied());
        let open = open.filter(|&span| self.spans[span].code == *code);
        let span = open.unwrap_or_else(|| {
            let begin = at - (elapsed_ms * 1e3) as Micros;
            let slot = slot.unwrap_or_else(|| self.free_slot(party, begin));
            self.begin(party, slot, code.clone(), 1, begin);
            self.spans.len() - 1
        });
        let slot = self.spans[span].slot;
        self.open.remove(&(party, slot));
        let ends = &mut self.parties[party].slot_ends;
        ends.resize(ends.len().max(slot + 1), Micros::MIN);
        ends[slot] = at;
        self.touch(span).end_with(task, at);
    }

    fn free_slot(&self, party: usize, begin: Micros) -> usize {
        let ends = &self.parties[party].slot_ends;
        ends.iter().position(|end| *end <= begin).unwrap_or(ends.len())
    }

    fn exited(&mut self, party: usize, at: Micros, how: String, is_regular: bool, usage: Usage) {
        let ended = &mut self.parties[party];
        (ended.end, ended.is_regular, ended.usage) = (Some(at), is_regular, usage);
        if !is_regular {
            self.marks.push(Mark::Died { at, party, how: how.clone() });
        }
        ended.how = Some(how);
        let lost: Vec<_> = self.open.keys().filter(|(of, _)| *of == party).copied().collect();
        for key in lost {
            let Some(span) = self.open.remove(&key) else { continue };
            let span = self.touch(span);
            (span.end, span.fate) = (Some(at), Fate::Lost);
        }
    }
}

#[cfg(test)]
mod tests;
