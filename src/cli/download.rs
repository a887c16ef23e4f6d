//! `coordinator [OPTIONS] [CC]...`: runs a download job on one of the executors, accounts for
//! every code, and reports.
//!
//! ```text
//!   feeder thread    submits the codes ───► executor ──┐
//!                                      done callbacks ─┼──► one channel ──► this thread: display
//!   signals thread   Ctrl-C, SIGTERM ──────────────────┘
//! ```
//!
//! Codes are fed from a thread of their own because the sequential executor runs a task where it is
//! submitted, and Ctrl-C must be heard meanwhile. Every code ends in exactly one outcome: its own,
//! or one that says why there is none.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::error::{PoolError, TaskError};
use crate::executor::{
    self, Executor, PrivateDir, ProcessPool, Recycling, Retries, Sequential, Shutdown, ThreadPool,
};
use crate::flag_server::{FlagServer, Kind};
use crate::flags::codes::Code;
use crate::flags::outcome::Outcome;
use crate::flags::report::{self, Summary};
use crate::flags::save;
use crate::flags::site::Site;
use crate::flags::task::{Download, note};
use crate::journal::{Event, Level};

use super::bar::Bar;
use super::display::Display;
use super::feeder::Feeder;
use super::logs::{self, WorkerOutput};
use super::settings::{Crew, Settings, WorkerSettings};
use super::{Exit, signals, stderr};

/// How long requests in flight may go on after the first Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);

/// What this thread waits for.
enum News {
    Done(Code, Result<Outcome, TaskError>),
    Signal(Exit),
}

/// Runs the job.
pub(super) fn run(settings: Settings) -> anyhow::Result<Exit> {
    let Settings {
        codes,
        site,
        seed,
        mut fetch,
        mut crew,
        workers,
        dest,
        display,
        fail_on_missing,
        logs,
    } = settings;
    let (news, inbox) = mpsc::channel();
    let signalled = news.clone();
    signals::watch(move |exit| {
        let _ = signalled.send(News::Signal(exit));
    })
    .context("cannot listen to signals")?;
    let most = most_connections(crew, site.base_url().is_none());
    if most < crew.connections() {
        crew = crew.with_at_most(most);
        let limit = "the limit of open files (ulimit -n) is too low for more connections";
        stderr::say(format_args!("coordinator: {limit} than {most}"));
    }

    save::prepare(&dest)?;
    save::sweep(&dest);
    let server = start_server(&site, seed)?;
    let shown_url = match &server {
        Some(server) => server.shown_url(),
        None => site.base_url().unwrap_or_default().to_owned(),
    };
    fetch.base_url = server.as_ref().map_or_else(|| shown_url.clone(), FlagServer::base_url);
    fetch.connections = crew.connections_per_process();
    let log_dir = logs::begin(&logs)?;
    logs::record(
        Level::Info,
        Event::Run {
            mode: crew.mode().to_owned(),
            server: site.to_string(),
            codes: codes.len(),
            workers: crew.workers(),
            connections: crew.connections(),
            dest: dest.display().to_string(),
        },
    );

    // Kept until the pool has ended. A run without one leaves a little more behind if it is killed.
    let _sockets = (crew.workers() > 0).then(PrivateDir::create);
    let began = Instant::now();
    let display = Display::new(display, codes.len());
    let executor = start_executor(crew, workers, log_dir.as_deref(), display.bar())?;
    let mut tally = Tally {
        display,
        unanswered: codes.iter().copied().collect(),
        ended_by: None,
        broken: None,
        began,
    };
    let report = report::initial(site.label(), &shown_url, &codes, crew.style());
    let shown = tally.display.begin(&report).and_then(|()| {
        let into = dest.clone();
        let downloads = codes.into_iter().map(move |code| Download {
            code,
            fetch: fetch.clone(),
            dest: into.clone(),
        });
        let feeder = Feeder::start(Arc::clone(&executor), downloads, move |code, result| {
            // Once the report is made nobody listens any more.
            let _ = news.send(News::Done(code, result));
        })?;
        tally.follow(&inbox, &feeder)
    });
    let elapsed = began.elapsed();
    let is_abandoned = !tally.unanswered.is_empty() || shown.is_err();
    let shown = shown.and_then(|()| tally.account_for_the_rest());
    let Tally { mut display, ended_by, broken, .. } = tally;

    let counts = display.counts();
    let summary = Summary {
        server: site.to_string(),
        mode: crew.mode().to_owned(),
        workers: crew.workers(),
        connections: crew.connections(),
        counts,
        total: counts.total(),
        elapsed_s: Summary::seconds(elapsed),
        interrupted: ended_by.is_some(),
    };
    let shown = shown.and_then(|()| display.end(&summary, elapsed));
    drop(display);
    let (is_unread, unwritten) = match shown {
        Ok(()) => (false, None),
        // Whoever closed the pipe has seen enough: nothing is wrong with that.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => (true, None),
        Err(error) => (false, Some(format!("cannot write the report: {error}"))),
    };
    let why = broken.map(|error| error.to_string()).or(unwritten);
    if let Some(why) = &why {
        stderr::say(format_args!("coordinator: {why}"));
    }
    let is_missing = fail_on_missing && counts.not_found > 0;
    let exit = match ended_by {
        Some(exit) => exit,
        None if is_unread => Exit::Answered,
        None if why.is_some() => Exit::CouldNotWork,
        None if counts.error > 0 || is_missing => Exit::SomeErrors,
        None => Exit::Answered,
    };
    end_executor(executor, crew, is_abandoned);
    // What workers that were killed have left.
    save::sweep(&dest);
    logs::record(
        Level::Info,
        Event::Summary {
            ok: counts.ok,
            not_found: counts.not_found,
            error: counts.error,
            elapsed_s: summary.elapsed_s,
            exit_code: exit as i32,
        },
    );
    logs::end(exit as u8, why);
    if let Some(dir) = log_dir.filter(|_| !is_unread) {
        stderr::say(format_args!("logs: {}", dir.display()));
    }
    Ok(exit)
}

/// What became of the codes so far.
struct Tally {
    display: Display,
    unanswered: BTreeSet<Code>,
    ended_by: Option<Exit>,
    broken: Option<PoolError>,
    began: Instant,
}

impl Tally {
    /// Receives outcomes until all are there, or until whoever interrupts has waited enough.
    fn follow(&mut self, inbox: &Receiver<News>, feeder: &Feeder) -> io::Result<()> {
        let mut deadline: Option<Instant> = None;
        while !self.unanswered.is_empty() {
            let news = match deadline {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    inbox.recv_timeout(left)
                }
            };
            match news {
                Ok(News::Done(code, result)) => self.settle(code, result)?,
                Ok(News::Signal(exit)) if self.ended_by.is_none() => {
                    self.ended_by = Some(exit);
                    deadline = Some(Instant::now() + GRACE);
                    feeder.stop();
                    if !self.unanswered.is_empty() {
                        self.display.bar().say(format_args!(
                            "coordinator: interrupted: {} s for requests in flight; again to end at once",
                            GRACE.as_secs()
                        ));
                    }
                }
                Ok(News::Signal(_)) | Err(_) => break,
            }
        }
        Ok(())
    }

    fn settle(&mut self, code: Code, result: Result<Outcome, TaskError>) -> io::Result<()> {
        let outcome = result.unwrap_or_else(|error| {
            if let TaskError::PoolBroken(error) = &error {
                self.broken.get_or_insert_with(|| error.clone());
            }
            let outcome = lost(code, &error, self.began.elapsed());
            note(&outcome);
            outcome
        });
        match self.unanswered.remove(&code) {
            true => self.display.outcome(&outcome),
            false => Ok(()),
        }
    }

    /// No code goes without an outcome.
    fn account_for_the_rest(&mut self) -> io::Result<()> {
        let rest: Vec<_> = self.unanswered.iter().copied().collect();
        rest.into_iter().try_for_each(|code| self.settle(code, Err(TaskError::Cancelled)))
    }
}

/// The outcome of a task that gave none itself.
fn lost(code: Code, error: &TaskError, elapsed: Duration) -> Outcome {
    match error {
        // It took no time of its own.
        TaskError::Cancelled => Outcome::failed(code, "cancelled", Duration::ZERO),
        TaskError::WorkerDied(death) => Outcome {
            worker: Some(death.worker),
            pid: death.pid,
            attempts: death.attempts,
            ..Outcome::failed(code, error.to_string(), death.ran_for)
        },
        TaskError::TimedOut { after, attempts } => {
            Outcome { attempts: *attempts, ..Outcome::failed(code, error.to_string(), *after) }
        }
        _ => Outcome::failed(code, error.to_string(), elapsed),
    }
}

fn start_server(site: &Site, seed: u64) -> io::Result<Option<FlagServer>> {
    let kind = match site {
        Site::Local => Kind::Local,
        Site::Delay => Kind::Delay,
        Site::Error => Kind::Error,
        Site::Remote | Site::Custom(_) => return Ok(None),
    };
    FlagServer::builder(kind).seed(seed).start().map(Some)
}

fn start_executor(
    crew: Crew,
    terms: WorkerSettings,
    log_dir: Option<&Path>,
    bar: &Bar,
) -> anyhow::Result<Arc<dyn executor::Engine>> {
    Ok(match crew {
        Crew::Sequential => Arc::new(Sequential::new()),
        Crew::Threads { connections } => Arc::new(ThreadPool::new(connections)),
        Crew::Processes { workers, connections } => {
            let output = WorkerOutput::new(log_dir, bar.clone());
            let bar = bar.clone();
            let mut pool = ProcessPool::builder()
                .workers(workers)
                .concurrency(connections)
                .worker_program_beside("worker")
                .retries(Retries::times(terms.retries))
                .recycling(Recycling { after_tasks: terms.max_tasks, ..Recycling::never() })
                .on_event(move |event| logs::pool_event(event, &bar))
                .on_output(move |line| output.record(line));
            if let Some(timeout) = terms.task_timeout {
                pool = pool.timeout(timeout);
            }
            if let Some(dir) = log_dir {
                pool = pool.worker_env(logs::DIRECTORY_VARIABLE, std::path::absolute(dir)?);
            }
            Arc::new(pool.build()?)
        }
    })
}

fn end_executor(executor: Arc<dyn executor::Engine>, crew: Crew, is_abandoned: bool) {
    match (is_abandoned, crew) {
        (false, _) => executor.shutdown(Shutdown::Wait),
        (true, Crew::Processes { .. }) => executor.shutdown(Shutdown::Kill),
        // Threads cannot be stopped, and to drop the executor would be to wait for them. They end
        // with the process, which is about to.
        (true, Crew::Sequential | Crew::Threads { .. }) => std::mem::forget(executor),
    }
}

/// How many connections the limit of open files allows, after it was raised as far as it may be.
/// A thousand connections need more descriptors than many systems give by default: here, in the
/// workers, and for the embedded server, which has the other end of each.
fn most_connections(crew: Crew, has_server: bool) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // The limits are as before if this is refused.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return usize::MAX };
    // For each connection: its socket, the flag that is being saved, and, where the embedded server
    // is in the same process, the other end. For each worker: its pipes and channels. Both with
    // some room for the rest.
    let (fixed, for_each) = match crew.workers() {
        0 => (16, 2 + usize::from(has_server)),
        workers => (16 + 12 * workers, usize::from(has_server)),
    };
    let here = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(fixed);
    let here = here.checked_div(for_each).unwrap_or(usize::MAX);
    let in_workers = match crew.workers() {
        0 => usize::MAX,
        workers => usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(24) / 2 * workers,
    };
    here.min(in_workers).max(1)
}
