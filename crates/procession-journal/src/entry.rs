//! One line of a journal: the writer, the time and the event.
//!
//! ```json
//! {"ts":"2026-11-22T23:49:32.123456Z","level":"info","process":"worker","worker":1,"pid":4712,
//!  "event":"task","code":"BR","status":"ok","http":200,"bytes":590,"elapsed_ms":1.9,"attempt":1}
//! ```
//!
//! A [`LogEntry`] is the whole line. An [`EntryHeader`] has the fields by which lines are sorted and
//! filtered; it is read in place, since a filter passes over most lines of a long log.
//!
//! A line of another version must never be refused: events and fields that are not known here are
//! kept as they are, so that they can be shown.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::event::LogEvent;

/// The severity of a line. A level that is not known is the highest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Details that help to find an error.
    Debug,
    /// Expected events.
    Info,
    /// Unexpected, and handled.
    Warn,
    /// Something failed.
    Error,
    /// A level of another version.
    #[serde(untagged)]
    Other(String),
}

/// The kind of process that wrote a line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessKind {
    /// The process that hands out the tasks.
    Coordinator,
    /// A process that runs tasks.
    Worker,
    /// A kind of another version.
    #[serde(untagged)]
    Other(String),
}

macro_rules! display_as_json_string {
    ($($name:ident { $($variant:ident => $text:literal),* })*) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self {
                    $($name::$variant => $text,)*
                    $name::Other(text) => text,
                })
            }
        }
    )* };
}

display_as_json_string! {
    Level { Debug => "debug", Info => "info", Warn => "warn", Error => "error" }
    ProcessKind { Coordinator => "coordinator", Worker => "worker" }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogEntry {
    /// Time, to the microsecond.
    #[serde(serialize_with = "write_timestamp")]
    pub ts: Timestamp,
    /// Severity.
    pub level: Level,
    /// Kind of the process that wrote it.
    pub process: ProcessKind,
    /// Index of the worker that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<usize>,
    /// Id of the process that wrote it.
    pub pid: u32,
    /// CPU time of this process until now, in seconds: on its first line, and on others a tenth of a second or more
    /// apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_cpu_s: Option<f64>,
    /// The event.
    #[serde(flatten)]
    pub event: LogEvent,
    /// Fields of another version, which this event does not have.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A line to be written, without a copy of its event.
#[derive(Debug, Serialize)]
pub(crate) struct LineRef<'e> {
    #[serde(serialize_with = "write_timestamp")]
    pub ts: Timestamp,
    pub level: &'e Level,
    pub process: &'e ProcessKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<usize>,
    pub pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_cpu_s: Option<f64>,
    #[serde(flatten)]
    pub event: &'e LogEvent,
}

/// The fields by which lines are sorted and filtered. Only the fields that all lines have must be
/// well-formed.
///
/// ```
/// use procession_journal::{EntryHeader, Level};
///
/// let line = r#"{"ts":"2026-11-22T23:49:32Z","level":"warn","process":"worker","worker":1,"pid":47,"event":"task","id":7,"label":"a.png","status":"error"}"#;
/// let header = EntryHeader::of(line)?;
/// assert_eq!((header.level(), header.event, header.status()), (Level::Warn, "task", Some("error")));
/// assert!(header.timestamp().is_some() && header.about_worker() == Some(1));
/// assert!(header.is_of_task("7") && header.is_of_task("a.png"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct EntryHeader<'l> {
    /// Time, as written.
    pub ts: &'l str,
    /// Severity, as written.
    pub level: &'l str,
    /// Index of the worker that wrote it.
    #[serde(default)]
    pub worker: Option<usize>,
    /// Id of the process that wrote it.
    pub pid: u32,
    /// Name of the event.
    pub event: &'l str,
    #[serde(borrow, default)]
    code: Option<&'l RawValue>,
    #[serde(borrow, default)]
    id: Option<&'l RawValue>,
    #[serde(borrow, default)]
    name: Option<&'l RawValue>,
    #[serde(borrow, default)]
    label: Option<&'l RawValue>,
    #[serde(borrow, default)]
    status: Option<&'l RawValue>,
    #[serde(borrow, default)]
    child: Option<&'l RawValue>,
    #[serde(borrow, default)]
    child_pid: Option<&'l RawValue>,
}

impl<'l> EntryHeader<'l> {
    /// Reads the header of a line.
    pub fn of(line: &'l str) -> serde_json::Result<Self> {
        serde_json::from_str(line)
    }

    /// The time, if it is valid.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.ts.parse().ok()
    }

    /// The severity.
    pub fn level(&self) -> Level {
        match self.level {
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" => Level::Warn,
            "error" => Level::Error,
            other => Level::Other(other.to_owned()),
        }
    }

    /// The country code of the event, if it has one.
    pub fn code(&self) -> Option<&'l str> {
        unquoted(self.code?)
    }

    /// Whether the event is of a task with this id, kind, label or country code.
    pub fn is_of_task(&self, text: &str) -> bool {
        self.id.is_some_and(|id| id.get() == text)
            || [self.name, self.label, self.code].into_iter().flatten().any(|field| {
                serde_json::from_str::<Cow<'_, str>>(field.get()).is_ok_and(|field| field == text)
            })
    }

    /// The status of the event, if it has one.
    pub fn status(&self) -> Option<&'l str> {
        unquoted(self.status?)
    }

    /// Index of the worker that wrote the line, or that the coordinator wrote about.
    pub fn about_worker(&self) -> Option<usize> {
        self.worker.or_else(|| self.child?.get().parse().ok())
    }

    /// Id of the process that the coordinator wrote about.
    pub fn about_pid(&self) -> Option<u32> {
        self.child_pid?.get().parse().ok()
    }
}

/// The content of a JSON string, if it has no escapes that matter here.
fn unquoted(json: &RawValue) -> Option<&str> {
    json.get().strip_prefix('"')?.strip_suffix('"')
}

/// The present time, in whole microseconds, as lines record it.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

fn write_timestamp<S: Serializer>(ts: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{ts:.6}"))
}

impl LogEntry {
    /// Reads a line.
    ///
    /// It is compiled once, in this crate. `serde_json::from_str` would compile all of it in each crate
    /// that calls it, which takes seconds.
    ///
    /// # Errors
    ///
    /// As of [`serde_json::from_slice`]: a line that is not JSON, or has not the fields that all lines have.
    ///
    /// ```
    /// # use procession_journal::LogEntry;
    /// let line = br#"{"ts":"2026-11-22T23:49:32Z","level":"info","process":"worker","pid":47,"event":"exit","exit_code":0}"#;
    /// assert_eq!(LogEntry::from_json(line)?.event.name(), "exit");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn from_json(line: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }
}

impl<'de> Deserialize<'de> for LogEntry {
    /// Reads the fields that all lines have; the rest is the event.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Common {
            ts: String,
            level: Level,
            process: ProcessKind,
            #[serde(default)]
            worker: Option<usize>,
            pid: u32,
            #[serde(default)]
            own_cpu_s: Option<f64>,
            #[serde(flatten)]
            rest: Map<String, Value>,
        }
        let Common { ts, level, process, worker, pid, own_cpu_s, rest } =
            Common::deserialize(deserializer)?;
        let ts = ts.parse().map_err(D::Error::custom)?;
        let event = LogEvent::deserialize(&rest).map_err(D::Error::custom)?;
        let extra = if matches!(event, LogEvent::Other(_)) {
            Map::new()
        } else {
            let known = serde_json::to_value(&event).map_err(D::Error::custom)?;
            rest.into_iter()
                .filter(|(key, value)| known.get(key).is_none() && !value.is_null())
                .collect()
        };
        Ok(LogEntry { ts, level, process, worker, pid, own_cpu_s, event, extra })
    }
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
