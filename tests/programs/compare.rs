//! `coordinator compare`: the same job in several modes, measured by real processes.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::programs::{
    FinishedProgram, ProgramDir, RunningProgram, skipped, wait_until, wait_until_gone,
};
use procession_cli::flag_server::{FlagServer, ServerKind};
use rustix::process::Signal;
use serde_json::Value;

const MODES: &str = "sequential,threads:3,processes:2x2";

/// Runs `coordinator compare ARGS` with an export to `out.json`, and gives that, too.
pub(crate) fn compare(place: &ProgramDir, args: &[&str], code: i32) -> (FinishedProgram, Value) {
    let ran = place.run(&[&["compare", "--export", "out.json"], args].concat()).expect(code);
    let json = fs::read_to_string(place.path("out.json")).expect("an export");
    (ran, serde_json::from_str(&json).expect("JSON"))
}

/// The results by mode.
pub(crate) fn results(json: &Value) -> BTreeMap<&str, &Value> {
    let results = json["results"].as_array().unwrap();
    results.iter().map(|result| (result["mode"].as_str().unwrap(), result)).collect()
}

/// Sees to it that nothing is left of a comparison that was run with this `TMPDIR`.
#[track_caller]
fn assert_is_clean(dir: &Path) {
    let left: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn each_mode_is_measured_and_compared_with_the_first() {
    let place = ProgramDir::new();
    let args = ["br", "cn", "us", "zz", "--modes", MODES, "--runs", "3"];
    let (ran, json) = compare(&place, &args, 0);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "4 flags from LOCAL");
    assert!(lines[1].starts_with("3 runs after 1 warm-up each, in turn; "), "{ran:#?}");
    let debug_build = cfg!(debug_assertions);
    assert_eq!(lines[1].ends_with("; debug build"), debug_build, "{ran:#?}");
    assert_eq!(ran.stdout.contains("This build has no optimization"), debug_build, "{ran:#?}");
    assert_eq!(json["debug_build"], debug_build);
    for mode in ["sequential", "threads:3", "processes:2x2"] {
        let of_mode = lines.iter().filter(|line| line.starts_with(mode)).count();
        // A row, a bar, and, of all but the first, how it compares.
        assert_eq!(of_mode, if mode == "sequential" { 2 } else { 3 }, "{ran:#?}");
    }
    let last = "Every run: 3 ok, 1 not found, 0 errors; the same files, byte for byte.";
    assert!(lines.contains(&last), "{ran:#?}");
    assert_eq!(ran.stderr, "");
    // Wherever the flags went, it was not here.
    assert!(!place.path("downloads").exists() && !place.path("logs").exists());

    assert_eq!((&json["reference"], &json["same"]), (&"sequential".into(), &true.into()));
    for (mode, result) in results(&json) {
        let number = |name: &str| result[name].as_f64().unwrap_or_else(|| panic!("{mode} {name}"));
        assert_eq!(result["times_s"].as_array().unwrap().len(), 3);
        assert!(0.0 < number("min_s") && number("min_s") <= number("median_s"));
        assert!(number("median_s") <= number("max_s") && number("mean_s") <= number("max_s"));
        assert_eq!((number("ok"), number("not_found"), number("error")), (3.0, 1.0, 0.0));
        assert!(number("cpu_s") > 0.0 && number("peak_rss_bytes") > 1e6);
        assert_eq!(result["ratio"].is_null(), mode == "sequential");
        let verdict = match result["verdict"].as_str() {
            None => continue,
            Some(verdict) => verdict,
        };
        let words = match verdict {
            "faster" => " times faster than sequential (95 %: ",
            "slower" => " times slower than sequential (95 %: ",
            "as_fast" => " as fast as sequential, within 10 % (95 %: ",
            "cannot_tell" => " cannot tell whether it is faster or slower than sequential (95 %: ",
            other => panic!("{other}"),
        };
        let is_it = |line: &&str| line.starts_with(&format!("{mode}: ")) && line.contains(words);
        // Sentences that are too long for a terminal go on in the next line.
        let sentences = ran.stdout.replace("\n  ", " ");
        assert_eq!(sentences.lines().filter(is_it).count(), 1, "{verdict} {ran:#?}");
    }
    assert_eq!(results(&json)["threads:3"]["concurrency"], 3);
}

#[test]
fn the_reference_can_be_chosen_and_modes_that_are_too_large_are_reported() {
    let place = ProgramDir::new();
    let args = ["b", "-l", "4", "--modes", "threads:50,processes:1", "--runs", "2"];
    let (ran, json) = compare(&place, &[&args[..], &["--reference", "process:1"]].concat(), 0);
    assert_eq!(json["reference"], "processes:1");
    assert!(results(&json)["processes:1"]["ratio"].is_null());
    assert!(ran.stdout.contains("\nthreads:50: ") && ran.stdout.contains(" processes:1 "));
    assert!(ran.stdout.contains("threads:50 made 4 requests at a time"), "{ran:#?}");
}

#[test]
fn the_exports_tell_the_same() {
    let place = ProgramDir::new();
    let files = ["out.md", "out.csv", "out.html", "out.svg"];
    let exports = files.map(|file| ["--export", file]).concat();
    let args = ["br", "us", "--modes", MODES, "--runs", "2"];
    let (ran, json) = compare(&place, &[&args[..], &exports].concat(), 0);
    let read = |file: &str| fs::read_to_string(place.path(file)).unwrap();

    let csv = read("out.csv");
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let head = reader.headers().unwrap().clone();
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let result = results(&json)[&row[0]];
        for (name, cell) in head.iter().zip(&row).skip(1) {
            match &result[name] {
                Value::Null => assert_eq!(cell, "", "{name}"),
                Value::String(text) => assert_eq!(cell, text, "{name}"),
                number => {
                    let (cell, number) = (cell.parse::<f64>().unwrap(), number.as_f64().unwrap());
                    assert_eq!(cell, number, "{name}");
                }
            }
        }
        let bounds = ["ratio_low", "ratio", "ratio_high"].map(|name| result[name].as_f64());
        if let [Some(low), Some(ratio), Some(high)] = bounds {
            assert!(low <= ratio && ratio <= high, "{result}");
        }
    }
    for mode in MODES.split(',') {
        // The table on the terminal, and the same cells in the document and on the page.
        let row = ran.stdout.lines().find(|line| line.starts_with(mode)).unwrap();
        let cells: Vec<_> =
            row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells.len(), 8, "{row}");
        assert!(read("out.md").contains(&format!("| {} |\n", cells.join(" | "))), "{row}");
        let html = format!("<tr><td>{}</td></tr>\n", cells.join("</td><td>"));
        assert!(read("out.html").contains(&html), "{row}");
        // And the same sentence.
        if let Some(said) = ran.stdout.lines().find(|line| line.starts_with(&format!("{mode}: "))) {
            // A terminal's lines may end before the sentence does.
            assert!(read("out.md").contains(&format!("\n- {said}")), "{said}");
            assert!(read("out.html").contains(&format!("\n<li>{said}")), "{said}");
        }
    }
    for file in ["out.html", "out.svg"] {
        let text = read(file);
        assert_eq!(text.matches("class=\"bar\"").count(), 3, "{file}");
        assert_eq!(text.matches("class=\"whisker\"").count(), 3, "{file}");
        assert!(text.contains("prefers-color-scheme:dark"), "{file}");
        for foreign in ["src=", "href=", "@import", "url("] {
            assert!(!text.contains(foreign), "{file} needs something else: {foreign}");
        }
    }
    assert!(read("out.svg").starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    assert_is_drawn_by_a_browser(&place);
}

/// Where there is a Chromium: opens both pictures, and finds the bars on them.
fn assert_is_drawn_by_a_browser(place: &ProgramDir) {
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let is_there = |name: &&&str| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let Some(browser) = browsers.iter().find(is_there) else {
        return skipped("no Chromium is installed, so no picture is opened");
    };
    for file in ["out.html", "out.svg"] {
        let picture = place.path(format!("{file}.png"));
        let profile = place.path("profile");
        let screenshot = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,700"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("--screenshot={}", picture.display()))
            .arg(format!("file://{}", place.path(file).display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(screenshot.unwrap().success(), "{browser} {file}");
        let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(picture).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let samples = info.color_type.samples();
        // The colour of a bar, which nothing else has.
        let is_bar = |pixel: &&[u8]| pixel[..3] == [0x2f, 0x6f, 0xd0];
        let bars = pixels.chunks_exact(samples).filter(is_bar).count();
        assert!(bars > 3000, "{file}: {bars} pixels of bars");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let place = ProgramDir::new();
    for (args, reason) in [
        (&["--runs", "0"][..], "--runs N must be >= 1"),
        (&["--warmup", "-1"], "--warmup N must be a whole number >= 0"),
        (&["--modes", "fibers"], "\"fibers\" is no mode"),
        (&["--modes", "processes:0"], "numbers must be 1 to 1000"),
        (&["--modes", "threads,thread"], "--modes threads: it is there twice"),
        (&["--modes", "python-threads:2"], "CPython runs only --task sha, noop and python"),
        (&["--reference", "threads:9"], "--reference threads:9: it must be one of the modes"),
        (&["--task", "nonsense"], "[possible values: sha, arcfour, primes, sleep, noop, python]"),
        (&["--task", "primes", "br"], "cannot be used with"),
        (&["--task", "primes", "-s", "DELAY"], "cannot be used with"),
        (&["--task", "primes", "--size", "40"], "--size SIZE of primes must be 2 to 19"),
        (&["--task", "sha", "--size", "much"], "--size SIZE must be a whole number"),
        (&["--task", "sha", "--jobs", "0"], "--jobs N must be >= 1"),
        (&["--jobs", "3"], "--jobs is of the work of --task NAME"),
        (&["br", "--size", "3"], "--size is of the work of --task NAME"),
        (&["--export", "out.pdf"], "must end with .md, .json, .csv, .html or .svg: out.pdf"),
        (&["x1"], "each CC argument must be A to Z or AA to ZZ"),
    ] {
        let ran = place.run(&[&["compare"], args].concat()).expect(2);
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains(reason), "{ran:#?}");
        assert_eq!(ran.stdout, "");
    }
    let ran = place.run(&["compare", "--export", "nowhere/out.md"]).expect(3);
    assert!(
        ran.stderr.starts_with("coordinator: cannot write --export nowhere/out.md: No such file")
    );
    let ran = place.run(&["compare", "-s", "http://127.0.0.1:1/flags", "--export", "out.md"]);
    let ran = ran.expect(3);
    assert!(ran.stderr.contains("nothing was measured: warm-up 1 of sequential"), "{ran:#?}");
    assert!(ran.stderr.contains("connection refused"), "{ran:#?}");
    assert_eq!(place.path("").read_dir().unwrap().count(), 0, "no export of nothing");
}

/// A comparison of three flags from a server of the test's own, with 1,000 runs. It is begun, and some runs are done.
fn begun(place: &ProgramDir, server: &FlagServer) -> RunningProgram {
    let url = server.base_url();
    let modes = ["--modes", "sequential,processes:2", "--warmup", "0", "--runs", "1000"];
    let args = ["compare", "br", "cn", "fr", "-s", &url, "--export", "out.json"];
    fs::create_dir(place.path("tmp")).unwrap();
    let mut command = place.coordinator(&[&args[..], &modes].concat());
    let run = RunningProgram::start(command.env("TMPDIR", place.path("tmp")));
    wait_until("some runs are done", || server.served() > 3 * 2 * 3);
    run
}

fn exported(place: &ProgramDir) -> Value {
    serde_json::from_str(&fs::read_to_string(place.path("out.json")).unwrap()).unwrap()
}

/// How many runs of each mode count.
fn runs(json: &Value) -> Vec<u64> {
    results(json).values().map(|result| result["runs"].as_u64().unwrap()).collect()
}

#[test]
fn an_interrupted_comparison_reports_what_was_measured_and_leaves_nothing() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let place = ProgramDir::new();
        let server = FlagServer::builder(ServerKind::Local).start().unwrap();
        let run = begun(&place, &server);
        let children = run.children();
        run.signal(signal);
        let ran = run.wait().expect(code);
        assert!(ran.stdout.contains("\nInterrupted. Runs until then that count: "), "{ran:#?}");
        assert!(ran.stdout.contains("\nEvery run: 3 ok"), "{ran:#?}");
        let json = exported(&place);
        assert_eq!(json["interrupted"], true);
        let runs = runs(&json);
        assert!(runs.iter().all(|runs| (2..1000).contains(runs)), "{runs:?}");
        assert!(runs[0].abs_diff(runs[1]) <= 1, "in turn: {runs:?}");
        wait_until_gone(&children);
        assert_is_clean(&place.path("tmp"));
    }
}

#[test]
fn what_a_killed_comparison_left_goes_with_the_next_one() {
    let place = ProgramDir::new();
    let server = FlagServer::builder(ServerKind::Local).start().unwrap();
    let run = begun(&place, &server);
    let children = run.children();
    run.signal(Signal::KILL);
    drop(run.wait());
    wait_until_gone(&children);
    let url = server.base_url();
    let args = ["compare", "br", "-s", &url, "--modes", "sequential", "--runs", "1"];
    let next = || {
        let mut command = place.coordinator(&args);
        RunningProgram::start(command.env("TMPDIR", place.path("tmp"))).wait().expect(0);
        place.path("tmp").read_dir().unwrap().count()
    };
    // A run that the killed one had begun may have been at it still.
    wait_until("nothing is left", || next() == 0);
}

#[test]
fn an_interrupt_before_anything_was_measured_is_reported() {
    let place = ProgramDir::new();
    let server = FlagServer::builder(ServerKind::Delay).start().unwrap();
    let url = server.base_url();
    let run = place.start(&["compare", "-s", &url, "--modes", "processes:2"]);
    wait_until("requests were answered", || server.served() > 2);
    run.signal(Signal::INT);
    let ran = run.wait().expect(130);
    assert_eq!(ran.stderr, "coordinator: nothing was measured: interrupted\n");
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_server_that_dies_between_two_runs_ends_the_comparison() {
    let place = ProgramDir::new();
    let server = FlagServer::builder(ServerKind::Local).start().unwrap();
    let run = begun(&place, &server);
    drop(server);
    let ran = run.wait().expect(1);
    let broken = ran.stdout.lines().find(|line| line.starts_with("Broken off: run ")).unwrap();
    assert!(broken.contains("had nothing but errors"), "{ran:#?}");
    let json = exported(&place);
    assert!(json["broken_off"].as_str().unwrap().contains("connection"), "{json:#}");
    assert!(runs(&json).iter().all(|runs| *runs >= 2));
    assert_is_clean(&place.path("tmp"));
}

#[test]
fn runs_with_other_results_are_reported_and_do_not_count() {
    let place = ProgramDir::new();
    let server = FlagServer::builder(ServerKind::Local).start().unwrap();
    let addr = server.addr();
    let url = server.base_url();
    let args = ["compare", "--all", "-l", "20", "-s", &url, "--export", "out.json"];
    let modes = ["--modes", "threads:20,processes:2x10", "--warmup", "0", "--runs", "5"];
    let run = place.start(&[&args[..], &modes].concat());
    wait_until("some runs are done", || server.served() > 20 * 2);
    drop(server);
    // At the same place, one that fails now and then.
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, addr.port()));
    let start = || FlagServer::builder(ServerKind::Error).addr(addr).start();
    let mut other = start();
    wait_until("the port is free", || {
        if other.is_err() {
            other = start();
        }
        other.is_ok()
    });
    let ran = run.wait();
    let ran = ran.expect(1);
    if ran.stdout.contains("Broken off: ") {
        // A run fell into the moment without any server.
        assert!(ran.stdout.contains("nothing but errors"), "{ran:#?}");
        return;
    }
    assert!(ran.stdout.contains("\nNot all runs gave the same results: "), "{ran:#?}");
    let json = exported(&place);
    assert_eq!(json["same"], false);
    let unlike = json["unlike"].as_array().unwrap();
    assert_eq!(unlike.len() as u64 + runs(&json).iter().sum::<u64>(), 10);
    // Which of both is the odd one depends on how many runs fell to which server.
    assert!(unlike.iter().any(|what| what.as_str().unwrap().contains("errors")), "{json:#}");
    let odd_and_not = [" not have those of most runs", "no result is that of most runs"];
    let words = ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(odd_and_not.iter().any(|said| words.contains(said)), "{ran:#?}");
}

#[test]
fn faults_that_are_the_same_for_all_are_no_difference() {
    let place = ProgramDir::new();
    let modes = ["--modes", "threads:40,processes:2x20", "--runs", "1"];
    let (ran, json) =
        compare(&place, &[&["--every", "-l", "40", "-s", "ERROR"], &modes[..]].concat(), 0);
    assert!(results(&json)["threads:40"]["error"].as_u64() > Some(0), "{json:#}");
    assert!(ran.stdout.contains("the same files, byte for byte"), "{ran:#?}");
}

#[test]
fn a_closed_pipe_ends_a_comparison_quietly() {
    let place = ProgramDir::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let args = ["compare", "br", "--runs", "1", "--modes", "threads"];
    RunningProgram::start(place.coordinator(&args).stdout(writer)).wait().expect(141);
}
