//! The programs when workers die, hang or are replaced in the middle of a run, and when the
//! coordinator itself is killed: what retries bring back, and what is left behind.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::gate::GateServer;
use crate::hostile::{Behaviour, HostileServer};
use crate::programs::{ProgramDir, RunningProgram, kill, skipped, wait_until, wait_until_gone};
use rustix::process::Signal;

#[test]
fn the_flag_of_a_killed_worker_is_fetched_by_another_if_retries_allow() {
    let server = GateServer::start(3);
    let url = server.base_url();
    let place = ProgramDir::new();
    let args = ["br", "cn", "fr", "us", "-s", &url, "-w", "2", "--retries", "1", "--json"];
    let run = place.start(&args);
    wait_until("both workers are busy", || server.peak() == 2);
    kill(run.workers(2)[0], Signal::KILL);
    let ran = run.wait().expect(0);
    assert_eq!(ran.summary().counts(), [4, 0, 0]);
    assert_eq!(place.flags("downloads").len(), 4);
    let attempts: Vec<_> = ran.json().iter().filter_map(|line| line["attempt"].as_u64()).collect();
    assert_eq!(attempts.iter().filter(|attempts| **attempts == 2).count(), 1, "{attempts:?}");
}

#[test]
fn a_worker_that_is_stopped_is_ended_by_the_task_timeout() {
    let place = ProgramDir::new();
    // Of 20 flags, eight at a time. The timeout is twenty times what one takes.
    let args = ["-s", "DELAY", "-w", "2", "-m", "8", "--json"];
    let run = place.start(&[&args[..], &["--task-timeout", "10", "--retries", "3"]].concat());
    run.wait_for_stdout("\n");
    let stopped = run.workers(2)[0];
    kill(stopped, Signal::STOP);
    let ran = run.wait().expect(0);
    assert_eq!(ran.summary().counts(), [20, 0, 0]);
    let attempts: Vec<_> = ran.json().iter().filter_map(|line| line["attempt"].as_u64()).collect();
    assert!(attempts.iter().any(|attempts| *attempts > 1), "{attempts:?}");
    wait_until_gone(&[stopped]);
}

#[test]
fn a_flag_that_takes_too_long_is_an_error_with_its_reason() {
    let stalling = HostileServer::start(Behaviour::Stall);
    let place = ProgramDir::new();
    let url = stalling.base_url();
    let ran = place.run(&["br", "us", "-s", &url, "--task-timeout", "0.3", "--json"]).expect(1);
    assert_eq!(ran.summary().counts(), [0, 0, 2]);
    for error in ran.errors().values() {
        assert!(error.contains(" ran longer than 300 ms and was ended"), "{error}");
    }
}

#[test]
fn workers_are_replaced_after_so_many_flags() {
    let place = ProgramDir::new();
    let ran = place.run(&["--all", "-w", "2", "--max-tasks-per-worker", "10", "--json"]).expect(0);
    assert_eq!(ran.summary().counts(), [194, 0, 0]);
    let mut flags = std::collections::BTreeMap::<u64, u32>::new();
    for line in ran.json() {
        if let Some(pid) = line["pid"].as_u64() {
            *flags.entry(pid).or_default() += 1;
        }
    }
    assert!(flags.values().all(|flags| *flags <= 10), "{flags:?}");
    assert!(flags.len() >= 20, "{flags:?}");
}

#[test]
fn what_only_worker_processes_can_do_is_refused_in_other_modes() {
    let place = ProgramDir::new();
    let ran = place.run(&["--mode", "threads", "--task-timeout", "3"]).expect(2);
    assert!(ran.stderr.contains("--task-timeout SECS needs --mode processes"), "{}", ran.stderr);
    assert!(place.files("downloads").is_empty());
}

/// Kills the coordinator at ever other moments of its life, from before it has a worker until it
/// is about to end.
#[test]
fn a_coordinator_that_is_killed_fifty_times_leaves_nothing_behind() {
    let place = ProgramDir::new();
    let tmp = place.path("tmp");
    fs::create_dir(&tmp).unwrap();
    let start = || {
        let args = ["--all", "-w", "2", "-m", "8", "--no-logs", "--json"];
        let mut command = place.coordinator(&args);
        command.env("TMPDIR", &tmp);
        crate::programs::RunningProgram::start(&mut command)
    };
    let left = || fs::read_dir(&tmp).unwrap().count();
    let mut most = 0;
    for turn in 0..50 {
        let run = start();
        thread::sleep(Duration::from_millis(turn * 3 % 110));
        let workers = run.children();
        run.signal(Signal::KILL);
        wait_until_gone(&workers);
        drop(run.wait());
        most = most.max(left());
    }
    // Each sweeps up what the one before left.
    assert!(most <= 1, "{most} directories at a time");
    // What is younger than a second may still be written to, as far as the next run can tell.
    thread::sleep(Duration::from_millis(1100));
    start().wait().expect(0);
    assert_eq!(left(), 0);
    let flags: BTreeSet<_> = place.flags("downloads");
    assert_eq!(flags.len(), 194);
}

/// Containers that share directories have process ids of their own: none can tell by an id whether
/// a process of another lives.
#[test]
fn runs_in_containers_that_share_every_directory_leave_each_other_alone() {
    let place = ProgramDir::new();
    fs::create_dir(place.path("tmp")).unwrap();
    let coordinator = |args: &[&str]| {
        let mut command = place.coordinator(args);
        command.env("TMPDIR", place.path("tmp"));
        command
    };
    let unshared = |args: &[&str]| {
        let command = coordinator(args);
        let mut unshare = place.command(Path::new("unshare"), &["-rmpf", "--mount-proc"]);
        unshare.arg(command.get_program()).args(args).env("TMPDIR", place.path("tmp"));
        unshare
    };
    let trial = unshared(&["--version"]).output();
    if !trial.is_ok_and(|ran| ran.status.success()) {
        return skipped("this system does not let its users make namespaces of process ids");
    }
    let slow = ["-s", "DELAY", "-w", "2", "-m", "20", "--max-tasks-per-worker", "5", "--json"];
    let long = [&["--all", "-l", "40"], &slow[..]].concat();
    let first = RunningProgram::start(&mut coordinator(&long));
    first.wait_for_stdout("\n");
    let second = RunningProgram::start(&mut unshared(&long));
    second.wait_for_stdout("\n");
    for run in [unshared(&["br", "--json"]), coordinator(&["br", "--json"])].iter_mut() {
        assert_eq!(RunningProgram::start(run).wait().expect(0).summary().counts(), [1, 0, 0]);
    }
    for run in [first, second] {
        assert_eq!(run.wait().expect(0).summary().counts(), [40, 0, 0]);
    }
    assert_eq!(place.flags("downloads").len(), 40);
    assert_eq!(fs::read_dir(place.path("tmp")).unwrap().count(), 0);
    let list = place.run(&["logs", "--list"]).expect(0).stdout;
    assert_eq!(list.matches("exit code 0").count(), 4, "{list}");
}

/// As systemd does in `/dev/shm` when a user logs out.
#[test]
fn a_run_goes_on_when_its_temporary_directory_was_removed() {
    let place = ProgramDir::new();
    let tmp = place.path("tmp");
    fs::create_dir(&tmp).unwrap();
    let args = ["-a", "-l", "40", "-s", "DELAY", "-w", "1", "-m", "5", "--json"];
    // Each worker that takes the place of another needs the directory.
    let args = [&args[..], &["--max-tasks-per-worker", "10"]].concat();
    let run = RunningProgram::start(place.coordinator(&args).env("TMPDIR", &tmp));
    run.wait_for_stdout("\n");
    let dirs: Vec<_> = fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!dirs.is_empty(), "the directory of the run is there");
    dirs.iter().for_each(|dir| fs::remove_dir_all(dir).unwrap());
    assert_eq!(run.wait().expect(0).summary().counts(), [40, 0, 0]);
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
}

#[test]
fn what_a_killed_program_left_is_removed_by_the_next() {
    let place = ProgramDir::new();
    fs::create_dir(place.path("tmp")).unwrap();
    let start = |args: &[&str]| {
        RunningProgram::start(place.coordinator(args).env("TMPDIR", place.path("tmp")))
    };
    let left = || fs::read_dir(place.path("tmp")).unwrap().count();
    let run = start(&["-a", "-s", "DELAY", "-w", "1", "--json"]);
    run.wait_for_stdout("\n");
    let workers = run.workers(1);
    run.signal(Signal::KILL);
    assert_eq!(run.wait().code(), 128 + 9);
    wait_until_gone(&workers);
    assert_eq!(left(), 1);
    start(&["br"]).wait().expect(0);
    assert_eq!(left(), 0);
}
