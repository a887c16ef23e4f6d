//! What each event changes in a history: one method for each.

use super::{
    Annotation, FailedTry, FinalOutcome, Micros, MissingLines, ProcessRecord, RunHistory, Span,
};
use crate::entry::{LogEntry, ProcessKind};
use crate::event::{LogEvent, ResourceUsage, TaskEnd};

impl RunHistory {
    /// Adds an entry.
    pub fn add(&mut self, entry: LogEntry) {
        let LogEntry { ts, level: _, process, worker, pid, event, extra: _ } = entry;
        let at = ts.as_microsecond();
        self.revision += 1;
        self.period = match self.period {
            None => Some((at, at)),
            Some((begin, end)) => Some((begin.min(at), end.max(at))),
        };
        let process = self.process(process, worker, pid, at);
        self.processes[process].last = self.processes[process].last.max(at);
        self.apply(process, at, event);
    }

    /// `process` is the index of the process that wrote the event.
    fn apply(&mut self, process: usize, at: Micros, event: LogEvent) {
        match event {
            LogEvent::Start { version, format, .. } => {
                self.processes[process].version = Some((version, format));
            }
            LogEvent::TaskStarted { code, slot, run } => {
                self.task_started(process, slot, code, run, at);
            }
            LogEvent::TryFailed { code, slot, attempt, error, pause_ms } => {
                self.try_failed(process, slot, &code, FailedTry { at, attempt, error, pause_ms });
            }
            LogEvent::Task(task) => self.task_ended(process, task, at),
            LogEvent::ErrorReceived { code } => drop(self.received_errors.insert(code)),
            LogEvent::TaskRetried { code, fault, run, .. } => {
                self.task_retried(at, code, fault, run);
            }
            LogEvent::TaskTimedOut { code, .. } => self.task_timed_out(at, code),
            LogEvent::WorkerStarted { child, child_pid } => {
                self.process(ProcessKind::Worker, Some(child), child_pid, at);
            }
            LogEvent::WorkerNotStarted { child, child_pid, why: _, was_needed } => {
                self.worker_not_started(child, child_pid, at, was_needed);
            }
            LogEvent::WorkerExited { child, child_pid, how, is_regular, usage } => {
                let worker = self.process(ProcessKind::Worker, Some(child), child_pid, at);
                self.worker_exited(worker, at, how, is_regular, usage);
            }
            LogEvent::Run(settings) => self.settings = Some(settings),
            LogEvent::Summary { report, usage } => {
                self.processes[process].usage = usage;
                self.report = Some(report);
            }
            LogEvent::LinesLost { lines, why } => self.lines_lost(lines, why),
            LogEvent::Exit { exit_code, .. } => self.exit(process, at, exit_code),
            LogEvent::Output { .. } | LogEvent::Other(_) => {}
        }
    }

    /// The index of a process, which is added if it is new.
    fn process(&mut self, kind: ProcessKind, worker: Option<usize>, pid: u32, at: Micros) -> usize {
        let processes = &mut self.processes;
        // The pid alone is not enough: the system may use it again within a long run.
        *self.process_indices.entry((kind.clone(), worker, pid)).or_insert_with(|| {
            processes.push(ProcessRecord::new(kind, worker, pid, at));
            processes.len() - 1
        })
    }

    fn task_started(&mut self, process: usize, slot: usize, code: String, run: u32, at: Micros) {
        // Where only the end of a task is recorded, its begin may lie before the first entry.
        self.period = self.period.map(|(begin, end)| (begin.min(at), end));
        let slots = &mut self.processes[process].slots;
        *slots = (*slots).max(slot + 1);
        self.by_code.insert(code.clone(), self.spans.len());
        if let Some(unended) = self.open.insert((process, slot), self.spans.len()) {
            self.lose(unended, at);
        }
        let mut span = Span::begun(process, slot, code, run, at);
        span.revision = self.revision;
        self.spans.push(span);
    }

    fn try_failed(&mut self, process: usize, slot: usize, code: &str, failed: FailedTry) {
        if let Some(span) = self.open_span(process, slot, code) {
            self.touch(span).tries.push(failed);
        }
    }

    /// The span of this code that runs in this slot.
    fn open_span(&self, process: usize, slot: usize, code: &str) -> Option<usize> {
        let open = self.open.get(&(process, slot)).copied();
        open.filter(|&span| self.spans[span].code == code)
    }

    fn task_ended(&mut self, process: usize, task: TaskEnd, at: Micros) {
        if !self.ran_in(process, &task) {
            let last = self.by_code.get(&task.code).copied();
            let outcome = FinalOutcome::of_task(&task, last);
            self.coordinator_outcomes.insert(task.code, outcome);
            return;
        }
        let open = task.slot.and_then(|slot| self.open_span(process, slot, &task.code));
        let span = open.unwrap_or_else(|| {
            let begin = at - (task.elapsed_ms * 1e3) as Micros;
            let slot = task.slot.unwrap_or_else(|| self.processes[process].free_slot(begin));
            self.task_started(process, slot, task.code.clone(), 1, begin);
            self.spans.len() - 1
        });
        let slot = self.spans[span].slot;
        self.open.remove(&(process, slot));
        self.processes[process].end_slot(slot, at);
        self.touch(span).end_with(task, at);
    }

    /// Whether the task ran in the process that recorded its end. In the first format slots were not
    /// recorded; a coordinator recorded tasks of its own in all modes but `processes`.
    fn ran_in(&self, process: usize, task: &TaskEnd) -> bool {
        let record = &self.processes[process];
        task.slot.is_some()
            || record.kind != ProcessKind::Coordinator
            || (task.child_pid.is_none()
                && record.has_first_format()
                && self.settings.as_ref().is_some_and(|run| run.mode != "processes"))
    }

    fn last_span(&self, code: Option<&String>) -> Option<usize> {
        self.by_code.get(code?).copied()
    }

    fn task_retried(&mut self, at: Micros, code: Option<String>, fault: String, run: u32) {
        let span = self.last_span(code.as_ref());
        if let Some(span) = span {
            let span = self.touch(span);
            span.is_retried = true;
            span.timed_out |= fault == "timeout";
        }
        self.annotations.push(Annotation::Retried { at, code, fault, run, span });
    }

    fn task_timed_out(&mut self, at: Micros, code: Option<String>) {
        if let Some(span) = self.last_span(code.as_ref()) {
            self.touch(span).timed_out = true;
        }
        self.annotations.push(Annotation::TimedOut { at, code });
    }

    fn worker_not_started(&mut self, worker: usize, pid: u32, at: Micros, was_needed: bool) {
        let process = self.process(ProcessKind::Worker, Some(worker), pid, at);
        let how = if was_needed { "did not start" } else { "not needed" };
        let record = &mut self.processes[process];
        (record.end, record.how) = (Some(at), Some(how.to_owned()));
        record.is_regular = !was_needed;
    }

    fn worker_exited(
        &mut self,
        process: usize,
        at: Micros,
        how: String,
        is_regular: bool,
        usage: ResourceUsage,
    ) {
        if !is_regular {
            self.annotations.push(Annotation::Died { at, process, how: how.clone() });
        }
        let record = &mut self.processes[process];
        (record.end, record.how) = (Some(at), Some(how));
        (record.is_regular, record.usage) = (is_regular, usage);
        let lost: Vec<_> = self.open.keys().filter(|(of, _)| *of == process).copied().collect();
        for key in lost {
            if let Some(span) = self.open.remove(&key) {
                self.lose(span, at);
            }
        }
    }

    fn lines_lost(&mut self, lines: u64, why: String) {
        let known = self.missing.as_ref().map_or(0, |missing| missing.lines);
        self.missing = Some(MissingLines { lines: lines.max(known), why });
    }

    fn exit(&mut self, process: usize, at: Micros, exit_code: i32) {
        let record = &mut self.processes[process];
        record.end.get_or_insert(at);
        record.how.get_or_insert_with(|| format!("exit code {exit_code}"));
        record.is_regular |= exit_code == 0;
    }
}
