//! The same download with a segmentation fault, with a line for each event.
//!
//! In modes without worker processes the fault ends the whole program. There the download runs in a
//! program of its own, the victim, and this program reports its end.

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use anyhow::Context;

use super::args::CrashArgs;
use super::tasks::ShowFlag;
use super::{FlagSource, executor, exit, print, scratch, workers_in_words};
use crate::cli::exit::ProgramExit;
use crate::cli::options::Mode;
use crate::cli::warm_pool;
use crate::flags::codes::POP20;
use crate::flags::site::Site;
use procession::Exit as ProcessExit;
use procession::{Executor, PoolEvent, Shutdown, TaskError, as_completed};

/// The code whose task crashes, in the middle of all.
const FATAL: &str = "JP";

/// Maximum time for the start of a new worker.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The default number of threads: some downloads are in flight when one crashes.
const THREADS: usize = 4;

pub(super) fn run(args: CrashArgs) -> anyhow::Result<ProgramExit> {
    let CrashArgs { mode, workers, server, victim } = args;
    let workers = workers.unwrap_or_else(|| match mode {
        Mode::Sequential => 1,
        Mode::Threads => THREADS,
        Mode::Processes | Mode::Hosts => num_cpus::get(),
    });
    match (mode, victim) {
        (_, Some(dest)) => be_the_victim(mode, workers, &server, dest),
        (Mode::Processes, None) => in_processes(workers, &server),
        (Mode::Sequential | Mode::Threads | Mode::Hosts, None) => {
            watch_a_victim(mode, workers, &server)
        }
    }
}

/// Prints lines with the elapsed time before them.
#[derive(Clone)]
struct TimedPrinter(Instant);

impl TimedPrinter {
    fn begin() -> Self {
        Self(Instant::now())
    }

    fn print(&self, line: std::fmt::Arguments<'_>) {
        // Several threads print: the lines are in the order of their times.
        let _locked = io::stdout().lock();
        print(format!("[{:5.2}s] {line}\n", self.0.elapsed().as_secs_f64()));
    }
}

fn introduce(printer: &TimedPrinter, mode: Mode, workers: usize, server: &Site) {
    printer.print(format_args!(
        "{} flags from {server}, {}; {FATAL} will cause a segmentation fault",
        POP20.len(),
        workers_in_words(mode, workers)
    ));
}

fn in_processes(workers: usize, server: &Site) -> anyhow::Result<ProgramExit> {
    let dest = scratch()?;
    let source = FlagSource::open(server, dest.clone(), 1)?;
    let printer = TimedPrinter::begin();
    introduce(&printer, Mode::Processes, workers, server);
    let (said_printer, event_printer) = (printer.clone(), printer.clone());
    let builder = crate::cli::pool().on_say(move |said| {
        said_printer.print(format_args!("{} is there, by worker {}", said.line, said.worker));
    });
    let (started, starts) = mpsc::channel();
    let started = Mutex::new(started);
    let pool = warm_pool::start(builder, workers, move |event| match event {
        PoolEvent::WorkerStarted { worker, pid } => {
            event_printer.print(format_args!("worker {worker} is ready: pid {pid}"));
            let _ = started.lock().map(|started| started.send(()));
        }
        PoolEvent::WorkerExited { worker, pid, exit, .. } if *exit != ProcessExit::Code(0) => {
            event_printer.print(format_args!("worker {worker} (pid {pid}) is gone: {exit}"));
        }
        _ => {}
    })?;

    let task = |code, crashes| ShowFlag { download: source.download(code), crashes };
    let mut lost = Vec::new();
    let mut codes = HashMap::new();
    let futures: Vec<_> = POP20
        .iter()
        .map(|&code| {
            let future = pool.submit(task(code, code == FATAL));
            codes.insert(future.id(), code);
            future
        })
        .collect();
    for future in as_completed(futures) {
        let code = codes[&future.id()];
        if let Err(error) = future.result() {
            printer.print(format_args!("{code} is lost: {error}"));
            lost.push((code, error));
        }
    }
    let there = POP20.len() - lost.len();
    printer.print(format_args!("{there} flags downloaded, {} lost", lost.len()));
    let died = |error: &TaskError| matches!(error, TaskError::WorkerDied(_));
    let mut errors = lost.iter().filter(|(_, error)| !died(error)).count();
    if lost.iter().any(|(_, error)| died(error)) {
        // The new worker may not have started before the other tasks were done.
        for _ in 0..=workers {
            let _ = starts.recv_timeout(START_TIMEOUT);
        }
        printer.print(format_args!("the pool works on: {FATAL} once more, without the fault"));
        errors += usize::from(pool.submit(task(FATAL, false)).result().is_err());
    }
    printer.print(format_args!("{} flags of {} are on disk", flags_in(&dest), POP20.len()));
    pool.shutdown(Shutdown::Wait);
    Ok(exit(errors))
}

fn watch_a_victim(mode: Mode, workers: usize, server: &Site) -> anyhow::Result<ProgramExit> {
    let dest = scratch()?;
    let printer = TimedPrinter::begin();
    introduce(&printer, mode, workers, server);
    let name = match mode {
        Mode::Sequential => "sequential",
        _ => "threads",
    };
    let mut victim = Command::new(env::current_exe().context("cannot find this program")?);
    victim.arg0("coordinator").args(["demo", "crash", "--mode", name, "--victim"]).arg(&dest);
    victim.args(["--workers", &workers.to_string(), "--server", &server.to_string()]);
    let mut victim = victim.stdin(Stdio::null()).spawn().context("cannot start a program")?;
    printer
        .print(format_args!("all in one process, pid {}, which this program watches", victim.id()));
    let status = victim.wait()?;
    let there = flags_in(&dest);
    let of = POP20.len();
    match ProcessExit::from(status) {
        ProcessExit::Code(code) => printer.print(format_args!("it ended with exit code {code}")),
        how => printer.print(format_args!("the whole program is gone: {how}")),
    }
    printer.print(format_args!(
        "{there} flags of {of} are on disk; the others are lost, with all else that it was doing"
    ));
    // A signal was expected; an exit code was not.
    Ok(exit(usize::from(status.code().is_some())))
}

/// Downloads until the crash.
fn be_the_victim(
    mode: Mode,
    workers: usize,
    server: &Site,
    dest: PathBuf,
) -> anyhow::Result<ProgramExit> {
    let source = FlagSource::open(server, dest, workers)?;
    let printer = TimedPrinter::begin();
    let pool =
        executor(mode, workers, move |said| printer.print(format_args!("{} is there", said.line)))?;
    let task = |code| ShowFlag { download: source.download(code), crashes: code == FATAL };
    pool.map(POP20.map(task)).for_each(drop);
    Ok(ProgramExit::Success)
}

fn flags_in(dir: &Path) -> usize {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "gif")).count()
}
