//! `coordinator demo …`: the scripts of the book's chapter, and a crash, which they do not show.
//!
//! Each prints what its section prints, in any mode. Lines that tasks report through their `Context`
//! are printed by the coordinator, from worker processes as well.

mod args;
mod cpu;
mod crash;
mod flags;
mod futures;
mod hosts;
mod map;
mod tasks;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Context;
use tempfile::TempDir;

use self::args::Demo;
pub(super) use self::args::DemoArgs;
use super::contradiction::Contradiction;
use super::exit::ProgramExit;
use super::format::printable_lines;
use super::options::Mode;
use super::usage_error::UsageError;
use super::{embedded_server, prose, signals, stderr, stdout, warm_pool};
use crate::files::client::FetchSettings;
use crate::files::save;
use crate::files::task::Download;
use crate::flag_server::{DEFAULT_SEED, FlagServer};
use crate::flags::codes::Code;
use crate::flags::items;
use crate::flags::site::Site;
use procession::{Engine, PrivateDir, Registry, Said, Sequential, ThreadPool};

/// Adds the tasks of the demonstrations.
pub(super) fn add_to(registry: Registry) -> Registry {
    registry.with::<tasks::ShowFlag>().with::<tasks::Loiter>()
}

/// Runs a demonstration.
pub(super) fn run(DemoArgs { demo }: DemoArgs) -> anyhow::Result<ProgramExit> {
    demo.check().map_err(|error| UsageError::new(demo.command(), error))?;
    *lock(&SOCKETS) = PrivateDir::create().ok();
    signals::watch(|exit| {
        let end = move || {
            clean_up();
            process::exit(exit as i32);
        };
        // Not in the signals thread, since this may wait for a lock.
        let spawned = thread::Builder::new().name("ending".to_owned()).spawn(end);
        if spawned.is_err() {
            process::exit(exit as i32);
        }
    })
    .context("cannot listen to signals")?;
    let exit = match demo {
        Demo::Flags(args) => flags::run(args),
        Demo::Futures(args) => futures::run(args),
        Demo::Map(args) => map::run(args),
        Demo::Cpu(args) => cpu::run(args),
        Demo::Crash(args) => crash::run(args),
        Demo::Hosts(args) => hosts::run(&args),
    };
    clean_up();
    exit
}

/// The directory of flags that are not kept.
static SCRATCH: Mutex<Option<TempDir>> = Mutex::new(None);

/// A directory that is removed at the end of the demonstration, or by the next call.
fn scratch() -> io::Result<PathBuf> {
    let dir = tempfile::Builder::new().prefix("coordinator-demo-").tempdir()?;
    let path = dir.path().to_owned();
    *lock(&SCRATCH) = Some(dir);
    Ok(path)
}

/// The directory of the pools' sockets, which is removed however the program ends.
static SOCKETS: Mutex<Option<PrivateDir>> = Mutex::new(None);

/// Removes the temporary directories.
fn clean_up() {
    drop(lock(&SCRATCH).take());
    drop(lock(&SOCKETS).take());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints a text at once. A closed pipe ends the program.
fn print(text: impl AsRef<str>) {
    let text = prose::fit(&printable_lines(text.as_ref()), stdout::width(), stdout::has_unicode());
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            clean_up();
            process::exit(ProgramExit::ClosedPipe as i32);
        }
        Err(error) => {
            clean_up();
            stderr::print(format_args!("coordinator: cannot write to standard output: {error}"));
            process::exit(ProgramExit::CouldNotWork as i32);
        }
    }
}

/// An executor whose workers have started; `on_say` receives the lines that tasks report.
fn executor(
    mode: Mode,
    workers: usize,
    on_say: impl Fn(&Said<'_>) + Send + Sync + 'static,
) -> anyhow::Result<Arc<dyn Engine>> {
    Ok(match mode {
        Mode::Sequential => Arc::new(Sequential::new().on_say(on_say)),
        Mode::Threads => Arc::new(ThreadPool::new(workers).on_say(on_say)),
        Mode::Processes => {
            Arc::new(warm_pool::start(crate::cli::pool().on_say(on_say), workers, |_| {})?)
        }
        Mode::Hosts => anyhow::bail!("{}", Contradiction::HostsOfDemo),
    })
}

/// The number of workers, in words.
fn workers_in_words(mode: Mode, workers: usize) -> String {
    match (mode, workers) {
        (Mode::Sequential, _) => "one after the other".to_owned(),
        (Mode::Threads, 1) => "1 thread".to_owned(),
        (Mode::Threads, _) => format!("{workers} threads"),
        (Mode::Processes, 1) => "1 worker process".to_owned(),
        (Mode::Processes, _) => format!("{workers} worker processes"),
        (Mode::Hosts, _) => "on other hosts".to_owned(),
    }
}

/// The server of flags and their destination.
struct FlagSource {
    /// Kept running.
    _server: Option<FlagServer>,
    base_url: String,
    fetch: FetchSettings,
    dest: PathBuf,
}

impl FlagSource {
    fn open(site: &Site, dest: PathBuf, connections: usize) -> anyhow::Result<Self> {
        save::prepare(&dest)?;
        save::sweep(&dest);
        let started = embedded_server::start(site, DEFAULT_SEED)?;
        let url = match &started {
            Some(server) => server.base_url(),
            None => site.base_url().unwrap_or_default().to_owned(),
        };
        let server = Some(site.to_string());
        let fetch = FetchSettings {
            connections,
            server,
            longest_url: url.len() + "/br/br.gif".len(),
            ..FetchSettings::default()
        };
        let dest = std::path::absolute(dest).context("the destination has no path")?;
        Ok(Self { _server: started, base_url: url, fetch, dest })
    }

    fn download(&self, code: &str) -> Download {
        let code = code.parse::<Code>().expect("a code of the book");
        Download::new(items::item(&self.base_url, code), self.fetch.clone(), self.dest.clone())
    }
}

/// The exit code of a demonstration.
fn exit(errors: usize) -> ProgramExit {
    if errors == 0 { ProgramExit::Success } else { ProgramExit::SomeErrors }
}
