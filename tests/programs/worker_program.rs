//! Which program serves as worker: `worker` beside `coordinator` if it is of the same build, else
//! the coordinator's own.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::programs::{ProgramDir, RunningProgram};
use assert_cmd::cargo::cargo_bin;
use rustix::process::Signal;

/// A coordinator in a directory of its own, maybe with something beside it that is called `worker`.
struct InstalledPrograms {
    place: ProgramDir,
}

impl InstalledPrograms {
    fn new() -> Self {
        let place = ProgramDir::new();
        fs::create_dir(place.path("bin")).unwrap();
        let (from, to) = (cargo_bin!("coordinator"), place.path("bin/coordinator"));
        // The program is large, but there may be another disk between.
        if fs::hard_link(from, &to).is_err() {
            fs::copy(from, &to).unwrap();
        }
        InstalledPrograms { place }
    }

    fn with_worker(content: &str, mode: u32) -> Self {
        let installed = Self::new();
        installed.place.file("bin/worker", content);
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(installed.place.path("bin/worker"), permissions).unwrap();
        installed
    }

    fn start(&self) -> RunningProgram {
        let args = ["br", "us", "cn", "-w", "2", "--json"];
        RunningProgram::start(&mut self.place.command(&self.place.path("bin/coordinator"), &args))
    }

    /// Asserts that a run succeeds and says one line about the worker program.
    fn passes_over_the_worker(&self, why: &str) {
        let ran = self.start().wait().expect(0);
        assert_eq!(ran.summary().ok, 3);
        let path = self.place.path("bin/worker");
        let told = format!("coordinator: {} is not used as the worker program: ", path.display());
        assert!(ran.stderr.starts_with(&told), "{ran:?}");
        assert!(ran.stderr.contains(why), "{ran:?}");
        let [told, logs] = ran.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{ran:?}") };
        assert!(told.ends_with("; this program serves in its place"), "{ran:?}");
        assert!(logs.starts_with("logs: "), "{ran:?}");
    }
}

#[test]
fn without_a_worker_beside_it_the_coordinator_is_its_own() {
    let ran = InstalledPrograms::new().start().wait().expect(0);
    assert_eq!(ran.summary().ok, 3);
    assert!(ran.stderr.starts_with("logs: "), "{ran:?}");
}

#[test]
fn the_worker_beside_it_is_used() {
    let installed = InstalledPrograms::new();
    let worker = installed.place.path("bin/worker");
    if fs::hard_link(cargo_bin!("worker"), &worker).is_err() {
        fs::copy(cargo_bin!("worker"), &worker).unwrap();
    }
    let args = ["--all", "-s", "DELAY", "-w", "2", "-m", "26", "--no-logs"];
    let coordinator = installed.place.path("bin/coordinator");
    let run = RunningProgram::start(&mut installed.place.command(&coordinator, &args));
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let is_used = |pid: &u32| program(*pid).as_ref() == Some(&worker);
    crate::programs::wait_until("workers run the worker program", || {
        run.children().len() == 2 && run.children().iter().all(is_used)
    });
    assert_eq!(run.wait().expect(0).stderr, "");
}

#[test]
fn a_program_that_is_no_worker_is_passed_over() {
    InstalledPrograms::with_worker("#!/bin/sh\nexit 3\n", 0o755).passes_over_the_worker("");
    InstalledPrograms::with_worker("#!/bin/sh\ncat\necho hello\n", 0o755)
        .passes_over_the_worker("");
}

#[test]
fn a_program_that_does_not_answer_is_passed_over() {
    let sleeps = InstalledPrograms::with_worker("#!/bin/sh\nexec sleep 100\n", 0o755);
    sleeps.passes_over_the_worker("it had not reported after 2 s");
}

#[test]
fn the_error_of_a_worker_program_is_reported() {
    let ends =
        InstalledPrograms::with_worker("#!/bin/sh\necho no such option >&2\nexit 3\n", 0o755);
    ends.passes_over_the_worker("it ended with exit code 3 before it was ready");
    ends.passes_over_the_worker("it last said: no such option");
}

#[test]
fn a_file_that_is_no_program_is_passed_over() {
    InstalledPrograms::with_worker("not to be run", 0o644)
        .passes_over_the_worker("Permission denied");
    InstalledPrograms::with_worker("no program", 0o755).passes_over_the_worker("Exec format error");
}

#[test]
fn a_worker_that_does_not_answer_cannot_hold_up_the_end() {
    let sleeps = InstalledPrograms::with_worker("#!/bin/sh\nexec sleep 100\n", 0o755);
    let run = sleeps.start();
    let workers = run.workers(2);
    let began = Instant::now();
    run.signal(Signal::INT);
    let ran = run.wait().expect(130);
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!((ran.summary().counts(), ran.summary().not_done), ([0, 0, 0], 3));
    crate::programs::wait_until_gone(&workers);
}

#[test]
fn a_run_that_ends_while_workers_start_does_not_blame_them() {
    let sleeps = InstalledPrograms::with_worker("#!/bin/sh\nexec sleep 100\n", 0o755);
    let run = sleeps.start();
    run.workers(2);
    run.signal(Signal::INT);
    let stderr = run.wait().expect(130).stderr;
    assert!(!stderr.contains("worker program"), "{stderr}");
}
