//! `coordinator compare`: the same job in several modes, measured.
//!
//! ```text
//!   args ──► plan ──► rounds ── job.run(mode) ─┬─► flags_job ─┬─► run ──► runner ──► memory
//!   as typed as       in turn                  └─► task_job ──┘   one     starts     peak
//!            resolved    │                         what to        run     and times
//!                        ▼                         start                  a process
//!            comparison ──► report ──► terminal, export: html, svg, md
//!            the results    in words:  export: json, csv
//!                           conclusions
//! ```
//!
//! Every measured run is a process of its own, so that its CPU time and memory are its own, and no
//! state of an earlier run is left in it. This directory does not know how flags are downloaded.

mod args;
mod chart;
mod comparison;
mod conclusions;
mod export;
mod flags_job;
mod memory;
mod mode;
mod once;
mod overhead;
mod plan;
mod progress;
mod report;
mod rounds;
mod run;
mod runner;
mod statistics;
mod task_job;
mod terminal;

use std::sync::Arc;

use anyhow::Context;

pub(super) use self::args::CompareArgs;
use self::comparison::{Comparison, MeasurementContext};
use self::export::ExportFile;
use self::flags_job::FlagsJob;
use self::mode::{ExecutorSpec, MeasuredMode};
use self::plan::{ComparisonPlan, JobSpec};
use self::progress::ComparisonProgress;
use self::rounds::{ComparisonEnd, RoundMessages};
use self::run::MeasuredJob;
use self::task_job::{EntrySink, TaskJob};
use super::dashboard::RunDashboard;
use super::exit::ProgramExit;
use super::hosts::{self, NatsArgs};
use super::options::{ColorOption, FLAG_TIMEOUT, RequestArgs, SiteArgs};
use super::usage_error::UsageError;
use super::{download, embedded_server, stderr, stdout};
use crate::flag_server::{DEFAULT_SEED, FlagServer};
use procession::PrivateDir;

/// Runs the comparison; or, with `--once`, one measured run.
pub(super) fn run(args: CompareArgs) -> anyhow::Result<ProgramExit> {
    if args.modes.iter().any(|mode| mode.executor == ExecutorSpec::Hosts) {
        hosts::ensure_built()?;
    }
    let plan =
        ComparisonPlan::resolve(args).map_err(|error| UsageError::new(&["compare"], error))?;
    match plan.job {
        JobSpec::Once { work, jobs, size } => once::run(work, jobs, size, plan.modes[0]),
        _ => compare(plan),
    }
}

fn compare(mut plan: ComparisonPlan) -> anyhow::Result<ProgramExit> {
    plan.remarks.extend(fewer_workers(&plan.modes)?);
    let messages = RoundMessages::open().context("cannot listen to signals")?;
    // The destinations of the runs are in this directory. The next program that creates one removes
    // the directories of programs that were killed. An error is ignored.
    let _private = PrivateDir::create();
    let exports = plan.exports.iter().map(|path| {
        ExportFile::prepare(path.clone())
            .with_context(|| format!("cannot write --export {}", path.display()))
    });
    let exports = exports.collect::<anyhow::Result<Vec<_>>>()?;
    let progress = ComparisonProgress::new(plan.progress);
    let dashboard = plan.dashboard.map(RunDashboard::open).transpose()?;
    let color = plan.color;
    let measurement = MeasurementParts { messages, progress, dashboard: dashboard.as_ref() };
    let comparison = measurement.measure(plan)?;
    let exit = conclude(&comparison, exports, color);
    if let Some(dashboard) = dashboard {
        dashboard.end();
    }
    exit
}

/// A remark that modes have fewer workers than their names say, if the limits of this process allow no
/// more.
fn fewer_workers(modes: &[MeasuredMode]) -> anyhow::Result<Option<String>> {
    let workers = modes.iter().filter_map(|mode| match mode.executor {
        ExecutorSpec::Processes(size) => Some(size.map_or(1, |size| size.workers)),
        _ => None,
    });
    let Some(most) = workers.max() else { return Ok(None) };
    let possible = download::possible_workers(most)?;
    let are = if possible == 1 { "worker is" } else { "workers are" };
    Ok((possible < most).then(|| {
        format!("No more than {possible} {are} possible here: modes of more have {possible}.")
    }))
}

/// What the measurement of a plan uses.
struct MeasurementParts<'d> {
    messages: RoundMessages,
    progress: ComparisonProgress,
    dashboard: Option<&'d RunDashboard>,
}

impl MeasurementParts<'_> {
    fn measure(&self, plan: ComparisonPlan) -> anyhow::Result<Comparison> {
        let program = std::env::current_exe().context("cannot find this program")?;
        match &plan.job {
            JobSpec::Flags { codes, site, request, workers, nats } => {
                let SiteArgs { server: site, seed } = site;
                let RequestArgs { timeout, retries } = request;
                let server = embedded_server::start(site, seed.unwrap_or(DEFAULT_SEED))?;
                let embedded = server.as_ref().map(FlagServer::base_url);
                let job = FlagsJob {
                    program,
                    codes: codes.clone(),
                    is_embedded: embedded.is_some(),
                    url: embedded.or(site.base_url().map(str::to_owned)).unwrap_or_default(),
                    timeout: timeout.unwrap_or(FLAG_TIMEOUT),
                    retries: *retries,
                    workers: *workers,
                    dashboard: self.dashboard,
                    nats: NatsArgs::clone(nats),
                };
                Ok(self.compare(&job, &plan))
            }
            JobSpec::Tasks { work, jobs, size, python: _ } => {
                let title = plan.job.title();
                let show =
                    self.dashboard.map(|page| -> EntrySink { Arc::new(page.entry_sink(&title)) });
                let job = TaskJob { program, work: *work, jobs: *jobs, size: *size, show };
                let mut comparison = self.compare(&job, &plan);
                comparison.scaling = comparison::scaling(&comparison.rows);
                if comparison.end == ComparisonEnd::Done {
                    self.add_overheads(&mut comparison, &job, &plan);
                }
                Ok(comparison)
            }
            JobSpec::Once { .. } => unreachable!("it is no comparison"),
        }
    }

    fn compare(&self, job: &dyn MeasuredJob, plan: &ComparisonPlan) -> Comparison {
        let ComparisonPlan { modes, reference, runs, warmup, remarks, .. } = plan;
        let rounds = rounds::run(job, modes, *warmup, *runs, &self.messages, &self.progress);
        let begin = Comparison {
            warmup: *warmup,
            runs: *runs,
            remarks: remarks.clone(),
            ..plan.job.comparison()
        };
        begin.with(modes, *reference, rounds)
    }

    fn add_overheads(&self, comparison: &mut Comparison, job: &TaskJob, plan: &ComparisonPlan) {
        let overheads = overhead::measure(job, &plan.modes, &self.messages, &self.progress);
        let remark = |what: &String| format!("Of tasks that do nothing, not counted: {what}");
        comparison.remarks.extend(overheads.deviations.iter().map(remark));
        (comparison.overheads, comparison.end) = (overheads.of_modes, overheads.end);
    }
}

/// Prints the report, writes the exports, and returns the exit code.
fn conclude(
    comparison: &Comparison,
    exports: Vec<ExportFile>,
    color: ColorOption,
) -> anyhow::Result<ProgramExit> {
    let exit = match &comparison.end {
        ComparisonEnd::Signal(exit) => *exit,
        ComparisonEnd::Broken(_) if comparison.is_empty() => ProgramExit::CouldNotWork,
        ComparisonEnd::Broken(_) => ProgramExit::SomeErrors,
        ComparisonEnd::Done if !comparison.deviations.is_empty() => ProgramExit::SomeErrors,
        ComparisonEnd::Done => ProgramExit::Success,
    };
    if comparison.is_empty() {
        stderr::print(format_args!(
            "coordinator: nothing was measured: {}",
            match &comparison.end {
                ComparisonEnd::Broken(why) => why,
                ComparisonEnd::Signal(_) => "interrupted",
                ComparisonEnd::Done => "no run that counts has the results of most runs",
            }
        ));
        return Ok(exit);
    }
    let report = report::report(comparison);
    // The exports are written even if standard output is closed.
    let printed = stdout::written(terminal::print(&report, color));
    for export in exports {
        let shown = export.path().display().to_string();
        let written = export.finish(comparison, &report);
        written.with_context(|| format!("cannot write --export {shown}"))?;
    }
    printed.map(|()| exit)
}

impl JobSpec {
    /// The job, in words.
    fn title(&self) -> String {
        let s = |count: usize| if count == 1 { "" } else { "s" };
        match self {
            Self::Flags { codes, site, .. } => {
                format!("{} flag{} from {}", codes.len(), s(codes.len()), site.server)
            }
            Self::Tasks { work, jobs, size, .. } | Self::Once { work, jobs, size } => {
                format!("{jobs} job{}: {}", s(*jobs), work.describe(*size))
            }
        }
    }

    /// A comparison of the job, without results.
    fn comparison(&self) -> Comparison {
        match self {
            Self::Tasks { work, jobs, python, .. } => {
                let context = MeasurementContext::here(python.clone());
                let begin = Comparison::new(self.title(), "jobs", context);
                Comparison { work: Some((*work, *jobs)), ..begin }
            }
            Self::Flags { .. } | Self::Once { .. } => {
                Comparison::new(self.title(), "flags", MeasurementContext::here(None))
            }
        }
    }
}
