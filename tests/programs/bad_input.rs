//! Invalid input: each case gets one line on stderr, which says what is wrong, and the exit code of its kind. No
//! country code is lost.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::hostile::{Behaviour, HostileServer};
use crate::programs::{FinishedProgram, MODES, ProgramDir, RunningProgram};

/// Asserts that this is refused in each mode, with this complaint, before anything is done.
fn refused(place: &ProgramDir, args: &[&str], complaint: &str) {
    for mode in MODES {
        let ran = place.run(&[args, &["--mode", mode]].concat()).expect(2);
        assert!(ran.stderr.contains(complaint), "{args:?}: {ran:#?}");
        assert_eq!(ran.stdout, "", "{args:?}");
    }
    assert!(!place.path("downloads").exists(), "{args:?}: nothing was begun");
    assert!(!place.path("logs").exists(), "{args:?}: nothing was begun");
}

#[test]
fn a_value_of_the_environment_is_blamed_on_its_variable() {
    let place = ProgramDir::new();
    let run = |args: &[&str]| {
        let mut command =
            place.coordinator(&[&["br", "-s", "DELAY", "--mode", "threads"], args].concat());
        RunningProgram::start(command.env("COORDINATOR_PROGRESS", "bla")).wait()
    };
    let ran = run(&[]).expect(2);
    let complaint = "invalid value \"bla\" of the environment variable COORDINATOR_PROGRESS: --progress HOW must be";
    assert!(ran.stderr.contains(complaint), "{ran:#?}");
    run(&["--progress=none"]).expect(0);
}

#[test]
fn usage_errors_name_the_option_and_what_it_takes() {
    let place = ProgramDir::new();
    let long = "b".repeat(300);
    for (args, complaint) in [
        (&["b1"][..], "each CC argument must be A to Z or AA to ZZ, not \"b1\""),
        (&["br", "usa"], "each CC argument must be A to Z or AA to ZZ, not \"usa\""),
        (&[""], "each CC argument must be A to Z or AA to ZZ, not \"\""),
        (&["ß"], "each CC argument must be A to Z or AA to ZZ, not \"ß\""),
        (&[&long], "each CC argument must be A to Z or AA to ZZ"),
        (&["-m", "0"], "--max_req CONCURRENT must be >= 1"),
        (&["--max-req", "0"], "--max_req CONCURRENT must be >= 1"),
        (&["-m", "many"], "--max_req CONCURRENT must be a whole number >= 1"),
        (&["-m", "-1"], "'-1'"),
        (&["-l", "0"], "--limit N must be >= 1"),
        (&["-w", "0"], "--workers N must be >= 1"),
        (&["--workers", "99999999999999999999"], "--workers N must be <= "),
        (&["--timeout", "0"], "--timeout SECS must be a number of seconds > 0"),
        (&["--timeout", "inf"], "--timeout SECS must be a number of seconds > 0"),
        (&["--retries", "-1"], "'-1'"),
        (&["--no-logs", "--log-dir", "x"], "cannot be used with"),
        (&["--header", "@/dev/zero"], "/dev/zero: it is longer than 1 MiB"),
        (&["--unknown"], "unexpected argument '--unknown'"),
        (&["-d", ""], "a value is required for '--dest <DIR>'"),
    ] {
        refused(&place, args, complaint);
    }
    let no_text = std::ffi::OsStr::from_bytes(b"\xff");
    let mut command = place.coordinator(&["br", "-d"]);
    let ran = crate::programs::RunningProgram::start(command.arg(no_text)).wait().expect(2);
    assert!(ran.stderr.contains("--dest DIR must be a UTF-8 path"), "{ran:?}");
    // What is no text may be the directory that the program runs in: it is shown, too.
    std::fs::create_dir(place.path(no_text)).unwrap();
    let mut command = place.coordinator(&["br"]);
    let command = command.current_dir(place.path(no_text));
    let ran = crate::programs::RunningProgram::start(command).wait().expect(2);
    assert!(ran.stderr.contains("\u{fffd}/downloads: it is not UTF-8"), "{ran:?}");
    let ran = place.run(&["--mode", "fibers"]).expect(2);
    assert!(
        ran.stderr.contains("[possible values: sequential, threads, processes, hosts]"),
        "{ran:?}"
    );
}

#[test]
fn an_argument_that_is_no_text_is_refused_wherever_it_stands() {
    let place = ProgramDir::new();
    let no_text = std::ffi::OsStr::from_bytes(b"x\xff");
    for before in [&[][..], &["br"], &["logs"], &["fetch"], &["--unknown"], &["demo"], &["-m"]] {
        let mut command = place.coordinator(before);
        let ran = RunningProgram::start(command.arg(no_text)).wait().expect(2);
        assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    }
}

#[test]
fn a_server_is_a_label_or_a_base_url() {
    let place = ProgramDir::new();
    for server in ["nowhere", "", "localhost:8001", "ftp://host/flags", "http://", "http://h:x/"] {
        let complaint = "--server LABEL must be one of DELAY, ERROR, LOCAL, REMOTE or a base URL";
        refused(&place, &["-s", server], complaint);
    }
}

#[test]
fn a_codes_file_must_be_there_and_hold_codes() {
    let place = ProgramDir::new();
    refused(&place, &["--codes-file", "none.txt"], "none.txt: No such file");
    std::fs::create_dir(place.path("folder")).unwrap();
    refused(&place, &["--codes-file", "folder"], "--codes-file FILE must be readable text: folder");
    for (name, text, complaint) in [
        ("empty.txt", &b""[..], "codes file empty.txt: no codes in it"),
        ("blank.txt", b" \n# BR\n", "codes file blank.txt: no codes in it"),
        ("letter.txt", b"br\n\nB us", "codes file letter.txt, line 3: each code must be AA to ZZ"),
        ("binary.txt", b"\xff\xfe", "--codes-file FILE must be readable text: binary.txt"),
    ] {
        refused(&place, &["--codes-file", &place.file(name, text)], complaint);
    }
    let ran = place.run_with_input(&["--codes-file", "-"], "").expect(2);
    assert!(ran.stderr.contains("codes file standard input: no codes in it"), "{ran:?}");
}

#[test]
fn a_destination_must_be_a_directory_to_write_in() {
    let place = ProgramDir::new();
    place.file("file", "");
    for mode in MODES {
        for (dest, complaint) in [
            ("file", "file is not a directory: name another destination"),
            ("file/below", "cannot make the directory"),
            ("/proc/procession", "cannot make the directory /proc/procession"),
            ("/proc", "cannot write in the directory /proc"),
        ] {
            if cfg!(not(target_os = "linux")) && dest.starts_with("/proc") {
                continue;
            }
            let ran = place.run(&["br", "-d", dest, "--mode", mode]).expect(3);
            assert!(ran.stderr.starts_with("coordinator: "), "{ran:?}");
            assert!(ran.stderr.contains(complaint), "{dest}: {ran:?}");
            assert_eq!((ran.stdout.as_str(), ran.stderr.lines().count()), ("", 1), "{ran:?}");
        }
    }
}

#[test]
fn a_flag_that_cannot_be_saved_costs_only_itself() {
    let place = ProgramDir::new();
    std::fs::create_dir_all(place.path("downloads/br.gif/in the way")).unwrap();
    for mode in MODES {
        let ran = place.run(&["br", "us", "--json", "--mode", mode]).expect(1);
        assert_eq!(ran.summary().counts(), [1, 0, 1]);
        assert!(ran.errors()["BR"].contains("cannot save "), "{ran:?}");
        assert_eq!(place.flags("downloads"), ["US".to_owned()].into());
    }
}

#[test]
fn logs_that_were_asked_for_must_be_possible_but_others_can_be_done_without() {
    let place = ProgramDir::new();
    place.file("logs", "in the way");
    for mode in MODES {
        let ran = place.run(&["br", "--log-dir", "logs", "--mode", mode]).expect(3);
        let complaint = "coordinator: cannot make the log directory logs: ";
        assert!(ran.stderr.starts_with(complaint), "{ran:?}");
        assert!(ran.stderr.contains("name another --log-dir DIR, or take --no-logs"), "{ran:?}");
        assert_eq!(ran.stdout, "");

        let ran = place.run(&["br", "--mode", mode]).expect(0);
        assert!(ran.stderr.starts_with(complaint), "{ran:?}");
        assert!(ran.stderr.ends_with("; this run goes without logs\n"), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    }
}

/// Three codes from a bad server: each is an error that says this, and nothing is left behind.
fn fails(behaviour: Behaviour, timeout: &str, complaint: &str) {
    for mode in ["processes", "threads"] {
        let place = ProgramDir::new();
        let server = HostileServer::start(behaviour);
        let url = server.base_url();
        let how = ["--json", "--timeout", timeout, "--mode", mode, "-m", "3", "-s", &url];
        let ran = place.run(&[&["br", "cn", "us"][..], &how].concat()).expect(1);
        assert_eq!(ran.summary().counts(), [0, 0, 3], "{behaviour:?}");
        for (code, error) in ran.errors() {
            assert!(error.contains(complaint), "{behaviour:?}: {code}: {error}");
        }
        assert_eq!(place.files("downloads").len(), 0, "{behaviour:?}");
    }
}

#[test]
fn a_server_that_refuses_or_resets_is_an_error() {
    fails(Behaviour::Refuse, "20", "connection error: connection refused");
    fails(Behaviour::Reset, "20", "connection error: connection reset");
}

#[test]
fn a_server_that_stalls_or_trickles_is_an_error_in_time() {
    fails(Behaviour::Stall, "1", "timed out after 1 s");
    fails(Behaviour::Trickle, "1.5", "timed out after 1.5 s");
}

#[test]
fn a_body_that_is_cut_short_or_has_no_end_is_an_error() {
    fails(Behaviour::HalfBody, "20", "the body was cut short");
    fails(Behaviour::TruncatedGif, "20", "not a GIF image: it ends after");
    fails(Behaviour::EndlessBody, "50", "the body is larger than 10000000 bytes");
}

#[test]
fn a_body_that_is_no_gif_is_an_error() {
    fails(Behaviour::Html, "20", "not a GIF image: it does not start as a GIF does");
    fails(Behaviour::NotQuiteGif, "20", "not a GIF image: ");
}

#[test]
fn a_redirect_loop_or_a_strange_status_is_an_error() {
    fails(Behaviour::RedirectLoop, "20", "too many redirects: gave up after 10");
    fails(Behaviour::StrangeStatus(799, "Ça alors!"), "20", "HTTP 799 - Unknown Status");
    fails(Behaviour::StrangeStatus(204, ""), "20", "HTTP 204 - No Content");
}

/// Reads the first line of the program's stdout, then closes it.
fn first_line(place: &ProgramDir, args: &[&str]) -> (String, FinishedProgram) {
    let mut command = place.coordinator(args);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let running = crate::programs::RunningProgram::start(command.stdout(writer));
    // The command holds the other end as well.
    drop(command);
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    drop(reader);
    (String::from_utf8(line).unwrap(), running.wait())
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_run_quietly() {
    let place = ProgramDir::new();
    for mode in MODES {
        for how in ["--json", "--verbose"] {
            let args = ["--all", "-s", "DELAY", how, "--mode", mode];
            let (line, ran) = first_line(&place, &args);
            assert!(line.starts_with(if how == "--json" { "{" } else { "DELAY site" }), "{line}");
            assert_eq!(ran.expect(141).stderr, "");
        }
    }
}

/// Runs the program with a stdout that nobody reads any more.
fn unread(place: &ProgramDir, args: &[&str]) -> FinishedProgram {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    RunningProgram::start(place.coordinator(args).stdout(writer)).wait()
}

/// Whatever writes to standard output.
const WRITING: [&[&str]; 16] = [
    &["br"],
    &["br", "--json"],
    &["br", "--verbose"],
    &["--resume", "--json"],
    &["logs"],
    &["logs", "--json"],
    &["logs", "--list"],
    &["logs", "--summary"],
    &["timeline"],
    &["timeline", "--html", "-"],
    &["compare", "br", "--runs", "1", "--warmup", "0", "--modes", "sequential"],
    &["demo", "map", "--speed", "1000"],
    &["completions", "bash"],
    &["--help"],
    &["logs", "--help"],
    &["--version"],
];

#[test]
fn a_closed_stdout_ends_every_command_quietly_with_a_status_of_its_own() {
    let place = ProgramDir::new();
    place.run(&["br"]).expect(0);
    for args in WRITING {
        let ran = unread(&place, args).expect(141);
        // A run that the closed pipe ended early may have workers that wrote nothing into their logs.
        let of_resume = ["nothing to do", "going on", "it is empty"];
        let is_other = |line: &&str| !of_resume.iter().any(|told| line.contains(told));
        let said = ran.stderr.lines().filter(is_other);
        assert_eq!(said.collect::<Vec<_>>(), [""; 0], "{args:?}");
    }
}

#[test]
fn the_log_of_a_run_whose_reader_is_gone_has_the_reason_and_what_was_left() {
    let place = ProgramDir::new();
    for mode in MODES {
        let args = ["--every", "-s", "DELAY", "--json", "--mode", mode];
        let (_, ran) = first_line(&place, &args);
        ran.expect(141);
        let logs = place.logs();
        let (_, lines) = logs.iter().find(|(name, _)| name.starts_with("coordinator")).unwrap();
        let told = |event: &str| lines.iter().find(|line| line["event"] == event).unwrap();
        let (summary, exit) = (told("summary"), told("exit"));
        let number = |name: &str| summary[name].as_u64().unwrap();
        assert!(number("not_done") > 300, "{summary}");
        let all = ["ok", "not_found", "error", "not_done"].map(number);
        assert_eq!((all.iter().sum::<u64>(), number("error")), (676, 0), "{summary}");
        assert_eq!(exit["exit_code"], 141);
        assert_eq!(exit["why"], "standard output was closed by its reader");
        let summary = place.run(&["logs", "--summary"]).expect(0).stdout;
        assert!(summary.contains(&format!(", {} not done in ", number("not_done"))), "{summary}");
        assert!(!summary.contains("some lines are missing"), "{summary}");
    }
}

#[test]
fn a_closed_stderr_does_not_end_a_run() {
    let place = ProgramDir::new();
    for mode in MODES {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = place.coordinator(&["br", "us", "--mode", mode]);
        let running = crate::programs::RunningProgram::start(command.stderr(writer));
        assert!(running.wait().expect(0).stdout.contains("2 flags downloaded."));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_under_stdout_is_reported() {
    let place = ProgramDir::new();
    place.run(&["br"]).expect(0);
    for args in WRITING {
        let mut command = place.coordinator(args);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran =
            crate::programs::RunningProgram::start(command.stdout(std::process::Stdio::from(full)))
                .wait()
                .expect(3);
        assert!(ran.stderr.contains("coordinator: cannot write "), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains("No space left on device"), "{ran:?}");
    }
}

#[test]
fn the_error_of_a_command_in_the_wrong_place_names_the_right_one() {
    let place = ProgramDir::new();
    let ran = place.run(&["--all", "serve"]).expect(2);
    assert!(ran.stderr.contains("serve is a command, which must come first"), "{}", ran.stderr);
}

#[test]
fn a_mistyped_command_is_no_code() {
    let place = ProgramDir::new();
    for (args, meant) in [
        (&["lo"][..], "logs"),
        (&["ti"], "timeline"),
        (&["logz", "--summary"], "logs"),
        (&["benhc"], "bench"),
        (&["help"], "--help"),
        (&["help", "fetch"], "fetch --help"),
        (&["retry-failed", "--retries", "5"], "--retry-failed"),
        (&["version"], "--version"),
    ] {
        let ran = place.run(args).expect(2);
        let hint = format!("did you mean `coordinator {meant}`?");
        assert!(ran.stderr.contains(&hint), "{ran:?}");
        assert_eq!(place.path("").read_dir().unwrap().count(), 0, "{args:?}: nothing was begun");
    }
    // A code that begins like a command is asked for in capitals.
    assert_eq!(place.run(&["LO", "--json"]).expect(0).summary().counts(), [0, 1, 0]);
}

#[test]
fn a_url_or_a_file_in_place_of_a_code_is_told_where_it_belongs() {
    let place = ProgramDir::new();
    let file = place.file("urls.txt", "http://localhost/a");
    for (args, told) in [
        (&["http://localhost/a.png"][..], "did you mean `coordinator fetch`, or --server URL"),
        (&["br", "HTTPS://localhost/a.png"], "did you mean `coordinator fetch`, or --server URL"),
        (&[&file], "for the URLs in it, write `coordinator fetch -i "),
        (&["fetch", "-"], "for URLs on standard input, write -i -"),
    ] {
        let ran = place.run(args).expect(2);
        assert!(ran.stderr.contains(told), "{ran:?}");
        assert!(!place.path("logs").exists(), "{args:?}: nothing was begun");
    }
}

#[test]
fn options_that_contradict_each_other_are_refused_with_both_names() {
    let place = ProgramDir::new();
    let file = place.file("codes.txt", "br");
    for (args, one, other) in [
        (&["-m", "5", "--mode", "sequential"][..], "--max_req 5", "--mode sequential"),
        (&["-w", "3", "--mode", "threads"], "--workers 3", "--mode threads"),
        (&["-w", "3", "--mode", "sequential"], "--workers 3", "--mode sequential"),
        (&["-a", "br"], "--all", "[CC]..."),
        (&["br", "-e"], "--every", "[CC]..."),
        (&["-a", "-e"], "--all", "--every"),
        (&["-a", "--codes-file", &file], "--all", "--codes-file"),
        (&["--codes-file", &file, "-e"], "--every", "--codes-file"),
        (&["br", "-v", "--json"], "--verbose", "--json"),
        (&["br", "-v", "--progress", "bar"], "--verbose", "--progress bar"),
        (&["br", "--seed", "3"], "--seed 3", "--server LOCAL"),
        (&["br", "--no-logs", "--keep-runs", "3"], "--no-logs", "--keep-runs"),
        (&["br", "--no-logs", "--dashboard"], "--dashboard", "--no-logs"),
        (&["br", "-m", "3", "-m", "4"], "--max_req", "cannot be used multiple times"),
        (&["br", "--max-tasks-per-worker", "3", "--mode", "threads"], "--max-tasks", "--mode"),
        (&["compare", "-a", "br"], "--all", "[CC]..."),
        (&["compare", "br", "--seed", "3"], "--seed 3", "--server LOCAL"),
        (&["compare", "br", "-w", "3", "--modes", "sequential"], "--workers 3", "--modes"),
        (&["compare", "--export", "a.md", "--export", "a.md"], "--export a.md", "twice"),
        (&["demo", "map", "--mode", "sequential", "-w", "3"], "--workers 3", "--mode sequential"),
        (&["demo", "cpu", "--mode", "sequential", "-w", "3"], "--workers 3", "--mode sequential"),
        (&["serve", "--local-port", "7", "--error-port", "7"], "--local-port 7", "--error-port 7"),
        (&["logs", "--json", "--color", "always"], "--json", "--color always"),
        (&["timeline", "--html", "x", "--color", "always"], "--html", "--color always"),
        (&["logs", "./codes.txt", "--log-dir", "x"], "--log-dir x", "RUN ./codes.txt"),
    ] {
        let ran = place.run(args).expect(2);
        assert!(ran.stderr.contains(one) && ran.stderr.contains(other), "{args:?}: {ran:#?}");
        assert_eq!(ran.stdout, "", "{args:?}");
    }
    assert_eq!(place.path("").read_dir().unwrap().count(), 1, "nothing was begun");
}

#[test]
fn a_low_limit_of_open_files_costs_speed_and_no_flags() {
    for mode in ["threads", "processes"] {
        let place = ProgramDir::new();
        let mut command = place.command(Path::new("sh"), &["-c"]);
        let coordinator = assert_cmd::cargo::cargo_bin!("coordinator").display();
        let script =
            format!("ulimit -n 64; exec '{coordinator}' --all --json -m 100 --mode {mode}");
        let ran = RunningProgram::start(command.arg(script)).wait().expect(0);
        assert_eq!(ran.summary().counts(), [194, 0, 0]);
        assert!(ran.stderr.contains("the limit of open files (ulimit -n)"), "{}", ran.stderr);
    }
}

#[test]
fn a_low_limit_of_open_files_leaves_several_workers_where_many_were_asked_for() {
    let place = ProgramDir::new();
    let mut command = place.command(Path::new("sh"), &["-c"]);
    let coordinator = assert_cmd::cargo::cargo_bin!("coordinator").display();
    let script = format!("ulimit -n 64; exec '{coordinator}' --every --json -w 200 -m 200");
    let ran = RunningProgram::start(command.arg(script)).wait().expect(0);
    assert_eq!(ran.summary().counts(), [194, 482, 0]);
    let told =
        "the limit of open files (ulimit -n) is 64: no more than 3 workers and 10 connections";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
}
