//! What can happen, as a journal tells it.
//!
//! All that is told of a run can be rebuilt from its events: what was asked for, what became of it,
//! and where and when each task ran.
//!
//! ```text
//!   coordinator   start ─ run ─ worker_started … task_retried, worker_exited … ─ summary ─ exit
//!   worker        start ─ task_started ─ try_failed … ─ task … ─ exit
//! ```
//!
//! Names and fields are read by other versions of the program: a new one may be added, but a known
//! one must never change its meaning. None may use a name of the fields that all lines have.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The number of the events below. It grows when a reader of older files has to know.
pub const FORMAT: u32 = 1;

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The process started.
    Start {
        /// Version of the program.
        version: String,
        /// What identifies its build.
        build: String,
        /// Its arguments.
        args: Vec<String>,
        /// Which events the file may have: [`FORMAT`]; 0 in files that are older than the number.
        #[serde(default)]
        format: u32,
    },
    /// A task begins, in the process that writes this.
    TaskStarted {
        /// Whose flag it is about.
        code: String,
        /// Where in the process: no two tasks of a process have the same at the same time.
        slot: usize,
        /// How often the task was begun, this time included.
        run: u32,
    },
    /// A request failed, and the task will try it again.
    TryFailed {
        /// Whose flag it was about.
        code: String,
        /// Where in the process.
        slot: usize,
        /// The number of the try, from 1.
        attempt: u32,
        /// What went wrong.
        error: String,
        /// The pause before the next try, in milliseconds.
        pause_ms: f64,
    },
    /// A task ended: in the process that writes this, if it has a slot. If not, the coordinator
    /// says what became of one that gave no answer.
    Task {
        /// Whose flag it was about.
        code: String,
        /// Where in the process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<usize>,
        /// `ok`, `not_found`, `error` or `not_done`. Older versions wrote `error` with an attempt of
        /// 0 for the last.
        status: String,
        /// The last HTTP status.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        http: Option<u16>,
        /// The size of what was saved.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// Whether the flag that was saved before is still the newest.
        #[serde(default, skip_serializing_if = "is_false")]
        unchanged: bool,
        /// The time it took, in milliseconds.
        elapsed_ms: f64,
        /// The number of the last try, from 1; 0 if it never ran.
        attempt: u32,
        /// What went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// The same without what differs from one task to the next, where that is not the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
        /// The worker that ran it, where that is not who writes this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child: Option<usize>,
        /// Its process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child_pid: Option<u32>,
    },
    /// The coordinator has received the error of a task from a worker. An error that it did not
    /// live to receive may have come about by its own death: a server that is part of it ends with
    /// it.
    ErrorReceived {
        /// Whose flag it is about.
        code: String,
    },
    /// A task lost its worker, and will be run again.
    TaskRetried {
        /// Whose flag it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// What came between: `crash`, `timeout` or `failure`.
        fault: String,
        /// How often it will have been begun.
        run: u32,
        /// The pause before, in milliseconds.
        pause_ms: f64,
    },
    /// A task ran longer than it may, for the last time, and was ended with its worker.
    TaskTimedOut {
        /// Whose flag it was about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// How long it was allowed to run, in milliseconds.
        after_ms: f64,
    },
    /// The process printed a line that was not for the user.
    Output {
        /// On which stream.
        stream: Stream,
        /// The line, without its line feed.
        text: String,
    },
    /// The coordinator started a worker.
    WorkerStarted {
        /// The number of the worker.
        child: usize,
        /// Its process.
        child_pid: u32,
    },
    /// A process ended before it was ready to be a worker.
    WorkerNotStarted {
        /// Which worker it was to be.
        child: usize,
        /// Its process id.
        child_pid: u32,
        /// Why, in words.
        why: String,
        /// Whether that is a loss.
        was_needed: bool,
    },
    /// A worker's process ended.
    WorkerExited {
        /// The number of the worker.
        child: usize,
        /// Its process.
        child_pid: u32,
        /// How it ended, in words: `exit code 0`, `signal 11`.
        how: String,
        /// Whether it ended as it should.
        #[serde(default)]
        is_regular: bool,
        /// What it used.
        #[serde(default, flatten)]
        usage: Usage,
    },
    /// A run begins, with these settings.
    Run {
        /// `sequential`, `threads` or `processes`.
        mode: String,
        /// The server: label or URL.
        server: String,
        /// How many codes are asked for.
        codes: usize,
        /// Worker processes.
        workers: usize,
        /// Most concurrent requests.
        connections: usize,
        /// Where the flags are saved.
        dest: String,
        /// Whose flags are asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        wanted: Vec<String>,
        /// What else it takes to do the same again, or what is left of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        terms: Option<Terms>,
        /// The run that this one goes on with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        continues: Option<String>,
    },
    /// A run ended, with these results.
    Summary {
        /// Flags saved.
        ok: u64,
        /// Codes without a flag.
        not_found: u64,
        /// Everything else that was tried.
        error: u64,
        /// Codes that the run did not get to; in older logs they are among the errors.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_done: Option<u64>,
        /// Of those saved, how many had not changed.
        #[serde(default, skip_serializing_if = "is_zero")]
        unchanged: u64,
        /// The time of the run, in seconds.
        elapsed_s: f64,
        /// The exit code of the program.
        exit_code: i32,
        /// What the coordinator itself used.
        #[serde(default, flatten)]
        usage: Usage,
    },
    /// Lines of the run's log could not be written.
    LinesLost {
        /// How many, of all processes.
        lines: u64,
        /// Why the first one was lost.
        why: String,
    },
    /// The process is about to end.
    Exit {
        /// Its exit code.
        exit_code: i32,
        /// Why, when there is more to say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// An event of another version: all its fields.
    #[serde(untagged)]
    Other(Map<String, Value>),
}

impl Event {
    /// The name of the event, as it stands in the line.
    pub fn name(&self) -> &str {
        match self {
            Event::Start { .. } => "start",
            Event::TaskStarted { .. } => "task_started",
            Event::TryFailed { .. } => "try_failed",
            Event::Task { .. } => "task",
            Event::ErrorReceived { .. } => "error_received",
            Event::TaskRetried { .. } => "task_retried",
            Event::TaskTimedOut { .. } => "task_timed_out",
            Event::Output { .. } => "output",
            Event::WorkerStarted { .. } => "worker_started",
            Event::WorkerNotStarted { .. } => "worker_not_started",
            Event::WorkerExited { .. } => "worker_exited",
            Event::Run { .. } => "run",
            Event::Summary { .. } => "summary",
            Event::LinesLost { .. } => "lines_lost",
            Event::Exit { .. } => "exit",
            Event::Other(fields) => {
                fields.get("event").and_then(Value::as_str).unwrap_or("unknown")
            }
        }
    }
}

/// What a run was told, as far as another one must be told the same to go on with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Of the ERROR server.
    pub seed: u64,
    /// Of a request, in seconds.
    pub timeout_s: f64,
    /// Further tries.
    pub retries: u32,
    /// Of a task, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_timeout_s: Option<f64>,
    /// After how many a worker is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tasks: Option<u64>,
    /// Whether flags that have not changed are let be.
    #[serde(default, skip_serializing_if = "is_false")]
    pub update: bool,
}

/// What a process used, as far as that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Time on CPUs, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<f64>,
    /// The most memory that was resident at a time, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

fn is_false(yes: &bool) -> bool {
    !yes
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One of the two streams a process prints to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
