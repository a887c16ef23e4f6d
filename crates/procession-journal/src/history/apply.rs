//! Adds events to a history: one method for each kind of event.

use super::span::{TaskKey, micros, title};
use super::{
    Annotation, FailedTry, FinalOutcome, MAX_SLOTS, Micros, MissingLines, ProcessRecord,
    RunHistory, Span, SpanOutcome,
};
use crate::entry::{LogEntry, ProcessKind};
use crate::event::{LogEvent, LostBy, NamedTask, ResourceUsage, TaskEnd, TaskSums};

impl RunHistory {
    /// Adds an entry.
    pub fn add(&mut self, entry: LogEntry) {
        let LogEntry { ts, level: _, process, worker, pid, own_cpu_s, event, extra: _ } = entry;
        let at = ts.as_microsecond();
        self.revision += 1;
        self.period = match self.period {
            None => Some((at, at)),
            Some((begin, end)) => Some((begin.min(at), end.max(at))),
        };
        let process = self.process(process, worker, pid, at);
        if let Some(cpu_s) = own_cpu_s {
            self.processes[process].cpu.add(at, cpu_s);
        }
        let event = with_possible_slot(event);
        self.processes[process].last = self.processes[process].last.max(at);
        self.apply(process, at, event);
    }

    /// `process` is the index of the process that wrote the event.
    fn apply(&mut self, process: usize, at: Micros, event: LogEvent) {
        match event {
            LogEvent::Start { version, format, .. } => {
                self.processes[process].version = Some((version, format));
            }
            LogEvent::TaskStarted { code, task, late_ms, slot, run } => {
                if let Some(named) = named(&code, &task) {
                    let at = at - micros(late_ms);
                    match self.processes[process].end {
                        Some(end) => self.task_was_started(process, slot, named, run, at, end),
                        None => self.task_started(process, slot, named, run, at),
                    }
                }
            }
            LogEvent::TryFailed { code, slot, attempt, error, pause_ms } => {
                self.try_failed(process, slot, &code, FailedTry { at, attempt, error, pause_ms });
            }
            LogEvent::Task(task) => {
                let at = at - micros(task.late_ms);
                self.task_ended(process, task, at);
            }
            LogEvent::Tasks(sums) => self.tasks_ended(process, &sums, at),
            LogEvent::ErrorReceived { code } => drop(self.received_errors.insert(code)),
            LogEvent::TaskRetried { code, task, by, fault, run, pause_ms: _ } => {
                let named = named(code.as_deref().unwrap_or_default(), &task);
                if let Some(named) = &named {
                    self.note_loss(named, by, 0, at);
                }
                self.task_retried(at, named, fault, run);
            }
            LogEvent::TasksRetried { by, count } => self.tasks_retried(by, count, at),
            LogEvent::TaskTimedOut { code, task, .. } => {
                self.task_timed_out(at, named(code.as_deref().unwrap_or_default(), &task));
            }
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
                self.processes[process].usage_at(at, usage);
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

    fn task_started(
        &mut self,
        process: usize,
        slot: usize,
        named: TitledTask,
        run: u32,
        at: Micros,
    ) {
        // Where only the end of a task is recorded, its begin may lie before the first entry.
        self.period = self.period.map(|(begin, end)| (begin.min(at), end));
        let slots = &mut self.processes[process].slots;
        *slots = (*slots).max(slot + 1);
        self.by_key.insert(named.0.clone(), self.spans.len());
        if let Some(unended) = self.open.insert((process, slot), self.spans.len()) {
            self.lose(unended, at);
        }
        let mut span = Span::begun(process, slot, named, run, at);
        span.revision = self.revision;
        self.spans.push(span);
        self.fold_if_large();
    }

    /// Adds the begin of a task whose process has ended. While a run goes on, the line of a worker may be
    /// read after that of its end, which the coordinator has written.
    fn task_was_started(
        &mut self,
        process: usize,
        slot: usize,
        named: TitledTask,
        run: u32,
        at: Micros,
        end: Micros,
    ) {
        if let Some(span) = self.lost_span(process, &named.0) {
            let span = self.touch(span);
            (span.begin, span.code) = (at.min(span.begin), named.1);
            return;
        }
        self.task_started(process, slot, named, run, at);
        self.open.remove(&(process, slot));
        self.lose(self.spans.len() - 1, end.max(at));
    }

    /// The last span of a task, if it was lost in this process.
    fn lost_span(&self, process: usize, key: &TaskKey) -> Option<usize> {
        let last = self.by_key.get(key).copied();
        last.filter(|&span| {
            let span = &self.spans[span];
            span.process == process && span.outcome == SpanOutcome::Lost
        })
    }

    fn try_failed(&mut self, process: usize, slot: usize, code: &str, failed: FailedTry) {
        if let Some(span) = self.open_span(process, slot, &TaskKey::Code(code.to_owned())) {
            self.touch(span).tries.push(failed);
        }
    }

    /// The span of this task that runs in this slot.
    fn open_span(&self, process: usize, slot: usize, key: &TaskKey) -> Option<usize> {
        let open = self.open.get(&(process, slot)).copied();
        open.filter(|&span| self.spans[span].key == *key)
    }

    fn task_ended(&mut self, process: usize, task: TaskEnd, at: Micros) {
        let Some(named) = named(&task.code, &task.task) else { return };
        if !self.ran_in(process, &task) {
            let by = LostBy { child: task.child, child_pid: task.child_pid };
            self.note_loss(&named, by, micros(task.elapsed_ms), at);
            let (key, title) = named;
            let last = self.by_key.get(&key).copied();
            if let Some(last) = last.filter(|_| matches!(key, TaskKey::Id(_))) {
                let span = self.touch(last);
                (span.error, span.cause) = (task.error.clone(), task.cause.clone());
            }
            let outcome = FinalOutcome::of_task(&task, last);
            self.coordinator_outcomes.insert(key, (title, outcome));
            return;
        }
        let open = task.slot.and_then(|slot| self.open_span(process, slot, &named.0));
        // Of a process whose end was read before.
        let begun = open.or_else(|| self.lost_span(process, &named.0));
        let span = begun.unwrap_or_else(|| {
            let begin = at - micros(task.elapsed_ms);
            let slot = task.slot.unwrap_or_else(|| self.processes[process].free_slot(begin));
            self.task_started(process, slot, named, 1, begin);
            self.spans.len() - 1
        });
        let slot = self.spans[span].slot;
        self.open.remove(&(process, slot));
        self.processes[process].end_slot(slot, at);
        if let Some(label) = task.task.label.clone().filter(|_| task.code.is_empty()) {
            self.spans[span].code = label;
        }
        self.touch(span).end_with(task, at);
    }

    fn tasks_ended(&mut self, process: usize, sums: &TaskSums, at: Micros) {
        self.sums += 1;
        let end = at - micros(sums.late_ms);
        let mut span = Span::of_sums(process, self.sums, sums, end);
        span.revision = self.revision;
        self.period = self.period.map(|(begin, end)| (begin.min(span.begin), end));
        let record = &mut self.processes[process];
        record.slots = record.slots.max(span.slot + 1);
        record.end_slot(span.slot, end);
        self.spans.push(span);
        self.fold_if_large();
    }

    /// Adds the span of a task that a worker lost before it recorded its begin, where the coordinator
    /// records the loss. Tasks with a code record their begins.
    fn note_loss(&mut self, named: &TitledTask, by: LostBy, elapsed: Micros, at: Micros) {
        let LostBy { child: Some(worker), child_pid: Some(pid) } = by else { return };
        if !matches!(named.0, TaskKey::Id(_)) {
            return;
        }
        let process = self.process(ProcessKind::Worker, Some(worker), pid, at);
        let last = self.by_key.get(&named.0).map(|span| &self.spans[*span]);
        let is_known = last.is_some_and(|span| {
            let is_lost = matches!(span.outcome, SpanOutcome::Running | SpanOutcome::Lost);
            span.process == process && is_lost && !span.is_retried
        });
        if is_known {
            return;
        }
        let end = self.processes[process].end.map_or(at, |end| end.min(at));
        let begin = end - elapsed;
        let slot = self.processes[process].free_slot(begin);
        self.task_started(process, slot, named.clone(), 1, begin);
        self.open.remove(&(process, slot));
        self.processes[process].end_slot(slot, end);
        self.lose(self.spans.len() - 1, end);
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

    fn last_span(&self, named: Option<&TitledTask>) -> Option<usize> {
        self.by_key.get(&named?.0).copied()
    }

    fn task_retried(&mut self, at: Micros, named: Option<TitledTask>, fault: String, run: u32) {
        let span = self.last_span(named.as_ref());
        if let Some(span) = span {
            let span = self.touch(span);
            span.is_retried = true;
            span.timed_out |= fault == "timeout";
        }
        let code = self.title_of(span, named);
        self.annotations.push(Annotation::Retried { at, code, fault, run, span });
    }

    fn tasks_retried(&mut self, by: LostBy, count: u64, at: Micros) {
        let LostBy { child: Some(worker), child_pid: Some(pid) } = by else { return };
        let process = self.process(ProcessKind::Worker, Some(worker), pid, at);
        let retried = &mut self.processes[process].retried;
        *retried = retried.saturating_add(count);
    }

    fn task_timed_out(&mut self, at: Micros, named: Option<TitledTask>) {
        let span = self.last_span(named.as_ref());
        if let Some(span) = span {
            self.touch(span).timed_out = true;
        }
        let code = self.title_of(span, named);
        self.annotations.push(Annotation::TimedOut { at, code });
    }

    /// The title of a task: its process may know a label that the coordinator does not.
    fn title_of(&self, span: Option<usize>, named: Option<TitledTask>) -> Option<String> {
        match span {
            Some(span) => Some(self.spans[span].code.clone()),
            None => named.map(|(key, title)| key.named(&title)),
        }
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
        record.is_regular = is_regular;
        record.usage_at(at, usage);
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

/// The event with a slot below [`MAX_SLOTS`].
fn with_possible_slot(mut event: LogEvent) -> LogEvent {
    let slot = match &mut event {
        LogEvent::TaskStarted { slot, .. } | LogEvent::TryFailed { slot, .. } => Some(slot),
        LogEvent::Task(task) => task.slot.as_mut(),
        LogEvent::Tasks(sums) => Some(&mut sums.slot),
        _ => None,
    };
    if let Some(slot) = slot {
        *slot = (*slot).min(MAX_SLOTS - 1);
    }
    event
}

/// What identifies a task, and its title.
pub(super) type TitledTask = (TaskKey, String);

fn named(code: &str, task: &NamedTask) -> Option<TitledTask> {
    Some((TaskKey::of(code, task)?, title(code, task)))
}
