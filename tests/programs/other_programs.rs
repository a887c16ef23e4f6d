//! `coordinator logs` and `timeline` for the journal of another program: that of a pool in a library.

use std::fs;

use crate::browser::{chromium, dom, text_of};
use crate::programs::ProgramDir;
use serde_json::Value;

const RUN: &str = "2026-11-22T23-49-32-4711";

const COORDINATOR: &[(&str, &str)] = &[
    ("32.000000", r#""event":"start","version":"0.1.0","build":"","args":["thumbs"],"format":1"#),
    (
        "32.000001",
        r#""event":"run","mode":"processes","program":"thumbs","workers":2,"connections":2"#,
    ),
    (
        "33.000000",
        r#""event":"worker_exited","child":1,"child_pid":4713,"how":"signal 11 (SIGSEGV)""#,
    ),
    (
        "33.000001",
        r#""event":"task","id":9,"name":"thumbnail","status":"error","elapsed_ms":200.0,"attempt":1,"error":"worker 1 died","cause":"worker died of signal 11","child":1,"child_pid":4713"#,
    ),
    (
        "34.000000",
        r#""event":"worker_exited","child":0,"child_pid":4712,"how":"exit code 0","is_regular":true"#,
    ),
    (
        "34.000001",
        r#""event":"summary","ok":1002,"not_found":0,"error":1,"not_done":0,"elapsed_s":2.0,"exit_code":0"#,
    ),
    ("34.000002", r#""event":"exit","exit_code":0"#),
];

const FIRST_WORKER: &[(&str, &str)] = &[
    (
        "32.600000",
        r#""event":"task","id":1,"name":"thumbnail","label":"a.png","slot":0,"status":"ok","elapsed_ms":500.0,"attempt":1,"bytes":70"#,
    ),
    (
        "33.700000",
        r#""event":"tasks","slot":0,"period_ms":1000.0,"tasks":[{"name":"size","count":1000,"run_ms":900.0,"max_ms":0.9}]"#,
    ),
    (
        "33.900000",
        r#""event":"task","id":2,"name":"thumbnail","slot":0,"status":"ok","elapsed_ms":100.0,"attempt":1"#,
    ),
];

const SECOND_WORKER: &[(&str, &str)] = &[(
    "32.900000",
    r#""event":"task_started","id":9,"name":"thumbnail","label":"bad.png","late_ms":100.0,"slot":0,"run":1"#,
)];

/// The lines of a process: second and event.
fn lines(process: &str, pid: u32, lines: &[(&str, &str)]) -> String {
    let line = |(second, event): &(&str, &str)| {
        format!(
            "{{\"ts\":\"2026-11-22T23:49:{second}Z\",\"level\":\"info\",{process},\"pid\":{pid},{event}}}\n"
        )
    };
    lines.iter().map(line).collect()
}

/// The journal of a pool with two workers, one of which died.
fn journal(place: &ProgramDir) {
    let dir = place.path("pool-logs").join(RUN);
    fs::create_dir_all(&dir).unwrap();
    let worker = |number: usize| format!("\"process\":\"worker\",\"worker\":{number}");
    for (name, text) in [
        ("coordinator-4711", lines("\"process\":\"coordinator\"", 4711, COORDINATOR)),
        ("worker-0-4712", lines(&worker(0), 4712, FIRST_WORKER)),
        ("worker-1-4713", lines(&worker(1), 4713, SECOND_WORKER)),
    ] {
        fs::write(dir.join(name).with_extension("jsonl"), text).unwrap();
    }
}

#[test]
fn the_logs_of_another_program_are_found_by_their_directory() {
    let place = ProgramDir::new();
    journal(&place);
    for dir in ["pool-logs", &format!("pool-logs/{RUN}")] {
        let ran = place.run(&["logs", dir]).expect(0);
        for line in [
            "thumbs: processes, 2 workers, 2 tasks at a time",
            "a.png #1 ok, 70 B in 500 ms",
            "1000 size: 900 ms of 1.00 s, the longest 0.90 ms",
            "thumbnail #9 error: worker 1 died in 200 ms",
        ] {
            assert!(ran.stdout.contains(line), "{line}: {ran:#?}");
        }
    }
    let of_one = place.run(&["logs", "pool-logs", "--task", "9"]).expect(0).stdout;
    assert_eq!(of_one.lines().count(), 2, "{of_one}");
    assert!(of_one.contains("bad.png #9 has begun 100 ms ago"), "{of_one}");
    let by_label = place.run(&["logs", "pool-logs", "--task", "a.png", "--json"]).expect(0);
    assert_eq!(by_label.json().len(), 1);
    let list = place.run(&["logs", "--list", "--log-dir", "pool-logs"]).expect(0).stdout;
    assert!(list.contains("thumbs") && list.contains("1002"), "{list}");
}

#[test]
fn the_summary_of_another_program_counts_short_tasks_and_names_the_failed() {
    let place = ProgramDir::new();
    journal(&place);
    let ran = place.run(&["logs", "pool-logs", "--summary"]).expect(0);
    for text in [
        "thumbs, processes, 2 workers, 2 tasks at a time",
        "1002 ok",
        "worker died of signal 11: bad.png #9",
        "500 ms  a.png ok, worker 0",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {ran:#?}");
    }
    assert!(!ran.stdout.contains("counted"), "the lines agree with the report: {ran:#?}");
    let json = place.run(&["logs", "pool-logs", "--summary", "--json"]).expect(0);
    assert_eq!(json.json()[0]["summary"]["ok"], 1002);
}

#[test]
fn the_timeline_of_another_program_draws_its_tasks() {
    let place = ProgramDir::new();
    journal(&place);
    let drawn = place.run(&["timeline", "pool-logs"]).expect(0).stdout;
    for text in ["worker 0 4712", "a.png", "1000 size", "bad.png", "signal 11 (SIGSEGV)"] {
        assert!(drawn.contains(text), "{text}: {drawn}");
    }
    let trace = place.run(&["timeline", "pool-logs", "--trace", "-"]).expect(0).stdout;
    let trace: Value = serde_json::from_str(&trace).unwrap();
    let bars = trace["traceEvents"].as_array().unwrap().iter();
    let bars: Vec<_> = bars.filter(|event| event["ph"] == "X").map(|bar| &bar["name"]).collect();
    assert_eq!(bars, ["a.png", "1000 size", "thumbnail", "bad.png"]);
}

#[test]
fn a_browser_shows_the_page_of_another_program() {
    let Some(browser) = chromium() else { return };
    let place = ProgramDir::new();
    journal(&place);
    place.run(&["timeline", "pool-logs", "--html", "page.html"]).expect(0);
    let url = format!("file://{}", place.path("page.html").display());
    let page = dom(&browser, &place, &url, &[]);
    assert_eq!(text_of(&page, "what"), "thumbs, 2 workers, 2 tasks at a time");
    assert!(text_of(&page, "counts").starts_with("1002 ok 1 errors"), "{page}");
    assert!(text_of(&page, "slow").contains("a.png"), "{page}");
}
