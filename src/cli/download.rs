//! `coordinator [OPTIONS] [CC]...`: runs a download job on one of the executors, accounts for
//! every code, and reports.
//!
//! ```text
//!   feeder thread    submits the codes ───► executor ──┐
//!                                      done callbacks ─┼──► one channel ──► this thread: tally
//!   signals thread   Ctrl-C, SIGTERM ──────────────────┘                                  │
//!                                                                                         ▼
//!                                                                                      display
//! ```
//!
//! Codes are fed from a thread of their own because the sequential executor runs a task where it is
//! submitted, and Ctrl-C must be heard meanwhile.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::flag_server::{FlagServer, Kind};
use crate::flags::outcome::Counts;
use crate::flags::report::{self, Summary};
use crate::flags::save;
use crate::flags::site::Site;
use crate::flags::task::Download;
use crate::flags::validators;
use procession::PrivateDir;
use procession_journal as journal;
use procession_journal::{Level, LogEvent, RunOptions, RunReport, RunSettings};

use super::dashboard::Dashboard;
use super::display::Display;
use super::feeder::Feeder;
use super::hands;
use super::run_log::{self, Submitted};
use super::settings::{Logs, Settings};
use super::tally::{News, Tally};
use super::words::shell_word;
use super::{Exit, signals, stderr, stdout, usage};

/// Runs the job.
pub(super) fn run(mut settings: Settings) -> anyhow::Result<Exit> {
    let (news, inbox) = mpsc::channel();
    let signalled = news.clone();
    signals::watch(move |exit| {
        let _ = signalled.send(News::Signal(exit));
    })
    .context("cannot listen to signals")?;
    let has_server = settings.site.base_url().is_none();
    settings.crew = hands::within_the_limits(settings.crew, has_server)?;

    save::prepare(&settings.dest)?;
    save::sweep(&settings.dest);
    validators::tidy(&settings.dest);
    let server = start_server(&settings.site, settings.seed)?;
    let shown_url = match &server {
        Some(server) => server.shown_url(),
        None => settings.site.base_url().unwrap_or_default().to_owned(),
    };
    settings.fetch.base_url =
        server.as_ref().map_or_else(|| shown_url.clone(), FlagServer::base_url);
    settings.fetch.server = settings.site.to_string();
    settings.fetch.connections = settings.crew.connections_per_process();
    let log_dir = run_log::begin(&settings.logs, settings.keep_runs)?;
    run_log::record(Level::Info, as_event(&settings));
    let dashboard = open_dashboard(settings.dashboard, log_dir.as_deref())?;

    // Kept until the pool has ended. A run without one leaves a little more behind if it is killed.
    let _sockets = (settings.crew.workers() > 0).then(PrivateDir::create);
    let began = Instant::now();
    let display = Display::new(settings.display, settings.codes.len());
    let submitted = Submitted::default();
    let (crew, bar) = (settings.crew, display.bar());
    let hands = hands::start(crew, settings.workers, log_dir.as_deref(), &submitted, bar)?;
    let mut tally = Tally::new(display, &settings.codes, began);
    let report = report::initial(settings.site.label(), &shown_url, &settings.codes, crew.style());
    tally.begin(&report);
    if tally.display.broken().is_none() {
        let downloads = downloads(&settings);
        let feeder =
            Feeder::start(Arc::clone(&hands.engine), downloads, submitted, move |code, result| {
                // Once the report is made nobody listens any more.
                let _ = news.send(News::Done(code, result));
            });
        match feeder {
            Ok(feeder) => tally.follow(&inbox, &feeder),
            Err(error) => tally.failed = Some(format!("cannot start a thread: {error}")),
        }
    }
    let elapsed = began.elapsed();
    let is_abandoned = tally.is_missing_some();
    tally.account_for_the_rest();
    let has_log = log_dir.is_some() && journal::current().is_none_or(|log| log.lost() == 0);
    let End { exit, why, is_unread, counts } = conclude(&settings, tally, has_log, elapsed);
    hands::end(hands, crew, is_abandoned);
    // What workers that were killed have left.
    save::sweep(&settings.dest);
    run_log::record(
        Level::Info,
        LogEvent::Summary {
            report: RunReport {
                ok: counts.ok,
                not_found: counts.not_found,
                error: counts.error,
                not_done: Some(counts.not_done),
                unchanged: counts.unchanged,
                elapsed_s: Summary::seconds(elapsed),
                exit_code: exit as i32,
            },
            usage: usage::of_this_process(),
        },
    );
    run_log::end(exit as u8, why);
    if let Some(dashboard) = dashboard {
        dashboard.end();
    }
    if let Some(dir) = log_dir.filter(|_| !is_unread) {
        stderr::say(format_args!("logs: {}", dir.display()));
    }
    Ok(exit)
}

fn downloads(settings: &Settings) -> impl Iterator<Item = Download> + Send + 'static {
    let (fetch, dest) = (settings.fetch.clone(), settings.dest.clone());
    let codes = settings.codes.clone();
    let mut known = match settings.update {
        true => validators::read(&dest, &fetch.server),
        false => HashMap::new(),
    };
    codes.into_iter().map(move |code| Download {
        code,
        fetch: fetch.clone(),
        dest: dest.clone(),
        known: known.remove(&code),
        takes_notes: true,
    })
}

fn open_dashboard(
    addr: Option<SocketAddr>,
    log_dir: Option<&Path>,
) -> anyhow::Result<Option<Dashboard>> {
    let Some(addr) = addr else { return Ok(None) };
    let Some(logs) = log_dir else {
        stderr::say(format_args!("coordinator: without logs there is no dashboard"));
        return Ok(None);
    };
    let dashboard = Dashboard::open(addr)?;
    dashboard.watch(logs)?;
    Ok(Some(dashboard))
}

/// How a run ended.
struct End {
    exit: Exit,
    /// What more there is to say.
    why: Option<String>,
    /// Whether nobody reads the report.
    is_unread: bool,
    counts: Counts,
}

/// Reports, and says how it ended.
fn conclude(settings: &Settings, tally: Tally, has_log: bool, elapsed: Duration) -> End {
    let Tally { mut display, ended_by, broken, failed, .. } = tally;
    let counts = display.counts();
    let summary = Summary {
        server: settings.site.to_string(),
        mode: settings.crew.mode().to_owned(),
        workers: settings.crew.workers(),
        connections: settings.crew.connections(),
        counts,
        total: counts.total(),
        elapsed_s: Summary::seconds(elapsed),
        interrupted: ended_by.is_some(),
        errors: display.causes(),
        next: next(&settings.logs, counts).filter(|_| has_log),
    };
    display.end(&summary, elapsed);
    let (is_unread, unwritten) = match display.broken() {
        None => (false, None),
        // The reader has seen enough: there is no one to tell.
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => (true, None),
        Some(error) => (false, Some(format!("cannot write the report: {error}"))),
    };
    drop(display);
    let why = broken.map(|error| error.to_string()).or(failed).or(unwritten);
    if let Some(why) = &why {
        stderr::say(format_args!("coordinator: {why}"));
    }
    let is_left = counts.error + counts.not_done > 0;
    if !is_unread && is_left && summary.next.is_none() {
        stderr::say(format_args!(
            "coordinator: no log was kept of this run, so no other can go on with it"
        ));
    }
    let is_missing = settings.fail_on_missing && counts.not_found > 0;
    let exit = match ended_by {
        Some(exit) => exit,
        None if why.is_some() => Exit::CouldNotWork,
        None if is_unread => Exit::ClosedPipe,
        None if counts.error > 0 || is_missing => Exit::SomeErrors,
        None => Exit::Answered,
    };
    let why = why.or_else(|| is_unread.then(|| stdout::ClosedPipe.to_string()));
    End { exit, why, is_unread, counts }
}

/// The command that goes on from here, if something is left.
fn next(logs: &Logs, counts: Counts) -> Option<String> {
    let mut command = "coordinator".to_owned();
    for (number, option) in [(counts.not_done, " --resume"), (counts.error, " --retry-failed")] {
        if number > 0 {
            command += option;
        }
    }
    if let Logs::Asked(dir) = logs {
        command += &format!(" --log-dir {}", shell_word(&dir.display().to_string()));
    }
    (counts.not_done + counts.error > 0).then_some(command)
}

/// The run as its log begins: all that it takes to go on with it.
fn as_event(settings: &Settings) -> LogEvent {
    let Settings { codes, site, seed, fetch, update, continues, crew, workers, dest, .. } =
        settings;
    LogEvent::Run(RunSettings {
        mode: crew.mode().to_owned(),
        server: site.to_string(),
        codes: codes.len(),
        workers: crew.workers(),
        connections: crew.connections(),
        dest: dest.display().to_string(),
        wanted: codes.iter().map(ToString::to_string).collect(),
        options: Some(RunOptions {
            seed: *seed,
            timeout_s: fetch.timeout.as_secs_f64(),
            retries: fetch.retries,
            task_timeout_s: workers.task_timeout.map(|timeout| timeout.as_secs_f64()),
            max_tasks: workers.max_tasks,
            update: *update,
        }),
        continues: continues.clone(),
    })
}

pub(super) fn start_server(site: &Site, seed: u64) -> io::Result<Option<FlagServer>> {
    let kind = match site {
        Site::Local => Kind::Local,
        Site::Delay => Kind::Delay,
        Site::Error => Kind::Error,
        Site::Remote | Site::Custom(_) => return Ok(None),
    };
    FlagServer::builder(kind).seed(seed).start().map(Some)
}
