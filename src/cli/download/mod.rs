//! `coordinator [OPTIONS] [CC]...`: downloads flags with one of the executors and reports an outcome for
//! each code.
//!
//! ```text
//!   args ─(resume)─► settings ─► prepared_run ─► executor, collector ─► conclusion
//!   as typed         as resolved  log, server,    see below              report, exit code
//!                                 limits
//!
//!   submitter thread  submits the codes ──► executor ──┐
//!                                      done callbacks ─┼─► one channel ─► main thread: collector
//!   signals thread    Ctrl-C, SIGTERM ─────────────────┘                               │
//!                                                                                      ▼
//!                                                                                   display
//! ```
//!
//! The codes are submitted from a thread of their own because the sequential executor runs a task in
//! the thread that submits it, and the main thread must receive signals meanwhile.

mod args;
mod collector;
mod conclusion;
mod display;
mod executor;
mod parallelism;
mod prepared_run;
mod resource_limits;
mod resume;
mod settings;
mod submitter;
mod unfinished;

use anyhow::Context;
use clap::ArgMatches;

pub(super) use self::args::DownloadArgs;
use self::prepared_run::PreparedRun;
pub(super) use self::resource_limits::possible_workers;
use self::resume::ResumePlan;
use self::settings::DownloadSettings;
use super::exit::ProgramExit;
use super::usage_error::UsageError;
use super::{stderr, stdout};

/// Runs a download.
pub(super) fn run(mut args: DownloadArgs, matches: &ArgMatches) -> anyhow::Result<ProgramExit> {
    match resume::complete(&mut args, matches)? {
        ResumePlan::None => {}
        ResumePlan::Left(text) => stderr::print(format_args!("coordinator: {text}")),
        ResumePlan::Nothing(text, summary) => {
            stderr::print(format_args!("coordinator: {text}"));
            if args.json {
                stdout::print(&(summary.line() + "\n"))?;
            }
            return Ok(ProgramExit::Success);
        }
    }
    let settings = DownloadSettings::resolve(args).map_err(|error| UsageError::new(&[], error))?;
    let channel = collector::open_channel().context("cannot listen to signals")?;
    PreparedRun::prepare(settings)?.execute(channel)
}
