//! What ends a run before its time: Ctrl-C and SIGTERM, the death of a worker, the death of the
//! coordinator. Every code is accounted for, no process is left, and no file is half written.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::gate::GateServer;
use crate::hostile::{Behaviour, HostileServer};
use crate::programs::{
    FinishedProgram, MODES, PATIENCE, ProgramDir, RunningProgram, how, kill, wait_until,
    wait_until_gone,
};
use rustix::process::{Pid, Signal, kill_process_group};

/// The grace that requests in flight have, and then some: everything is slow on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Every code has its line, and those that were not done say so; gives the number of these.
#[track_caller]
fn not_done(ran: &FinishedProgram, total: usize) -> usize {
    let summary = ran.summary();
    assert_eq!(summary.all["total"], total);
    assert_eq!(summary.all["interrupted"], true);
    assert_eq!(summary.not_done, ran.not_done().len());
    summary.not_done
}

/// Interrupts a run that has begun, and waits for its end, which must come soon.
fn interrupt(run: RunningProgram, signal: Signal, code: i32) -> FinishedProgram {
    signal_and_wait(run, &[signal]).expect(code)
}

/// As [`interrupt`], with several signals that come at once.
fn signal_and_wait(run: RunningProgram, signals: &[Signal]) -> FinishedProgram {
    let workers = run.children();
    let began = Instant::now();
    signals.iter().for_each(|&signal| run.signal(signal));
    let ran = run.wait();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    wait_until_gone(&workers);
    ran
}

#[test]
fn an_interrupted_run_finishes_what_is_in_flight_and_reports_the_rest() {
    for mode in MODES {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let place = ProgramDir::new();
            let run = place.start(&["--all", "-s", "DELAY", "--json", "--mode", mode]);
            run.wait_for_stdout("\n");
            let ran = interrupt(run, signal, code);
            let summary = ran.summary();
            let not_done = not_done(&ran, 194);
            // Nothing is cut off: there was time for it.
            assert_eq!((summary.error, summary.ok), (0, 194 - not_done), "{mode}");
            assert!(not_done > 0 && summary.ok > 0, "{mode}: {:?}", summary.counts());
            assert_eq!(place.flags("downloads").len(), summary.ok);
            let logs = place.logs();
            let mut ends = logs.values().flatten().filter(|line| line["event"] == "worker_exited");
            assert!(ends.all(|end| end["how"] == "exit code 0"), "{logs:#?}");
            assert!(ran.stderr.starts_with("coordinator: interrupted: "), "{ran:?}");
            assert!(ran.stderr.contains("\nlogs: logs/"), "{ran:?}");
        }
    }
}

#[test]
fn a_server_that_stalls_cannot_hold_up_the_end() {
    for mode in MODES {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let server = HostileServer::start(Behaviour::Stall);
            let url = server.base_url();
            let place = ProgramDir::new();
            let run =
                place.start(&[&["--all", "-s", &url, "--json"], &how(mode, "4", "4")[..]].concat());
            let in_flight = if mode == "sequential" { 1 } else { 4 };
            wait_until("requests are in flight", || server.connections() == in_flight);
            let ran = interrupt(run, signal, code);
            assert_eq!(not_done(&ran, 194), 194, "{mode}");
            assert_eq!(place.files("downloads").len(), 0);
        }
    }
}

#[test]
fn a_person_gets_the_report_of_an_interrupted_run() {
    for mode in MODES {
        let place = ProgramDir::new();
        let run = place.start(&["--all", "-s", "DELAY", "--mode", mode]);
        run.wait_for_stdout("will be used.\n");
        let ran = interrupt(run, Signal::INT, 130);
        let lines: Vec<_> = ran.stdout.lines().skip(3).collect();
        let [rule, flags, not_done, .., elapsed, next] = lines[..] else { panic!("{ran:#?}") };
        assert!(not_done.ends_with(" not done."), "{ran:#?}");
        assert_eq!(next, "To go on: coordinator --resume");
        let number = |line: &str| line.split(' ').next().unwrap().parse::<u32>().unwrap();
        assert_eq!(number(flags) + number(not_done), 194, "{ran:#?}");
        assert!(rule.starts_with("----") && elapsed.starts_with("Elapsed time: "), "{ran:#?}");
    }
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    for mode in MODES {
        let server = HostileServer::start(Behaviour::Stall);
        let url = server.base_url();
        // Less than the grace would take; but a busy machine may need more than one try.
        let is_quick = || {
            let place = ProgramDir::new();
            let run = place.start(&["--all", "-s", &url, "--mode", mode, "--json"]);
            let before = server.connections();
            wait_until("a request is in flight", || server.connections() > before);
            let workers = run.children();
            let began = Instant::now();
            run.signal(Signal::INT);
            wait_until("it was heard", || run.stderr().contains("interrupted"));
            // What comes at once after the first is the same request.
            thread::sleep(Duration::from_millis(250));
            run.signal(Signal::INT);
            let ran = run.wait().expect(130);
            assert_eq!(not_done(&ran, 194), 194);
            let is_quick = began.elapsed() < Duration::from_millis(1900);
            wait_until_gone(&workers);
            is_quick
        };
        assert!((0..5).any(|_| is_quick()), "{mode}");
    }
}

#[test]
fn a_terminal_that_is_gone_is_a_request_to_end_in_order() {
    for (signal, code) in [(Signal::HUP, 129), (Signal::QUIT, 131)] {
        let place = ProgramDir::new();
        let run = place.start(&["--all", "-s", "DELAY", "--json"]);
        run.wait_for_stdout("\n");
        let ran = interrupt(run, signal, code);
        let not_done = not_done(&ran, 194);
        assert_eq!((ran.summary().error, ran.summary().ok), (0, 194 - not_done));
        let listed = place.run(&["logs", "--list"]).expect(0).stdout;
        assert!(listed.contains(&format!("exit code {code}")), "{listed}");
    }
}

#[test]
fn a_program_that_was_started_to_outlive_its_terminal_does() {
    let place = ProgramDir::new();
    let coordinator = assert_cmd::cargo::cargo_bin!("coordinator").display();
    let script = format!("trap '' HUP; exec '{coordinator}' B -s DELAY --json");
    let mut command = place.command(std::path::Path::new("sh"), &["-c", &script]);
    let run = RunningProgram::start(&mut command);
    run.wait_for_stdout("\n");
    run.signal(Signal::HUP);
    assert_eq!(run.wait().expect(0).summary().counts(), [17, 9, 0]);
}

#[test]
fn signals_that_come_at_once_are_one_request() {
    for mode in MODES {
        let place = ProgramDir::new();
        let run = place.start(&["--all", "-s", "DELAY", "--json", "--mode", mode]);
        run.wait_for_stdout("\n");
        // As `timeout` does it: the program, then its group.
        let ran = signal_and_wait(run, &[Signal::INT, Signal::TERM, Signal::INT]);
        // The kernel does not say which of them came first.
        let code = if ran.code() == 143 { 143 } else { 130 };
        let ran = ran.expect(code);
        let summary = ran.summary();
        // What was in flight was not cut off.
        assert_eq!((summary.error, summary.ok), (0, 194 - not_done(&ran, 194)), "{mode}");
        let logs = place.logs();
        let mut ends = logs.values().flatten().filter(|line| line["event"] == "worker_exited");
        assert!(ends.all(|end| end["how"] == "exit code 0"), "{logs:#?}");
    }
}

#[test]
fn the_second_signal_ends_the_program_though_its_main_thread_hangs() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let place = ProgramDir::new();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        // Nearly all that a pipe holds.
        std::io::Write::write_all(&mut writer, &[b'\n'; 60 << 10]).unwrap();
        let args = ["--every", "--json", "-m", "60"];
        let mut command = place.coordinator(&args);
        let run = RunningProgram::start(command.stdout(writer));
        drop(command);
        let workers = run.workers(num_cpus::get().min(60));
        // Nobody reads: the main thread is held up in a write.
        wait_until("flags are fetched", || place.files("downloads").len() > 150);
        thread::sleep(Duration::from_secs(1));
        run.signal(signal);
        thread::sleep(Duration::from_millis(400));
        run.signal(signal);
        let began = Instant::now();
        let ran = run.wait().expect(code);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert!(!ran.stderr.contains("logs: "), "it did not get so far: {ran:?}");
        wait_until_gone(&workers);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert!(!text.contains("summary"), "it was held up");
    }
}

#[test]
fn a_signal_that_comes_while_starting_is_heeded() {
    for mode in MODES {
        for delay in [0, 1, 2, 4, 8, 16, 32] {
            let place = ProgramDir::new();
            let run = place.start(&["--all", "-s", "DELAY", "--json", "--mode", mode]);
            thread::sleep(Duration::from_millis(delay));
            let (signal, code) =
                if delay % 3 == 1 { (Signal::TERM, 143) } else { (Signal::INT, 130) };
            let ran = interrupt(run, signal, code);
            // So early that nothing was promised yet, or with all that was.
            if !ran.stdout.is_empty() {
                not_done(&ran, 194);
            }
        }
    }
}

#[test]
fn a_signal_is_heeded_from_the_moment_that_its_default_action_is_off() {
    for _ in 0..40 {
        let place = ProgramDir::new();
        let run = place.start(&["--all", "-s", "DELAY", "--json", "--mode", "threads", "-m", "2"]);
        // A busy wait that allocates nothing, so that the moments right after are tried, too.
        let status = fs::File::open(format!("/proc/{}/status", run.pid())).unwrap();
        let mut text = [0; 4096];
        let began = Instant::now();
        loop {
            let length = status.read_at(&mut text, 0).unwrap();
            let label =
                text[..length].windows(8).position(|window| window == b"\nSigCgt:").unwrap();
            // 16 hexadecimal digits, of which the last one holds the signals 1 to 4.
            let last = char::from(text[label + 9 + 15]).to_digit(16).unwrap();
            if last & 2 != 0 {
                break;
            }
            assert!(began.elapsed() < SOON, "no handler of SIGINT");
        }
        run.signal(Signal::INT);
        run.wait().expect(130);
    }
}

#[test]
fn a_ctrl_c_in_the_terminal_is_for_the_coordinator_alone() {
    let place = ProgramDir::new();
    let args = ["--all", "-s", "DELAY", "--json", "-w", "2", "-m", "20"];
    // A terminal signals the whole group of processes in its foreground.
    let run = RunningProgram::start(place.coordinator(&args).process_group(0));
    run.wait_for_stdout("\n");
    let group = Pid::from_raw(run.pid().try_into().unwrap()).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
    let ran = run.wait().expect(130);
    let not_done = not_done(&ran, 194);
    assert_eq!(
        (ran.summary().error, ran.summary().not_done),
        (0, not_done),
        "the workers finished what they were at"
    );
}

#[test]
fn a_killed_worker_costs_the_flag_it_was_at() {
    // It opens when a third request comes, which only a new worker can make.
    let server = GateServer::start(3);
    let url = server.base_url();
    let place = ProgramDir::new();
    let run = place.start(&["br", "cn", "fr", "us", "-s", &url, "-w", "2", "--json"]);
    wait_until("both workers are busy", || server.peak() == 2);
    let workers = run.workers(2);
    kill(workers[0], Signal::KILL);
    let ran = run.wait().expect(1);
    assert_eq!(ran.summary().counts(), [3, 0, 1]);
    assert_eq!(ran.summary().all["interrupted"], false);
    let errors = ran.errors();
    let (code, error) = errors.iter().next().unwrap();
    assert!(error.contains(&format!("(pid {}) died of signal 9 (SIGKILL)", workers[0])), "{error}");
    let line = ran.json().into_iter().find(|line| line["code"] == **code).unwrap();
    assert_eq!(line["pid"], workers[0]);
    let cause = &ran.summary().all["errors"][0]["cause"];
    assert_eq!(*cause, "worker died of signal 9 (SIGKILL)");
    assert_eq!(place.flags("downloads").len(), 3);
    wait_until_gone(&workers);
    let logs = place.logs();
    let coordinator = logs.iter().find(|(name, _)| name.starts_with("coordinator")).unwrap().1;
    let told = |event: &str| coordinator.iter().filter(|line| line["event"] == event).count();
    assert_eq!((told("worker_started"), told("worker_exited")), (3, 3));
    assert!(coordinator.iter().any(|line| line["how"] == "signal 9 (SIGKILL)"));
    assert_eq!(logs.len(), 4, "each worker that ever was has a log");
}

#[test]
fn workers_that_are_killed_again_and_again_cost_no_more_than_their_flags() {
    let place = ProgramDir::new();
    let run = place.start(&["--all", "-s", "DELAY", "-w", "2", "-m", "40", "--json"]);
    run.wait_for_stdout("\n");
    for _ in 0..3 {
        let workers = run.workers(2);
        workers.iter().for_each(|&worker| kill(worker, Signal::KILL));
        wait_until_gone(&workers);
    }
    let ran = run.wait().expect(1);
    let summary = ran.summary();
    assert_eq!(summary.all["total"], 194);
    assert!(summary.ok > 0 && summary.error > 0, "{:?}", summary.counts());
    let errors = ran.errors();
    assert!(errors.values().all(|error| error.contains("SIGKILL")), "{ran:#?}");
    // A worker that is killed between the rename of a flag and its reply leaves a whole flag.
    let mut flags = place.flags("downloads");
    flags.retain(|code| !errors.contains_key(code));
    assert_eq!(flags.len(), summary.ok, "{ran:#?}");
}

#[test]
fn the_workers_of_a_killed_coordinator_end_with_it() {
    for server in ["DELAY", "stalling"] {
        let stalling = HostileServer::start(Behaviour::Stall);
        let url = stalling.base_url();
        let place = ProgramDir::new();
        let args = ["--all", "-w", "4", "-m", "60", "--json", "-s"];
        let run = match server {
            "DELAY" => place.start(&[&args[..], &["DELAY"]].concat()),
            _ => place.start(&[&args[..], &[&url]].concat()),
        };
        let workers = run.workers(4);
        match server {
            "DELAY" => run.wait_for_stdout("\n"),
            _ => wait_until("requests are in flight", || stalling.connections() == 60),
        }
        let began = Instant::now();
        run.signal(Signal::KILL);
        wait_until_gone(&workers);
        assert!(began.elapsed() < SOON.min(PATIENCE), "{:?}", began.elapsed());
        assert_eq!(run.wait().code(), 128 + 9);
        for (name, bytes) in place.files("downloads") {
            // What was being written has another name, and the next run sweeps it up.
            let is_part = name.starts_with('.') && name.ends_with(".part");
            let is_flag = name.ends_with(".gif");
            assert!(is_part || !is_flag || bytes.ends_with(b"\x3b"), "{name} is half a flag");
        }
        place.run(&["br"]).expect(0);
        assert!(place.flags("downloads").contains("BR"));
    }
}
