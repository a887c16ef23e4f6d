//! Tests: lines of each event, there and back.

use super::*;
use crate::event::{
    FORMAT, LostBy, NamedTask, OutputStream, ResourceUsage, RunOptions, RunReport, RunSettings,
    TaskEnd, TaskSum, TaskSums,
};
use serde_json::json;

fn entry(event: LogEvent) -> LogEntry {
    LogEntry {
        ts: "2026-11-22T23:49:32.123456Z".parse().unwrap(),
        level: Level::Info,
        process: ProcessKind::Worker,
        worker: Some(1),
        pid: 4712,
        own_cpu_s: None,
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

fn events_of_tasks() -> [LogEvent; 7] {
    [
        LogEvent::TaskStarted {
            code: "BR".into(),
            task: NamedTask::default(),
            late_ms: 0.0,
            slot: 3,
            run: 2,
        },
        LogEvent::TryFailed {
            code: "BR".into(),
            slot: 3,
            attempt: 1,
            error: "HTTP 503".into(),
            pause_ms: 80.5,
        },
        task(),
        LogEvent::ErrorReceived { code: "BR".into() },
        LogEvent::TaskRetried {
            code: None,
            task: NamedTask { id: Some(7), name: Some("square".into()), label: None },
            by: LostBy { child: Some(0), child_pid: Some(4713) },
            fault: "crash".into(),
            run: 2,
            pause_ms: 7.0,
        },
        LogEvent::TaskTimedOut {
            code: Some("BR".into()),
            task: NamedTask::default(),
            after_ms: 300.0,
        },
        LogEvent::Tasks(TaskSums {
            slot: 0,
            period_ms: 99.5,
            late_ms: 0.5,
            tasks: vec![TaskSum {
                name: "square".into(),
                count: 5123,
                failed: 0,
                run_ms: 95.0,
                max_ms: 0.75,
                bytes: 5123,
            }],
        }),
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
            program: None,
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
fn a_task_of_any_program_has_its_name_in_the_line() {
    let task = LogEvent::Task(TaskEnd {
        task: NamedTask { id: Some(17), name: Some("thumb".into()), label: Some("a.png".into()) },
        status: "ok".into(),
        elapsed_ms: 1.5,
        attempt: 1,
        ..TaskEnd::default()
    });
    let line = there_and_back(&entry(task));
    let fields = r#""event":"task","id":17,"name":"thumb","label":"a.png","status":"ok","elapsed_ms":1.5,"attempt":1}"#;
    assert!(line.ends_with(fields), "{line}");
    let header = EntryHeader::of(&line).unwrap();
    let is = |text: &str| header.is_of_task(text);
    assert!(is("17") && is("thumb") && is("a.png") && !is("a.pn") && !is(""));
}

#[test]
fn a_header_has_the_fields_that_lines_are_filtered_by() {
    let line = serde_json::to_string(&entry(task())).unwrap();
    let header = EntryHeader::of(&line).unwrap();
    assert_eq!((header.event, header.code(), header.status()), ("task", Some("BR"), Some("ok")));
    assert_eq!((header.about_worker(), header.pid, header.level()), (Some(1), 4712, Level::Info));
    assert_eq!(header.timestamp(), Some(entry(task()).ts));
    let child = LogEvent::WorkerStarted { child: 5, child_pid: 4713 };
    let line = serde_json::to_string(&LogEntry { worker: None, ..entry(child) }).unwrap();
    let header = EntryHeader::of(&line).unwrap();
    assert_eq!((header.about_worker(), header.about_pid()), (Some(5), Some(4713)));
    assert_eq!(
        EntryHeader::of(r#"{"ts":"?","level":"x","pid":1,"event":"e","code":7}"#).unwrap().code(),
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
