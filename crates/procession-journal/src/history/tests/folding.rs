//! Short tasks that are joined where there are too many to draw.

use serde_json::{Map, json};

use super::super::*;
use super::{died, entries, history, named};
use crate::{Level, LogEntry, LogEvent};

#[test]
fn too_many_tasks_are_joined_without_losing_the_slow_and_the_failed() {
    let mut history = RunHistory::default();
    let mut entry = LogEntry {
        ts: jiff::Timestamp::from_second(1000).unwrap(),
        level: Level::Info,
        process: ProcessKind::Worker,
        worker: Some(0),
        pid: 100,
        own_cpu_s: None,
        event: LogEvent::Other(Map::new()),
        extra: Map::new(),
    };
    let mut slow = 0;
    for n in 0..150_000_u64 {
        entry.worker = Some((n % 8) as usize);
        entry.pid = 100 + (n % 8) as u32;
        entry.ts = jiff::Timestamp::from_microsecond(1_000_000_000 + n as i64 * 250).unwrap();
        let is_slow = n % 1_007 == 5;
        slow += u64::from(is_slow);
        entry.event = LogEvent::Task(crate::TaskEnd {
            task: crate::NamedTask { id: Some(n), name: Some("square".to_owned()), label: None },
            slot: Some(0),
            status: if n % 1_000 == 3 { "error" } else { "ok" }.to_owned(),
            elapsed_ms: if is_slow { 1.9 } else { 1.5 },
            attempt: 1,
            ..crate::TaskEnd::default()
        });
        history.add(entry.clone());
    }
    assert!(history.spans.len() <= MAX_SPANS, "{}", history.spans.len());
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error), (149_850, 150));
    assert!(history.joined > 100_000);
    let kept = history.spans.iter().filter(|span| !span.is_sum() && span.duration(0) == 1900);
    assert_eq!(kept.count() as u64, slow);
}

/// Adds the ends of this many short tasks with ids from 1,000, one after the other, in worker 0.
fn add_short_tasks(history: &mut RunHistory, begin: i64, count: usize) {
    for n in 0..count as i64 {
        history.add(LogEntry {
            ts: jiff::Timestamp::from_microsecond(begin + n * 250).unwrap(),
            level: Level::Info,
            process: ProcessKind::Worker,
            worker: Some(0),
            pid: 100,
            own_cpu_s: None,
            event: LogEvent::Task(crate::TaskEnd {
                task: crate::NamedTask {
                    id: Some(1_000 + n as u64),
                    name: Some("square".to_owned()),
                    label: None,
                },
                slot: Some(0),
                status: "ok".to_owned(),
                elapsed_ms: 0.2,
                attempt: 1,
                ..crate::TaskEnd::default()
            }),
            extra: Map::new(),
        });
    }
}

#[test]
fn what_the_coordinator_recorded_follows_its_span_when_spans_are_joined() {
    let lost = json!({"status": "error", "elapsed_ms": 300.0, "attempt": 1, "child": 1,
        "child_pid": 101, "error": "worker died", "cause": "signal 11"});
    let mut history = RunHistory::default();
    add_short_tasks(&mut history, 0, MAX_SPANS - 10);
    let lines = entries(&[
        (90, "c", json!({"event": "worker_started", "child": 1, "child_pid": 101})),
        (90, "w1", named("task_started", 7, json!({"slot": 0, "run": 1}))),
        (91, "c", died(1, 101)),
        (91, "c", named("task", 7, lost)),
    ]);
    lines.into_iter().for_each(|entry| history.add(entry));
    add_short_tasks(&mut history, 92_000_000, 20);
    assert!(history.joins > 0);
    let outcome = &history.final_outcomes()["square #7"];
    let span = &history.spans[outcome.span.expect("a span")];
    assert_eq!((&span.key, span.outcome), (&TaskKey::Id(7), SpanOutcome::Lost));
    assert_eq!(
        history.summary().processes.iter().map(|row| row.error).collect::<Vec<_>>(),
        [0, 0, 1]
    );
}

#[test]
fn a_failed_run_that_is_no_end_of_its_task_is_no_error() {
    let failed =
        json!({"slot": 0, "status": "error", "elapsed_ms": 0.2, "attempt": 1, "error": "no"});
    let retried = json!({"fault": "failure", "run": 2, "pause_ms": 0.0});
    let sums = |count: u64, failed: u64| {
        json!({"event": "tasks", "slot": 0, "period_ms": 5.0,
            "tasks": [{"name": "square", "count": count, "failed": failed, "run_ms": 4.0, "max_ms": 1.0}]})
    };
    let more = |worker: u64, count: u64| json!({"event": "tasks_retried", "child": worker, "child_pid": 100 + worker, "count": count});
    let mut lines = vec![
        // The run that ends well is in a sum.
        (1, "w0", named("task", 7, failed.clone())),
        (1, "c", named("task_retried", 7, retried)),
        (2, "w0", named("task", 8, failed)),
        (3, "w0", sums(30, 9)),
        (3, "w1", sums(4, 1)),
        (3, "c", more(0, 8)),
        // Its sums of that time are lost.
        (3, "c", more(1, 5)),
    ];
    let summary = history(&lines).summary();
    assert_eq!((summary.ok, summary.error, summary.not_done), (24, 2, 0));
    let rows: Vec<_> = summary.processes.iter().map(|row| (row.ok, row.error)).collect();
    assert_eq!(rows, [(0, 0), (21, 2), (3, 0)]);
    assert_eq!(summary.errors.len(), 1);
    assert_eq!(summary.errors[0].codes, ["square #8"]);
    // Without the lines of the coordinator, all of them are.
    lines.retain(|(_, writer, _)| *writer != "c");
    assert_eq!(history(&lines).summary().error, 12);
}

#[test]
fn a_task_that_was_run_again_is_not_joined_and_counts_once() {
    let retried = json!({"fault": "failure", "run": 2, "pause_ms": 0.0});
    let ended = |status: &str, attempt: u32| json!({"slot": 0, "status": status, "elapsed_ms": 0.2, "attempt": attempt});
    let mut history = RunHistory::default();
    let lines = entries(&[
        (1, "w0", named("task", 7, ended("error", 1))),
        (1, "c", named("task_retried", 7, retried)),
        (3, "w0", named("task", 7, ended("ok", 2))),
        (3, "w0", named("task_started", 8, json!({"slot": 0, "run": 2}))),
        (3, "w0", named("task", 8, ended("ok", 1))),
    ]);
    lines.into_iter().for_each(|entry| history.add(entry));
    add_short_tasks(&mut history, 3_000_300, MAX_SPANS);
    assert!(history.joins > 0);
    for id in [7, 8] {
        assert!(history.spans.iter().any(|span| span.key == TaskKey::Id(id)), "{id}");
    }
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error), (MAX_SPANS as u64 + 2, 0));
}
