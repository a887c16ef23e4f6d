//! The tasks of the tests.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use procession::{Blob, Context};

use crate::harness;

#[procession::task]
pub(crate) fn square(n: u64) -> u64 {
    n * n
}

#[procession::task]
pub(crate) fn half(n: u64) -> Result<u64, String> {
    if n.is_multiple_of(2) { Ok(n / 2) } else { Err(format!("{n} is odd")) }
}

#[procession::task]
pub(crate) fn crash_if_ten(n: u64) -> u64 {
    if n == 10 { std::process::abort() } else { n }
}

/// Writes a line when it begins, and takes its time.
#[procession::task]
pub(crate) fn noted(file: PathBuf, n: u64, ms: u64) -> u64 {
    note(&file, n);
    thread::sleep(Duration::from_millis(ms));
    n
}

/// Writes a line, and waits at a gate.
#[procession::task]
pub(crate) fn gated(file: PathBuf, gate: PathBuf, n: u64) -> u64 {
    note(&file, n);
    harness::wait_at(&gate);
    n
}

/// Kills the agent that runs it.
#[procession::task]
pub(crate) fn poison(file: PathBuf) {
    note(&file, 0);
    let agent = rustix::process::getppid().expect("an agent");
    let _ = rustix::process::kill_process(agent, rustix::process::Signal::KILL);
    thread::sleep(Duration::from_secs(60));
}

#[procession::task]
pub(crate) fn crash() {
    std::process::abort();
}

#[procession::task]
pub(crate) fn hang(file: PathBuf) {
    note(&file, 0);
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Writes the id of its process, and does not stop when it is asked to.
#[procession::task]
pub(crate) fn hang_on(file: PathBuf) {
    note(&file, u64::from(std::process::id()));
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

#[procession::task]
pub(crate) fn reverse(bytes: Blob) -> Blob {
    bytes.iter().rev().copied().collect::<Vec<u8>>().into()
}

#[procession::task]
pub(crate) fn whereabouts(context: &Context) -> (u32, usize) {
    (std::process::id(), context.worker())
}

/// Says lines, and emits values.
#[procession::task]
pub(crate) fn tells(context: &Context, n: u64) -> u64 {
    for value in 0..n {
        context.say(format!("line {value}"));
        context.emit(&value).expect("a value that can be sent");
    }
    n
}

/// Says a line of this length.
#[procession::task]
pub(crate) fn says(context: &Context, len: usize) -> usize {
    context.say("x".repeat(len));
    len
}

pub(crate) fn note(file: &Path, n: u64) {
    let opened = OpenOptions::new().create(true).append(true).open(file);
    // The test may be over.
    if let Ok(mut opened) = opened {
        // In one write, so that it is whole whenever it is read.
        opened.write_all(format!("{n}\n").as_bytes()).expect("a line");
    }
}

/// The numbers that tasks have written when they began, sorted.
pub(crate) fn notes(file: &Path) -> Vec<u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut numbers: Vec<_> = text.lines().map(|line| line.parse().expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}
