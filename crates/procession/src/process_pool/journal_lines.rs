//! The lines of events in a journal, and the lines that workers print. Also for programs that keep a journal of
//! their own: `crate::journal`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use procession_journal::{Journal, Level, LogEvent, LostBy, NamedTask};

use super::{Output, OutputStream, PoolEvent};
use crate::error::{Exit, with_unit};
use crate::task::TaskId;

/// The line of an event. `None` for [`PoolEvent::TaskStarted`]: the worker records its tasks.
///
/// ```
/// use procession::PoolEvent;
/// use procession::journal::line_of;
///
/// assert!(line_of(&PoolEvent::WorkerStarted { worker: 0, pid: 4712 }).is_some());
/// ```
pub fn line_of(event: &PoolEvent) -> Option<(Level, LogEvent)> {
    Some(match event {
        PoolEvent::TaskStarted { .. } => return None,
        PoolEvent::TaskRetried { task, fault, attempt, pause } => {
            let (fault, run) = (fault.to_string(), *attempt);
            let (code, task, by) = (None, name_of(*task), LostBy::default());
            let pause_ms = pause.as_secs_f64() * 1e3;
            (Level::Warn, LogEvent::TaskRetried { code, task, by, fault, run, pause_ms })
        }
        PoolEvent::TaskTimedOut { task, after } => {
            let after_ms = after.as_secs_f64() * 1e3;
            (Level::Error, LogEvent::TaskTimedOut { code: None, task: name_of(*task), after_ms })
        }
        PoolEvent::WorkerStarted { worker, pid } => {
            (Level::Info, LogEvent::WorkerStarted { child: *worker, child_pid: *pid })
        }
        PoolEvent::WorkerNotStarted { worker, pid, reason, was_needed } => {
            let level = if *was_needed { Level::Warn } else { Level::Info };
            let (child, child_pid, why) = (*worker, *pid, reason.clone());
            let was_needed = *was_needed;
            (level, LogEvent::WorkerNotStarted { child, child_pid, why, was_needed })
        }
        PoolEvent::WorkerExited { worker, pid, exit, usage, is_regular } => {
            let is_regular = *is_regular;
            let level = if is_regular { Level::Info } else { Level::Error };
            let usage = procession_journal::ResourceUsage {
                cpu_s: Some(usage.cpu.as_secs_f64()),
                peak_memory: Some(usage.peak_memory),
            };
            let how = match exit {
                Exit::Signal(_) if is_regular => "ended by the pool".to_owned(),
                _ => exit.to_string(),
            };
            let (child, child_pid) = (*worker, *pid);
            (level, LogEvent::WorkerExited { child, child_pid, how, is_regular, usage })
        }
        PoolEvent::WorkerWrittenOff { .. } => (Level::Error, sentence(event)),
        PoolEvent::SparePromoted { .. } | PoolEvent::WorkerRecycled { .. } => {
            (Level::Info, sentence(event))
        }
        PoolEvent::InputKept { input, .. } if input.failure().is_none() => {
            (Level::Info, sentence(event))
        }
        PoolEvent::TemplateStarted { .. } | PoolEvent::TemplateExited { .. } => {
            (Level::Info, sentence(event))
        }
        PoolEvent::WorkerNarrowed { .. }
        | PoolEvent::WorkerUnfit { .. }
        | PoolEvent::WorkerDelayed { .. }
        | PoolEvent::InputKept { .. }
        | PoolEvent::ProgramPassedOver { .. } => (Level::Warn, sentence(event)),
    })
}

/// The line of an event that has none of its own kind.
fn sentence(event: &PoolEvent) -> LogEvent {
    let stream = procession_journal::OutputStream::Stderr;
    LogEvent::Output { stream, text: in_words(event) }
}

fn name_of(task: TaskId) -> NamedTask {
    NamedTask { id: Some(task.0), ..NamedTask::default() }
}

/// An event as a sentence for people, without its full stop.
///
/// ```
/// use procession::PoolEvent;
/// use procession::journal::in_words;
///
/// let event = PoolEvent::WorkerStarted { worker: 0, pid: 4712 };
/// assert!(in_words(&event).contains("worker 0 (pid 4712)"));
/// ```
pub fn in_words(event: &PoolEvent) -> String {
    match event {
        PoolEvent::TaskStarted { task, worker, pid, attempt } => {
            format!("task {task} was sent to worker {worker} (pid {pid}), attempt {attempt}")
        }
        PoolEvent::TaskRetried { task, fault, attempt, pause: _ } => {
            format!("task {task} is run again after a {fault}, attempt {attempt}")
        }
        PoolEvent::TaskTimedOut { task, after } => {
            format!("task {task} ran for over {}", with_unit(after))
        }
        PoolEvent::InputKept { task: TaskId(0), worker, pid, input } => {
            format!("the initializer ended worker {worker} (pid {pid}): {input}")
        }
        PoolEvent::InputKept { task, worker, pid, input } => {
            format!("task {task} ended worker {worker} (pid {pid}): {input}")
        }
        PoolEvent::WorkerStarted { worker, pid } => format!("worker {worker} (pid {pid}) is ready"),
        PoolEvent::WorkerNotStarted { worker, pid, reason, was_needed: _ } => {
            format!("worker {worker} (pid {pid}) did not start: {reason}")
        }
        PoolEvent::WorkerExited { worker, pid, exit, .. } => {
            format!("worker {worker} (pid {pid}) ended: {exit}")
        }
        PoolEvent::WorkerWrittenOff { worker, pid, reason } => {
            format!("worker {worker} (pid {pid}) is left behind: {reason}")
        }
        PoolEvent::SparePromoted { worker, pid, replaces } => {
            format!("worker {worker} (pid {pid}), a spare, took the place of worker {replaces}")
        }
        PoolEvent::WorkerNarrowed { worker, pid, threads, wanted, reason } => {
            format!(
                "worker {worker} (pid {pid}) runs {threads} tasks at a time in place of {wanted}: \
                 {reason}"
            )
        }
        PoolEvent::WorkerUnfit { worker, pid, reason } => {
            format!("worker {worker} (pid {pid}) is unfit and will be replaced: {reason}")
        }
        PoolEvent::WorkerRecycled { worker, pid, reason } => {
            format!("worker {worker} (pid {pid}) is replaced: {reason}")
        }
        PoolEvent::WorkerDelayed { worker, reason } => {
            format!("worker {worker} cannot be started now: {reason}")
        }
        PoolEvent::TemplateStarted { pid } => format!("the workers are copies of process {pid}"),
        PoolEvent::TemplateExited { pid, exit } => {
            format!("the template of the workers (pid {pid}) ended: {exit}")
        }
        PoolEvent::ProgramPassedOver { program, reason } => {
            format!("{} is not used as the worker program: {reason}", program.display())
        }
    }
}

/// The journals of the workers of a run, open for the lines that these workers print.
///
/// ```
/// use std::path::Path;
/// use std::sync::Arc;
///
/// use procession::journal::WorkerOutputs;
/// use procession::{Builder, ProcessPool};
///
/// fn keep_output(run: &Path) -> Builder {
///     let outputs = Arc::new(WorkerOutputs::new(run));
///     let ends = Arc::clone(&outputs);
///     ProcessPool::builder()
///         .on_output(move |output| {
///             if !outputs.record(output) {
///                 eprintln!("worker {}: {}", output.worker, output.line);
///             }
///         })
///         .on_event(move |event| ends.event(event))
/// }
/// ```
#[derive(Debug)]
pub struct WorkerOutputs {
    dir: PathBuf,
    journals: Mutex<HashMap<u32, Option<Journal>>>,
}

impl WorkerOutputs {
    /// Writes into the journals in this directory. See the example of [`WorkerOutputs`].
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), journals: Mutex::default() }
    }

    /// Writes a line into the journal of its worker. Returns false if that cannot be opened.
    /// See the example of [`WorkerOutputs`].
    pub fn record(&self, Output { worker, pid, stream, line, .. }: &Output<'_>) -> bool {
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || Journal::worker(&self.dir, *worker, *pid).ok();
        let Some(journal) = journals.entry(*pid).or_insert_with(open) else { return false };
        let stream = match stream {
            OutputStream::Stdout => procession_journal::OutputStream::Stdout,
            OutputStream::Stderr => procession_journal::OutputStream::Stderr,
        };
        journal.record(Level::Info, LogEvent::Output { stream, text: (*line).to_owned() });
        true
    }

    /// Closes the journal of a worker if this is the event of its end, after which it has no output.
    /// See the example of [`WorkerOutputs`].
    pub fn event(&self, event: &PoolEvent) {
        if let PoolEvent::WorkerExited { pid, .. } | PoolEvent::WorkerNotStarted { pid, .. } = event
        {
            self.journals.lock().unwrap_or_else(PoisonError::into_inner).remove(pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process_pool::ResourceUsage;

    #[test]
    fn the_journal_of_a_process_is_closed_at_its_end_also_if_it_never_was_a_worker() {
        let dir = tempfile::tempdir().expect("a directory");
        let outputs = WorkerOutputs::new(dir.path());
        let (worker, stream, line) = (0, OutputStream::Stdout, "hello");
        let (exit, usage) = (Exit::Code(0), ResourceUsage::default());
        let ends = [
            PoolEvent::WorkerExited { worker, pid: 7, exit, usage, is_regular: true },
            PoolEvent::WorkerNotStarted { worker, pid: 8, reason: "so".into(), was_needed: false },
        ];
        for pid in [7, 8] {
            assert!(outputs.record(&Output { worker, pid, stream, line }));
        }
        outputs.event(&PoolEvent::WorkerStarted { worker, pid: 7 });
        let open = || outputs.journals.lock().expect("no panic").len();
        assert_eq!(open(), 2);
        ends.iter().for_each(|end| outputs.event(end));
        assert_eq!(open(), 0);
    }

    #[test]
    fn a_kept_task_is_recorded_in_words() {
        let kept = |written: Result<PathBuf, String>| PoolEvent::InputKept {
            task: TaskId(7),
            worker: 1,
            pid: 4711,
            input: crate::error::KeptInput::new(written),
        };
        let line = |event: &PoolEvent| match line_of(event) {
            Some((level, LogEvent::Output { text, .. })) => (level, text),
            other => panic!("{other:?}"),
        };
        let ended = "task 7 ended worker 1 (pid 4711): its input";
        assert_eq!(
            line(&kept(Ok("crashes/a.procession".into()))),
            (Level::Info, format!("{ended} is kept in crashes/a.procession"))
        );
        assert_eq!(
            line(&kept(Err("the disk is full".into()))),
            (Level::Warn, format!("{ended} could not be kept: the disk is full"))
        );
        let late = PoolEvent::TaskTimedOut { task: TaskId(7), after: Duration::from_secs(1) };
        assert_eq!(in_words(&late), "task 7 ran for over 1 s");
    }
}
