//! Lines that no version of the program has written: no number in them may end the reader.

use serde_json::{Map, Value, json};

use super::super::*;
use crate::{Level, LogEntry};

/// Lines of a worker and of a coordinator, each number of which is one of these.
fn lines(numbers: [u64; 3], ms: f64) -> Vec<Value> {
    let [slot, count, run] = numbers;
    let run = run.min(u32::MAX.into());
    let sum = |failed: u64| {
        json!({"name": "square", "count": count, "failed": failed, "run_ms": ms, "max_ms": ms,
            "bytes": count})
    };
    let task = |id: Option<u64>, code: &str| {
        json!({"event": "task", "id": id, "code": code, "slot": slot, "status": "ok", "bytes": count,
            "elapsed_ms": ms, "attempt": run})
    };
    vec![
        json!({"event": "task_started", "id": count, "slot": slot, "run": run, "late_ms": ms}),
        task(Some(count), ""),
        task(Some(1), ""),
        task(None, "BR"),
        json!({"event": "tasks", "slot": slot, "period_ms": ms, "late_ms": ms,
            "tasks": [sum(0), sum(count), sum(u64::MAX)]}),
        json!({"event": "task", "id": 2, "status": "error", "elapsed_ms": ms, "attempt": run,
            "child": slot, "child_pid": 7}),
        json!({"event": "task_retried", "id": 2, "fault": "crash", "run": run, "pause_ms": ms,
            "child": slot, "child_pid": 8}),
        json!({"event": "lines_lost", "lines": count, "why": "so"}),
        json!({"event": "summary", "ok": count, "not_found": count, "error": u64::MAX,
            "not_done": count, "elapsed_s": ms, "exit_code": 0}),
        json!({"event": "run", "mode": "processes", "workers": 1, "connections": 1,
            "codes": count}),
    ]
}

#[test]
fn no_number_in_a_line_ends_the_reader() {
    const NUMBERS: [u64; 4] = [0, 3, 1 << 40, u64::MAX];
    const MS: [f64; 4] = [0.0, -1e300, 1e12, 1e300];
    let mut history = RunHistory::default();
    let mut second = 0;
    for round in 0..64 {
        let numbers = [NUMBERS[round % 4], NUMBERS[round / 4 % 4], NUMBERS[round / 16]];
        for ms in MS {
            for event in lines(numbers, ms) {
                // The first and the last second that a line can have are among them.
                second += 1;
                let ts = match second % 5 {
                    0 => jiff::Timestamp::MIN,
                    1 => jiff::Timestamp::MAX,
                    _ => jiff::Timestamp::from_second(second).unwrap(),
                };
                let event = serde_json::from_value(event).unwrap();
                let (process, worker) = (ProcessKind::Worker, Some(numbers[0] as usize));
                let (level, extra) = (Level::Info, Map::new());
                let own_cpu_s = Some(f64::from(second as i32));
                let pid = 100;
                history.add(LogEntry { ts, level, process, worker, pid, own_cpu_s, event, extra });
            }
        }
    }
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error), (u64::MAX, u64::MAX));
    assert!(summary.processes.iter().all(|row| (0.0..=1.0).contains(&row.busy)), "{summary:?}");
    let slots = history.processes.iter().map(|process| process.slots);
    assert!(slots.max() <= Some(MAX_SLOTS), "{:?}", history.processes);
    history.fold();
    history.close();
    assert!(!history.final_outcomes().is_empty());
}
