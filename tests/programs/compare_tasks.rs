//! `coordinator compare --task`: work for the CPU in several modes, and in CPython.

#![cfg(target_os = "linux")]

use std::fs;
use std::process::{Command, Stdio};

use crate::compare::{compare, results};
use crate::programs::{ProgramDir, RunningProgram};

/// Small jobs of each kind.
const TASKS: [(&str, &str); 5] =
    [("sha", "64k"), ("arcfour", "10000"), ("primes", "9"), ("sleep", "2"), ("noop", "0")];

#[test]
fn every_task_is_compared_by_the_number_of_workers() {
    let _cores = crate::programs::all_cores();
    for (task, size) in TASKS {
        let place = ProgramDir::new();
        let how = ["--jobs", "8", "--runs", "1", "--warmup", "0", "--workers", "2"];
        let (ran, json) =
            compare(&place, &[&["--task", task, "--size", size], &how[..]].concat(), 0);
        let modes: Vec<_> = results(&json).into_keys().collect();
        let expected = ["processes:1", "processes:2", "sequential", "threads:1", "threads:2"];
        assert_eq!(modes, expected, "{task}");
        for (mode, result) in results(&json) {
            assert_eq!((&result["ok"], &result["error"]), (&8.into(), &0.into()), "{task} {mode}");
        }
        assert!(ran.stdout.contains("\nEvery run gave the same results.\n"), "{ran:#?}");
        assert!(ran.stdout.contains("\nSpeed-up over one worker "), "{ran:#?}");
        // Of a single run each, nothing follows.
        let claims = [" times faster than ", " times slower than ", "as fast as", "In Rust"];
        for claim in claims {
            assert!(!ran.stdout.contains(claim), "{claim}: {ran:#?}");
        }
        assert_eq!(ran.stdout.matches("cannot tell whether it is").count(), 4, "{ran:#?}");
        let points = json["scaling"].as_array().unwrap();
        assert_eq!(points.len(), 4, "{task}");
        let prices = json["price_s"].as_array().unwrap();
        let priced: Vec<_> = prices.iter().map(|price| price["mode"].as_str().unwrap()).collect();
        assert_eq!(priced, ["sequential", "threads:1", "processes:1"], "{json:#}");
        assert!(prices.iter().all(|price| price["seconds"].as_f64().unwrap() > 0.0), "{json:#}");
        assert!(ran.stdout.contains("threads:1 ") && ran.stdout.contains(" µs"), "{ran:#?}");
    }
}

#[test]
fn cpu_time_and_memory_are_those_of_the_workers_as_well() {
    let _cores = crate::programs::all_cores();
    let place = ProgramDir::new();
    let size = ["--task", "arcfour", "--size", "10M", "--jobs", "2", "--runs", "1"];
    let modes = ["--modes", "sequential,processes:2"];
    let (_, json) = compare(&place, &[&size[..], &modes].concat(), 0);
    let of = |mode: &str, name: &str| results(&json)[mode][name].as_f64().unwrap();
    let (alone, together) = (of("sequential", "cpu_s"), of("processes:2", "cpu_s"));
    assert!(together > alone / 2.0, "{together} s of CPU, not {alone}");
    // Each task holds its text twice.
    let (alone, together) =
        (of("sequential", "peak_rss_bytes"), of("processes:2", "peak_rss_bytes"));
    assert!(alone > 20e6, "{alone} bytes");
    assert!(together > 40e6, "{together} bytes");
}

/// Whether this machine has a CPython, as the program looks for it.
fn has_python() -> bool {
    let version = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

#[test]
fn cpython_does_the_same_work_where_there_is_one() {
    let _cores = crate::programs::all_cores();
    let place = ProgramDir::new();
    let how = ["--jobs", "6", "--size", "50001", "--runs", "1", "--warmup", "0", "-w", "2"];
    let (ran, json) = compare(&place, &[&["--task", "python"], &how[..]].concat(), 0);
    let modes: Vec<_> = results(&json).into_keys().filter(|mode| mode.starts_with("py")).collect();
    if !has_python() {
        assert!(ran.stdout.contains("\npython3 was not found, so CPython is not compared"));
        assert_eq!(modes, [""; 0]);
        return crate::programs::skipped("python3 was not found");
    }
    assert_eq!(
        modes,
        [
            "python-processes:1",
            "python-processes:2",
            "python-sequential",
            "python-threads:1",
            "python-threads:2"
        ]
    );
    // Digest for digest, also of data that is no whole number of pieces.
    assert!(ran.stdout.contains("\nEvery run gave the same results.\n"), "{ran:#?}");
    assert!(json["python"].as_str().unwrap().contains("Python 3."), "{json:#}");
}

#[test]
fn without_a_python_the_comparison_goes_without_unless_it_was_named() {
    let place = ProgramDir::new();
    fs::create_dir(place.path("empty")).unwrap();
    let run = |args: &[&str]| {
        let mut command = place.coordinator(&[&["compare", "--runs", "1"], args].concat());
        RunningProgram::start(command.env("PATH", place.path("empty"))).wait()
    };
    let small = ["--jobs", "2", "--size", "1k", "-w", "1", "--warmup", "0"];
    let ran = run(&[&["--task", "python"], &small[..]].concat()).expect(0);
    let words = ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("python3 was not found, so CPython is not compared"), "{ran:#?}");
    let ran = run(&["--task", "sha", "--modes", "threads:1,python-threads:1"]).expect(2);
    assert!(ran.stderr.contains("--modes python-threads:1: python3 was not found"), "{ran:#?}");
}
