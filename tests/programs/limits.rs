//! Under limits of memory and of threads a run is slower, and downloads all flags. It says what it does
//! otherwise than it was asked to.

#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::programs::{FinishedProgram, ProgramDir, RunningProgram, skipped};

/// All codes, as the flag servers answer them.
const ALL: [usize; 3] = [194, 482, 0];

/// Runs `coordinator --every --json ARGS` under a limit that a shell sets.
fn limited(place: &ProgramDir, ulimit: &str, args: &str) -> FinishedProgram {
    let coordinator = assert_cmd::cargo::cargo_bin!("coordinator").display();
    // Where all CPUs are busy, some of a thousand answers come late.
    let script = format!("{ulimit}; exec '{coordinator}' --every --json --timeout 60 {args}");
    RunningProgram::start(place.command(Path::new("sh"), &["-c"]).arg(script)).wait()
}

#[test]
fn a_limit_of_memory_costs_connections_and_no_flags() {
    for (limit, args) in [
        ("-v 400000", "-m 1000 -s DELAY"),
        ("-v 400000", "-m 1000 --mode threads"),
        ("-v 80000", "-m 1000"),
        ("-v 80000", "-m 1000 --mode threads"),
        ("-v 200000", "-m 200 -w 200"),
        ("-d 100000", "-m 1000"),
        ("-d 100000", "-m 1000 --mode threads"),
    ] {
        let ran = limited(&ProgramDir::new(), &format!("ulimit {limit}"), args).expect(0);
        assert_eq!(ran.summary().counts(), ALL, "{limit} {args}: {}", ran.stderr);
        let connections = ran.summary().all["connections"].as_u64().unwrap();
        let is_less = connections < if args.contains("200") { 200 } else { 676 };
        let option = &limit[..2];
        let told = format!("coordinator: the limit of memory (ulimit {option}) is ");
        assert_eq!(ran.stderr.contains(&told), is_less, "{limit} {args}: {}", ran.stderr);
        if !limit.contains("400000") {
            assert!(is_less && connections > 1, "{limit} {args}: {connections}");
        }
    }
}

#[test]
fn a_limit_of_memory_under_which_nothing_works_is_one_clear_error() {
    for mode in ["processes", "threads"] {
        let place = ProgramDir::new();
        let ran = limited(&place, "ulimit -v 45000", &format!("-m 1000 --mode {mode}")).expect(3);
        assert_eq!(ran.stdout, "");
        let told = "coordinator: the limit of memory (ulimit -v) is 43 MiB: that is too little";
        assert!(ran.stderr.starts_with(told), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
}

#[test]
fn a_limit_of_open_files_under_which_nothing_works_is_one_clear_error_at_once() {
    let tries = [8, 16, 24, 32, 36].map(|files| (files, "processes"));
    for (files, mode) in tries.into_iter().chain([(8, "threads"), (16, "threads")]) {
        let began = Instant::now();
        let args = format!("--server LOCAL --mode {mode}");
        let ran = limited(&ProgramDir::new(), &format!("ulimit -n {files}"), &args).expect(3);
        // To try for half a minute to start a worker would take longer.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert_eq!(ran.stdout, "");
        let told = format!("coordinator: the limit of open files (ulimit -n) is {files}: that is ");
        assert!(ran.stderr.starts_with(&told), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        let (_, least) = ran.stderr.trim_end().rsplit_once(' ').expect("words");
        // What is announced is true.
        let ran = limited(&ProgramDir::new(), &format!("ulimit -n {least}"), &args).expect(0);
        assert_eq!(ran.summary().counts(), ALL, "{least}: {}", ran.stderr);
    }
}

/// Runs `coordinator ARGS` under a limit that a shell sets, and says how long that took.
fn measured(ulimit: &str, args: &str) -> (FinishedProgram, Duration) {
    let (place, began) = (ProgramDir::new(), Instant::now());
    let coordinator = assert_cmd::cargo::cargo_bin!("coordinator").display();
    let script = format!("{ulimit}; exec '{coordinator}' {args}");
    let ran = RunningProgram::start(place.command(Path::new("sh"), &["-c"]).arg(script)).wait();
    (ran, began.elapsed())
}

#[test]
fn commands_that_measure_or_show_something_use_as_many_workers_as_the_limits_allow() {
    let compare = "compare --task noop --jobs 10 --runs 1 --warmup 0 --modes processes:60";
    for (limit, args) in [
        ("-n 64", "demo map --mode processes -w 60 --speed 50"),
        ("-v 200000", "demo map --mode processes -w 60 --speed 50"),
        ("-n 128", compare),
    ] {
        let (ran, _) = measured(&format!("ulimit {limit}"), args);
        assert_eq!(ran.code(), 0, "{limit} {args}: {ran:#?}");
        let option = &limit[..2];
        let told = format!("the limit of {}", if option == "-n" { "open files" } else { "memory" });
        assert!(ran.stderr.contains(&told), "{limit} {args}: {ran:#?}");
    }
}

#[test]
fn commands_that_can_have_no_worker_say_so_at_once() {
    for limit in ["-n 20", "-v 45000"] {
        for args in ["bench --quick", "demo map --mode processes", "demo crash"] {
            let (ran, took) = measured(&format!("ulimit {limit}"), args);
            assert_eq!(ran.code(), 3, "{limit} {args}: {ran:#?}");
            assert!(ran.stderr.contains("the limit of "), "{limit} {args}: {ran:#?}");
            // To try for half a minute to start a worker would take longer.
            assert!(took < Duration::from_secs(20), "{limit} {args}: {took:?}");
        }
    }
}

/// The same with a limit of threads, which counts all of a user's: as a user of whom there are no
/// others. None if only the present user can be had.
fn with_threads(place: &ProgramDir, threads: usize, args: &str) -> Option<FinishedProgram> {
    let is_root = rustix::process::geteuid().is_root();
    let can_change = std::process::Command::new("setpriv").arg("--version").output().is_ok();
    if !(is_root && can_change) {
        return None;
    }
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(place.path(""), everybody).unwrap();
    // A user for each run: others must not count.
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let user = 3_000_000 + 1000 * (std::process::id() % 1_000_000) + run;
    let coordinator = assert_cmd::cargo::cargo_bin!("coordinator").display();
    // Shells do not agree on the option's name.
    let script = format!(
        "ulimit -u {threads} 2>/dev/null || ulimit -p {threads}; \
         exec '{coordinator}' --every --json {args}"
    );
    let change = ["--reuid", &user.to_string(), "--regid", "65534", "--clear-groups", "sh", "-c"];
    let mut command = place.command(Path::new("setpriv"), &change);
    Some(RunningProgram::start(command.arg(script)).wait())
}

const NO_OTHER_USER: &str = "it takes a superuser and the program setpriv";

#[test]
fn a_limit_of_threads_costs_connections_and_no_flags() {
    for (threads, args, told) in [
        (12, "-m 1000 --mode threads", " of 676 threads could be started: "),
        (60, "-m 1000 -w 2", " connections in place of 338: "),
        (60, "-m 200 -w 200", " cannot be started now: "),
    ] {
        // On a busy machine the work may be done before the last workers are started.
        let mut runs = Vec::new();
        while !runs.iter().any(|said: &String| said.contains(told)) {
            assert!(runs.len() < 5, "{args}: {runs:?}");
            let Some(ran) = with_threads(&ProgramDir::new(), threads, args) else {
                return skipped(NO_OTHER_USER);
            };
            let ran = ran.expect(0);
            assert_eq!(ran.summary().counts(), ALL, "{args}: {}", ran.stderr);
            let said = ran.stderr.lines().filter(|line| line.starts_with("coordinator: "));
            let said: Vec<_> = said.collect();
            assert!(said.len() <= 1, "{args}: {}", ran.stderr);
            runs.push(said.concat());
        }
    }
}

#[test]
fn a_limit_of_threads_under_which_nothing_works_is_one_clear_error() {
    for threads in [1, 3] {
        let Some(ran) = with_threads(&ProgramDir::new(), threads, "--mode threads") else {
            return skipped(NO_OTHER_USER);
        };
        let ran = ran.expect(3);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains("Resource temporarily unavailable"), "{}", ran.stderr);
        let said = ran.stderr.lines().filter(|line| line.starts_with("coordinator: "));
        assert_eq!(said.count(), 1, "{}", ran.stderr);
    }
}
