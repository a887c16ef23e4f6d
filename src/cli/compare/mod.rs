//! `coordinator compare`: the same job in several modes, measured.
//!
//! ```text
//!   args ──► plan ──► rounds ── job.run(mode) ──► flags ───┐
//!   as typed as       in turn                 └─► labour ──┴► run ──► process ──► memory
//!            resolved    │                        what to     one      started,    watched
//!                        ▼                        start                timed
//!            comparison ──► report ──► terminal, html + svg, md
//!            what it comes  in words:  export: json, csv
//!            to             conclusions
//! ```
//!
//! Every measured run is a process of its own, so that its CPU time and memory are its own, and
//! nothing of an earlier run is left in it. Nothing here knows how flags are downloaded.

pub(in crate::cli) mod args;
mod chart;
mod comparison;
mod conclusions;
mod export;
mod flags;
mod html;
mod labour;
mod memory;
mod mode;
mod once;
mod plan;
mod prices;
mod process;
mod progress;
mod report;
mod rounds;
mod run;
mod statistics;
mod svg;
mod terminal;

use std::sync::Arc;

use anyhow::Context;

use self::args::Args;
use self::comparison::{Comparison, Place};
use self::export::Export;
use self::flags::Flags;
use self::labour::Labour;
use self::plan::{Plan, What};
use self::progress::Progress;
use self::rounds::{End, Inbox};
use super::dashboard::Dashboard;
use super::{Exit, download, stderr};
use crate::flag_server::{DEFAULT_SEED, FlagServer};
use procession::PrivateDir;

/// Runs the comparison.
pub(super) fn run(typed: Args) -> anyhow::Result<Exit> {
    match plan::resolve(typed) {
        Err(error) => super::usage_error(Some(&["compare"]), error),
        Ok(Plan { what: What::Once { work, jobs, size }, modes, .. }) => {
            once::run(work, jobs, size, modes[0])
        }
        Ok(plan) => compare(plan),
    }
}

fn compare(plan: Plan) -> anyhow::Result<Exit> {
    let Plan { what, modes, reference, runs, warmup, exports, progress, color, dashboard, remarks } =
        plan;
    let inbox = Inbox::open().context("cannot listen to signals")?;
    // The destinations of the runs lie in it. What a killed comparison leaves there is removed by
    // the next program that makes such a directory. A comparison can do without.
    let _private = PrivateDir::create();
    let exports = exports.into_iter().map(|(path, format)| {
        let shown = path.display().to_string();
        Export::prepare(path, format).with_context(|| format!("cannot write --export {shown}"))
    });
    let exports = exports.collect::<anyhow::Result<Vec<_>>>()?;
    let progress = Progress::new(progress);
    let dashboard = dashboard.map(Dashboard::open).transpose()?;

    let begin = Comparison { warmup, runs, remarks, ..what.begin() };
    let program = std::env::current_exe().context("cannot find this program")?;
    let title = begin.job.clone();
    let measure = |job: &dyn run::Job| {
        let rounds = rounds::run(job, &modes, warmup, runs, &inbox, &progress);
        begin.with(&modes, reference, rounds)
    };
    let comparison = match what {
        What::Flags { codes, origin, workers } => {
            let super::args::Origin { server: site, seed, timeout, retries } = origin;
            let seed = seed.unwrap_or(DEFAULT_SEED);
            let server = download::start_server(&site, seed)?;
            let embedded = server.as_ref().map(FlagServer::base_url);
            let flags = Flags {
                program,
                codes,
                is_embedded: embedded.is_some(),
                url: embedded.or(site.base_url().map(str::to_owned)).unwrap_or_default(),
                timeout,
                retries,
                workers,
                dashboard: dashboard.as_ref(),
            };
            measure(&flags)
        }
        What::Labour { work, jobs, size, python: _ } => {
            let tell = dashboard.as_ref();
            let tell = tell.map(|page| -> labour::Tell { Arc::new(page.teller(&title)) });
            let labour = Labour { program, work, jobs, size, tell };
            let mut comparison = measure(&labour);
            comparison.scaling = comparison::scaling(&comparison.rows);
            if comparison.end == End::Done {
                let prices = prices::measure(&labour, &modes, &inbox, &progress);
                let odd = |what: &String| format!("Of tasks that do nothing, not counted: {what}");
                comparison.remarks.extend(prices.unlike.iter().map(odd));
                (comparison.prices, comparison.end) = (prices.of_each, prices.end);
            }
            comparison
        }
        What::Once { .. } => unreachable!("it is no comparison"),
    };
    let exit = conclude(&comparison, exports, color);
    if let Some(dashboard) = dashboard {
        dashboard.end();
    }
    exit
}

/// Tells what came of it.
fn conclude(
    comparison: &Comparison,
    exports: Vec<Export>,
    color: super::args::Color,
) -> anyhow::Result<Exit> {
    let exit = match &comparison.end {
        End::Signal(exit) => *exit,
        End::Broken(_) if comparison.is_empty() => Exit::CouldNotWork,
        End::Broken(_) => Exit::SomeErrors,
        End::Done if !comparison.unlike.is_empty() => Exit::SomeErrors,
        End::Done => Exit::Answered,
    };
    if comparison.is_empty() {
        stderr::say(format_args!(
            "coordinator: nothing was measured: {}",
            match &comparison.end {
                End::Broken(why) => why,
                End::Signal(_) => "interrupted",
                End::Done => "no run that counts brought what most runs did",
            }
        ));
        return Ok(exit);
    }
    let report = report::report(comparison);
    // What is exported does not depend on who reads the report.
    let printed = super::stdout::written(terminal::print(&report, color));
    for export in exports {
        let shown = export.path().display().to_string();
        let written = export.finish(comparison, &report);
        written.with_context(|| format!("cannot write --export {shown}"))?;
    }
    printed.map(|()| exit)
}

impl What {
    /// A comparison that knows its job, and nothing else yet.
    fn begin(&self) -> Comparison {
        let s = |count: usize| if count == 1 { "" } else { "s" };
        match self {
            Self::Flags { codes, origin, .. } => {
                let count = codes.len();
                let job = format!("{count} flag{} from {}", s(count), origin.server);
                Comparison::new(job, "flags", Place::here(None))
            }
            Self::Labour { work, jobs, size, python } => {
                let job = format!("{jobs} job{}: {}", s(*jobs), work.describe(*size));
                let place = Place::here(python.clone());
                Comparison { work: Some((*work, *jobs)), ..Comparison::new(job, "jobs", place) }
            }
            Self::Once { .. } => unreachable!("it is no comparison"),
        }
    }
}
