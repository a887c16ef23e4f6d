//! The same download with a segmentation fault in the middle, told as it happens.
//!
//! Without worker processes nobody would be left to tell, so there the download runs in a program
//! of its own, the victim, and this one watches.

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::Context;

use super::args::Crash;
use super::tasks::ShowFlag;
use super::{Source, executor, exit, scratch, show, workers_in_words};
use crate::cli::Exit;
use crate::cli::args::Mode;
use crate::cli::muster::muster;
use crate::flags::codes::POP20;
use crate::flags::site::Site;
use procession::Exit as ProcessExit;
use procession::{Executor, PoolEvent, Shutdown, TaskError, as_completed};

/// Whose flag it is that brings the fault, in the middle of all.
const FATAL: &str = "JP";

/// How long a new worker may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// As many threads as it takes to have some downloads in flight when one of them goes wrong.
const THREADS: usize = 4;

pub(super) fn run(args: Crash) -> anyhow::Result<Exit> {
    let Crash { mode, workers, server, victim } = args;
    let workers = workers.unwrap_or_else(|| match mode {
        Mode::Sequential => 1,
        Mode::Threads => THREADS,
        Mode::Processes => num_cpus::get(),
    });
    match (mode, victim) {
        (_, Some(dest)) => be_the_victim(mode, workers, &server, dest),
        (Mode::Processes, None) => in_processes(workers, &server),
        (Mode::Sequential | Mode::Threads, None) => watch_a_victim(mode, workers, &server),
    }
}

/// Tells lines with the time before them.
#[derive(Clone)]
struct Teller(Instant);

impl Teller {
    fn begin() -> Self {
        Self(Instant::now())
    }

    fn tell(&self, line: std::fmt::Arguments<'_>) {
        show(format!("[{:5.2}s] {line}\n", self.0.elapsed().as_secs_f64()));
    }
}

fn introduce(teller: &Teller, mode: Mode, workers: usize, server: &Site) {
    teller.tell(format_args!(
        "{} flags from {server}, {}; {FATAL} will bring a segmentation fault",
        POP20.len(),
        workers_in_words(mode, workers)
    ));
}

fn in_processes(workers: usize, server: &Site) -> anyhow::Result<Exit> {
    let dest = scratch()?;
    let source = Source::open(server, dest.clone(), 1)?;
    let teller = Teller::begin();
    introduce(&teller, Mode::Processes, workers, server);
    let (hears, sees) = (teller.clone(), teller.clone());
    let builder = crate::cli::pool().on_say(move |said| {
        hears.tell(format_args!("{} is there, by worker {}", said.line, said.worker));
    });
    let (started, starts) = mpsc::channel();
    let started = Mutex::new(started);
    let pool = muster(builder, workers, move |event| match event {
        PoolEvent::WorkerStarted { worker, pid } => {
            sees.tell(format_args!("worker {worker} is ready: pid {pid}"));
            let _ = started.lock().map(|started| started.send(()));
        }
        PoolEvent::WorkerExited { worker, pid, exit, usage: _ }
            if *exit != ProcessExit::Code(0) =>
        {
            sees.tell(format_args!("worker {worker} (pid {pid}) is gone: {exit}"));
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
            teller.tell(format_args!("{code} is lost: {error}"));
            lost.push((code, error));
        }
    }
    let there = POP20.len() - lost.len();
    teller.tell(format_args!("{there} flags downloaded, {} lost", lost.len()));
    let died = |error: &TaskError| matches!(error, TaskError::WorkerDied(_));
    let mut errors = lost.iter().filter(|(_, error)| !died(error)).count();
    if lost.iter().any(|(_, error)| died(error)) {
        // The others may have been so quick that the new worker is still on its way.
        for _ in 0..=workers {
            let _ = starts.recv_timeout(PATIENCE);
        }
        teller.tell(format_args!("the pool works on: {FATAL} once more, without the fault"));
        errors += usize::from(pool.submit(task(FATAL, false)).result().is_err());
    }
    teller.tell(format_args!("{} flags of {} are on disk", flags_in(&dest), POP20.len()));
    pool.shutdown(Shutdown::Wait);
    Ok(exit(errors))
}

fn watch_a_victim(mode: Mode, workers: usize, server: &Site) -> anyhow::Result<Exit> {
    let dest = scratch()?;
    let teller = Teller::begin();
    introduce(&teller, mode, workers, server);
    let name = match mode {
        Mode::Sequential => "sequential",
        _ => "threads",
    };
    let mut victim = Command::new(env::current_exe().context("cannot find this program")?);
    victim.arg0("coordinator").args(["demo", "crash", "--mode", name, "--victim"]).arg(&dest);
    victim.args(["--workers", &workers.to_string(), "--server", &server.to_string()]);
    let mut victim = victim.stdin(Stdio::null()).spawn().context("cannot start a program")?;
    teller.tell(format_args!(
        "all in one process, pid {}, since somebody has to live to tell",
        victim.id()
    ));
    let status = victim.wait()?;
    let there = flags_in(&dest);
    let of = POP20.len();
    match ProcessExit::from(status) {
        ProcessExit::Code(code) => teller.tell(format_args!("it ended with exit code {code}")),
        how => teller.tell(format_args!("the whole program is gone: {how}")),
    }
    teller.tell(format_args!(
        "{there} flags of {of} are on disk; the others are lost, with all else that it was doing"
    ));
    // It came as announced; anything else did not.
    Ok(exit(usize::from(status.code().is_some())))
}

/// Downloads until it dies.
fn be_the_victim(mode: Mode, workers: usize, server: &Site, dest: PathBuf) -> anyhow::Result<Exit> {
    let source = Source::open(server, dest, workers)?;
    let teller = Teller::begin();
    let pool =
        executor(mode, workers, move |said| teller.tell(format_args!("{} is there", said.line)))?;
    let task = |code| ShowFlag { download: source.download(code), crashes: code == FATAL };
    pool.map(POP20.map(task)).for_each(drop);
    Ok(Exit::Answered)
}

fn flags_in(dir: &Path) -> usize {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "gif")).count()
}
