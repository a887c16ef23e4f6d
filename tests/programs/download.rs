//! `coordinator [OPTIONS] [CC]...`: which flags it downloads, how, and that all modes do the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::gate::GateServer;
use crate::hostile::{Behaviour, HostileServer};
use crate::programs::{MODES, ProgramDir};
use crate::scripted_server::{Response, ScriptedServer};
use procession_cli::flag_server::image;
use procession_cli::flags::codes::{AVAILABLE, POP20};

fn set(codes: &[&str]) -> BTreeSet<String> {
    codes.iter().map(|&code| code.to_owned()).collect()
}

#[test]
fn each_mode_downloads_all_flags_byte_for_byte() {
    let expected: BTreeMap<_, _> = AVAILABLE
        .iter()
        .map(|code| code.to_lowercase())
        .map(|cc| (format!("{cc}.gif"), image(&cc).unwrap().to_vec()))
        .collect();
    assert_eq!(expected.len(), 194);
    let place = ProgramDir::new();
    for mode in MODES {
        place.run(&["--all", "--mode", mode, "-d", mode]).expect(0);
        let mut files = place.files(mode);
        assert!(files.remove(".validators.jsonl").is_some(), "what the server told of them");
        assert!(files == expected, "{mode}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn workers_in_a_sandbox_download_all_flags_and_keep_their_logs() {
    for level in ["basic", "strict"] {
        let place = ProgramDir::new();
        let ran = place.run(&["--all", "--sandbox", level]);
        if !kernel_has_all_layers() {
            assert!(ran.stderr.contains("the sandbox cannot be put in place"), "{ran:?}");
            crate::programs::skipped("this kernel has not all layers of the sandbox");
            continue;
        }
        ran.expect(0);
        assert_eq!(place.flags("downloads").len(), 194, "{level}");
        let summary = place.run(&["logs", "--summary"]).expect(0);
        assert!(summary.stdout.contains("194"), "{level}: {summary:?}");
    }
    let refused =
        ProgramDir::new().run(&["--all", "--sandbox", "strict", "--mode", "threads"]).expect(2);
    assert!(refused.stderr.contains("--sandbox LEVEL needs --mode processes"), "{refused:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_run_that_goes_without_a_sandbox_says_in_its_log_what_is_missing() {
    let coordinator = assert_cmd::cargo::cargo_bin!("coordinator").display();
    // With a small stack, workers cannot be confined.
    for (limit, is_confined) in [("true", kernel_has_all_layers()), ("ulimit -s 512", false)] {
        let place = ProgramDir::new();
        let script = format!("{limit}; exec '{coordinator}' BR");
        let mut sh = place.command(std::path::Path::new("sh"), &["-c"]);
        crate::programs::RunningProgram::start(sh.arg(script)).wait().expect(0);
        let logs = place.files("logs/latest");
        let of_coordinator = logs.iter().filter(|(name, _)| name.starts_with("coordinator"));
        let text: Vec<_> =
            of_coordinator.map(|(_, text)| String::from_utf8_lossy(text).into_owned()).collect();
        let text = text.concat();
        let lines: Vec<_> =
            text.lines().filter(|line| line.contains(r#""event":"sandbox""#)).collect();
        assert_eq!(lines.len(), usize::from(!is_confined), "{limit}: {lines:?}");
        assert!(lines.iter().all(|line| line.contains(r#""missing":""#)), "{lines:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_destination_that_only_a_superuser_can_write_in_is_refused_to_workers_in_a_sandbox() {
    let place = ProgramDir::new();
    let dest = place.path("of-another");
    std::fs::create_dir(&dest).unwrap();
    if std::os::unix::fs::chown(&dest, Some(65534), Some(65534)).is_err() {
        crate::programs::skipped("only a superuser can give a directory to another user");
        return;
    }
    let run = |args: &[&str]| place.run(&[&["br", "-d", "of-another"], args].concat());
    if kernel_has_all_layers() {
        for args in [&[][..], &["--sandbox", "basic"], &["--sandbox", "strict"]] {
            let refused = run(args).expect(3);
            for told in ["of-another", "chown", "--sandbox none", "Permission denied"] {
                assert!(refused.stderr.contains(told), "{refused:?}");
            }
            assert!(place.files("of-another").is_empty(), "{args:?}");
        }
    }
    for args in [&["--sandbox", "none"][..], &["--mode", "threads"]] {
        run(args).expect(0);
        assert_eq!(place.flags("of-another").len(), 1, "{args:?}");
    }
}

#[test]
fn a_base_url_below_which_there_is_nothing_is_told_with_the_url_that_was_made_of_it() {
    let nothing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let server = ScriptedServer::always(|| Response::Answer(nothing.into()));
    let place = ProgramDir::new();
    let none = place.run(&["cn", "br", "-s", &server.url]).expect(0);
    let told = format!("none of them is there, the first as {}/br/br.gif: is", server.url);
    assert!(none.stderr.contains(&told), "{none:?}");
    // The built-in server has all there are.
    let unknown = place.run(&["zz"]).expect(0);
    assert!(!unknown.stderr.contains("is there"), "{unknown:?}");
}

/// Whether Linux has what the sandbox is made of, asked without the library that is tested.
#[cfg(target_os = "linux")]
fn kernel_has_all_layers() -> bool {
    use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
    let filters = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V6))
        .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create);
    filters.is_ok_and(|actions| actions.contains("errno")) && rules.is_ok()
}

#[test]
fn the_most_populous_countries_are_the_default() {
    let place = ProgramDir::new();
    let ran = place.run(&[]).expect(0);
    assert!(ran.stdout.contains("Searching for 20 flags: from BD to VN\n"), "{ran:?}");
    assert_eq!(place.flags("downloads"), set(&POP20));
}

#[test]
fn a_letter_means_all_codes_that_begin_with_it() {
    let place = ProgramDir::new();
    let summary = place.run(&["B", "--json"]).expect(0).summary();
    assert_eq!(summary.counts(), [17, 9, 0]);
    let with_b: Vec<_> = AVAILABLE.into_iter().filter(|code| code.starts_with('B')).collect();
    assert_eq!(place.flags("downloads"), set(&with_b));
}

#[test]
fn codes_letters_and_tables_add_up_and_are_limited_after_sorting() {
    let place = ProgramDir::new();
    let ran = place.run(&["us", "b", "Br", "-l", "4"]).expect(0);
    assert!(ran.stdout.contains("Searching for 4 flags: BA, BB, BC, BD\n"), "{ran:?}");
    assert_eq!(place.flags("downloads"), set(&["BA", "BB", "BD"]));
    assert_eq!(place.run(&["-e", "-l", "1000", "--json", "-m", "60"]).expect(0).summary().ok, 194);
}

#[test]
fn a_codes_file_may_be_written_in_any_way() {
    let place = ProgramDir::new();
    let text = "\u{feff}br us\r\n\n  CN\tbr # and so on\n# nothing\nUS\n\n";
    let file = place.file("codes.txt", text);
    let wanted = set(&["BR", "CN", "US"]);
    place.run(&["--codes-file", &file, "-d", "file"]).expect(0);
    assert_eq!(place.flags("file"), wanted);
    place.run_with_input(&["--codes-file", "-", "-d", "stdin"], text).expect(0);
    assert_eq!(place.flags("stdin"), wanted);
    place.run(&["--codes-file", &file, "fr", "-d", "both"]).expect(0);
    assert_eq!(place.flags("both"), &wanted | &set(&["FR"]));
}

#[test]
fn the_error_server_gives_the_same_outcomes_in_each_mode() {
    let place = ProgramDir::new();
    let outcomes = |how: &[&str]| {
        let args = [&["b", "-l", "16", "-s", "error", "--json", "-d", "flags"], how].concat();
        let ran = place.run(&args).expect(1);
        let counts = ran.summary().counts();
        assert!(counts.iter().all(|&count| count > 1), "something of each kind: {counts:?}");
        let lines = ran.json().into_iter().filter(|line| line.get("code").is_some());
        lines
            .map(|line| {
                let rest = ["status", "http", "error", "bytes", "attempt"];
                (line["code"].to_string(), rest.map(|name| line[name].to_string()))
            })
            .collect::<BTreeMap<_, _>>()
    };
    let expected = outcomes(&["--mode", "sequential"]);
    assert_eq!(outcomes(&["--mode", "threads"]), expected);
    assert_eq!(outcomes(&["--mode", "processes", "-w", "4"]), expected);
    assert_eq!(outcomes(&["--mode", "processes", "-m", "30"]), expected);
    // Another seed means other trouble.
    assert_ne!(outcomes(&["-m", "30", "--seed", "3"]), expected);
}

#[test]
fn every_code_from_the_error_server_gives_the_counts_of_the_book() {
    let place = ProgramDir::new();
    let summary = place.run(&["-e", "-s", "ERROR", "-m", "60", "--json"]).expect(1).summary();
    assert_eq!(summary.counts(), [150, 361, 165]);
    assert_eq!(place.flags("downloads").len(), 150);
}

#[test]
fn a_request_is_tried_again_as_often_as_asked() {
    let server = |fails| HostileServer::start(Behaviour::FlakyThenOk { fails });
    for mode in MODES {
        let place = ProgramDir::new();
        let run = |server: &HostileServer, retries| {
            let url = server.base_url();
            place.run(&["br", "-s", &url, "--retries", retries, "--mode", mode, "--json"])
        };
        let ran = run(&server(2), "2").expect(0);
        assert_eq!(ran.json()[0]["attempt"], 3);
        let ran = run(&server(2), "1").expect(1);
        assert_eq!(ran.json()[0]["attempt"], 2);
        assert_eq!(ran.errors()["BR"], "HTTP 503 - Service Unavailable");
        assert_eq!(run(&server(1), "0").expect(1).json()[0]["attempt"], 1);
    }
}

#[test]
fn missing_flags_are_a_failure_only_if_asked() {
    let place = ProgramDir::new();
    let args = |mode| ["br", "aa", "--mode", mode, "--fail-on-missing"];
    for mode in MODES {
        place.run(&args(mode)[..4]).expect(0);
        place.run(&args(mode)).expect(1);
    }
    place.run(&["br", "--fail-on-missing"]).expect(0);
}

#[test]
fn flags_of_an_earlier_run_are_replaced_and_its_leftovers_swept_up() {
    let place = ProgramDir::new();
    std::fs::create_dir(place.path("downloads")).unwrap();
    place.file("downloads/br.gif", "old");
    // No system has a process of this number.
    place.file("downloads/.us.gif.2147483646.0.part", "half");
    place.run(&["br"]).expect(0);
    assert_eq!(place.flags("downloads"), set(&["BR"]));
}

/// Runs 120 downloads and tells how many of them were in flight at once.
fn at_once(opens_at: usize, how: &[&str]) -> usize {
    let gate = GateServer::start(opens_at);
    let args = [&["a", "b", "c", "d", "e", "-l", "120", "--json", "-s", &gate.base_url()], how];
    let summary = ProgramDir::new().run(&args.concat()).expect(0).summary();
    assert_eq!(summary.ok, 120);
    gate.peak()
}

#[test]
fn as_many_requests_are_in_flight_as_were_asked_for() {
    assert_eq!(at_once(30, &["--mode", "threads"]), 30);
    assert_eq!(at_once(100, &["--mode", "threads", "-m", "100"]), 100);
    assert_eq!(at_once(6, &["--mode", "processes", "-w", "6"]), 6);
    assert_eq!(at_once(60, &["--mode", "processes", "-w", "2", "-m", "60"]), 60);
    // A number that the workers cannot share out evenly.
    assert_eq!(at_once(31, &["--mode", "processes", "-w", "3", "-m", "31"]), 31);
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_has_exactly_as_many_workers_as_asked_and_leaves_none() {
    use std::time::{Duration, Instant};

    let server = HostileServer::start(Behaviour::Stall);
    let place = ProgramDir::new();
    let run = place.start(&["--all", "-s", &server.base_url(), "-w", "3", "-m", "194"]);
    let workers = run.workers(3);
    let a_while = Instant::now() + Duration::from_millis(500);
    while Instant::now() < a_while {
        assert_eq!(run.children(), workers);
        std::thread::sleep(Duration::from_millis(10));
    }
    // Now each request fails, and the run ends.
    drop(server);
    run.wait().expect(1);
    crate::programs::wait_until_gone(&workers);

    let run = place.start(&["--all", "-s", "DELAY", "-m", "45"]);
    let workers = run.workers(num_cpus::get().min(45));
    run.wait().expect(0);
    crate::programs::wait_until_gone(&workers);
}
