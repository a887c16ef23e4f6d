//! `coordinator demo …`: what the scripts of the book's chapter show, and what they cannot.
//!
//! Each prints what its section prints, in any mode. What tasks say through their `Context`
//! appears here, from worker processes too: the coordinator owns the terminal.

pub(in crate::cli) mod args;
mod cpu;
mod crash;
mod flags;
mod futures;
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
use super::args::Mode;
use super::muster::muster;
use super::{Exit, download, signals, stderr};
use crate::flag_server::{DEFAULT_SEED, FlagServer};
use crate::flags::client::FetchSettings;
use crate::flags::codes::Code;
use crate::flags::save;
use crate::flags::site::Site;
use crate::flags::task::Download;
use procession::{Engine, PrivateDir, Registry, Said, Sequential, ThreadPool};

/// Adds the tasks of the demonstrations.
pub(super) fn add_to(registry: Registry) -> Registry {
    registry.with::<tasks::ShowFlag>().with::<tasks::Loiter>()
}

/// Shows one of them.
pub(super) fn run(demo: Demo) -> anyhow::Result<Exit> {
    if let Some(contradiction) = demo.contradiction() {
        return super::usage_error(Some(&["demo", demo.name()]), contradiction);
    }
    *lock(&SOCKETS) = PrivateDir::create().ok();
    signals::watch(|exit| {
        let end = move || {
            tidy();
            process::exit(exit as i32);
        };
        // Not in the thread that waits for signals: this may wait for a lock.
        let spawned = thread::Builder::new().name("ending".to_owned()).spawn(end);
        if spawned.is_err() {
            process::exit(exit as i32);
        }
    })
    .context("cannot listen to signals")?;
    let shown = match demo {
        Demo::Flags(args) => flags::run(args),
        Demo::Futures(args) => futures::run(args),
        Demo::Map(args) => map::run(args),
        Demo::Cpu(args) => cpu::run(args),
        Demo::Crash(args) => crash::run(args),
    };
    tidy();
    shown
}

/// Where flags go that nobody wants to keep.
static SCRATCH: Mutex<Option<TempDir>> = Mutex::new(None);

/// A directory that goes with the demonstration, or with the next call.
fn scratch() -> io::Result<PathBuf> {
    let dir = tempfile::Builder::new().prefix("coordinator-demo-").tempdir()?;
    let path = dir.path().to_owned();
    *lock(&SCRATCH) = Some(dir);
    Ok(path)
}

/// Where pools have their sockets, so that none is left behind, however the program ends.
static SOCKETS: Mutex<Option<PrivateDir>> = Mutex::new(None);

/// Removes what nobody needs once the program ends.
fn tidy() {
    drop(lock(&SCRATCH).take());
    drop(lock(&SOCKETS).take());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows a text at once. Whoever closed the pipe has seen enough: that ends the program.
fn show(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref().as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            tidy();
            process::exit(Exit::ClosedPipe as i32);
        }
        Err(error) => {
            tidy();
            stderr::say(format_args!("coordinator: cannot write to standard output: {error}"));
            process::exit(Exit::CouldNotWork as i32);
        }
    }
}

/// An executor with so many workers, all there, and someone who hears what its tasks say.
fn executor(
    mode: Mode,
    workers: usize,
    heard: impl Fn(&Said<'_>) + Send + Sync + 'static,
) -> anyhow::Result<Arc<dyn Engine>> {
    Ok(match mode {
        Mode::Sequential => Arc::new(Sequential::new().on_say(heard)),
        Mode::Threads => Arc::new(ThreadPool::new(workers).on_say(heard)),
        Mode::Processes => Arc::new(muster(crate::cli::pool().on_say(heard), workers, |_| {})?),
    })
}

/// How many tasks run at a time.
fn workers_in_words(mode: Mode, workers: usize) -> String {
    match (mode, workers) {
        (Mode::Sequential, _) => "one after the other".to_owned(),
        (Mode::Threads, 1) => "1 thread".to_owned(),
        (Mode::Threads, _) => format!("{workers} threads"),
        (Mode::Processes, 1) => "1 worker process".to_owned(),
        (Mode::Processes, _) => format!("{workers} worker processes"),
    }
}

/// Where flags come from and go to.
struct Source {
    /// Kept running.
    _server: Option<FlagServer>,
    fetch: FetchSettings,
    dest: PathBuf,
}

impl Source {
    fn open(site: &Site, dest: PathBuf, connections: usize) -> anyhow::Result<Self> {
        save::prepare(&dest)?;
        save::sweep(&dest);
        let server = download::start_server(site, DEFAULT_SEED)?;
        let url = match &server {
            Some(server) => server.base_url(),
            None => site.base_url().unwrap_or_default().to_owned(),
        };
        let fetch = FetchSettings { connections, ..FetchSettings::new(url) };
        let dest = std::path::absolute(dest).context("the destination has no path")?;
        Ok(Self { _server: server, fetch, dest })
    }

    fn download(&self, code: &str) -> Download {
        let code = code.parse::<Code>().expect("a code of the book");
        Download::new(code, self.fetch.clone(), self.dest.clone())
    }
}

/// What a demonstration came to.
fn exit(errors: usize) -> Exit {
    if errors == 0 { Exit::Answered } else { Exit::SomeErrors }
}
