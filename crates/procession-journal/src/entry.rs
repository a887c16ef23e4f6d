//! One line of a journal: who wrote it when, and what happened.
//!
//! ```json
//! {"ts":"2026-11-22T23:49:32.123456Z","level":"info","process":"worker","worker":1,"pid":4712,
//!  "event":"task","code":"BR","status":"ok","http":200,"bytes":590,"elapsed_ms":1.9,"attempt":1}
//! ```
//!
//! An [`Entry`] is the whole line; a [`Head`] is as much of it as is needed to sort and to choose,
//! read in place, since most lines of a long log are passed over.
//!
//! Must never refuse a line that another version wrote: events and fields that are not known here
//! are kept as they are, so that they can be shown.

use std::fmt;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::event::Event;

/// How much a line matters. Ordered; one that is not known matters more than all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Of use when something is being looked for.
    Debug,
    /// The ordinary course of things.
    Info,
    /// Not as it should be, but dealt with.
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
pub enum Process {
    /// The one that hands out the tasks.
    Coordinator,
    /// One that runs them.
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
    Process { Coordinator => "coordinator", Worker => "worker" }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// When, to the microsecond.
    #[serde(serialize_with = "write_timestamp")]
    pub ts: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// What kind of process wrote it.
    pub process: Process,
    /// Which worker, when it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<usize>,
    /// The process that wrote it.
    pub pid: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// Fields of another version, which the event as known here does not have.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What it takes to put a line in its place, and to decide whether it is wanted. Only what all
/// lines have must be well-formed.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Head<'l> {
    /// When, as it stands there.
    pub ts: &'l str,
    /// How much it matters, as it stands there.
    pub level: &'l str,
    /// Which worker wrote it.
    #[serde(default)]
    pub worker: Option<usize>,
    /// The process that wrote it.
    pub pid: u32,
    /// What happened.
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

impl<'l> Head<'l> {
    /// Reads the head of a line.
    pub fn of(line: &'l str) -> serde_json::Result<Self> {
        serde_json::from_str(line)
    }

    /// When, if that is a time.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.ts.parse().ok()
    }

    /// How much it matters.
    pub fn level(&self) -> Level {
        match self.level {
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" => Level::Warn,
            "error" => Level::Error,
            other => Level::Other(other.to_owned()),
        }
    }

    /// Which flag it is about, if it is about one.
    pub fn code(&self) -> Option<&'l str> {
        unquoted(self.code?)
    }

    /// How that ended, if this tells.
    pub fn status(&self) -> Option<&'l str> {
        unquoted(self.status?)
    }

    /// The worker that it is about: the one that wrote it, or that the coordinator tells of.
    pub fn about_worker(&self) -> Option<usize> {
        self.worker.or_else(|| self.child?.get().parse().ok())
    }

    /// The process that it is about besides the one that wrote it.
    pub fn about_pid(&self) -> Option<u32> {
        self.child_pid?.get().parse().ok()
    }
}

/// A text without anything special in it.
fn unquoted(json: &RawValue) -> Option<&str> {
    json.get().strip_prefix('"')?.strip_suffix('"')
}

/// The time now, as precise as a line can tell it.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

fn write_timestamp<S: Serializer>(ts: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{ts:.6}"))
}

impl<'de> Deserialize<'de> for Entry {
    /// Reads first what all lines have in common; what is left is the event.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Common {
            ts: String,
            level: Level,
            process: Process,
            #[serde(default)]
            worker: Option<usize>,
            pid: u32,
            #[serde(flatten)]
            rest: Map<String, Value>,
        }
        let Common { ts, level, process, worker, pid, rest } = Common::deserialize(deserializer)?;
        let ts = ts.parse().map_err(D::Error::custom)?;
        let event = Event::deserialize(&rest).map_err(D::Error::custom)?;
        let extra = if matches!(event, Event::Other(_)) {
            Map::new()
        } else {
            let known = serde_json::to_value(&event).map_err(D::Error::custom)?;
            rest.into_iter()
                .filter(|(key, value)| known.get(key).is_none() && !value.is_null())
                .collect()
        };
        Ok(Entry { ts, level, process, worker, pid, event, extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{FORMAT, Stream, Terms, Usage};
    use serde_json::json;

    fn entry(event: Event) -> Entry {
        Entry {
            ts: "2026-11-22T23:49:32.123456Z".parse().unwrap(),
            level: Level::Info,
            process: Process::Worker,
            worker: Some(1),
            pid: 4712,
            event,
            extra: Map::new(),
        }
    }

    fn task() -> Event {
        Event::Task {
            code: "BR".into(),
            slot: None,
            status: "ok".into(),
            http: Some(200),
            bytes: Some(590),
            unchanged: false,
            elapsed_ms: 1.9,
            attempt: 1,
            error: None,
            cause: None,
            child: None,
            child_pid: None,
        }
    }

    fn there_and_back(entry: &Entry) -> String {
        let line = serde_json::to_string(entry).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(&serde_json::from_str::<Entry>(&line).unwrap(), entry, "{line}");
        line
    }

    #[test]
    fn a_task_is_one_flat_line() {
        assert_eq!(
            there_and_back(&entry(task())),
            r#"{"ts":"2026-11-22T23:49:32.123456Z","level":"info","process":"worker","worker":1,"pid":4712,"event":"task","code":"BR","status":"ok","http":200,"bytes":590,"elapsed_ms":1.9,"attempt":1}"#
        );
    }

    #[test]
    fn every_event_survives_its_line() {
        let events = [
            Event::Start {
                version: "0.1.0".into(),
                build: "x".into(),
                args: vec!["-a".into()],
                format: FORMAT,
            },
            Event::TaskStarted { code: "BR".into(), slot: 3, run: 2 },
            Event::TryFailed {
                code: "BR".into(),
                slot: 3,
                attempt: 1,
                error: "HTTP 503".into(),
                pause_ms: 80.5,
            },
            Event::ErrorReceived { code: "BR".into() },
            Event::TaskRetried { code: None, fault: "crash".into(), run: 2, pause_ms: 7.0 },
            Event::TaskTimedOut { code: Some("BR".into()), after_ms: 300.0 },
            Event::Output { stream: Stream::Stderr, text: "two\nlines \u{1b}[0m \"q\"".into() },
            Event::WorkerStarted { child: 0, child_pid: 4713 },
            Event::WorkerExited {
                child: 0,
                child_pid: 4713,
                how: "signal 11".into(),
                is_regular: false,
                usage: Usage { cpu_s: Some(0.25), peak_memory: Some(1 << 24) },
            },
            Event::Run {
                mode: "processes".into(),
                server: "LOCAL".into(),
                codes: 20,
                workers: 2,
                connections: 2,
                dest: "downloads".into(),
                wanted: vec!["BR".into(), "CN".into()],
                terms: Some(Terms {
                    seed: 7,
                    timeout_s: 10.0,
                    retries: 2,
                    task_timeout_s: None,
                    max_tasks: Some(3),
                    update: true,
                }),
                continues: None,
            },
            Event::Summary {
                ok: 1,
                not_found: 2,
                error: 3,
                not_done: Some(4),
                unchanged: 0,
                elapsed_s: 0.09,
                exit_code: 1,
                usage: Usage::default(),
            },
            Event::LinesLost { lines: 7, why: "the disk is full".into() },
            Event::Exit { exit_code: 0, why: None },
        ];
        for event in events {
            let name = event.name().to_owned();
            let line = there_and_back(&entry(event));
            assert!(line.contains(&format!(r#""event":"{name}""#)), "{line}");
        }
    }

    #[test]
    fn a_head_tells_what_lines_are_chosen_by() {
        let line = serde_json::to_string(&entry(task())).unwrap();
        let head = Head::of(&line).unwrap();
        assert_eq!((head.event, head.code(), head.status()), ("task", Some("BR"), Some("ok")));
        assert_eq!((head.about_worker(), head.pid, head.level()), (Some(1), 4712, Level::Info));
        assert_eq!(head.timestamp(), Some(entry(task()).ts));
        let child = Event::WorkerStarted { child: 5, child_pid: 4713 };
        let line = serde_json::to_string(&Entry { worker: None, ..entry(child) }).unwrap();
        let head = Head::of(&line).unwrap();
        assert_eq!((head.about_worker(), head.about_pid()), (Some(5), Some(4713)));
        assert_eq!(
            Head::of(r#"{"ts":"?","level":"x","pid":1,"event":"e","code":7}"#).unwrap().code(),
            None
        );
        assert!(Head::of("{}").is_err() && Head::of("").is_err());
    }

    #[test]
    fn levels_are_ordered() {
        assert!(Level::Debug < Level::Info && Level::Warn < Level::Error);
        assert!(Level::Error < Level::Other("fatal".into()));
    }

    #[test]
    fn the_time_has_always_six_decimals() {
        let at = |ts: &str| there_and_back(&Entry { ts: ts.parse().unwrap(), ..entry(task()) });
        assert!(at("2026-11-22T23:49:32Z").contains(r#""ts":"2026-11-22T23:49:32.000000Z""#));
        assert_eq!(now().subsec_nanosecond() % 1000, 0);
    }

    #[test]
    fn an_unknown_event_is_kept_whole() {
        let line = json!({
            "ts": "2026-11-22T23:49:32.123456Z", "level": "fatal", "process": "broker",
            "pid": 1, "event": "recycled", "after": 100
        });
        let entry: Entry = serde_json::from_value(line.clone()).unwrap();
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
        let entry: Entry = serde_json::from_value(line.clone()).unwrap();
        assert_eq!((entry.event.name(), matches!(entry.event, Event::Other(_))), ("task", true));
        assert_eq!(serde_json::to_value(&entry).unwrap(), line);
    }

    #[test]
    fn unknown_fields_are_kept_beside_the_event() {
        let mut line = serde_json::to_value(entry(task())).unwrap();
        line["cached"] = json!(true);
        let entry: Entry = serde_json::from_value(line.clone()).unwrap();
        assert_eq!(entry.event, task());
        assert_eq!(entry.extra.get("cached"), Some(&json!(true)));
        assert_eq!(serde_json::to_value(&entry).unwrap(), line);
    }
}
