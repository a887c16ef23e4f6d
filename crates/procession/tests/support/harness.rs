//! Runs tests that are plain functions in a program that must own its `main`, and gives each a
//! deadline: a test that hangs fails.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::any::Any;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tempfile::TempDir;

/// Far longer than any test takes, even on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(60);
/// Within that, how long a state may take to come about.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What those say that panic on purpose.
pub(crate) const ON_PURPOSE: &str = "on purpose";

/// A test by the path of its function.
pub(crate) fn trial(path: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    // The name of the test program goes without saying.
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    Trial::ignorable_test(name, move || within(DEADLINE, body))
}

/// Runs the tests, in this order, as many at a time as `RUST_TEST_THREADS` says.
pub(crate) fn run(trials: Vec<Trial>) -> ! {
    let mut arguments = Arguments::from_args();
    let threads = std::env::var("RUST_TEST_THREADS").ok().and_then(|number| number.parse().ok());
    arguments.test_threads = arguments.test_threads.or(threads);
    libtest_mimic::run(&arguments, trials).exit()
}

/// Why a test was not done.
struct Skipped(String);

/// Ends the test, which is reported as ignored for this reason: something that it needs is not here.
pub(crate) fn skip(why: &str) -> ! {
    panic::resume_unwind(Box::new(Skipped(why.to_owned())))
}

fn within(deadline: Duration, body: impl FnOnce() + Send + 'static) -> Result<Completion, Failed> {
    let (sender, ended) = mpsc::channel();
    let runner = thread::spawn(move || {
        body();
        let _ = sender.send(());
    });
    match ended.recv_timeout(deadline) {
        Err(RecvTimeoutError::Timeout) => Err(format!("still runs after {deadline:?}").into()),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => match runner.join() {
            Ok(()) => Ok(Completion::Completed),
            Err(panic) => match panic.downcast_ref::<Skipped>() {
                Some(Skipped(why)) => Ok(Completion::ignored_with(why)),
                None => Err(message(&*panic).into()),
            },
        },
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

/// Keeps panics that are part of a test from being reported, so that only real ones are seen.
pub(crate) fn hush_panics_on_purpose() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let message = message(info.payload());
        if message != ON_PURPOSE {
            report(info);
        }
    }));
}

/// Waits for something to come about, however long the machine takes.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came about: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether there is such a process and it can still do something: one that ended and was not
/// reaped cannot.
pub(crate) fn is_alive(pid: u32) -> bool {
    if Path::new("/proc/self/stat").exists() {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        // The name before the state may contain anything, but no later parenthesis.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        return !matches!(state, None | Some('Z' | 'X'));
    }
    process_id(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    rustix::process::kill_process(process_id(pid).expect("a process id"), signal)
        .expect("a process to signal");
}

/// Stops a process and waits until each of its threads is stopped, where that can be seen. A kernel
/// that is still about to stop it when its parent ends does not continue it as it does others.
#[allow(dead_code, reason = "not every test program stops processes")]
pub(crate) fn stop(pid: u32) {
    signal(pid, rustix::process::Signal::STOP);
    if Path::new("/proc/self/stat").exists() {
        let is_stopped = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        eventually("a stopped process", || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
            tasks.flatten().all(is_stopped)
        });
    }
}

fn process_id(pid: u32) -> Option<rustix::process::Pid> {
    i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
}

/// A place at which tasks wait until the test lets them pass, or drops it.
pub(crate) struct Gate(TempDir);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub(crate) fn open(&self) {
        fs::write(self.0.path().join(OPEN), "").expect("an opened gate");
    }

    /// How many tasks have come here.
    pub(crate) fn arrivals(&self) -> usize {
        arrivals(self.0.path())
    }

    pub(crate) fn await_arrivals(&self, n: usize) {
        eventually(&format!("{n} tasks at the gate"), || self.arrivals() >= n);
    }
}

const OPEN: &str = "open";

fn arrivals(gate: &Path) -> usize {
    let entries = fs::read_dir(gate).map_or(0, |entries| entries.flatten().count());
    entries - usize::from(gate.join(OPEN).exists())
}

/// The task's side of a [`Gate`]: says that it is here and waits.
pub(crate) fn wait_at(gate: &Path) {
    arrive(gate);
    while gate.exists() && !gate.join(OPEN).exists() {
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits at a gate that opens by itself when `n` tasks are there at the same time.
pub(crate) fn meet_at(gate: &Path, n: usize) {
    arrive(gate);
    while arrivals(gate) < n {
        thread::sleep(Duration::from_millis(2));
    }
}

/// Stays at a gate for a moment and counts those who are there.
pub(crate) fn visit(gate: &Path) -> usize {
    let place = arrive(gate);
    let here = arrivals(gate);
    thread::sleep(Duration::from_millis(2));
    let here = here.max(arrivals(gate));
    fs::remove_file(place).expect("a place to leave");
    here
}

/// Arrives at a gate, and does not wait.
pub(crate) fn arrive(gate: &Path) -> PathBuf {
    let name = format!("{}-{:?}-{:?}", std::process::id(), thread::current().id(), Instant::now());
    let name: String = name.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect();
    let place = gate.join(name);
    let written = fs::write(&place, "");
    // The test may be over.
    assert!(written.is_ok() || !gate.exists(), "no place at the gate: {written:?}");
    place
}
