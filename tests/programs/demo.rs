//! `coordinator demo …`: each shows what its section of the book shows, in every mode.

#![cfg(target_os = "linux")]

use crate::hostile::{Behaviour, HostileServer};
use crate::programs::{FinishedProgram, MODES, ProgramDir, RunningProgram, wait_until_gone};
use rustix::process::Signal;

const BOOK: &str = "CN IN US ID BR PK NG BD RU JP MX PH VN ET EG DE IR TR CD FR";

fn demo(place: &ProgramDir, args: &[&str]) -> FinishedProgram {
    place.run(&[&["demo"], args].concat())
}

/// The line, which ends with a number of seconds, without that.
#[track_caller]
fn before_seconds(line: &str) -> &str {
    let (line, seconds) = line.rsplit_once(' ').unwrap();
    let number = seconds.strip_suffix('s').unwrap_or_else(|| panic!("{line} {seconds}"));
    assert!(number.parse::<f64>().is_ok() && number.len() >= 4, "{line} {seconds}");
    line
}

#[test]
fn flags_are_named_as_they_arrive_then_counted() {
    for mode in MODES {
        let place = ProgramDir::new();
        let ran = demo(&place, &["flags", "-s", "LOCAL", "--mode", mode]).expect(0);
        let [codes, last] = ran.stdout.lines().collect::<Vec<_>>()[..] else { panic!("{ran:#?}") };
        assert_eq!(before_seconds(last), "20 flags downloaded in");
        assert!(codes.ends_with("  "), "{codes:?}");
        let mut shown: Vec<_> = codes.split_terminator("  ").collect();
        let mut book: Vec<_> = BOOK.split(' ').collect();
        if mode != "sequential" {
            shown.sort_unstable();
            book.sort_unstable();
        }
        assert_eq!(shown, book);
        assert_eq!(place.flags("downloads").len(), 20);
        assert_eq!(ran.stderr, "");
    }
}

#[test]
fn flags_that_fail_are_reported_and_not_counted() {
    let place = ProgramDir::new();
    let server = HostileServer::start(Behaviour::StrangeStatus(503, "Busy"));
    for mode in MODES {
        let ran = demo(&place, &["flags", "-s", &server.base_url(), "--mode", mode]).expect(1);
        let told = "\n*** Error for BR: HTTP 503 - Service Unavailable\n";
        assert!(ran.stdout.contains(told), "{ran:#?}");
        assert!(ran.stdout.contains("\n0 flags downloaded in "), "{ran:#?}");
    }
}

#[test]
fn futures_are_shown_when_they_are_made_and_when_they_are_done() {
    for mode in MODES {
        let place = ProgramDir::new();
        let show = || demo(&place, &["futures", "--mode", mode]).expect(0);
        // If the program itself is held up for half a second, workers are free again.
        let is_held_up = |ran: &FinishedProgram| ran.stdout.matches("state=running").count() > 3;
        let ran = (0..5).map(|_| show()).find(|ran| !is_held_up(ran)).expect("a quiet moment");
        let scheduled = |code: &str, state: &str| {
            let line = format!("Scheduled for {code}: <Future state={state}>\n");
            assert!(ran.stdout.contains(&line), "{line}{ran:#?}");
        };
        let [first, last] = match mode {
            "sequential" => ["finished returned String"; 2],
            _ => ["running", "pending"],
        };
        ["BR", "CN", "ID"].into_iter().for_each(|code| scheduled(code, first));
        ["IN", "US"].into_iter().for_each(|code| scheduled(code, last));
        for code in ["BR", "CN", "ID", "IN", "US"] {
            let done = format!("<Future state=finished returned String> result: {code:?}\n");
            let shown = ran.stdout.find(&format!("{code}  ")).unwrap();
            assert!(shown < ran.stdout.find(&done).unwrap(), "{ran:#?}");
        }
        let last = ran.stdout.lines().last().unwrap();
        assert_eq!(before_seconds(last), "5 flags downloaded in");
        assert_eq!(place.flags("downloads").len(), 5);
    }
}

#[test]
fn map_gives_results_in_order_while_later_ones_run() {
    for mode in MODES {
        let ran = demo(&ProgramDir::new(), &["map", "--mode", mode, "--speed", "5"]).expect(0);
        // Each with the time of day before it.
        let unstamped = |line: &str| {
            let (time, line) = line.split_at(11);
            assert!(time.starts_with('[') && time.ends_with("] "), "{time}");
            assert_eq!(time.bytes().filter(u8::is_ascii_digit).count(), 6, "{time}");
            line.to_owned()
        };
        let lines: Vec<_> = ran.stdout.lines().map(unstamped).collect();
        let at = |line: &str| lines.iter().position(|other| other == line).expect(line);
        assert_eq!((at("Script starting."), lines.len()), (0, 3 + 5 * 3));
        assert!(at("Waiting for individual results:") < at("loiter(0): done."));
        for n in 0..5 {
            let tabs = "\t".repeat(n);
            let begun = at(&format!("{tabs}loiter({n}): doing nothing for {n}s..."));
            let done = at(&format!("{tabs}loiter({n}): done."));
            let result = at(&format!("result {n}: {}", n * 10));
            assert!(begun < done && done < result, "{ran:#?}");
            assert!(n == 0 || at(&format!("result {}: {}", n - 1, (n - 1) * 10)) < result);
        }
        let last_begins = at("\t\t\t\tloiter(4): doing nothing for 4s...");
        let is_ahead = last_begins < at("result 2: 20");
        assert_eq!(is_ahead, mode != "sequential", "{ran:#?}");
        assert!(at("result 1: 10") < at("\t\t\t\tloiter(4): done."), "{ran:#?}");
    }
}

#[test]
fn cpu_shows_what_workers_are_worth_and_where_they_are_not() {
    let args = ["cpu", "--jobs", "1", "--workers", "2", "--mode"];
    for (mode, who) in [("threads", ["1 thread", "2 threads"]), ("processes", WORKERS)] {
        let ran = demo(&ProgramDir::new(), &[&args[..], &[mode]].concat()).expect(0);
        let lines: Vec<_> = ran.stdout.lines().collect();
        assert_eq!(lines.len(), 3 + 3 + 3, "{ran:#?}");
        for kind in [0, 3] {
            assert!(lines[kind].starts_with("1 job for the CPU: "), "{ran:#?}");
            let alone = format!("  {}, elapsed time:", who[0]);
            assert_eq!(before_seconds(lines[kind + 1]), alone);
            assert!(lines[kind + 2].starts_with(&format!("  {}, elapsed time: ", who[1])));
            assert!(lines[kind + 2].ends_with(" times as fast"), "{ran:#?}");
        }
        assert_eq!(before_seconds(lines[8]), "  20 threads, elapsed time:");
    }
}

const WORKERS: [&str; 2] = ["1 worker process", "2 worker processes"];

/// Whether these are there, each behind the one before it.
#[track_caller]
fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at =
            rest.find(part).unwrap_or_else(|| panic!("no {part:?} where it should be: {text}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn a_crash_costs_a_process_pool_one_flag() {
    let ran = demo(&ProgramDir::new(), &["crash", "-s", "LOCAL", "-w", "2"]).expect(0);
    assert_in_order(
        &ran.stdout,
        &[
            "20 flags from LOCAL, 2 worker processes; JP will cause a segmentation fault\n",
            " is ready: pid ",
            " is ready: pid ",
            " is there, by worker ",
            ") is gone: signal 11 (SIGSEGV)\n",
            "JP is lost: worker ",
            "19 flags downloaded, 1 lost\n",
            "the pool works on: JP once more, without the fault\n",
            "JP is there, by worker ",
            "20 flags of 20 are on disk\n",
        ],
    );
    assert_eq!(ran.stdout.matches(" is ready: pid ").count(), 3, "{ran:#?}");
    assert_eq!(ran.stdout.matches(" is there, by worker ").count(), 20, "{ran:#?}");
}

#[test]
fn a_crash_costs_everything_where_all_share_a_process() {
    for (mode, who) in [("sequential", "one after the other"), ("threads", "4 threads")] {
        let ran = demo(&ProgramDir::new(), &["crash", "-s", "LOCAL", "--mode", mode]).expect(0);
        assert_in_order(
            &ran.stdout,
            &[
                &format!("20 flags from LOCAL, {who}; JP will cause a segmentation fault\n"),
                "all in one process, pid ",
                " is there\n",
                "the whole program is gone: signal 11 (SIGSEGV)\n",
                " flags of 20 are on disk; the others are lost",
            ],
        );
        assert!(!ran.stdout.contains("JP is there"), "{ran:#?}");
    }
}

#[test]
fn an_interrupted_demonstration_leaves_nothing_behind() {
    let place = ProgramDir::new();
    std::fs::create_dir(place.path("tmp")).unwrap();
    let mut command = place.coordinator(&["demo", "crash", "-w", "2"]);
    let run = RunningProgram::start(command.env("TMPDIR", place.path("tmp")));
    run.wait_for_stdout(" is there, by worker ");
    let workers = run.workers(2);
    run.signal(Signal::INT);
    assert_eq!(run.wait().code(), 130);
    wait_until_gone(&workers);
    let left: Vec<_> = place.path("tmp").read_dir().unwrap().flatten().collect();
    // Sockets of a program that was killed are swept by the next one.
    let flags = left.iter().filter(|entry| entry.path().to_string_lossy().contains("demo"));
    assert_eq!(flags.count(), 0, "{left:?}");
}

#[test]
fn a_reader_may_close_the_pipe_early() {
    for demo in ["map", "flags", "crash"] {
        let place = ProgramDir::new();
        std::fs::create_dir(place.path("tmp")).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = place.coordinator(&["demo", demo]);
        command.env("TMPDIR", place.path("tmp")).stdout(writer);
        RunningProgram::start(&mut command).wait().expect(141);
        let left: Vec<_> = place.path("tmp").read_dir().unwrap().flatten().collect();
        assert!(left.is_empty(), "{demo}: {left:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = ProgramDir::new();
    for (args, reason) in [
        (&["nothing"][..], "unrecognized subcommand 'nothing'"),
        (&[], "Usage: coordinator demo <COMMAND>"),
        (&["map", "--workers", "0"], "--workers N must be 1 to 1000"),
        (&["map", "--speed", "0"], "--speed"),
        (&["flags", "--mode", "fibers"], "--mode"),
        (&["cpu", "--jobs", "x"], "--jobs N must be 1 to 1000"),
    ] {
        let ran = demo(&place, args).expect(2);
        assert!(ran.stderr.contains(reason), "{ran:#?}");
        assert_eq!(ran.stdout, "");
    }
    let file = place.file("occupied", "");
    let ran = demo(&place, &["flags", "-d", &file]).expect(3);
    assert!(ran.stderr.contains("is not a directory"), "{ran:#?}");
}
