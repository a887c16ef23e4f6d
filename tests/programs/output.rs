//! What `coordinator` says and where: reports and data on stdout, diagnostics on stderr, and a log
//! for each process.

use std::collections::BTreeSet;
use std::path::Path;

use crate::hostile::{Behaviour, HostileServer};
use crate::programs::{FinishedProgram, MODES, ProgramDir, how};
use serde_json::{Value, json};

/// The report with what differs from run to run left out, after it was found to be a port and a
/// number of seconds.
fn report(ran: &FinishedProgram) -> String {
    let blank = |text: &str, before: &str, after: &str| {
        let begin = text.find(before).unwrap_or_else(|| panic!("no {before}: {ran:#?}"));
        let begin = begin + before.len();
        let length = text[begin..].find(after).unwrap();
        let number = &text[begin..begin + length];
        number.parse::<f64>().unwrap_or_else(|_| panic!("{number} is no number"));
        (format!("{}_{}", &text[..begin], &text[begin + length..]), number.to_owned())
    };
    let (text, _) = blank(&ran.stdout, "localhost:", "/");
    let (text, seconds) = blank(&text, "Elapsed time: ", "s\n");
    assert_eq!(seconds.split_once('.').unwrap().1.len(), 2, "{seconds}");
    text
}

#[test]
fn the_report_is_worded_as_in_the_book() {
    let place = ProgramDir::new();
    for (mode, third_line) in [
        ("sequential", "1 concurrent connection will be used."),
        ("threads", "30 concurrent connections will be used."),
        ("processes", "2 worker processes, 2 concurrent connections will be used."),
    ] {
        let most = if mode == "threads" { "30" } else { "2" };
        let ran = place.run(&[&["--all"], &how(mode, "2", most)[..]].concat()).expect(0);
        let expected = format!(
            "LOCAL site: http://localhost:_/flags\n\
             Searching for 194 flags: from AD to ZW\n\
             {third_line}\n\
             --------------------\n\
             194 flags downloaded.\n\
             Saved in: downloads\n\
             Elapsed time: _s\n"
        );
        assert_eq!(report(&ran), expected);
    }
}

#[test]
fn one_of_something_is_in_the_singular() {
    let place = ProgramDir::new();
    let run = |args: &[&str]| report(&place.run(args));
    assert_eq!(
        run(&["br", "-w", "9"]),
        "LOCAL site: http://localhost:_/flags\n\
         Searching for 1 flag: BR\n\
         1 worker process, 1 concurrent connection will be used.\n\
         --------------------\n\
         1 flag downloaded.\n\
         Saved in: downloads\n\
         Elapsed time: _s\n"
    );
    assert_eq!(
        run(&["aa", "cn", "ab", "br", "-s", "DELAY", "-w", "2", "-m", "4"]),
        "DELAY site: http://localhost:_/flags\n\
         Searching for 4 flags: AA, AB, BR, CN\n\
         2 worker processes, 4 concurrent connections will be used.\n\
         --------------------\n\
         2 flags downloaded.\n\
         2 not found: AA AB\n\
         Saved in: downloads\n\
         Elapsed time: _s\n"
    );
    let server = HostileServer::start(Behaviour::StrangeStatus(503, "Busy"));
    let url = server.base_url().replace("127.0.0.1", "localhost");
    for (codes, end) in [(&["br"][..], "1 error."), (&["br", "us"], "2 errors.")] {
        let text = run(&[codes, &["-s", &url, "--mode", "threads"]].concat());
        let (number, listed) = (codes.len(), codes.join(" ").to_uppercase());
        let expected = format!(
            "\n0 flags downloaded.\n{end}\nElapsed time: _s\n\
             {number} x HTTP 503 - Service Unavailable: {listed}\n\
             To go on: coordinator --retry-failed\n"
        );
        assert!(text.starts_with("Custom site: http://localhost:_/flags\n"), "{text}");
        assert!(text.ends_with(&expected), "{text}");
    }
}

#[test]
fn errors_are_grouped_by_cause_and_the_command_that_resumes_is_shown() {
    let server = HostileServer::start(Behaviour::Refuse);
    let url = server.base_url();
    for mode in MODES {
        let place = ProgramDir::new();
        let args = ["br", "cn", "us", "-s", &url, "--mode", mode];
        let ran = place.run(&args).expect(1);
        let end = "\n3 x connection error: connection refused: BR CN US\n\
                   To go on: coordinator --retry-failed\n";
        assert!(ran.stdout.ends_with(end), "{ran:#?}");
        let elsewhere = ["--log-dir", "my logs", "--json"];
        let summary = place.run(&[&args[..], &elsewhere].concat()).expect(1).summary().all;
        let cause = "connection error: connection refused";
        let errors = json!([{"cause": cause, "count": 3, "codes": ["BR", "CN", "US"]}]);
        assert_eq!(summary["errors"], errors);
        assert_eq!(summary["next"], "coordinator --retry-failed --log-dir 'my logs'");
        let ran = place.run(&[&args[..], &["--no-logs"]].concat()).expect(1);
        assert!(!ran.stdout.contains("To go on"), "{ran:?}");
        assert!(ran.stderr.contains("no log was kept of this run"), "{ran:?}");
    }
}

#[test]
fn errors_whose_messages_differ_are_one_cause() {
    for mode in MODES {
        let place = ProgramDir::new();
        for code in ["br", "cn"] {
            let dir = place.path(format!("downloads/{code}.gif/in the way"));
            std::fs::create_dir_all(dir).unwrap();
        }
        let ran = place.run(&["br", "cn", "us", "--mode", mode]).expect(1);
        let line = ran.stdout.lines().find(|line| line.starts_with("2 x cannot save in "));
        assert!(line.is_some_and(|line| line.ends_with(": BR CN")), "{ran:#?}");
    }
    let place = ProgramDir::new();
    let stalling = HostileServer::start(Behaviour::Stall);
    let args = ["br", "cn", "-s", &stalling.base_url(), "--task-timeout", "0.3"];
    let ran = place.run(&args).expect(1);
    assert!(ran.stdout.contains("\n2 x task ran longer than 300 ms: BR CN\n"), "{ran:#?}");
}

#[test]
fn only_the_report_is_on_stdout_and_only_the_path_of_the_logs_on_stderr() {
    let place = ProgramDir::new();
    for mode in MODES {
        let ran = place.run(&["br", "us", "--mode", mode]).expect(0);
        assert_eq!(ran.stdout.lines().count(), 7, "{ran:#?}");
        let dir = ran.stderr.strip_prefix("logs: ").and_then(|rest| rest.strip_suffix('\n'));
        let dir = dir.unwrap_or_else(|| panic!("{ran:#?}"));
        assert!(dir.starts_with("logs/") && place.path(dir).is_dir(), "{dir}");
    }
}

#[test]
fn verbose_prints_a_line_for_each_flag() {
    let place = ProgramDir::new();
    let told = |ran: &FinishedProgram| {
        ran.stdout.lines().skip(3).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let busy = HostileServer::start(Behaviour::StrangeStatus(503, "Busy"));
    for mode in MODES {
        let ran = place.run(&["br", "zz", "-v", "--mode", mode]).expect(0);
        assert!(told(&ran).is_superset(&["BR ok", "ZZ not found"].map(str::to_owned).into()));
        assert_eq!(ran.stdout.lines().count(), 3 + 2 + 5, "{ran:#?}");
        let ran = place.run(&["ke", "-v", "--mode", mode, "-s", &busy.base_url()]).expect(1);
        assert!(told(&ran).contains("*** Error for KE: HTTP 503 - Service Unavailable"));
    }
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn json_is_a_line_for_each_code_then_a_summary_and_nothing_else() {
    let place = ProgramDir::new();
    let busy = HostileServer::start(Behaviour::StrangeStatus(503, "Busy"));
    let url = busy.base_url();
    for (mode, workers, connections) in
        [("sequential", 0, 1), ("threads", 0, 2), ("processes", 2, 2)]
    {
        let how = [&["--json"], &how(mode, "2", "2")[..]].concat();
        let ran = place.run(&[&["br", "zz"], &how[..]].concat()).expect(0);
        let summary = ran.summary();
        assert_eq!(summary.counts(), [1, 1, 0]);
        assert_eq!(
            keys(&summary.all),
            BTreeSet::from([
                "server",
                "mode",
                "workers",
                "connections",
                "ok",
                "not_found",
                "error",
                "not_done",
                "total",
                "dest",
                "elapsed_s",
                "interrupted",
            ])
        );
        assert_eq!(summary.all["server"], "LOCAL");
        assert_eq!(summary.all["mode"], mode);
        assert_eq!(summary.all["workers"], workers);
        assert_eq!(summary.all["connections"], connections);
        assert_eq!(summary.all["interrupted"], false);
        assert!(summary.all["elapsed_s"].as_f64().unwrap() > 0.0);

        let lines = ran.json();
        let line = |code| lines.iter().find(|line| line["code"] == code).unwrap();
        let common = [
            "code",
            "status",
            "url",
            "http",
            "started",
            "ts",
            "elapsed_ms",
            "attempt",
            "worker",
            "pid",
        ];
        let common = BTreeSet::from(common);
        assert_eq!(keys(line("BR")), &common | &["bytes", "path"].into());
        assert_eq!(line("BR")["bytes"], place.files("downloads")["br.gif"].len());
        let flag = &line("BR")["path"];
        assert_eq!(Path::new(flag.as_str().unwrap()), place.path("downloads/br.gif"));
        assert_eq!(keys(line("ZZ")), common);

        let ran = place.run(&[&["ke", "-s", &url], &how[..]].concat()).expect(1);
        assert_eq!(ran.summary().all["server"], *url);
        assert_eq!(keys(&ran.json()[0]), &common | &["error"].into());
        assert_eq!(ran.errors()["KE"], "HTTP 503 - Service Unavailable");
    }
}

#[test]
fn each_process_keeps_a_log() {
    // In the last one each worker has time enough to come into play.
    for (mode, workers, server) in
        [("sequential", 0, "LOCAL"), ("threads", 0, "LOCAL"), ("processes", 2, "DELAY")]
    {
        let place = ProgramDir::new();
        place.run(&[&["b", "c", "-s", server], &how(mode, "2", "26")[..]].concat()).expect(0);
        let logs = place.logs();
        assert_eq!(logs.len(), workers + 1, "{:?}", logs.keys());
        let mut tasks = BTreeSet::new();
        for (name, lines) in &logs {
            let of = |event: &'static str| lines.iter().filter(move |line| line["event"] == event);
            assert_eq!(lines[0]["event"], "start", "{name}");
            assert_eq!(of("start").count(), 1, "{name}");
            let end = lines.last().unwrap();
            assert_eq!((&end["event"], &end["exit_code"]), (&"exit".into(), &0.into()), "{name}");
            for line in lines {
                let process = line["process"].as_str().unwrap();
                let worker = line.get("worker").map(|worker| format!("-{worker}"));
                let expected =
                    format!("{process}{}-{}.jsonl", worker.unwrap_or_default(), line["pid"]);
                assert_eq!(*name, expected);
            }
            for task in of("task") {
                let is_there = task["http"] == 200;
                assert_eq!(task["status"], if is_there { "ok" } else { "not_found" });
                assert_eq!(task["bytes"].as_u64() > Some(0), is_there);
                assert_eq!(task["attempt"], 1);
                assert!(task["elapsed_ms"].as_f64() > Some(0.0));
                assert!(tasks.insert(task["code"].to_string()), "{task} is there twice");
            }
            let is_busy = of("task").count() > 0;
            assert_eq!(is_busy, workers == 0 || name.starts_with("worker"), "{name}");
        }
        assert_eq!(tasks.len(), 52);
    }
}

#[test]
fn logs_lie_where_they_are_asked_for_or_nowhere() {
    let place = ProgramDir::new();
    for mode in MODES {
        let ran = place.run(&["br", "--no-logs", "--mode", mode]).expect(0);
        assert_eq!(ran.stderr, "");
        assert!(!place.path("logs").exists());
        let ran = place.run(&["br", "--log-dir", "a/b", "--mode", mode]).expect(0);
        assert!(ran.stderr.starts_with("logs: a/b/"), "{ran:?}");
        assert!(!place.path("logs").exists());
    }
    assert_eq!(place.path("a/b").read_dir().unwrap().count(), MODES.len() + 1, "and a link");
}

#[test]
fn there_are_no_escape_codes_unless_asked_for_or_on_a_terminal() {
    let place = ProgramDir::new();
    for mode in MODES {
        for args in [&["br", "zz"][..], &["br", "zz", "-v"], &["br", "zz", "--json"]] {
            let ran = place.run(&[args, &["--mode", mode]].concat()).expect(0);
            assert!(!(ran.stdout + &ran.stderr).contains('\x1b'), "{args:?}");
        }
        let coloured = ["br", "zz", "-v", "--color", "always", "--mode", mode];
        let ran = place.run(&coloured).expect(0);
        assert!(ran.stdout.contains("\x1b[33mZZ not found\x1b[0m\n"), "{ran:?}");
        assert!(ran.stdout.contains("BR ok\n"), "{ran:?}");
    }
}

#[test]
fn the_bar_is_drawn_on_stderr_and_can_be_asked_for() {
    let place = ProgramDir::new();
    let coloured = |args: &[&str]| {
        let ran = place.run(&[args, &["br", "us", "--progress", "bar"]].concat()).expect(0);
        assert!(!ran.stdout.contains('\x1b'), "{ran:?}");
        assert!(ran.stderr.contains("0/2"), "{ran:?}");
        ran.stderr.contains("\x1b[32m")
    };
    assert!(!coloured(&[]));
    assert!(!coloured(&["--color", "never"]));
    assert!(coloured(&["--color", "always"]));
    assert!(coloured(&["--color", "always", "--json"]));
}
