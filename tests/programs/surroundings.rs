//! Unusual environments of the programs: small stacks, standard streams that are closed or full, and limits
//! of file sizes.

#![cfg(target_os = "linux")]

use std::path::Path;

use rustix::process::Signal;

use crate::programs::{FinishedProgram, ProgramDir, RunningProgram, skipped};

/// The variables that the programs here are given.
const ENVIRONMENT: [&str; 4] = ["HOME", "LLVM_PROFILE_FILE", "PATH", "TMPDIR"];

/// Runs `coordinator ARGS` as a shell does that prepares the ground and redirects.
fn within(before: &str, args: &str, redirections: &str) -> FinishedProgram {
    let place = ProgramDir::new();
    let coordinator = assert_cmd::cargo::cargo_bin!("coordinator").display();
    let script = format!("{before} '{coordinator}' {args} {redirections}");
    let mut shell = place.command(Path::new("sh"), &["-c"]);
    // The environment lies on the stack: a long one leaves too little of 16 KiB for the dynamic linker of
    // any program.
    shell
        .env_clear()
        .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    RunningProgram::start(shell.arg(script)).wait()
}

#[test]
fn a_small_stack_is_no_matter() {
    for kib in [16, 64, 512] {
        for mode in ["sequential", "threads", "processes"] {
            let before = format!("ulimit -s {kib};");
            let ran = within(&before, &format!("br cn us --json --mode {mode}"), "").expect(0);
            assert_eq!(ran.summary().counts(), [3, 0, 0], "{kib} {mode}: {ran:#?}");
        }
        within(&format!("ulimit -s {kib};"), "demo map --mode processes -w 1 --speed 50", "")
            .expect(0);
    }
}

#[test]
fn a_program_that_ran_in_the_process_before_does_not_count_as_used() {
    let place = ProgramDir::new();
    let coordinator = assert_cmd::cargo::cargo_bin!("coordinator").display();
    let fill = "x=$(head -c 200000000 /dev/zero | tr '\\0' x)";
    let burn = "i=0; while [ $i -lt 1000000 ]; do i=$((i + 1)); done";
    let script = format!("{fill}; {burn}; exec '{coordinator}' br --mode sequential --json");
    RunningProgram::start(&mut place.command(Path::new("sh"), &["-c", &script])).wait().expect(0);
    let lines = place.run(&["logs", "--json"]).expect(0).json();
    let summary = lines.iter().find(|line| line["event"] == "summary").unwrap();
    // The first line has all CPU time of the process until then.
    assert!(summary["cpu_s"].as_f64() < lines[0]["own_cpu_s"].as_f64(), "{lines:#?}");
    assert!(summary["peak_memory"].as_u64() < Some(200_000_000), "{summary}");
}

#[test]
fn the_help_fits_a_narrow_terminal() {
    let place = ProgramDir::new();
    let coordinator = assert_cmd::cargo::cargo_bin!("coordinator").display();
    for args in ["--help", "-h", "fetch --help", "compare -h", "demo", "agent --help"] {
        let script = format!("stty rows 24 cols 40; '{coordinator}' {args}");
        let mut terminal = place.command(Path::new("script"), &["-qc", &script, "/dev/null"]);
        let ran = RunningProgram::start(&mut terminal).wait().expect(0);
        assert!(ran.stdout.contains("Usage:"), "{ran:?}");
        for line in ran.stdout.lines() {
            assert!(console::measure_text_width(line.trim_end()) <= 40, "{args}: {line}");
        }
    }
}

const COMMANDS: [&str; 9] = [
    "br",
    "br --json",
    "br -v --mode threads",
    "--help",
    "--version",
    "logs --list",
    "bench --quick --json",
    "completions bash",
    "compare --task noop --jobs 2 --runs 1 --warmup 0 --modes sequential",
];

#[test]
fn a_standard_output_that_is_closed_is_an_error() {
    for args in COMMANDS {
        for redirections in [">&-", "<&- >&-"] {
            let ran = within("", args, redirections).expect(3);
            assert_eq!(ran.stdout, "", "{args}");
            let lines = ran.stderr.lines().filter(|line| line.starts_with("coordinator: "));
            let lines: Vec<_> = lines.collect();
            let is_told = lines.len() == 1 && lines[0].ends_with(": standard output is closed");
            assert!(is_told, "{args} {redirections}: {}", ran.stderr);
        }
    }
}

#[test]
fn a_standard_output_that_is_full_is_an_error() {
    for args in
        COMMANDS.iter().filter(|args| !(args.starts_with("bench") || args.starts_with("logs")))
    {
        let ran = within("", args, "> /dev/full").expect(3);
        assert!(ran.stderr.contains("No space left on device"), "{args}: {}", ran.stderr);
    }
}

#[test]
fn other_standard_streams_may_be_closed_or_full() {
    for redirections in ["<&-", "2>&-", "<&- 2>&-", "2> /dev/full"] {
        let ran = within("", "br cn us --json -w 2 -m 2", redirections).expect(0);
        assert_eq!(ran.summary().counts(), [3, 0, 0], "{redirections}: {ran:#?}");
    }
    // With nothing left to tell it by, the exit code does.
    within("", "br", "<&- >&- 2>&-").expect(3);
}

#[test]
fn a_limit_of_file_sizes_is_told_without_a_contradiction() {
    for mode in ["processes", "threads"] {
        let ran = within("ulimit -f 1;", &format!("br --mode {mode}"), "");
        assert_ne!(ran.code(), 0, "{ran:#?}");
        let text = format!("{}{}", ran.stdout, ran.stderr);
        assert!(text.contains("ulimit -f") || text.contains("File too large"), "{text}");
        assert!(
            text.contains("the log of this run could not be written whole, so no other"),
            "{text}"
        );
        assert!(!text.contains("no log was kept"), "{text}");
    }
}

#[test]
fn in_a_locale_without_unicode_all_symbols_are_ascii() {
    let place = ProgramDir::new();
    for args in [
        "--help",
        "fetch --help",
        "logs --help",
        "compare --help",
        "b -s ERROR --retries 2 --progress bar",
        "timeline",
        "logs --summary",
        "logs --list",
        "demo crash",
        "demo map --mode processes -w 1 --speed 50",
        "compare --task noop --jobs 9 --runs 3 --warmup 0 --modes sequential,threads:1",
        "br -s http://user@host/flags",
        "fetch http://user@host/file",
    ] {
        let args: Vec<_> = args.split(' ').collect();
        let ran = RunningProgram::start(place.coordinator(&args).env("LC_ALL", "C")).wait();
        assert!([0, 1, 2].contains(&ran.code()), "{args:?}: {ran:#?}");
        assert!(ran.stdout.is_ascii() && ran.stderr.is_ascii(), "{args:?}: {ran:#?}");
    }
}

#[test]
fn a_temporary_directory_that_is_missing_is_no_matter() {
    let place = ProgramDir::new();
    for args in [
        "br --json",
        "br --rate 100 --mode threads",
        "compare br --runs 1 --warmup 0 --modes sequential,processes:1",
        "compare --task noop --jobs 2 --runs 1 --warmup 0 --modes processes:1",
    ] {
        let args: Vec<_> = args.split(' ').collect();
        let mut command = place.coordinator(&args);
        RunningProgram::start(command.env("TMPDIR", "/nowhere/at/all")).wait().expect(0);
    }
}

#[test]
fn the_directory_of_the_sockets_is_in_memory_unless_tmpdir_names_another() {
    let place = ProgramDir::new();
    let types = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let is_memory = |mount: &str| mount.split(' ').skip(1).take(2).eq(["/dev/shm", "tmpfs"]);
    if !types.lines().any(is_memory) || tempfile::tempfile_in("/dev/shm").is_err() {
        return skipped("/dev/shm is not in memory here, or read-only");
    }
    std::fs::create_dir(place.path("tmp")).unwrap();
    let named = place.path("tmp").display().to_string();
    for (tmpdir, base) in [(None, "/dev/shm"), (Some(""), "/dev/shm"), (Some(&*named), &*named)] {
        let mut command = place.coordinator(&["-a", "-s", "DELAY", "-w", "1", "--json"]);
        match tmpdir {
            Some(dir) => command.env("TMPDIR", dir),
            None => command.env_remove("TMPDIR"),
        };
        let run = RunningProgram::start(&mut command);
        run.workers(1);
        let open = std::fs::read_dir(format!("/proc/{}/fd", run.pid())).unwrap();
        let open = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        let dir = open.into_iter().find(|path| path.parent() == Some(Path::new(base)));
        let dir = dir.unwrap_or_else(|| panic!("{tmpdir:?}: nothing in {base}"));
        assert!(dir.is_dir(), "{}", dir.display());
        run.signal(Signal::INT);
        run.wait().expect(130);
        assert!(!dir.exists(), "{}", dir.display());
    }
}

#[test]
fn workers_start_though_the_temporary_directory_has_no_room_for_another_file() {
    let place = ProgramDir::new();
    std::fs::create_dir(place.path("tmp")).unwrap();
    let (tmp, coordinator) = (place.path("tmp"), assert_cmd::cargo::cargo_bin!("coordinator"));
    // Room for itself, the directory of the program and that of its pool.
    let mount = format!("mount -t tmpfs -o nr_inodes=3 none '{}'", tmp.display());
    let run = |script: &str| {
        let options = ["--user", "--map-root-user", "--mount", "sh", "-c", script];
        let mut command = place.command("unshare".as_ref(), &options);
        RunningProgram::start(command.env("TMPDIR", &tmp)).wait()
    };
    if run(&mount).status.code() != Some(0) {
        return skipped("no file system can be mounted here");
    }
    let program = coordinator.display();
    run(&format!("{mount} && exec '{program}' br us -s LOCAL -w 2")).expect(0);
}
