//! Tests: histories that are built from the events of a run.

mod damaged;
mod folding;

use super::*;
use crate::{Level, LogEntry, LogEvent};
use serde_json::{Map, Value, json};

/// A history from lines such as `(12, "w0", {...})`: the second, the writer and the event.
fn history(lines: &[(i64, &str, Value)]) -> RunHistory {
    let mut history = RunHistory::default();
    entries(lines).into_iter().for_each(|entry| history.add(entry));
    history
}

/// The entries of such lines.
fn entries(lines: &[(i64, &str, Value)]) -> Vec<LogEntry> {
    let entry = |(second, writer, event): &(i64, &str, Value)| {
        let (process, worker, pid) = match writer.strip_prefix('w') {
            Some(number) => {
                let worker: usize = number[..1].parse().unwrap();
                (ProcessKind::Worker, Some(worker), 100 + number.parse::<u32>().unwrap())
            }
            None => (ProcessKind::Coordinator, None, 99),
        };
        let entry = LogEntry {
            ts: jiff::Timestamp::from_second(*second).unwrap(),
            level: Level::Info,
            process,
            worker,
            pid,
            own_cpu_s: None,
            event: serde_json::from_value(event.clone()).unwrap(),
            extra: Map::new(),
        };
        assert!(!matches!(entry.event, LogEvent::Other(_)), "{event}");
        entry
    };
    lines.iter().map(entry).collect()
}

fn run(wanted: &[&str]) -> Value {
    json!({"event": "run", "mode": "processes", "server": "LOCAL", "codes": wanted.len(),
        "workers": 2, "connections": 2, "dest": "d", "wanted": wanted})
}

fn begin(code: &str, run: u32) -> Value {
    json!({"event": "task_started", "code": code, "slot": 0, "run": run})
}

fn end(code: &str, status: &str) -> Value {
    json!({"event": "task", "code": code, "slot": 0, "status": status, "elapsed_ms": 1000.0, "attempt": 1})
}

fn died(worker: usize, pid: u32) -> Value {
    json!({"event": "worker_exited", "child": worker, "child_pid": pid, "how": "signal 9 (SIGKILL)"})
}

#[test]
fn a_task_is_a_span_where_it_ran() {
    let history = history(&[
        (0, "c", run(&["BR", "ZZ"])),
        (1, "w0", begin("BR", 1)),
        (2, "w1", begin("ZZ", 1)),
        (
            3,
            "w0",
            json!({"event": "try_failed", "code": "BR", "slot": 0, "attempt": 1, "error": "HTTP 503", "pause_ms": 9.0}),
        ),
        (4, "w0", end("BR", "ok")),
    ]);
    let [br, zz] = &history.spans[..] else { panic!("{:?}", history.spans) };
    assert_eq!((br.outcome, br.duration(0), br.tries.len()), (SpanOutcome::Ok, 3_000_000, 1));
    assert_eq!((zz.outcome, zz.duration(4_000_000)), (SpanOutcome::Running, 2_000_000));
    assert_eq!(history.processes[br.process].name(), "worker 0");
    assert!(history.is_open());
    assert_eq!(history.not_done().unwrap(), ["ZZ"]);
}

#[test]
fn the_task_of_a_worker_that_dies_is_lost_and_runs_again_elsewhere() {
    let mut history = history(&[
        (0, "c", run(&["BR"])),
        (1, "w0", begin("BR", 1)),
        (2, "c", died(0, 100)),
        (
            2,
            "c",
            json!({"event": "task_retried", "code": "BR", "fault": "crash", "run": 2, "pause_ms": 1.0}),
        ),
        (3, "w1", begin("BR", 2)),
        (4, "w1", end("BR", "ok")),
    ]);
    history.close();
    let [first, second] = &history.spans[..] else { panic!("{:?}", history.spans) };
    assert_eq!(
        (first.outcome, first.end, first.is_retried),
        (SpanOutcome::Lost, Some(2_000_000), true)
    );
    assert_eq!((second.outcome, second.run), (SpanOutcome::Ok, 2));
    assert_eq!(history.processes[first.process].how.as_deref(), Some("signal 9 (SIGKILL)"));
    let final_outcomes = history.final_outcomes();
    assert_eq!(
        (final_outcomes.len(), final_outcomes["BR"].status, final_outcomes["BR"].span),
        (1, FinalStatus::Ok, Some(1))
    );
    assert!(matches!(
        history.annotations[..],
        [Annotation::Died { .. }, Annotation::Retried { span: Some(0), .. }]
    ));
}

#[test]
fn the_outcome_that_the_coordinator_recorded_is_final() {
    let lost = json!({"event": "task", "code": "BR", "status": "error", "elapsed_ms": 1.0, "attempt": 2,
        "error": "worker 0 (pid 100) died of …", "cause": "worker died of signal 9 (SIGKILL)",
        "child": 0, "child_pid": 100});
    let not_done = json!({"event": "task", "code": "ZZ", "status": "not_done", "elapsed_ms": 0.0,
        "attempt": 0});
    // Older versions wrote it so.
    let cancelled = json!({"event": "task", "code": "AA", "status": "error", "elapsed_ms": 0.0,
        "attempt": 0, "error": "cancelled"});
    let history = history(&[
        (0, "c", run(&["AA", "BR", "US", "ZZ"])),
        (1, "w0", begin("BR", 1)),
        // The worker recorded this end, but its reply never arrived.
        (2, "w0", end("BR", "ok")),
        (3, "c", died(0, 100)),
        (3, "c", lost),
        (4, "w1", begin("ZZ", 1)),
        (5, "c", not_done),
        (5, "c", cancelled),
        (6, "w1", end("ZZ", "ok")),
    ]);
    let final_outcomes = history.final_outcomes();
    assert_eq!(final_outcomes["BR"].kind(), "worker died of signal 9 (SIGKILL)");
    for code in ["AA", "ZZ"] {
        assert_eq!(
            (final_outcomes[code].status, final_outcomes[code].has_run),
            (FinalStatus::NotDone, false)
        );
    }
    let summary = history.summary();
    assert_eq!((summary.error, summary.not_done, summary.never_ran), (1, 3, 0));
    assert_eq!(history.failed(), ["BR"]);
    assert_eq!(history.not_done().unwrap(), ["AA", "US", "ZZ"], "never begun, and not done");
}

#[test]
fn an_error_that_a_killed_coordinator_did_not_live_to_receive_does_not_count() {
    let start =
        json!({"event": "start", "version": "0.1.0", "build": "x", "args": [], "format": 1});
    let mut history = history(&[
        (0, "c", run(&["BR", "US"])),
        (0, "w0", start),
        (1, "w0", begin("BR", 1)),
        (2, "w0", end("BR", "error")),
        (2, "c", json!({"event": "error_received", "code": "BR"})),
        (3, "w0", begin("US", 1)),
        (4, "w0", end("US", "error")),
    ]);
    assert_eq!(history.failed(), ["BR"]);
    assert_eq!(history.not_done().unwrap(), ["US"]);
    history.close();
    // It is shown as lost.
    assert_eq!(
        [history.spans[0].outcome, history.spans[1].outcome],
        [SpanOutcome::Error, SpanOutcome::Lost]
    );
    assert_eq!(
        (history.failed(), history.not_done().unwrap()),
        (vec!["BR".into()], vec!["US".into()])
    );
}

#[test]
fn a_process_that_did_not_become_a_worker_is_no_worker_that_died() {
    let not_started = |child: usize, pid: u32, was_needed: bool| {
        json!({"event": "worker_not_started", "child": child, "child_pid": pid, "why": "so",
            "was_needed": was_needed})
    };
    let history = history(&[(0, "c", not_started(0, 7, true)), (1, "c", not_started(1, 8, false))]);
    let ends = history.summary().processes.into_iter().map(|row| (row.how, row.is_regular));
    let ended = |how: &str| Some(how.to_owned());
    let expected = [(None, false), (ended("did not start"), false), (ended("not needed"), true)];
    assert_eq!(ends.collect::<Vec<_>>(), expected);
    assert!(history.annotations.is_empty());
}

#[test]
fn a_running_task_extends_the_period_without_further_entries() {
    let mut history = history(&[(1, "w0", begin("BR", 1))]);
    history.extend_to(9_000_000);
    assert_eq!(history.period, Some((1_000_000, 9_000_000)));
    assert_eq!(history.summary().slowest[0].ms, 8_000.0);
    history.close();
    history.extend_to(20_000_000);
    assert_eq!(history.period, Some((1_000_000, 9_000_000)), "no task is running");
}

#[test]
fn spans_of_older_logs_without_slots_do_not_overlap() {
    let task = |code: &str, ms: f64| json!({"event": "task", "code": code, "status": "ok", "elapsed_ms": ms, "attempt": 1});
    let mut run = run(&[]);
    run["mode"] = json!("threads");
    let start = json!({"event": "start", "version": "0.1.0", "build": "x", "args": []});
    let history = history(&[
        (0, "c", start),
        (0, "c", run),
        (3, "c", task("AA", 2500.0)),
        (4, "c", task("AB", 2000.0)),
        (5, "c", task("AC", 1000.0)),
    ]);
    let slots: Vec<_> = history.spans.iter().map(|span| span.slot).collect();
    assert_eq!(slots, [0, 1, 0]);
    assert_eq!(history.final_outcomes().len(), 3);
    assert_eq!(history.not_done(), None, "the log does not record the requested codes");
}

#[test]
fn a_task_without_an_end_is_lost_when_the_log_is_closed() {
    let mut history =
        history(&[(0, "c", run(&["BR"])), (1, "w0", begin("BR", 1)), (7, "c", run(&["BR"]))]);
    history.close();
    assert_eq!(
        (history.spans[0].outcome, history.spans[0].end),
        (SpanOutcome::Lost, Some(7_000_000))
    );
    assert_eq!(history.not_done().unwrap(), ["BR"]);
}

fn named(event: &str, id: u64, fields: Value) -> Value {
    let mut line = json!({"event": event, "id": id, "name": "square"});
    let own = fields.as_object().unwrap().clone();
    line.as_object_mut().unwrap().extend(own);
    line
}

#[test]
fn the_tasks_of_any_program_are_told_apart_by_their_ids() {
    let ended =
        |status: &str| json!({"slot": 0, "status": status, "elapsed_ms": 500.0, "attempt": 1});
    let mut labelled = ended("ok");
    labelled["label"] = json!("a.png");
    let history = history(&[
        (1, "w0", named("task_started", 1, json!({"slot": 0, "run": 1}))),
        (2, "w0", named("task", 1, labelled)),
        (3, "w0", named("task", 2, ended("ok"))),
        (4, "w0", named("task", 3, ended("error"))),
    ]);
    let codes: Vec<_> = history.spans.iter().map(|span| &*span.code).collect();
    assert_eq!(codes, ["a.png", "square", "square"]);
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error, summary.not_done), (2, 1, 0));
    assert_eq!(history.failed(), ["square #3"]);
}

#[test]
fn a_sum_counts_all_of_its_tasks() {
    let sums = json!({"event": "tasks", "slot": 0, "period_ms": 1000.0, "late_ms": 500.0, "tasks":
        [{"name": "square", "count": 900, "failed": 2, "run_ms": 800.0, "max_ms": 3.0},
         {"name": "cube", "count": 100, "run_ms": 100.0, "max_ms": 1.0}]});
    let history = history(&[
        (1, "c", json!({"event": "worker_started", "child": 0, "child_pid": 100})),
        (3, "w0", sums),
        (
            4,
            "w0",
            named("task", 1, json!({"slot": 0, "status": "ok", "elapsed_ms": 9.0, "attempt": 1})),
        ),
    ]);
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error, summary.without_line), (999, 2, 0));
    let worker = &summary.processes[1];
    assert_eq!((worker.runs, worker.ok, worker.error), (1001, 999, 2));
    assert_eq!(worker.median_ms, Some(0.9));
    assert!((worker.busy - 0.303).abs() < 0.001, "{}", worker.busy);
    let sum = &history.spans[0];
    assert_eq!((sum.begin, sum.end), (1_500_000, Some(2_500_000)));
    assert_eq!(sum.code, "square and 1 more kinds");
    assert_eq!(summary.slowest.len(), 1);
}

#[test]
fn a_loss_that_only_the_coordinator_recorded_is_a_span_of_the_worker() {
    let lost = json!({"status": "error", "elapsed_ms": 300.0, "attempt": 2, "child": 0,
        "child_pid": 100, "error": "worker died", "cause": "signal 11"});
    let retried =
        json!({"fault": "crash", "run": 2, "pause_ms": 0.0, "child": 1, "child_pid": 101});
    let history = history(&[
        (1, "c", json!({"event": "worker_started", "child": 0, "child_pid": 100})),
        (2, "c", named("task_retried", 7, retried)),
        (3, "c", died(0, 100)),
        (3, "c", named("task", 7, lost)),
    ]);
    let [first, last] = &history.spans[..] else { panic!("{:?}", history.spans) };
    assert_eq!((first.outcome, first.is_retried), (SpanOutcome::Lost, true));
    assert_eq!(history.processes[first.process].pid, 101);
    assert_eq!(
        (last.outcome, last.begin, last.end),
        (SpanOutcome::Lost, 2_700_000, Some(3_000_000))
    );
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error), (0, 1));
    assert_eq!(summary.errors[0].cause, "signal 11");
}

#[test]
fn the_lines_of_a_worker_may_be_read_after_those_of_its_end() {
    let retried =
        json!({"fault": "crash", "run": 2, "pause_ms": 0.0, "child": 0, "child_pid": 100});
    let begun = |label: &str| json!({"slot": 0, "run": 1, "label": label});
    let ended = json!({"slot": 0, "status": "ok", "elapsed_ms": 500.0, "attempt": 1});
    let history = history(&[
        (1, "c", json!({"event": "worker_started", "child": 0, "child_pid": 100})),
        (5, "c", died(0, 100)),
        (5, "c", named("task_retried", 7, retried)),
        (2, "w0", named("task_started", 6, begun("six"))),
        (3, "w0", named("task", 6, ended)),
        (4, "w0", named("task_started", 7, begun("seven"))),
        (4, "w0", named("task_started", 8, begun("eight"))),
    ]);
    let spans: Vec<_> = history
        .spans
        .iter()
        .map(|span| (&*span.code, span.outcome, span.begin, span.is_retried))
        .collect();
    assert_eq!(
        spans,
        [
            ("seven", SpanOutcome::Lost, 4_000_000, true),
            ("six", SpanOutcome::Ok, 2_000_000, false),
            ("eight", SpanOutcome::Lost, 4_000_000, false),
        ]
    );
}

#[test]
fn a_task_counts_once_though_its_runs_have_different_titles() {
    let ended = |status: &str, attempt: u32, label: Option<&str>| json!({"slot": 0, "status": status, "elapsed_ms": 500.0, "attempt": attempt, "label": label});
    let retried = json!({"fault": "failure", "run": 2, "pause_ms": 0.0});
    let history = history(&[
        (1, "w0", named("task", 1, ended("error", 1, None))),
        (1, "c", named("task_retried", 1, retried)),
        (2, "w0", named("task", 1, ended("ok", 2, Some("a.png")))),
        (3, "w0", named("task", 2, ended("error", 1, Some("b.png")))),
        // Killed before it could name itself again.
        (
            4,
            "c",
            named(
                "task",
                2,
                json!({"status": "error", "elapsed_ms": 1.0, "attempt": 2,
            "error": "worker died", "child": 0, "child_pid": 100}),
            ),
        ),
    ]);
    let titles: Vec<_> = history.final_outcomes().into_keys().collect();
    assert_eq!(titles, ["a.png #1", "square #2"]);
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error), (1, 1));
}

#[test]
fn a_failed_run_that_the_coordinator_has_only_counted_as_retried_is_no_error() {
    let failed =
        json!({"slot": 0, "status": "error", "elapsed_ms": 30.0, "attempt": 1, "error": "no"});
    let retried = json!({"event": "tasks_retried", "child": 0, "child_pid": 100, "count": 1});
    let started =
        |child: u32| json!({"event": "worker_started", "child": child, "child_pid": 100 + child});
    let history = history(&[
        (1, "c", started(0)),
        (1, "c", started(1)),
        (2, "w0", named("task", 1, failed.clone())),
        (3, "w1", named("task", 2, failed)),
        (4, "c", retried),
    ]);
    let summary = history.summary();
    assert_eq!(summary.error, 1);
    let codes: Vec<_> = summary.errors.iter().flat_map(|group| &group.codes).collect();
    assert_eq!(codes, ["square #2"]);
}
