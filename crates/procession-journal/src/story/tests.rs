use super::*;
use crate::Level;
use serde_json::{Map, Value, json};

/// A story from lines such as `(12, "w0", {...})`: the second, who, and what.
fn story(lines: &[(i64, &str, Value)]) -> Story {
    let mut story = Story::default();
    for (second, who, event) in lines {
        let (process, worker, pid) = match who.strip_prefix('w') {
            Some(number) => {
                let worker: usize = number[..1].parse().unwrap();
                (Process::Worker, Some(worker), 100 + number.parse::<u32>().unwrap())
            }
            None => (Process::Coordinator, None, 99),
        };
        let entry = Entry {
            ts: jiff::Timestamp::from_second(*second).unwrap(),
            level: Level::Info,
            process,
            worker,
            pid,
            event: serde_json::from_value(event.clone()).unwrap(),
            extra: Map::new(),
        };
        assert!(!matches!(entry.event, Event::Other(_)), "{event}");
        story.add(entry);
    }
    story
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
    let story = story(&[
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
    let [br, zz] = &story.spans[..] else { panic!("{:?}", story.spans) };
    assert_eq!((br.fate, br.duration(0), br.tries.len()), (Fate::Ok, 3_000_000, 1));
    assert_eq!((zz.fate, zz.duration(4_000_000)), (Fate::Running, 2_000_000));
    assert_eq!(story.parties[br.party].name(), "worker 0");
    assert!(story.is_open());
    assert_eq!(story.undone().unwrap(), ["ZZ"]);
}

#[test]
fn a_worker_that_dies_takes_its_task_along_which_then_runs_elsewhere() {
    let mut story = story(&[
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
    story.close();
    let [first, second] = &story.spans[..] else { panic!("{:?}", story.spans) };
    assert_eq!((first.fate, first.end, first.is_retried), (Fate::Lost, Some(2_000_000), true));
    assert_eq!((second.fate, second.run), (Fate::Ok, 2));
    assert_eq!(story.parties[first.party].how.as_deref(), Some("signal 9 (SIGKILL)"));
    let finals = story.finals();
    assert_eq!((finals.len(), finals["BR"].status, finals["BR"].span), (1, Status::Ok, Some(1)));
    assert!(matches!(story.marks[..], [Mark::Died { .. }, Mark::Retried { span: Some(0), .. }]));
}

#[test]
fn the_coordinator_has_the_last_word() {
    let lost = json!({"event": "task", "code": "BR", "status": "error", "elapsed_ms": 1.0, "attempt": 2,
        "error": "worker 0 (pid 100) died of …", "cause": "worker died of signal 9 (SIGKILL)",
        "child": 0, "child_pid": 100});
    let not_done = json!({"event": "task", "code": "ZZ", "status": "not_done", "elapsed_ms": 0.0,
        "attempt": 0});
    // As older versions wrote it.
    let cancelled = json!({"event": "task", "code": "AA", "status": "error", "elapsed_ms": 0.0,
        "attempt": 0, "error": "cancelled"});
    let story = story(&[
        (0, "c", run(&["AA", "BR", "US", "ZZ"])),
        (1, "w0", begin("BR", 1)),
        // It said so, but its answer never arrived.
        (2, "w0", end("BR", "ok")),
        (3, "c", died(0, 100)),
        (3, "c", lost),
        (4, "w1", begin("ZZ", 1)),
        (5, "c", not_done),
        (5, "c", cancelled),
        (6, "w1", end("ZZ", "ok")),
    ]);
    let finals = story.finals();
    assert_eq!(finals["BR"].kind(), "worker died of signal 9 (SIGKILL)");
    for code in ["AA", "ZZ"] {
        assert_eq!((finals[code].status, finals[code].has_run), (Status::NotDone, false));
    }
    let summary = story.summary();
    assert_eq!((summary.error, summary.undone, summary.never_ran), (1, 3, 0));
    assert_eq!(story.failed(), ["BR"]);
    assert_eq!(story.undone().unwrap(), ["AA", "US", "ZZ"], "never begun, and given up");
}

#[test]
fn an_error_that_a_killed_coordinator_did_not_live_to_receive_does_not_count() {
    let start =
        json!({"event": "start", "version": "0.1.0", "build": "x", "args": [], "format": 1});
    let mut story = story(&[
        (0, "c", run(&["BR", "US"])),
        (0, "w0", start),
        (1, "w0", begin("BR", 1)),
        (2, "w0", end("BR", "error")),
        (2, "c", json!({"event": "error_received", "code": "BR"})),
        (3, "w0", begin("US", 1)),
        (4, "w0", end("US", "error")),
    ]);
    assert_eq!(story.failed(), ["BR"]);
    assert_eq!(story.undone().unwrap(), ["US"]);
    story.close();
    // Nor is it shown as one.
    assert_eq!([story.spans[0].fate, story.spans[1].fate], [Fate::Error, Fate::Lost]);
    assert_eq!((story.failed(), story.undone().unwrap()), (vec!["BR".into()], vec!["US".into()]));
}

#[test]
fn a_process_that_did_not_become_a_worker_is_told_apart_from_one_that_died() {
    let not_started = |child: usize, pid: u32, was_needed: bool| {
        json!({"event": "worker_not_started", "child": child, "child_pid": pid, "why": "so",
            "was_needed": was_needed})
    };
    let story = story(&[(0, "c", not_started(0, 7, true)), (1, "c", not_started(1, 8, false))]);
    let ends = story.summary().processes.into_iter().map(|row| (row.how, row.is_regular));
    let told = |how: &str| Some(how.to_owned());
    let expected = [(None, false), (told("did not start"), false), (told("not needed"), true)];
    assert_eq!(ends.collect::<Vec<_>>(), expected);
    assert!(story.marks.is_empty());
}

#[test]
fn what_runs_runs_on_while_nothing_is_heard_of_it() {
    let mut story = story(&[(1, "w0", begin("BR", 1))]);
    story.goes_on_at(9_000_000);
    assert_eq!(story.period, Some((1_000_000, 9_000_000)));
    assert_eq!(story.summary().slowest[0].ms, 8_000.0);
    story.close();
    story.goes_on_at(20_000_000);
    assert_eq!(story.period, Some((1_000_000, 9_000_000)), "nothing runs any more");
}

#[test]
fn older_logs_tell_no_slots_but_no_two_spans_overlap() {
    let task = |code: &str, ms: f64| json!({"event": "task", "code": code, "status": "ok", "elapsed_ms": ms, "attempt": 1});
    let mut run = run(&[]);
    run["mode"] = json!("threads");
    let start = json!({"event": "start", "version": "0.1.0", "build": "x", "args": []});
    let story = story(&[
        (0, "c", start),
        (0, "c", run),
        (3, "c", task("AA", 2500.0)),
        (4, "c", task("AB", 2000.0)),
        (5, "c", task("AC", 1000.0)),
    ]);
    let slots: Vec<_> = story.spans.iter().map(|span| span.slot).collect();
    assert_eq!(slots, [0, 1, 0]);
    assert_eq!(story.finals().len(), 3);
    assert_eq!(story.undone(), None, "it is not known what was asked for");
}

#[test]
fn what_has_not_ended_when_the_log_does_was_lost() {
    let mut story =
        story(&[(0, "c", run(&["BR"])), (1, "w0", begin("BR", 1)), (7, "c", run(&["BR"]))]);
    story.close();
    assert_eq!((story.spans[0].fate, story.spans[0].end), (Fate::Lost, Some(7_000_000)));
    assert_eq!(story.undone().unwrap(), ["BR"]);
}
