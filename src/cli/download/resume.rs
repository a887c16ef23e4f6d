//! `--resume` and `--retry-failed`: a run continues an earlier one from its log.
//!
//! The arguments are completed from the log, and then resolved like any other command line. The codes
//! are those that are left to do; each option that was not typed has its value of the earlier run.
//! [`unfinished`](super::unfinished) finds the run and its codes.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ArgMatches;
use clap::parser::ValueSource;

use super::args::{JobArgs, JobRequest, ResumeArgs, SourceArgs, UNNAMED};
use super::logged_items::LoggedOptions;
use super::unfinished::LoggedRuns;
use crate::cli::contradiction::Contradiction;
use crate::cli::options::Mode;
use crate::cli::run_selection;
use crate::cli::usage_error::UsageError;
use crate::files::report::{FileNoun, RunSummary};
use crate::flags::site::Site;
use procession_journal::{RunOptions, RunSettings};

/// What a run continues.
pub(super) enum ResumePlan {
    /// No earlier run.
    None,
    /// The codes that are left of a run; with a sentence for the user.
    Left(String),
    /// A run of which nothing is left; with a sentence for the user and a summary.
    Nothing(String, Box<RunSummary>),
}

/// Completes the arguments from the log of the run that is to be continued, if there is one.
pub(super) fn complete(
    request: &mut JobRequest,
    matches: &ArgMatches,
) -> anyhow::Result<ResumePlan> {
    let subcommand = request.subcommand();
    let usage_error = |error: Box<dyn Error + Send + Sync>| UsageError::new(subcommand, error);
    let run = request.resume.run().map_err(|error| usage_error(error.into()))?;
    let Some(run) = run.map(str::to_owned) else { return Ok(ResumePlan::None) };
    let are_urls = matches!(request.source, SourceArgs::Urls(_));
    let logs = request.job.log_dir.clone().unwrap_or(PathBuf::from(run_selection::DEFAULT_LOG_DIR));
    let (runs, chosen) = find(&logs, &run, &request.resume, are_urls)?;
    let (name, settings) = (&runs.0[chosen].name, runs.0[chosen].settings()?);
    let job = runs.job(chosen, request.resume.resume.is_some())?;
    runs.print_warnings(chosen);
    let (left, what) = request.resume.left_of(&job);
    let noun = if are_urls { FileNoun::File } else { FileNoun::Flag };
    let all = noun.count(job.codes.len() as u64);
    if left.is_empty() {
        let text = format!("nothing to do: of {all} in {name} {what}");
        return Ok(ResumePlan::Nothing(text, Box::new(empty_summary(settings))));
    }
    let options = &runs.0[chosen].items.options;
    let is_typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    check_headers(&request.job, options).map_err(|text| usage_error(text.into()))?;
    match &mut request.source {
        SourceArgs::Flags { codes, site } => {
            codes.cc = left;
            if !is_typed("server") {
                site.server = settings.server.parse()?;
            }
            if let Some(options) = settings.options.as_ref().filter(|_| !is_typed("seed")) {
                site.seed = (site.server == Site::Error).then_some(options.seed);
            }
        }
        SourceArgs::Urls(_) | SourceArgs::Left(_) => {
            request.source = SourceArgs::Left(runs.items(chosen, &left));
        }
    }
    apply(&mut request.job, settings, options, &is_typed)?;
    request.resume.continues = Some(name.clone());
    let differences = differences(request, settings);
    Ok(ResumePlan::Left(format!("going on with {name}: of {all} {what}{differences}")))
}

/// Refuses to go on without the headers of the earlier run, whose values are in no log.
fn check_headers(args: &JobArgs, options: &LoggedOptions) -> Result<(), String> {
    let is_missing =
        |name: &&String| !args.headers().any(|(typed, _)| typed.eq_ignore_ascii_case(name));
    match options.headers.iter().find(is_missing) {
        Some(name) => Err(format!(
            "the run sent the header {name}, whose value is in no log: add --header '{name}: …'"
        )),
        None => Ok(()),
    }
}

/// The server and the destination, if options make them differ from those of the earlier run.
fn differences(request: &JobRequest, settings: &RunSettings) -> String {
    let typed_dest = &request.job.dest;
    let dest = std::path::absolute(typed_dest).unwrap_or_else(|_| typed_dest.clone());
    let dest = dest.display().to_string();
    let server = match &request.source {
        SourceArgs::Flags { site, .. } => site.server.to_string(),
        SourceArgs::Urls(_) | SourceArgs::Left(_) => settings.server.clone(),
    };
    let server = (server != settings.server)
        .then(|| format!("; from {server}, where the first part came from {}", settings.server));
    let dest = (dest != settings.dest)
        .then(|| format!("; into {dest}, while the first part is in {}", settings.dest));
    server.unwrap_or_default() + &dest.unwrap_or_default()
}

/// All runs that have logs, and the index of the one to continue.
fn find(
    logs: &Path,
    run: &str,
    resume: &ResumeArgs,
    are_urls: bool,
) -> anyhow::Result<(LoggedRuns, usize)> {
    if run == UNNAMED {
        // An error says that there is none.
        run_selection::find(logs, None)?;
        let runs = LoggedRuns::read(logs)?;
        let chosen = runs.newest_with_something_left(resume, are_urls)?;
        return Ok((runs, chosen));
    }
    let path = run_selection::find(logs, Some(run))?.canonicalize()?;
    let dir = if path.is_file() { path.parent().unwrap_or(&path) } else { &path };
    let runs = LoggedRuns::read(dir.parent().unwrap_or(dir))?;
    let chosen = runs.named(&run_selection::name(dir))?;
    match (runs.0[chosen].items.are_urls(), are_urls) {
        (true, false) => {
            bail!("{run} is a run of coordinator fetch: see coordinator fetch --resume")
        }
        (false, true) => bail!("{run} is a run of flags: see coordinator --resume"),
        _ => Ok((runs, chosen)),
    }
}

impl ResumeArgs {
    /// The name of the run to continue, which may be [`UNNAMED`]; `None` without the options.
    fn run(&self) -> Result<Option<&str>, Contradiction> {
        match (self.resume.as_deref(), self.retry_failed.as_deref()) {
            (None, run) | (run, None) | (run, Some(UNNAMED)) | (Some(UNNAMED), run) => Ok(run),
            (Some(one), Some(other)) if one == other => Ok(Some(one)),
            (Some(one), Some(other)) => {
                Err(Contradiction::TwoRuns(one.to_owned(), other.to_owned()))
            }
        }
    }
}

/// The summary of a run that had nothing to do.
fn empty_summary(settings: &RunSettings) -> RunSummary {
    RunSummary {
        server: settings.server.clone(),
        dest: settings.dest.clone(),
        mode: settings.mode.clone(),
        workers: settings.workers,
        connections: settings.connections,
        counts: Default::default(),
        total: 0,
        elapsed_s: 0.0,
        interrupted: false,
        errors: Vec::new(),
        next: None,
    }
}

/// Gives each option that was not typed its value of the earlier run.
fn apply(
    args: &mut JobArgs,
    settings: &RunSettings,
    logged: &LoggedOptions,
    is_typed: &impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    // All fields, so that a new setting cannot be forgotten.
    let RunSettings {
        mode,
        server: _,
        program: _,
        codes: _,
        wanted: _,
        workers,
        connections,
        dest,
        options,
        continues: _,
    } = settings;
    let LoggedOptions { source: _, headers: _, max_bytes, rate } = logged;
    if !is_typed("max_size") {
        args.max_size = *max_bytes;
    }
    if !is_typed("rate") {
        args.rate = *rate;
    }
    if !is_typed("dest") {
        args.dest = PathBuf::from(dest);
    }
    if !is_typed("mode") {
        args.mode = mode_named(mode)?;
        apply_parallelism(args, *workers, *connections, is_typed);
    }
    match options {
        Some(options) => apply_options(args, options, is_typed),
        None => Ok(()),
    }
}

fn apply_parallelism(
    args: &mut JobArgs,
    workers: usize,
    connections: usize,
    is_typed: impl Fn(&str) -> bool,
) {
    let has_processes = args.mode == Mode::Processes;
    if !is_typed("workers") && has_processes {
        let most = args.max_req.filter(|_| is_typed("max_req")).unwrap_or(usize::MAX);
        args.workers = Some(workers.max(1).min(most.max(1)));
    }
    // The number of connections was that of the workers, which now differs.
    let requested = args.workers.filter(|_| is_typed("workers"));
    let are_too_few = has_processes
        && requested.is_some_and(|requested| connections <= workers || connections < requested);
    if !is_typed("max_req") && !are_too_few {
        args.max_req = Some(connections.max(1));
    }
}

fn apply_options(
    args: &mut JobArgs,
    options: &RunOptions,
    is_typed: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let RunOptions { seed: _, timeout_s, retries, task_timeout_s, max_tasks, update } = options;
    if !is_typed("timeout") {
        args.request.timeout = Some(Duration::try_from_secs_f64(*timeout_s)?);
    }
    if !is_typed("retries") {
        args.request.retries = *retries;
    }
    if !is_typed("update") {
        args.update = *update;
    }
    if args.mode == Mode::Processes {
        if !is_typed("task_timeout") {
            args.task_timeout = task_timeout_s.map(Duration::try_from_secs_f64).transpose()?;
        }
        if !is_typed("max_tasks_per_worker") {
            let most = max_tasks.and_then(|most| usize::try_from(most).ok());
            args.max_tasks_per_worker = most.filter(|most| *most > 0);
        }
    }
    Ok(())
}

fn mode_named(name: &str) -> anyhow::Result<Mode> {
    [Mode::Sequential, Mode::Threads, Mode::Processes, Mode::Hosts]
        .into_iter()
        .find(|mode| mode.name() == name)
        .with_context(|| format!("the log names a mode {name:?}: add --mode"))
}
