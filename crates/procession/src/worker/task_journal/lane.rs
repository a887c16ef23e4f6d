//! [`RunnerLane`]: one runner of the worker, the task that runs there, and its lines that are not written
//! yet.
//!
//! The lines of a lane are written in their order, several with one write: those of short tasks at the next
//! tick, those of long and failed tasks at once. A label costs no write: it goes into the memory that is
//! shared with the coordinator, which records it if the task ends the worker.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use procession_journal::{Level, LogEvent, NamedTask, TaskEnd, TaskSum, TaskSums};

use super::budget::TICK;
use super::on::{Shared, lock};
use crate::task::{SetLabel, TaskId};
use crate::transport::{self, ReplyBuffer, Status};

/// A task that runs for this long at a tick has a line for its begin, in nanoseconds.
const LONG: u64 = 20_000_000;
/// The longest error in a line, in characters.
const MAX_ERROR: usize = 2_000;
/// The most lines that wait for the next tick.
const MOST_WAITING: usize = 1_000;

/// One runner of the worker.
pub(in super::super) struct RunnerLane {
    shared: Arc<Shared>,
    slot: usize,
    state: Mutex<LaneState>,
    /// Held while lines are taken out and written, so that they keep their order. Locked before `state`.
    writing: Mutex<()>,
}

#[derive(Default)]
struct LaneState {
    is_running: bool,
    /// The task that runs, or ran last.
    id: u64,
    name: String,
    label: Option<String>,
    attempt: u32,
    /// In nanoseconds, as all times here.
    began: u64,
    /// Whether its begin has a line.
    is_recorded: bool,
    /// That line is older than the label.
    is_label_new: bool,
    sums: Vec<TaskSum>,
    /// Begin of the first and end of the last task in the sums.
    period: (u64, u64),
    waiting: Vec<WaitingLine>,
}

/// A line, with the time that it is about.
struct WaitingLine {
    at: u64,
    level: Level,
    event: LogEvent,
}

impl RunnerLane {
    pub(super) fn new(shared: Arc<Shared>, slot: usize) -> Self {
        Self { shared, slot, state: Mutex::default(), writing: Mutex::default() }
    }

    /// Notes that a task begins.
    pub(in super::super) fn begin(&self, id: TaskId, name: &str, attempt: u32, now: u64) {
        let mut state = lock(&self.state);
        if state.name != name {
            name.clone_into(&mut state.name);
        }
        (state.is_running, state.is_recorded, state.is_label_new) = (true, false, false);
        (state.id, state.attempt, state.began) = (id.0, attempt, now);
        state.label = None;
        drop(state);
        self.shared.wake_up();
    }

    /// Notes that it has ended: at once, with a line, if it was long or failed. Returns whether lines were
    /// written.
    pub(in super::super) fn end(
        &self,
        status: Status,
        ran_for: Duration,
        reply_buffer: &ReplyBuffer,
    ) -> bool {
        let budget = &self.shared.budget;
        let ran_for = u64::try_from(ran_for.as_nanos()).unwrap_or(u64::MAX);
        let mut state = lock(&self.state);
        state.is_running = false;
        let bytes = reply_buffer.data().len() as u64;
        let is_ok = status == Status::Ok;
        let has_line = match is_ok {
            // Another attempt may have a line, which this one follows while there are few.
            true => {
                budget.has_line(ran_for)
                    || state.is_recorded
                    || (state.attempt > 1 && budget.has_retried_line())
            }
            false => {
                // A task whose begin has a line counts as well. The coordinator writes lines for the same
                // number of retried failures of this worker, so they are those of the same tasks.
                let has_line = budget.has_failed_line();
                if state.is_recorded {
                    budget.count_line();
                }
                has_line || state.is_recorded
            }
        };
        let has_late_line = is_ok && !has_line && state.label.is_some() && budget.has_label_line();
        if !(has_line || has_late_line) {
            state.add_to_sum(status, ran_for, bytes);
            return false;
        }
        state.close_sums(&self.shared, self.slot);
        let error = reply_buffer.error(status);
        let event = LogEvent::Task(TaskEnd {
            task: state.task_name(),
            slot: Some(self.slot),
            status: if is_ok { "ok" } else { "error" }.to_owned(),
            bytes: is_ok.then_some(bytes),
            elapsed_ms: ms(ran_for),
            attempt: state.attempt,
            error: error.map(|error| error.chars().take(MAX_ERROR).collect()),
            ..TaskEnd::default()
        });
        let level = if is_ok { Level::Info } else { Level::Error };
        let at = state.began.saturating_add(ran_for);
        state.waiting.push(WaitingLine { at, level, event });
        let must_write = has_line || state.waiting.len() >= MOST_WAITING;
        drop(state);
        if must_write {
            self.write();
        }
        must_write
    }

    /// Writes the begin of a long task, sums that are due, and the lines that wait. Returns whether there is
    /// more to come.
    pub(super) fn flush(&self, now: u64) -> bool {
        let shared = &*self.shared;
        let mut state = lock(&self.state);
        let is_long = now.saturating_sub(state.began) >= shared.budget.limit().max(LONG);
        let is_due = if state.is_recorded { state.is_label_new } else { is_long };
        if state.is_running && is_due {
            state.note_begin(shared, self.slot);
        }
        let period = now.saturating_sub(state.period.0);
        let is_idle = !state.is_running && now.saturating_sub(state.period.1) >= TICK;
        if is_idle || period >= shared.budget.period() {
            state.close_sums(shared, self.slot);
        }
        let has_lines = !state.waiting.is_empty();
        // A long task whose begin has a line will end without the flusher.
        let has_more = (state.is_running && !state.is_recorded) || !state.sums.is_empty();
        drop(state);
        if has_lines {
            self.write();
        }
        has_more
    }

    /// Writes the lines that wait.
    fn write(&self) {
        let _writing = lock(&self.writing);
        let waiting = std::mem::take(&mut lock(&self.state).waiting);
        let now = transport::now();
        let lines = waiting.into_iter().map(|line| (line.level, late(line.event, line.at, now)));
        self.shared.journal.record_all(lines.collect());
    }
}

/// The event with the time that has passed since.
fn late(mut event: LogEvent, at: u64, now: u64) -> LogEvent {
    let late = ms(now.saturating_sub(at));
    match &mut event {
        LogEvent::TaskStarted { late_ms, .. } => *late_ms = late,
        LogEvent::Tasks(sums) => sums.late_ms = late,
        // What is written at once needs no such field.
        LogEvent::Task(task) if late >= 1.0 => task.late_ms = late,
        _ => {}
    }
    event
}

impl LaneState {
    fn task_name(&self) -> NamedTask {
        let (name, label) = (Some(self.name.clone()), self.label.clone());
        NamedTask { id: Some(self.id), name, label }
    }

    fn add_to_sum(&mut self, status: Status, ran_for: u64, bytes: u64) {
        if self.sums.is_empty() {
            self.period.0 = self.began;
        }
        self.period.1 = self.began.saturating_add(ran_for);
        let index = self.sums.iter().position(|sum| sum.name == self.name);
        let index = index.unwrap_or_else(|| {
            self.sums.push(TaskSum { name: self.name.clone(), ..TaskSum::default() });
            self.sums.len() - 1
        });
        let sum = &mut self.sums[index];
        sum.count += 1;
        sum.failed += u64::from(status != Status::Ok);
        // The sum of rounded numbers is not round.
        sum.run_ms = ((sum.run_ms + ms(ran_for)) * 1e3).round() / 1e3;
        sum.max_ms = sum.max_ms.max(ms(ran_for));
        sum.bytes += bytes;
    }

    /// Makes a line of the sums.
    fn close_sums(&mut self, shared: &Shared, slot: usize) {
        if self.sums.is_empty() {
            return;
        }
        shared.budget.count_sums();
        let (begin, end) = self.period;
        let event = LogEvent::Tasks(TaskSums {
            slot,
            period_ms: ms(end.saturating_sub(begin)),
            late_ms: 0.0,
            tasks: std::mem::take(&mut self.sums),
        });
        self.waiting.push(WaitingLine { at: end, level: Level::Info, event });
    }

    /// Makes a line of the begin of the task that runs.
    fn note_begin(&mut self, shared: &Shared, slot: usize) {
        self.close_sums(shared, slot);
        (self.is_recorded, self.is_label_new) = (true, false);
        let (code, task, run) = (String::new(), self.task_name(), self.attempt);
        let event = LogEvent::TaskStarted { code, task, late_ms: 0.0, slot, run };
        self.waiting.push(WaitingLine { at: self.began, level: Level::Debug, event });
    }
}

impl SetLabel for RunnerLane {
    fn set_label(&self, task: TaskId, label: &dyn fmt::Display) {
        let shared = &*self.shared;
        // Not while a lock is held: it is the program's code.
        let label = transport::cut_label(label.to_string());
        let mut state = lock(&self.state);
        // A thread of an earlier task may still have its context.
        if !state.is_running || state.id != task.0 {
            return;
        }
        let is_known = shared.region.set_label(self.slot, task.0, &label);
        (state.label, state.is_label_new) = (Some(label), state.is_recorded);
        let must_write = !is_known && shared.budget.has_label_line();
        if must_write {
            // The task may end this process.
            state.note_begin(shared, self.slot);
        }
        let is_late = state.is_label_new;
        drop(state);
        if must_write {
            self.write();
        } else if is_late {
            shared.wake_up();
        }
    }
}

impl fmt::Debug for RunnerLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerLane").field("slot", &self.slot).finish_non_exhaustive()
    }
}

fn ms(nanos: u64) -> f64 {
    // To a microsecond, which keeps lines short.
    (nanos / 1000) as f64 / 1e3
}
