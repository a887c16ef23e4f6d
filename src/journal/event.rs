//! What can happen, as a journal tells it.
//!
//! Names and fields are read by other versions of the program: a new one may be added, but a known
//! one must never change its meaning. None may use a name of the fields that all lines have.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
    },
    /// A task ended.
    Task {
        /// Whose flag it was about.
        code: String,
        /// `ok`, `not_found` or `error`.
        status: String,
        /// The last HTTP status.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        http: Option<u16>,
        /// The size of what was saved.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// The time it took, in milliseconds.
        elapsed_ms: f64,
        /// The number of the last try, from 1.
        attempt: u32,
        /// What went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
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
    /// A worker's process ended.
    WorkerExited {
        /// The number of the worker.
        child: usize,
        /// Its process.
        child_pid: u32,
        /// How it ended, in words: `exit code 0`, `signal 11`.
        how: String,
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
    },
    /// A run ended, with these results.
    Summary {
        /// Flags saved.
        ok: u64,
        /// Codes without a flag.
        not_found: u64,
        /// Everything else.
        error: u64,
        /// The time of the run, in seconds.
        elapsed_s: f64,
        /// The exit code of the program.
        exit_code: i32,
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
            Event::Task { .. } => "task",
            Event::Output { .. } => "output",
            Event::WorkerStarted { .. } => "worker_started",
            Event::WorkerExited { .. } => "worker_exited",
            Event::Run { .. } => "run",
            Event::Summary { .. } => "summary",
            Event::Exit { .. } => "exit",
            Event::Other(fields) => {
                fields.get("event").and_then(Value::as_str).unwrap_or("unknown")
            }
        }
    }
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
