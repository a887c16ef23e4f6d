//! `coordinator logs`: every process of a run in one view, while it goes on and after it ended,
//! however it ended, and whatever has become of the files.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead, Write};
use std::process::Stdio;

use crate::programs::{
    FinishedProgram, MODES, ProgramDir, RunningProgram, kill, skipped, wait_until, wait_until_gone,
};
use rustix::process::Signal;
use serde_json::Value;

/// What `logs --summary --json` tells of the latest run.
fn summary(place: &ProgramDir) -> Value {
    let ran = place.run(&["logs", "--summary", "--json"]).expect(0);
    assert_eq!(ran.stderr, "");
    ran.json().pop().unwrap()
}

fn counts(numbers: &Value) -> [usize; 3] {
    ["ok", "not_found", "error"].map(|name| numbers[name].as_u64().unwrap() as usize)
}

fn sum(summary: &Value, number: &str) -> u64 {
    let rows = summary["processes"].as_array().unwrap();
    rows.iter().map(|row| row[number].as_u64().unwrap()).sum()
}

#[test]
fn the_numbers_are_those_of_the_report_in_every_mode() {
    for mode in MODES {
        let place = ProgramDir::new();
        let ran = place.run(&["a", "b", "-s", "LOCAL", "--mode", mode, "--json"]).expect(0);
        let told = summary(&place);
        let summary = &told["summary"];
        assert_eq!(counts(summary), ran.summary().counts());
        assert_eq!(counts(&told["report"]), ran.summary().counts());
        assert_eq!([sum(summary, "ok"), sum(summary, "runs")], [ran.summary().ok as u64, 52]);
        for row in summary["processes"].as_array().unwrap() {
            assert!(row["cpu_s"].as_f64() > Some(0.0), "{row}");
            assert!(row["peak_memory"].as_u64() > Some(1 << 20), "{row}");
        }
    }
}

#[test]
fn a_worker_that_was_killed_is_reported_with_the_tasks_that_were_lost() {
    let place = ProgramDir::new();
    let args = ["-e", "-l", "200", "-s", "ERROR", "--seed", "7", "-w", "2", "-m", "30"];
    let run = place.start(&[&args[..], &["--retries", "2", "--json"]].concat());
    wait_until("half is done", || run.stdout().lines().count() > 100);
    let killed = run.workers(2)[0];
    kill(killed, Signal::KILL);
    let ran = run.wait();
    let report = ran.summary();
    let told = summary(&place);
    let summary = &told["summary"];
    assert_eq!(counts(summary), report.counts());
    assert_eq!(counts(&told["report"]), report.counts());
    let all = summary["processes"].as_array().unwrap();
    let row = all.iter().find(|row| row["pid"] == killed).unwrap();
    assert_eq!(row["how"], "signal 9 (SIGKILL)");
    let lost = row["lost"].as_u64().unwrap();
    assert!((1..=15).contains(&lost), "{row}");
    assert!(row["cpu_s"].as_f64() > Some(0.0) && row["peak_memory"].as_u64() > Some(1 << 20));
    // Its log tells the same, line by line.
    let lines = place.run(&["logs", "--json", "--pid", &killed.to_string()]).expect(0).json();
    let end = lines.last().unwrap();
    assert_eq!((&end["event"], &end["child_pid"]), (&"worker_exited".into(), &killed.into()));
    let lines = place.run(&["logs", "--json"]).expect(0).json();
    let retried = lines.iter().filter(|line| line["event"] == "task_retried").count();
    // One whose answer was under way when its worker died ran twice, and was not lost.
    let (retried, runs) = (retried as u64, sum(summary, "runs"));
    assert!(retried >= lost && (200 + lost..=200 + retried).contains(&runs), "{retried} {summary}");
    let text = place.run(&["logs", "--summary"]).expect(0).stdout;
    assert!(text.contains("signal 9 (SIGKILL)") && text.contains("Slowest tasks"), "{text}");
}

#[test]
fn lines_are_merged_by_time_and_chosen_by_who_and_what() {
    let place = ProgramDir::new();
    let args = ["-e", "-l", "60", "-s", "ERROR", "-w", "2", "-m", "20", "--json"];
    let ran = place.run(&args);
    let report = ran.summary();
    let logs = |args: &[&str]| place.run(&[&["logs", "--json"], args].concat()).expect(0).json();
    let all = logs(&[]);
    assert!(all.is_sorted_by_key(|line| line["ts"].as_str().unwrap().to_owned()));
    assert_eq!(all.len(), place.logs().values().map(Vec::len).sum::<usize>());
    let errors = logs(&["--status", "error"]);
    assert_eq!(errors.len(), report.error);
    assert!(errors.iter().all(|line| line["status"] == "error" && line["event"] == "task"));
    let code = ran.errors().into_keys().next().unwrap();
    let about = logs(&["--code", &code.to_lowercase()]);
    let events: Vec<_> = about.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["task_started", "task", "error_received"]);
    let of_one = logs(&["--worker", "1"]);
    assert!(of_one.iter().all(|line| line["worker"] == 1 || line["child"] == 1));
    assert!(of_one.iter().any(|line| line["event"] == "worker_exited"), "the coordinator's word");
    assert_eq!(logs(&["--level", "error"]).len(), report.error);
    assert_eq!(logs(&["--since", "+1h"]).len(), 0);
    let none = place.run(&["logs", "--code", "QQ"]).expect(0);
    let told = format!("of the {} lines of ", all.len());
    assert!(none.stdout.is_empty() && none.stderr.contains(&told), "{none:?}");
    assert!(none.stderr.ends_with(" is of this kind\n"), "{none:?}");
    assert_eq!(logs(&["--since", "1h"]).len(), all.len());
    assert_eq!(logs(&["-n", "3"]), all[all.len() - 3..]);
    let text = place.run(&["logs", "-n", "1"]).expect(0).stdout;
    assert!(text.contains("ends with exit code 1"), "{text}");
}

#[test]
fn a_run_in_progress_is_followed_to_its_end_from_before_it_began() {
    let place = ProgramDir::new();
    let follower = place.start(&["logs", "--follow"]);
    wait_until("it waits for a run", || follower.stderr().contains("waiting for a run in logs"));
    // It would take most of a minute.
    let run = place.start(&["-a", "-s", "DELAY", "-w", "2", "--json"]);
    wait_until("some are done", || run.stdout().lines().count() >= 2);
    wait_until("what is done is shown", || follower.stdout().matches(" ok, ").count() >= 2);
    let list = place.run(&["logs", "--list"]).expect(0).stdout;
    assert!(list.contains("it goes on"), "{list}");
    let told = place.run(&["logs", "--summary"]).expect(0);
    assert!(told.stdout.contains("; it goes on\n") && told.stderr.is_empty(), "{told:#?}");
    run.signal(Signal::INT);
    run.wait().expect(130);
    let seen = follower.wait().expect(0);
    assert!(seen.stdout.ends_with("ends with exit code 130\n"), "{seen:#?}");

    // One that is over is not what is followed, once it cannot be taken for one that just began.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let follower = place.start(&["logs", "--follow"]);
    wait_until("it waits for the next", || follower.stderr().contains(" is over, and coordinator"));
    place.run(&["br", "--mode", "threads"]).expect(0);
    let seen = follower.wait().expect(0);
    assert_eq!(seen.stdout.matches("BR ok").count(), 1, "{seen:#?}");
    assert!(seen.stdout.ends_with("ends with exit code 0\n"), "{seen:#?}");
}

#[test]
fn whatever_lies_among_the_logs_the_rest_is_shown() {
    let place = ProgramDir::new();
    place.run(&["br", "zz", "--mode", "threads"]).expect(0);
    let whole = place.run(&["logs"]).expect(0);
    assert_eq!((whole.stderr.as_str(), whole.stdout.matches("BR ok").count()), ("", 1));
    let latest = place.path("logs/latest");
    let put = |name: &str, bytes: &[u8]| fs::write(latest.join(name), bytes).unwrap();
    let line = |text: &str| {
        format!(
            r#"{{"ts":"2026-11-22T23:49:32.123456Z","level":"info","process":"worker","worker":0,"pid":7,"event":"output","stream":"stdout","text":"{text}"}}"#
        )
    };
    put("worker-0-1.jsonl", b"");
    put("worker-1-2.jsonl", &line("caf\u{e9}").as_bytes()[..line("caf\u{e9}").len() - 3]);
    put("worker-2-3.jsonl", b"\0\x01\xff garbage \x1b[2J\n[]\n\"x\"\n");
    put(
        "worker-3-4.jsonl",
        (line("before") + "\n" + &"x".repeat(3 << 20) + "\n" + &line("after")).as_bytes(),
    );
    put("notes.txt", b"mine");
    put("worker-4-5.jsonl", br#"{"ts":"2026-11-22T23:49:32.2Z","level":"info","process":"worker","worker":4,"pid":5,"event":"start","version":"0.0.9","build":"x","args":[]}"#);
    fs::create_dir(latest.join("worker-5-6.jsonl")).unwrap();
    for args in [&["logs"][..], &["logs", "--json"], &["logs", "--summary"], &["logs", "--list"]] {
        let ran = place.run(args).expect(0);
        assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'), "{ran:#?}");
    }
    let ran = place.run(&["logs"]).expect(0);
    for shown in ["BR ok", "ZZ not found", "says: before", "says: after", "version 0.0.9"] {
        assert_eq!(ran.stdout.matches(shown).count(), 1, "{shown}: {ran:#?}");
    }
    for told in [
        "worker-0-1.jsonl: it is empty",
        "worker-1-2.jsonl: line 1 is cut short",
        "worker-2-3.jsonl: line 1 is no line of a log, and 2 more",
        "worker-3-4.jsonl: line 2 is longer than any of ours",
        "notes.txt: it is no log of ours",
        "worker-5-6.jsonl: cannot be read",
        "a file is of another version of procession (0.0.9)",
        "worker 4 (pid 5) left no last line: it was killed",
    ] {
        assert_eq!(ran.stderr.matches(told).count(), 1, "{told}: {ran:#?}");
    }

    fs::create_dir(place.path("mine")).unwrap();
    for name in 'a'..='f' {
        fs::write(place.path("mine").join(name.to_string()), "mine").unwrap();
    }
    let ran = place.run(&["logs", "./mine"]).expect(0);
    let told = "coordinator: a, b, c, d and 2 more: they are no logs of ours\n";
    assert_eq!(ran.stderr, told, "{ran:#?}");
}

#[test]
fn so_many_runs_are_kept_and_each_can_be_named() {
    let place = ProgramDir::new();
    let names: Vec<String> = (0..4)
        .map(|_| {
            let ran = place.run(&["br", "--mode", "sequential", "--keep-runs", "2"]).expect(0);
            ran.stderr.trim().rsplit('/').next().unwrap().to_owned()
        })
        .collect();
    let kept = |name: &&String| place.path("logs").join(name).exists();
    assert_eq!(names.iter().filter(kept).collect::<Vec<_>>(), [&names[2], &names[3]]);
    let list = place.run(&["logs", "--list"]).expect(0).stdout;
    assert!(list.contains(&names[2]) && list.contains(&format!("{} (latest)", names[3])), "{list}");
    let listed = place.run(&["logs", "--list", "--json"]).expect(0).json();
    let told =
        |row: &Value| (row["run"].clone(), row["is_latest"].clone(), row["report"]["ok"].clone());
    let expected = [(&names[3], true), (&names[2], false)];
    let expected = expected.map(|(name, is_latest)| (name[..].into(), is_latest.into(), 1.into()));
    assert_eq!(listed.iter().map(told).collect::<Vec<_>>(), expected);
    let newest = place.run(&["logs", "--list", "-n", "1"]).expect(0).stdout;
    assert!(newest.contains(&names[3]) && !newest.contains(&names[2]), "{newest}");
    let pid = names[2].rsplit('-').next().unwrap();
    let by = |run: &str| place.run(&["logs", run, "--json"]).expect(0).json();
    assert_eq!(by(pid)[0]["pid"].to_string(), pid);
    assert_eq!(by(&format!("logs/{}", names[2])), by(pid));
    assert_eq!(by(&format!("logs/{}/coordinator-{pid}.jsonl", names[2])), by(pid));
}

#[test]
fn a_run_that_could_write_nothing_is_reported_as_such() {
    let place = ProgramDir::new();
    let ran = place.run(&["br", "--mode", "sequential"]).expect(0);
    for log in place.logs().keys() {
        fs::write(place.path("logs/latest").join(log), "").unwrap();
    }
    let ends = |told: &str| {
        let list = place.run(&["logs", "--list"]).expect(0).stdout;
        assert!(list.lines().last().unwrap().ends_with(told), "{ran:?} {list}");
    };
    ends("left no log");
    let shown = place.run(&["logs"]).expect(0);
    assert!(shown.stderr.ends_with(".jsonl: it is empty\n"), "{shown:?}");
    let resumed = place.run(&["--resume"]).expect(3);
    assert!(resumed.stderr.contains("an older run may be meant"), "{resumed:?}");
    for log in place.logs().keys() {
        fs::write(place.path("logs/latest").join(log), [200; 5000]).unwrap();
    }
    ends("cannot be read");
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let place = ProgramDir::new();
    let none = place.run(&["logs"]).expect(3);
    assert!(none.stderr.contains("there are no logs of runs in logs: go to "), "{none:?}");
    assert!(place.run(&["logs", "--list"]).expect(0).stdout.contains("no logs of runs"));
    for mode in ["sequential", "threads"] {
        place.run(&["br", "--mode", mode]).expect(0);
    }
    for (args, code, told) in [
        (&["nowhere"][..], 3, "is named \"nowhere\""),
        (&["20"], 3, "may be any of"),
        (&["--status", "bad"], 2, "--status STATUS must be ok, not_found, error or not_done"),
        (&["-n", "-1"], 2, "-n LINES must be a whole number >= 0"),
        (&["--worker", "x"], 2, "--worker N must be a whole number"),
        (&["--level", "loud"], 2, "--level LEVEL must be"),
        (&["--since", "then"], 2, "--since WHEN must be"),
        (&["--code", "BRA"], 2, "a country code is two letters"),
        (&["--list", "--follow"], 2, "cannot be used with"),
        (&["--list", "--worker", "1"], 2, "cannot be used with '--worker"),
        (&["--summary", "--code", "BR"], 2, "cannot be used with '--code"),
    ] {
        let ran: FinishedProgram = place.run(&[&["logs"], args].concat()).expect(code);
        assert!(ran.stderr.contains(told), "{ran:?}");
    }
    let refused = place.run(&["br", "--keep-runs", "0"]).expect(2);
    assert!(refused.stderr.contains("--keep-runs N must be >= 1"), "{refused:?}");
}

/// The most memory that a process had so far, in bytes.
fn most_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    most.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Merged from four files and filtered, within the memory of a few lines.
#[test]
fn a_million_lines_need_next_to_no_memory() {
    let _cores = crate::programs::all_cores();
    const LINES: u64 = 1_000_000;
    let place = ProgramDir::new();
    let dir = place.path("logs/2026-11-22T23-49-32-7");
    fs::create_dir_all(&dir).unwrap();
    let file = |worker: u64| {
        let file = fs::File::create(dir.join(format!("worker-{worker}-{worker}.jsonl"))).unwrap();
        std::io::BufWriter::with_capacity(1 << 20, file)
    };
    let mut files: Vec<_> = (0..4).map(file).collect();
    for n in 0..LINES {
        let (second, micro) = (n / 100_000, n % 100_000 * 10);
        let status = if n % 1000 == 0 { "error" } else { "ok" };
        let worker = n * 7 % 4;
        let line = format!(
            r#"{{"ts":"2026-11-22T23:49:{second:02}.{micro:06}Z","level":"info","process":"worker","worker":{worker},"pid":{worker},"event":"task","code":"BR","slot":0,"status":"{status}","elapsed_ms":0.1,"attempt":1}}"#
        );
        writeln!(files[worker as usize], "{line}").unwrap();
    }
    drop(files);
    let mut command = place.coordinator(&["logs", "--json", "--status", "error"]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let told = std::io::BufReader::new(child.stdout.take().unwrap());
    let (mut times, mut memory) = (Vec::new(), 0);
    for line in told.lines() {
        times.push(line.unwrap()[..35].to_owned());
        // The rest does not fit into the pipe, so it is still there. What `wait4` tells as the most
        // memory may be that of this process, from before the program was executed.
        if times.len() as u64 == LINES / 2000 {
            memory = most_memory(child.id());
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(times.len() as u64, LINES / 1000);
    assert!(times.is_sorted());
    assert!(memory > 1 << 20, "{memory}");
    assert!(memory < 50 << 20, "{memory}");
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let place = ProgramDir::new();
    place.run(&["-a", "--mode", "threads"]).expect(0);
    let mut command = place.coordinator(&["logs"]);
    command.stdout(Stdio::null());
    let ran = RunningProgram::start(&mut command).wait().expect(0);
    assert_eq!(ran.stderr, "");
    let mut child = place.coordinator(&["logs"]).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
}

/// A file system of this size in KiB, until this is dropped; none where that is not permitted.
struct SmallDisk<'p>(&'p ProgramDir, &'static str);

impl<'p> SmallDisk<'p> {
    fn mount(place: &'p ProgramDir, name: &'static str, size: &str) -> Option<Self> {
        fs::create_dir(place.path(name)).unwrap();
        let args = ["-t", "tmpfs", "-o", &format!("size={size}"), "none", name];
        let mounted = place.command("mount".as_ref(), &args).status();
        let is_mounted = mounted.is_ok_and(|status| status.success());
        if !is_mounted {
            eprintln!("skipped: this user may not mount a file system");
        }
        is_mounted.then_some(Self(place, name))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let unmounted = self.0.command("umount".as_ref(), &[self.1]).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_log_on_a_full_disk_has_the_end_of_the_run_and_the_number_of_missing_lines() {
    for mode in MODES {
        let place = ProgramDir::new();
        let Some(_disk) = SmallDisk::mount(&place, "disk", "200k") else {
            return skipped("this user cannot mount a small disk");
        };
        let dirs = ["--log-dir", "disk/logs", "--dest", "disk/flags"];
        let ran = place.run(&[&["-e", "--json", "--mode", mode], &dirs[..]].concat()).expect(1);
        let report = ran.summary();
        assert!(report.error > 0 && report.ok > 0 && report.not_found > 0, "{report:?}");
        for error in ran.errors().values() {
            assert!(error.contains("No space left on device"), "{error}");
        }
        let logs = |args: &[&str]| {
            let ran = place.run(&[args, &["--log-dir", "disk/logs"]].concat()).expect(0);
            assert!(
                !ran.stdout.contains("killed") && !ran.stderr.contains("it was killed"),
                "{ran:#?}"
            );
            ran
        };
        let told = logs(&["logs", "--summary", "--json"]).json().pop().unwrap();
        assert_eq!(counts(&told["summary"]), report.counts());
        assert_eq!(counts(&told["report"]), report.counts());
        let missing = &told["summary"]["missing"];
        assert_eq!(missing["why"], "the disk is full");
        let lines = missing["lines"].as_u64().unwrap();
        // Each code has two lines, and those that are there have their place on the disk.
        let there = logs(&["logs", "--json"]).json();
        let tasks = there.iter().filter(|line| line["event"] == "task").count() as u64;
        assert!(lines >= 676 - tasks && lines < 3 * 676 + 20, "{lines} of {tasks}");
        assert_eq!(told["summary"]["untold"], 676 - tasks);
        let sentence = format!("{lines} lines are missing: the disk is full");
        let list = logs(&["logs", "--list"]).stdout;
        let [ok, not_found, error] = report.counts();
        let row = list.lines().last().unwrap();
        let numbers = [ok, not_found, error].map(|count| count.to_string());
        for cell in numbers.iter().map(String::as_str).chain(["exit code 1", &sentence]) {
            assert!(row.contains(cell), "{cell}: {list}");
        }
        let head = format!("{ok} ok, {not_found} not found, {error} errors");
        for command in [&["logs", "--summary"][..], &["timeline"]] {
            let shown = logs(command);
            assert!(shown.stdout.contains(&head) && shown.stdout.contains(&sentence), "{shown:#?}");
        }
        assert!(logs(&["logs"]).stderr.contains(&sentence));
        let page = place.run(&["timeline", "--log-dir", "disk/logs", "--html", "-"]).expect(0);
        assert!(page.stdout.contains(&format!(r#""lines":{lines}"#)));
    }
}

#[test]
fn a_run_that_loses_no_line_leaves_no_reserve_and_a_killed_one_is_reported_as_killed() {
    let place = ProgramDir::new();
    place.run(&["br"]).expect(0);
    assert!(!place.files("logs/latest").contains_key("reserve.jsonl"));
    let run = place.start(&["-a", "-s", "DELAY", "-w", "1", "--json"]);
    run.wait_for_stdout("\n");
    let workers = run.workers(1);
    run.signal(Signal::KILL);
    assert_eq!(run.wait().code(), 128 + 9);
    wait_until_gone(&workers);
    assert!(place.files("logs/latest").contains_key("reserve.jsonl"));
    let list = place.run(&["logs", "--list"]).expect(0).stdout;
    assert!(list.lines().any(|line| line.ends_with("killed")), "{list}");
    let told = place.run(&["logs"]).expect(0);
    assert!(!told.stderr.contains("reserve") && told.stderr.contains("killed"), "{told:#?}");
    assert_eq!(summary_of(&place)["missing"], Value::Null);
}

/// The same, where its words on stderr are not looked at.
fn summary_of(place: &ProgramDir) -> Value {
    let told = place.run(&["logs", "--summary", "--json"]).expect(0).json().pop().unwrap();
    told["summary"].clone()
}

#[test]
fn a_limit_of_file_sizes_ends_no_program_and_is_reported() {
    let place = ProgramDir::new();
    let program = place.coordinator(&[]).get_program().to_str().unwrap().to_owned();
    // In units of 512 bytes or of 1 KiB, by the shell: enough for a flag and not for a log.
    let script = format!("ulimit -f 16; exec {program} -e --mode threads --json");
    let ran = RunningProgram::start(&mut place.command("sh".as_ref(), &["-c", &script])).wait();
    let ran = ran.expect(0);
    assert_eq!(ran.summary().counts(), [194, 482, 0]);
    let told = summary_of(&place);
    assert_eq!(counts(&told), [194, 482, 0]);
    let why = "the limit of file sizes (ulimit -f) is reached";
    assert_eq!(told["missing"]["why"], why);
}
