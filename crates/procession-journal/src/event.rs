//! The events that a journal records.
//!
//! A run can be rebuilt from its events: its settings, the outcome of each task, and where and when
//! each task ran.
//!
//! ```text
//!   coordinator   start ─ run ─ worker_started … task_retried, tasks_retried, worker_exited … ─ summary ─ exit
//!   worker        start ─ task_started ─ try_failed … ─ task … ─ exit
//! ```
//!
//! A task of the flags has a country code. A task of any other program has a [`NamedTask`].
//!
//! Other versions of the program read these names and fields. A new event or field may be added; a
//! known one must never change its meaning. No event may use the name of a field that all lines have.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of the events below. It grows when a reader of older files must know the difference.
pub const FORMAT: u32 = 1;

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LogEvent {
    /// The process started.
    Start {
        /// Version of the program.
        version: String,
        /// Build id of the program.
        build: String,
        /// Arguments of the process.
        args: Vec<String>,
        /// [`FORMAT`] of the writer; 0 in files that are older than this field.
        #[serde(default)]
        format: u32,
    },
    /// A task begins in the process that writes this line.
    TaskStarted {
        /// Country code of the task.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        code: String,
        /// Name of a task without a code.
        #[serde(default, flatten)]
        task: NamedTask,
        /// Time from the begin of the task to this line, in milliseconds: a task that is short is not
        /// recorded at its begin.
        #[serde(default, skip_serializing_if = "is_zero_f64")]
        late_ms: f64,
        /// Slot of the task: no two tasks of a process have the same slot at the same time.
        slot: usize,
        /// How many times the task has been started, this time included.
        run: u32,
    },
    /// A request failed; the task will send it again.
    TryFailed {
        /// Country code of the task.
        code: String,
        /// Slot of the task.
        slot: usize,
        /// Number of the try, from 1.
        attempt: u32,
        /// The error.
        error: String,
        /// Pause before the next try, in milliseconds.
        pause_ms: f64,
    },
    /// A task ended. With a slot, it ended in the process that writes this line. Without one, the
    /// coordinator records the outcome of a task that returned none.
    Task(TaskEnd),
    /// Short tasks that ended in the process that writes this line, and have no lines of their own.
    Tasks(TaskSums),
    /// The coordinator has received the error of a task from a worker. An error without this line
    /// may be a consequence of the coordinator's own end, since its embedded server ends with it.
    ErrorReceived {
        /// Country code of the task.
        code: String,
    },
    /// A task lost its worker and will be run again.
    TaskRetried {
        /// Country code of the task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// Name of a task without a code.
        #[serde(default, flatten)]
        task: NamedTask,
        /// The process that lost the task, if it has no code.
        #[serde(default, flatten)]
        by: LostBy,
        /// The cause: `crash`, `timeout` or `failure`.
        fault: String,
        /// How many times the task will have been started with the next run.
        run: u32,
        /// Pause before the next run, in milliseconds.
        pause_ms: f64,
    },
    /// Tasks failed in a worker and will be run again, after many that have lines of their own.
    TasksRetried {
        /// The worker.
        #[serde(flatten)]
        by: LostBy,
        /// Number of the runs that failed.
        count: u64,
    },
    /// A task exceeded its timeout and has no attempt left; its worker was killed.
    TaskTimedOut {
        /// Country code of the task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// Name of a task without a code.
        #[serde(default, flatten)]
        task: NamedTask,
        /// The timeout, in milliseconds.
        after_ms: f64,
    },
    /// The process printed a line that was not for the user.
    Output {
        /// The stream of the line.
        stream: OutputStream,
        /// The line, without its line feed.
        text: String,
    },
    /// The coordinator started a worker.
    WorkerStarted {
        /// Worker index.
        child: usize,
        /// Process id of the worker.
        child_pid: u32,
    },
    /// A process ended before it was ready to be a worker.
    WorkerNotStarted {
        /// Worker index.
        child: usize,
        /// Process id.
        child_pid: u32,
        /// The reason, in words.
        why: String,
        /// Whether the pool still needed this worker.
        was_needed: bool,
    },
    /// The process of a worker ended.
    WorkerExited {
        /// Worker index.
        child: usize,
        /// Process id of the worker.
        child_pid: u32,
        /// How it ended, in words: `exit code 0`, `signal 11`, `ended by the pool`.
        how: String,
        /// Whether the pool expected this end.
        #[serde(default)]
        is_regular: bool,
        /// What the worker used.
        #[serde(default, flatten)]
        usage: ResourceUsage,
    },
    /// A run begins with these settings.
    Run(RunSettings),
    /// A run ended with these results.
    Summary {
        /// The results.
        #[serde(flatten)]
        report: RunReport,
        /// What the coordinator itself used.
        #[serde(default, flatten)]
        usage: ResourceUsage,
    },
    /// Lines of the run's log could not be written.
    LinesLost {
        /// Number of lines, of all processes.
        lines: u64,
        /// Why the first line was lost.
        why: String,
    },
    /// The process is about to end.
    Exit {
        /// Exit code of the process.
        exit_code: i32,
        /// The reason, where the exit code alone does not say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// An event of another version, with all its fields.
    #[serde(untagged)]
    Other(Map<String, Value>),
}

impl LogEvent {
    /// The name of the event, as it is written in the line.
    pub fn name(&self) -> &str {
        match self {
            LogEvent::Start { .. } => "start",
            LogEvent::TaskStarted { .. } => "task_started",
            LogEvent::TryFailed { .. } => "try_failed",
            LogEvent::Task(_) => "task",
            LogEvent::Tasks(_) => "tasks",
            LogEvent::ErrorReceived { .. } => "error_received",
            LogEvent::TaskRetried { .. } => "task_retried",
            LogEvent::TasksRetried { .. } => "tasks_retried",
            LogEvent::TaskTimedOut { .. } => "task_timed_out",
            LogEvent::Output { .. } => "output",
            LogEvent::WorkerStarted { .. } => "worker_started",
            LogEvent::WorkerNotStarted { .. } => "worker_not_started",
            LogEvent::WorkerExited { .. } => "worker_exited",
            LogEvent::Run(_) => "run",
            LogEvent::Summary { .. } => "summary",
            LogEvent::LinesLost { .. } => "lines_lost",
            LogEvent::Exit { .. } => "exit",
            LogEvent::Other(fields) => {
                fields.get("event").and_then(Value::as_str).unwrap_or("unknown")
            }
        }
    }
}

/// The name of a task without a country code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedTask {
    /// Id of the task in its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The kind of task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The label that the task gave itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// The worker process that lost a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostBy {
    /// Index of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<usize>,
    /// Process id of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_pid: Option<u32>,
}

/// Short tasks that one slot ran one after the other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskSums {
    /// Slot of the tasks.
    pub slot: usize,
    /// Time from the begin of the first to the end of the last, in milliseconds.
    pub period_ms: f64,
    /// Time from the end of the last to this line, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero_f64")]
    pub late_ms: f64,
    /// The sum of each kind of task.
    pub tasks: Vec<TaskSum>,
}

/// Short tasks of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskSum {
    /// The kind of task.
    pub name: String,
    /// Number of tasks.
    pub count: u64,
    /// Number of those that failed. They are in a sum only after many that have lines of their own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// Sum of the durations, in milliseconds.
    pub run_ms: f64,
    /// The longest duration, in milliseconds.
    pub max_ms: f64,
    /// Size of the outputs, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
}

/// The end of one run of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskEnd {
    /// Country code of the task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// Name of a task without a code.
    #[serde(default, flatten)]
    pub task: NamedTask,
    /// Slot of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<usize>,
    /// `ok`, `not_found`, `error` or `not_done`. Older versions wrote `error` with an attempt of 0 in
    /// place of `not_done`.
    pub status: String,
    /// Status of the last HTTP response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<u16>,
    /// Size of the saved flag, or of the output of another task, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether the flag that was saved before is still the newest.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unchanged: bool,
    /// Duration, in milliseconds.
    pub elapsed_ms: f64,
    /// Time from the end of the task to this line, in milliseconds: lines of short tasks may be written
    /// together.
    #[serde(default, skip_serializing_if = "is_zero_f64")]
    pub late_ms: f64,
    /// Number of the last try, from 1; 0 if the task never ran.
    pub attempt: u32,
    /// The error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The error without what differs between tasks, where that is another text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Index of the worker that ran the task, if another process writes this line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<usize>,
    /// Process id of that worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_pid: Option<u32>,
}

/// The settings of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSettings {
    /// `sequential`, `threads` or `processes`.
    pub mode: String,
    /// Label or URL of the server; empty in a run of another program than `coordinator`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// Name of another program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Number of requested codes.
    #[serde(default)]
    pub codes: usize,
    /// Number of worker processes.
    pub workers: usize,
    /// Maximum number of concurrent requests.
    pub connections: usize,
    /// Directory in which the flags are saved.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dest: String,
    /// The requested codes; empty in logs of older versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<String>,
    /// The other options that a run needs to continue this one.
    #[serde(default, rename = "terms", skip_serializing_if = "Option::is_none")]
    pub options: Option<RunOptions>,
    /// Name of the run that this one continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<String>,
}

/// The options of a run that another run needs to continue it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunOptions {
    /// Seed of the ERROR server.
    pub seed: u64,
    /// Timeout of a request, in seconds.
    pub timeout_s: f64,
    /// Number of further tries of a request.
    pub retries: u32,
    /// Timeout of a task, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_timeout_s: Option<f64>,
    /// Number of tasks after which a worker is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tasks: Option<u64>,
    /// Whether flags that have not changed are skipped.
    #[serde(default, skip_serializing_if = "is_false")]
    pub update: bool,
}

/// The results of a run, as the run itself reported them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Flags saved.
    pub ok: u64,
    /// Codes without a flag.
    pub not_found: u64,
    /// Codes that were tried and failed.
    pub error: u64,
    /// Codes that the run did not reach; in older logs they are counted as errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_done: Option<u64>,
    /// Number of saved flags that had not changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unchanged: u64,
    /// Duration of the run, in seconds.
    pub elapsed_s: f64,
    /// Exit code of the program.
    pub exit_code: i32,
}

/// What a process used, as far as that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceUsage {
    /// CPU time, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<f64>,
    /// Peak of the resident memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

fn is_false(yes: &bool) -> bool {
    !yes
}

fn is_zero_f64(number: &f64) -> bool {
    *number == 0.0
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One of the two output streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
