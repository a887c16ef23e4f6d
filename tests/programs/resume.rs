//! `--resume` and `--retry-failed`: a run's log is its list of jobs, whatever ended it.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;

use crate::programs::{
    FinishedProgram, MODES, ProgramDir, RunningProgram, how, wait_until, wait_until_gone,
};
use rustix::process::Signal;

/// The codes that a run printed a line for.
fn codes(ran: &FinishedProgram) -> BTreeSet<String> {
    let lines = ran.json().into_iter().filter_map(|line| Some(line["code"].as_str()?.to_owned()));
    lines.collect()
}

/// The codes that have come to an end, as the log of the latest run tells.
fn done(place: &ProgramDir, statuses: &str) -> BTreeSet<String> {
    let ran = place.run(&["logs", "--json", "--status", statuses]);
    ran.json().iter().map(|line| line["code"].as_str().unwrap().to_owned()).collect()
}

/// Starts to fetch all flags, which takes some seconds, and lets half of that pass.
fn half_done(place: &ProgramDir, mode: &str) -> RunningProgram {
    let args = ["--all", "-s", "DELAY", "--json", "-d", "mine"];
    let run = place.start(&[&args[..], &how(mode, "2", "30")].concat());
    wait_until("half is done", || run.stdout().lines().count() > 80);
    run
}

#[test]
fn another_server_or_destination_for_the_rest_of_a_run_is_reported() {
    let place = ProgramDir::new();
    let run = half_done(&place, "threads");
    run.signal(Signal::KILL);
    run.wait();
    let ran = place.run(&["--resume", "-s", "LOCAL", "-d", "other", "--json"]).expect(0);
    let told = ran.stderr.lines().find(|line| line.contains("going on with")).unwrap_or_default();
    let other = "; from LOCAL, where the first part came from DELAY; into ";
    assert!(told.contains(other) && told.contains("/other, while the first part is in "), "{told}");
}

#[test]
fn what_a_killed_run_left_undone_is_done_and_nothing_twice() {
    for mode in ["threads", "processes"] {
        let place = ProgramDir::new();
        let run = half_done(&place, mode);
        let workers = run.children();
        run.signal(Signal::KILL);
        wait_until_gone(&workers);
        run.wait();
        let before = done(&place, "ok");
        assert!((80..190).contains(&before.len()), "{}", before.len());
        let told = place.run(&["logs"]).expect(0);
        assert!(told.stderr.contains("left no last line"), "{told:?}");

        let ran = place.run(&["--resume", "--json"]).expect(0);
        let all = ran.summary().all;
        assert_eq!((&all["server"], &all["mode"]), (&"DELAY".into(), &mode.into()));
        let left = format!("of 194 flags {} undone", 194 - before.len());
        assert!(ran.stderr.contains(&left), "{ran:?}");
        let after = codes(&ran);
        assert!(before.is_disjoint(&after), "{:?}", before.intersection(&after));
        assert_eq!(before.len() + after.len(), 194);
        assert_eq!(place.flags("mine").len(), 194);
        assert!(!place.path("downloads").exists());

        let again = place.run(&["--resume", "--json"]).expect(0);
        assert!(again.stderr.contains("nothing to do"), "{again:?}");
        assert_eq!(again.summary().counts(), [0, 0, 0]);
    }
}

#[test]
fn an_interrupted_run_can_be_gone_on_with_and_that_one_too() {
    let place = ProgramDir::new();
    let run = half_done(&place, "processes");
    run.signal(Signal::INT);
    let first = run.wait().expect(130);
    let missing = first.summary().not_done;
    assert!(missing > 0);
    // Its settings are those of the first run, except those that are typed.
    let run = place.start(&["--resume", "-m", "2", "--json"]);
    wait_until("it has begun", || run.stdout().lines().count() > 1);
    run.signal(Signal::INT);
    let second = run.wait().expect(130);
    assert_eq!(second.summary().all["total"], missing);
    assert_eq!(second.summary().all["connections"], 2);
    let left = second.summary().not_done;
    assert!(left < missing);
    let third = place.run(&["--resume", "-s", "LOCAL", "--json"]).expect(0);
    assert_eq!(third.summary().counts(), [left, 0, 0]);
    assert_eq!(place.flags("mine").len(), 194);
}

#[test]
fn what_failed_is_tried_again_and_nothing_else() {
    let place = ProgramDir::new();
    let args = ["-e", "-l", "120", "-s", "ERROR", "--seed", "3", "-m", "60"];
    let first = place.run(&[&args[..], &["--mode", "threads", "--json"]].concat()).expect(1);
    let failed: BTreeSet<_> = first.errors().into_keys().collect();
    assert!(failed.len() > 10);
    let name = place.path("logs/latest").canonicalize().unwrap();
    let name = name.file_name().unwrap().to_str().unwrap();
    // In whatever order the options come.
    let undone = place.run(&["--json", "--resume", name]).expect(0);
    assert!(undone.stderr.contains("nothing to do: of 120 flags"), "{undone:?}");
    let second = place.run(&["--retry-failed", name, "--retries", "9", "--json"]).expect(0);
    assert_eq!(codes(&second), failed);
    assert_eq!(second.summary().all["mode"], "threads");
    let both = place.run(&["--resume", "--retry-failed", "--json"]).expect(0);
    assert!(
        both.stderr.contains("of 60 flags 0 undone, 0 failed")
            || both.stderr.contains("0 undone, 0 failed")
    );
}

#[test]
fn what_failed_before_a_kill_is_not_forgotten_when_the_run_is_gone_on_with() {
    let place = ProgramDir::new();
    let args = ["-e", "-l", "300", "-s", "ERROR", "--seed", "3", "-m", "20", "--json"];
    let run = place.start(&[&args[..], &["--mode", "threads"]].concat());
    wait_until("half is done", || run.stdout().lines().count() > 130);
    run.signal(Signal::KILL);
    run.wait();
    let failed = done(&place, "error");
    assert!(failed.len() > 5);

    let ran = place.run(&["--resume", "--json"]).expect(1);
    let told = format!(", {} failed (for these, --retry-failed)\n", failed.len());
    assert!(ran.stderr.contains("of 300 flags ") && ran.stderr.contains(&told), "{ran:?}");
    let all: BTreeSet<_> = failed.into_iter().chain(ran.errors().into_keys()).collect();
    let again = place.run(&["--retry-failed", "--retries", "9", "--json"]).expect(0);
    assert_eq!(codes(&again), all);
    let nothing = place.run(&["--retry-failed", "--resume"]).expect(0);
    assert!(nothing.stderr.contains("nothing to do: of 300 flags in "), "{nothing:?}");

    // If the log is not kept any more, a message says so.
    let kept = place.path("logs/latest").canonicalize().unwrap();
    for run in place.path("logs").read_dir().unwrap().flatten().map(|run| run.path()) {
        if run.is_dir() && !run.is_symlink() && run != kept {
            std::fs::remove_dir_all(run).unwrap();
        }
    }
    let alone = place.run(&["--retry-failed"]).expect(0);
    assert!(alone.stderr.contains("is not kept any more"), "{alone:?}");
}

#[test]
fn the_newest_unfinished_run_is_gone_on_with_whatever_ran_since_and_however_few_are_kept() {
    let place = ProgramDir::new();
    let run = half_done(&place, "processes");
    run.signal(Signal::INT);
    let missing = run.wait().expect(130).summary().not_done;
    assert!(missing > 0);
    for _ in 0..3 {
        place.run(&["br", "--mode", "sequential", "--keep-runs", "1"]).expect(0);
    }
    let listed = place.run(&["logs", "--list"]).expect(0).stdout;
    assert_eq!(listed.lines().count(), 1 + 2, "{listed}");
    let resumed = place.run(&["--resume", "-s", "LOCAL", "--json"]).expect(0);
    assert_eq!(resumed.summary().counts(), [missing, 0, 0]);
    assert_eq!(place.flags("mine").len(), 194);
    place.run(&["br", "--mode", "sequential", "--keep-runs", "1"]).expect(0);
    let listed = place.run(&["logs", "--list"]).expect(0).stdout;
    assert_eq!(listed.lines().count(), 1 + 1, "it is finished, so it is not spared: {listed}");
}

#[test]
fn a_run_that_is_named_leaves_to_do_what_no_later_one_has_done() {
    let place = ProgramDir::new();
    let run = half_done(&place, "processes");
    run.signal(Signal::INT);
    run.wait().expect(130);
    let first = place.path("logs/latest").canonicalize().unwrap();
    let first = first.file_name().unwrap().to_str().unwrap();
    place.run(&["--resume", "-s", "LOCAL"]).expect(0);
    let again = place.run(&["--resume", first]).expect(0);
    assert!(again.stderr.contains("nothing to do: of 194 flags"), "{again:?}");

    // Nor what another run has brought from the same server to the same place.
    let args = ["a", "b", "c", "-s", "DELAY", "--json", "-m", "30"];
    let run = place.start(&args);
    run.wait_for_stdout("\n");
    run.signal(Signal::INT);
    assert!(run.wait().expect(130).summary().not_done > 0);
    place.run(&args).expect(0);
    let nothing = place.run(&["--resume"]).expect(0);
    assert!(nothing.stderr.contains("nothing to do"), "{nothing:?}");
}

#[test]
fn the_newest_run_with_errors_is_tried_again_though_others_ran_since() {
    let place = ProgramDir::new();
    let args = ["br", "us", "-s", "http://127.0.0.1:9/flags", "--json"];
    assert_eq!(place.run(&args).expect(1).summary().error, 2);
    place.run(&["cn"]).expect(0);
    let ran = place.run(&["--retry-failed", "-s", "LOCAL", "--json"]).expect(0);
    assert_eq!(ran.summary().counts(), [2, 0, 0]);
}

#[test]
fn a_run_that_cannot_be_resumed_is_an_error_with_its_reason() {
    let place = ProgramDir::new();
    let none = place.run(&["--resume"]).expect(3);
    assert!(none.stderr.contains("there are no logs of runs"), "{none:?}");
    let run = half_done(&place, "processes");
    let refused = place.run(&["--resume"]).expect(3);
    assert!(refused.stderr.contains("still goes on"), "{refused:?}");
    drop(run);
    for (args, code, told) in [
        (&["--resume", "nowhere"][..], 3, "is named \"nowhere\""),
        (&["--resume", "--all"], 2, "cannot be used with"),
        (&["--retry-failed", "latest", "br"], 2, "cannot be used with"),
        (&["--resume", "1", "--retry-failed", "2"], 2, "go on with one run"),
        (&["--resume", "--mode", "threads", "--task-timeout", "3"], 2, "needs --mode processes"),
    ] {
        let ran = place.run(args).expect(code);
        assert!(ran.stderr.contains(told), "{ran:?}");
    }
    // A log of an older version, or of which the beginning is lost.
    let latest = place.path("logs/latest").canonicalize().unwrap();
    for entry in latest.read_dir().unwrap().flatten() {
        std::fs::write(entry.path(), "").unwrap();
    }
    let lost = place.run(&["--resume"]).expect(3);
    assert!(lost.stderr.contains("does not tell what was asked for"), "{lost:?}");
}

#[test]
fn without_a_log_of_its_own_a_run_can_still_go_on_with_another() {
    for mode in MODES {
        let place = ProgramDir::new();
        let args = ["br", "us", "-s", "http://127.0.0.1:9/flags", "--mode", mode, "--json"];
        assert_eq!(place.run(&args).summary().error, 2);
        let ran = place.run(&["--retry-failed", "-s", "LOCAL", "--no-logs", "--json"]).expect(0);
        assert_eq!(ran.summary().counts(), [2, 0, 0]);
    }
}
