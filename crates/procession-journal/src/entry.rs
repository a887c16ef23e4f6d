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
    /// The event.
    #[serde(flatten)]
    pub event: LogEvent,
    /// Fields of another version, which this event does not have.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The fields by which lines are sorted and filtered. Only the fields that all lines have must be
/// well-formed.
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
            #[serde(flatten)]
            rest: Map<String, Value>,
        }
        let Common { ts, level, process, worker, pid, rest } = Common::deserialize(deserializer)?;
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
        Ok(LogEntry { ts, level, process, worker, pid, event, extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{
        FORMAT, OutputStream, ResourceUsage, RunOptions, RunReport, RunSettings, TaskEnd,
    };
    use serde_json::json;

    fn entry(event: LogEvent) -> LogEntry {
        LogEntry {
            ts: "2026-11-22T23:49:32.123456Z".parse().unwrap(),
            level: Level::Info,
            process: ProcessKind::Worker,
            worker: Some(1),
            pid: 4712,
            event,
            extra: Map::new(),
        }
    }

    fn task() -> LogEvent {
        LogEvent::Task(TaskEnd {
            code: "BR".into(),
            status: "ok".into(),
            http: Some(200),
            bytes: Some(590),
            elapsed_ms: 1.9,
            attempt: 1,
            ..TaskEnd::default()
        })
    }

    fn there_and_back(entry: &LogEntry) -> String {
        let line = serde_json::to_string(entry).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(&serde_json::from_str::<LogEntry>(&line).unwrap(), entry, "{line}");
        line
    }

    #[test]
    fn a_task_is_one_flat_line() {
        assert_eq!(
            there_and_back(&entry(task())),
            r#"{"ts":"2026-11-22T23:49:32.123456Z","level":"info","process":"worker","worker":1,"pid":4712,"event":"task","code":"BR","status":"ok","http":200,"bytes":590,"elapsed_ms":1.9,"attempt":1}"#
        );
    }

    fn events_of_tasks() -> [LogEvent; 6] {
        [
            LogEvent::TaskStarted { code: "BR".into(), slot: 3, run: 2 },
            LogEvent::TryFailed {
                code: "BR".into(),
                slot: 3,
                attempt: 1,
                error: "HTTP 503".into(),
                pause_ms: 80.5,
            },
            task(),
            LogEvent::ErrorReceived { code: "BR".into() },
            LogEvent::TaskRetried { code: None, fault: "crash".into(), run: 2, pause_ms: 7.0 },
            LogEvent::TaskTimedOut { code: Some("BR".into()), after_ms: 300.0 },
        ]
    }

    fn events_of_processes() -> [LogEvent; 6] {
        [
            LogEvent::Start {
                version: "0.1.0".into(),
                build: "x".into(),
                args: vec!["-a".into()],
                format: FORMAT,
            },
            LogEvent::Output {
                stream: OutputStream::Stderr,
                text: "two\nlines \u{1b}[0m \"q\"".into(),
            },
            LogEvent::WorkerStarted { child: 0, child_pid: 4713 },
            LogEvent::WorkerExited {
                child: 0,
                child_pid: 4713,
                how: "signal 11".into(),
                is_regular: false,
                usage: ResourceUsage { cpu_s: Some(0.25), peak_memory: Some(1 << 24) },
            },
            LogEvent::WorkerNotStarted {
                child: 1,
                child_pid: 4714,
                why: "no memory".into(),
                was_needed: true,
            },
            LogEvent::Exit { exit_code: 0, why: None },
        ]
    }

    fn events_of_a_run() -> [LogEvent; 3] {
        [
            LogEvent::Run(RunSettings {
                mode: "processes".into(),
                server: "LOCAL".into(),
                codes: 20,
                workers: 2,
                connections: 2,
                dest: "downloads".into(),
                wanted: vec!["BR".into(), "CN".into()],
                options: Some(RunOptions {
                    seed: 7,
                    timeout_s: 10.0,
                    retries: 2,
                    task_timeout_s: None,
                    max_tasks: Some(3),
                    update: true,
                }),
                continues: None,
            }),
            LogEvent::Summary {
                report: RunReport {
                    ok: 1,
                    not_found: 2,
                    error: 3,
                    not_done: Some(4),
                    unchanged: 0,
                    elapsed_s: 0.09,
                    exit_code: 1,
                },
                usage: ResourceUsage::default(),
            },
            LogEvent::LinesLost { lines: 7, why: "the disk is full".into() },
        ]
    }

    #[test]
    fn every_event_survives_its_line() {
        let events = events_of_tasks().into_iter().chain(events_of_processes());
        for event in events.chain(events_of_a_run()) {
            let name = event.name().to_owned();
            let line = there_and_back(&entry(event));
            assert!(line.contains(&format!(r#""event":"{name}""#)), "{line}");
        }
    }

    #[test]
    fn the_settings_of_a_run_are_flat_and_keep_the_names_of_their_fields() {
        let [run, summary, _] = events_of_a_run();
        let line = there_and_back(&entry(run));
        let fields = r#""event":"run","mode":"processes","server":"LOCAL","codes":20,"workers":2,"connections":2,"dest":"downloads","wanted":["BR","CN"],"terms":{"seed":7,"timeout_s":10.0,"retries":2,"max_tasks":3,"update":true}}"#;
        assert!(line.ends_with(fields), "{line}");
        let line = there_and_back(&entry(summary));
        let fields = r#""event":"summary","ok":1,"not_found":2,"error":3,"not_done":4,"elapsed_s":0.09,"exit_code":1}"#;
        assert!(line.ends_with(fields), "{line}");
    }

    #[test]
    fn a_header_has_the_fields_that_lines_are_filtered_by() {
        let line = serde_json::to_string(&entry(task())).unwrap();
        let header = EntryHeader::of(&line).unwrap();
        assert_eq!(
            (header.event, header.code(), header.status()),
            ("task", Some("BR"), Some("ok"))
        );
        assert_eq!(
            (header.about_worker(), header.pid, header.level()),
            (Some(1), 4712, Level::Info)
        );
        assert_eq!(header.timestamp(), Some(entry(task()).ts));
        let child = LogEvent::WorkerStarted { child: 5, child_pid: 4713 };
        let line = serde_json::to_string(&LogEntry { worker: None, ..entry(child) }).unwrap();
        let header = EntryHeader::of(&line).unwrap();
        assert_eq!((header.about_worker(), header.about_pid()), (Some(5), Some(4713)));
        assert_eq!(
            EntryHeader::of(r#"{"ts":"?","level":"x","pid":1,"event":"e","code":7}"#)
                .unwrap()
                .code(),
            None
        );
        assert!(EntryHeader::of("{}").is_err() && EntryHeader::of("").is_err());
    }

    #[test]
    fn levels_are_ordered() {
        assert!(Level::Debug < Level::Info && Level::Warn < Level::Error);
        assert!(Level::Error < Level::Other("fatal".into()));
    }

    #[test]
    fn the_time_has_always_six_decimals() {
        let at = |ts: &str| there_and_back(&LogEntry { ts: ts.parse().unwrap(), ..entry(task()) });
        assert!(at("2026-11-22T23:49:32Z").contains(r#""ts":"2026-11-22T23:49:32.000000Z""#));
        assert_eq!(now().subsec_nanosecond() % 1000, 0);
    }

    #[test]
    fn an_unknown_event_is_kept_whole() {
        let line = json!({
            "ts": "2026-11-22T23:49:32.123456Z", "level": "fatal", "process": "broker",
            "pid": 1, "event": "recycled", "after": 100
        });
        let entry: LogEntry = serde_json::from_value(line.clone()).unwrap();
        assert_eq!((entry.event.name(), entry.worker), ("recycled", None));
        assert_eq!(
            (entry.level.to_string(), entry.process.to_string()),
            ("fatal".into(), "broker".into())
        );
        assert_eq!(serde_json::to_value(&entry).unwrap(), line);
    }

    #[test]
    fn a_known_event_of_another_shape_is_kept_too() {
        let mut line = serde_json::to_value(entry(task())).unwrap();
        line["attempt"] = json!("first");
        let entry: LogEntry = serde_json::from_value(line.clone()).unwrap();
        assert_eq!((entry.event.name(), matches!(entry.event, LogEvent::Other(_))), ("task", true));
        assert_eq!(serde_json::to_value(&entry).unwrap(), line);
    }

    #[test]
    fn unknown_fields_are_kept_beside_the_event() {
        let mut line = serde_json::to_value(entry(task())).unwrap();
        line["cached"] = json!(true);
        let entry: LogEntry = serde_json::from_value(line.clone()).unwrap();
        assert_eq!(entry.event, task());
        assert_eq!(entry.extra.get("cached"), Some(&json!(true)));
        assert_eq!(serde_json::to_value(&entry).unwrap(), line);
    }
}
