//! `coordinator [OPTIONS] [CC]...` and `coordinator fetch`: download flags or any files with one of the
//! executors, and report an outcome for each.
//!
//! ```text
//!   args ─(resume)─► settings ─► prepared_run ─► executor, collector ─► conclusion
//!   as typed         as resolved  log, server,    see below              report, exit code
//!                    source       limits, items
//!
//!   submitter thread  submits the items ──► executor ──┐
//!                                      done callbacks ─┼─► one channel ─► main thread: collector
//!   signals thread    Ctrl-C, SIGTERM ─────────────────┘                               │
//!                                                                                      ▼
//!                                                                                   display
//! ```
//!
//! The items are submitted from a thread of their own because the sequential executor runs a task in
//! the thread that submits it, and the main thread must receive signals during that time.

mod args;
mod collector;
mod conclusion;
mod display;
mod executor;
mod host_journals;
mod joblog;
mod logged_items;
mod parallelism;
mod prepared_run;
mod resource_limits;
mod resume;
mod sandbox;
mod settings;
mod source;
mod submitter;
mod unfinished;

use anyhow::Context;
use clap::ArgMatches;

pub(super) use self::args::{DownloadArgs, FetchArgs, JobRequest};
use self::prepared_run::PreparedRun;
pub(super) use self::resource_limits::{possible_workers, stack_under_a_limit};
use self::resume::ResumePlan;
use self::settings::DownloadSettings;
use super::exit::ProgramExit;
use super::options::Mode;
use super::usage_error::UsageError;
use super::{format, hosts, stderr, stdout};
use crate::files::item::FileItem;

/// Runs a download. `matches` are those of its command, and tell which options were typed.
pub(super) fn run(mut request: JobRequest, matches: &ArgMatches) -> anyhow::Result<ProgramExit> {
    let subcommand = request.subcommand();
    match resume::complete(&mut request, matches)? {
        ResumePlan::None => {}
        ResumePlan::Left(text) => stderr::print(format_args!("coordinator: {text}")),
        ResumePlan::Nothing(text, summary) => {
            stderr::print(format_args!("coordinator: {text}"));
            if request.job.json {
                stdout::print(&(summary.line() + "\n"))?;
            }
            return Ok(ProgramExit::Success);
        }
    }
    // Checked first: without the feature, nothing else that this mode needs would help.
    if request.job.mode == Mode::Hosts {
        hosts::ensure_built()?;
    }
    let settings =
        DownloadSettings::resolve(request).map_err(|error| UsageError::new(subcommand, error))?;
    print_notes(settings.source.notes());
    if settings.dry_run {
        return dry_run(&settings);
    }
    let channel = collector::open_channel().context("cannot listen to signals")?;
    conclusion::conclude(PreparedRun::prepare(settings)?.execute(channel)?)
}

/// The most notes about a list that are printed one by one.
const NOTES: usize = 5;

fn print_notes(notes: &[String]) {
    for note in notes.iter().take(NOTES) {
        stderr::print(format_args!("coordinator: {}", format::printable(note)));
    }
    if let Some(more @ 1..) = notes.len().checked_sub(NOTES) {
        let more = format::count(more as u64, "more line");
        stderr::print(format_args!(
            "coordinator: and {more} like these: --dry-run shows all names"
        ));
    }
}

/// Prints what would be fetched.
fn dry_run(settings: &DownloadSettings) -> anyhow::Result<ProgramExit> {
    #[derive(serde::Serialize)]
    struct PlannedLine<'i> {
        code: &'i str,
        url: &'i str,
        path: String,
    }
    let items = settings.source.planned();
    let mut text = String::new();
    for FileItem { code, url, file, .. } in &items {
        text += &match settings.display.json {
            true => {
                let path = settings.dest.join(file).display().to_string();
                serde_json::to_string(&PlannedLine { code, url, path })?
            }
            false => format!("{url} -> {}", settings.shown_dest.join(file).display()),
        };
        text.push('\n');
    }
    stdout::print(&text)?;
    let files = settings.source.noun().count(items.len() as u64);
    stderr::print(format_args!("coordinator: {files} would be fetched; --dry-run fetches nothing"));
    Ok(ProgramExit::Success)
}
