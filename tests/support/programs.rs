//! Runs the programs as a user does: real processes, in a directory of their own.
//!
//! Each wait ends after [`PATIENCE`]. No process and no file is left behind.

#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "tests of what only Linux has use it")
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use signal_hook::consts::SIGHUP;

/// Far longer than anything here may take: a test that hangs must fail, not wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Says that the test that calls this is not done, or not all of it: past the test runner, which keeps
/// back what tests that pass print.
pub(crate) fn skipped(why: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ = std::io::stderr().write_all(format!("SKIPPED: {test}: {why}\n").as_bytes());
}

/// The three modes.
pub(crate) const MODES: [&str; 3] = ["sequential", "threads", "processes"];

/// The options of a mode, as far as it has them: worker processes, and most requests at a time.
pub(crate) fn how<'a>(mode: &'a str, workers: &'a str, most: &'a str) -> Vec<&'a str> {
    match mode {
        "sequential" => vec!["--mode", mode],
        "threads" => vec!["--mode", mode, "-m", most],
        _ => vec!["--mode", mode, "-w", workers, "-m", most],
    }
}

/// Lets the programs that tests start end on SIGHUP, also where the tests themselves run under `nohup`. A program inherits
/// an ignored signal; a caught one has its default action again after `exec`.
fn heed_the_end_of_a_terminal() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if procession_os::signals::is_ignored(SIGHUP) {
            signal_hook::flag::register(SIGHUP, Arc::default()).unwrap();
        }
    });
}

/// An empty directory to run programs in: `downloads` and `logs` come to lie here.
pub(crate) struct ProgramDir {
    dir: tempfile::TempDir,
}

impl ProgramDir {
    pub(crate) fn new() -> Self {
        heed_the_end_of_a_terminal();
        ProgramDir { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a file, and gives its path as an argument.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), text).unwrap();
        name.to_owned()
    }

    /// `coordinator ARGS`, to be run here.
    pub(crate) fn coordinator(&self, args: &[&str]) -> Command {
        self.command(cargo_bin!("coordinator"), args)
    }

    /// Any program, to be run here, in a known environment, without a terminal.
    pub(crate) fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path());
        for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "HTTP_PROXY", "http_proxy"] {
            command.env_remove(variable);
        }
        command.env("LC_ALL", "C.UTF-8");
        // No lines that depend on how long a run takes.
        command.env("COORDINATOR_PROGRESS", "none");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `coordinator ARGS` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> FinishedProgram {
        self.start(args).wait()
    }

    /// The same, with something to read on standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> FinishedProgram {
        let mut command = self.coordinator(args);
        let mut running = RunningProgram::start(command.stdin(Stdio::piped()));
        running.child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        running.wait()
    }

    /// Starts `coordinator ARGS`.
    pub(crate) fn start(&self, args: &[&str]) -> RunningProgram {
        RunningProgram::start(&mut self.coordinator(args))
    }

    /// The names and contents of the files in a directory here; none if there is no such directory.
    pub(crate) fn files(&self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.path(dir)) else { return BTreeMap::new() };
        let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        // A program that runs may rename a file between the listing and the reading.
        let read = |path: PathBuf| match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            read => Some((name(&path), read.unwrap())),
        };
        files.filter_map(read).collect()
    }

    /// The logs of the one run that was done here: the lines of each file, by the file's name.
    pub(crate) fn logs(&self) -> BTreeMap<String, Vec<Value>> {
        let parse = |text: Vec<u8>| json_lines(std::str::from_utf8(&text).unwrap());
        self.files("logs/latest").into_iter().map(|(name, text)| (name, parse(text))).collect()
    }

    /// Asserts that the destination holds nothing but whole flags, and gives their codes.
    pub(crate) fn flags(&self, dest: &str) -> BTreeSet<String> {
        let whole = |(name, bytes): (String, Vec<u8>)| {
            assert!(bytes.starts_with(b"GIF8") && bytes.ends_with(b"\x3b"), "{name} is no flag");
            name.strip_suffix(".gif").expect("nothing but flags").to_uppercase()
        };
        // What the server told of them lies beside the flags.
        let flags = self.files(dest).into_iter().filter(|(name, _)| name != ".validators.jsonl");
        flags.map(whole).collect()
    }
}

/// A program that was run to its end.
#[derive(Debug)]
pub(crate) struct FinishedProgram {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl FinishedProgram {
    /// Its exit code; a signal counts as in a shell.
    pub(crate) fn code(&self) -> i32 {
        let code = self.status.code().or(self.status.signal().map(|signal| 128 + signal));
        code.unwrap()
    }

    /// Asserts that it ended with this code, and without a panic.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        self
    }

    /// What it wrote to stdout, each line as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        json_lines(&self.stdout)
    }

    /// The summary that ends `--json`, after all lines have been found to agree with it.
    #[track_caller]
    pub(crate) fn summary(&self) -> JsonSummary {
        let mut lines = self.json();
        let last = lines.pop().unwrap_or_else(|| panic!("nothing on stdout: {self:#?}"));
        let count = |status: &str| lines.iter().filter(|line| line["status"] == status).count();
        let statuses = ["ok", "not_found", "error", "not_done"];
        let counts = statuses.map(count);
        let summary = &last["summary"];
        let told = statuses.map(|name| summary[name].as_u64().unwrap() as usize);
        assert_eq!(counts, told, "{self:#?}");
        assert_eq!(summary["total"], lines.len(), "{self:#?}");
        assert_eq!(counts.iter().sum::<usize>(), lines.len(), "{self:#?}");
        let codes: BTreeSet<_> = lines.iter().map(|line| line["code"].to_string()).collect();
        assert_eq!(codes.len(), lines.len(), "one line for each code: {self:#?}");
        let [ok, not_found, error, not_done] = counts;
        JsonSummary { ok, not_found, error, not_done, all: summary.clone() }
    }

    /// The codes that the run did not get to.
    pub(crate) fn not_done(&self) -> BTreeSet<String> {
        let lines = self.json().into_iter().filter(|line| line["status"] == "not_done");
        lines.map(|line| line["code"].as_str().unwrap().to_owned()).collect()
    }

    /// What went wrong with each code that ended in an error.
    pub(crate) fn errors(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let errors = self.json().into_iter().filter(|line| line["status"] == "error");
        errors.map(|line| (text(&line["code"]), text(&line["error"]))).collect()
    }
}

/// The last line of `--json`.
#[derive(Debug)]
pub(crate) struct JsonSummary {
    pub ok: usize,
    pub not_found: usize,
    pub error: usize,
    pub not_done: usize,
    pub all: Value,
}

impl JsonSummary {
    pub(crate) fn counts(&self) -> [usize; 3] {
        [self.ok, self.not_found, self.error]
    }
}

#[track_caller]
fn json_lines(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
    // The reserve of a log is blank while its run goes on.
    text.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
}

/// A shell that starts tests in the background lets them ignore SIGINT, and so would the programs
/// that they start, until these have a handler. What has a handler here has none there.
fn hear_interrupts() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
        if ignored >> (signal_hook::consts::SIGINT - 1) & 1 == 1 {
            signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::default()).unwrap();
        }
    });
}

/// A program that runs; killed when dropped.
pub(crate) struct RunningProgram {
    child: Child,
    stdout: CapturedOutput,
    stderr: CapturedOutput,
}

impl RunningProgram {
    pub(crate) fn start(command: &mut Command) -> Self {
        hear_interrupts();
        let mut child = command.spawn().unwrap();
        let stdout = CapturedOutput::listen(child.stdout.take());
        let stderr = CapturedOutput::listen(child.stderr.take());
        RunningProgram { child, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// What it has written to stdout so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until it has written this.
    #[track_caller]
    pub(crate) fn wait_for_stdout(&self, text: &str) {
        wait_until(text, || self.stdout().contains(text));
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> FinishedProgram {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        // Its outputs are closed as soon as no process of it is left.
        wait_until("its outputs are closed", || self.stdout.is_over() && self.stderr.is_over());
        FinishedProgram { status: status.unwrap(), stdout: self.stdout(), stderr: self.stderr() }
    }

    /// The processes that it has started and that live.
    #[cfg(target_os = "linux")]
    pub(crate) fn children(&self) -> Vec<u32> {
        children(self.pid())
    }

    /// Waits until it has this number of children that serve as workers, and returns them.
    #[cfg(target_os = "linux")]
    #[track_caller]
    pub(crate) fn workers(&self, count: usize) -> Vec<u32> {
        wait_until("all workers are there", || self.children().len() == count);
        self.children()
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What a program writes, read in a thread of its own.
struct CapturedOutput {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl CapturedOutput {
    fn listen(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let heard = Arc::clone(&bytes);
        let reader = pipe.map(|mut pipe| {
            thread::spawn(move || {
                let mut some = [0; 4096];
                while let Ok(n @ 1..) = pipe.read(&mut some) {
                    heard.lock().unwrap().extend(&some[..n]);
                }
            })
        });
        CapturedOutput { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap()
    }

    fn is_over(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// Held by a test that keeps all cores busy: one at a time does.
pub(crate) fn all_cores() -> impl Drop {
    static CORES: Mutex<()> = Mutex::new(());
    CORES.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a process.
pub(crate) fn kill(pid: u32, signal: Signal) {
    kill_process(as_pid(pid), signal).unwrap();
}

/// Waits until none of these processes is left.
#[track_caller]
pub(crate) fn wait_until_gone(pids: &[u32]) {
    // Only a zombie that nobody reaps yet may still be known by its id.
    let is_gone = |&pid: &u32| is_zombie(pid) || test_kill_process(as_pid(pid)).is_err();
    wait_until("all workers are gone", || pids.iter().all(is_gone));
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

fn is_zombie(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'Z')
}

#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| stat(pid).is_some_and(|(state, its)| its == parent && state != 'Z'))
        .collect()
}

/// The state and the parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, parentheses and blanks included.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
