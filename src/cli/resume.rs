//! `--resume` and `--retry-failed`: an earlier run's log is its list of jobs.
//!
//! What was typed is completed by what that log tells, and then resolved like any other command
//! line: the codes are those that are left, and all else is as it was, unless it was typed.
//! Everything goes by the code, never by a position. What is left of which run is found out in
//! [`unfinished`](super::unfinished).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::ArgMatches;
use clap::parser::ValueSource;

use super::args::{Download, Mode};
use super::unfinished::{Job, Runs, State};
use super::which_run;
use super::words::count;
use crate::flags::report::Summary;
use crate::flags::site::Site;
use procession_journal::{RunOptions, RunSettings};

/// Which run to go on with, and with what of it.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Going on with an earlier run")]
pub(super) struct Resume {
    /// What an interrupted or killed run left undone, into the same destination [RUN: the newest
    /// unfinished one]
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = UNNAMED, conflicts_with_all = SELECTION)]
    pub resume: Option<String>,
    /// What failed in a run [RUN: the newest in which something failed]; with --resume, both
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = UNNAMED, conflicts_with_all = SELECTION)]
    pub retry_failed: Option<String>,
    /// The run that is gone on with, once that is known.
    #[arg(skip)]
    pub continues: Option<String>,
}

/// What stands for the name of the run where none is given.
const UNNAMED: &str = "";

/// What the earlier run has decided.
const SELECTION: [&str; 5] = ["cc", "all", "every", "codes_file", "limit"];

/// What is to be done.
pub(super) enum Work {
    /// What was typed.
    AsTyped,
    /// What is left of a run, and how that is told.
    Left(String),
    /// Nothing: the options contradict each other, in this way.
    Refused(String),
    /// Nothing is left of it. How that is told, and what the run came to.
    Nothing(String, Box<Summary>),
}

/// Completes what was typed by the logs of the run that is to be gone on with, if there is one.
pub(super) fn complete(typed: &mut Download, matches: &ArgMatches) -> anyhow::Result<Work> {
    let run = match typed.resume.run() {
        Ok(Some(run)) => run.to_owned(),
        Ok(None) => return Ok(Work::AsTyped),
        Err(contradiction) => return Ok(Work::Refused(contradiction)),
    };
    let logs = typed.log_dir.clone().unwrap_or_else(|| PathBuf::from(which_run::LOGS));
    let (runs, chosen) = find(&logs, &run, &typed.resume)?;
    let (name, settings) = (&runs.0[chosen].name, runs.0[chosen].settings()?);
    let job = runs.job(chosen, typed.resume.resume.is_some())?;
    runs.tell_troubles(chosen);
    let (left, what) = typed.resume.left_of(&job);
    let all = count(job.codes.len() as u64, "flag");
    if left.is_empty() {
        let told = format!("nothing to do: of {all} in {name} {what}");
        return Ok(Work::Nothing(told, Box::new(nothing_done(settings))));
    }
    typed.which.cc = left;
    apply(typed, settings, matches)?;
    typed.resume.continues = Some(name.clone());
    let otherwise = otherwise(typed, settings);
    Ok(Work::Left(format!("going on with {name}: of {all} {what}{otherwise}")))
}

/// What the rest of the run does otherwise than its beginning, because that was typed.
fn otherwise(typed: &Download, settings: &RunSettings) -> String {
    let server = typed.origin.server.to_string();
    let dest = std::path::absolute(&typed.dest).unwrap_or_else(|_| typed.dest.clone());
    let dest = dest.display().to_string();
    let server = (server != settings.server)
        .then(|| format!("; from {server}, where the first part came from {}", settings.server));
    let dest = (dest != settings.dest)
        .then(|| format!("; into {dest}, while the first part is in {}", settings.dest));
    server.unwrap_or_default() + &dest.unwrap_or_default()
}

/// The runs whose logs are there, and which of them is meant.
fn find(logs: &Path, run: &str, resume: &Resume) -> anyhow::Result<(Runs, usize)> {
    if run == UNNAMED {
        // Tells if there is none.
        which_run::find(logs, None)?;
        let runs = Runs::read(logs)?;
        let chosen = runs.newest_with_something_left(resume)?;
        return Ok((runs, chosen));
    }
    let path = which_run::find(logs, Some(run))?.canonicalize()?;
    let dir = if path.is_file() { path.parent().unwrap_or(&path) } else { &path };
    let runs = Runs::read(dir.parent().unwrap_or(dir))?;
    let chosen = runs.named(&which_run::name(dir))?;
    Ok((runs, chosen))
}

impl Resume {
    /// The run that is meant, if one is; or why the two options contradict each other.
    fn run(&self) -> Result<Option<&str>, String> {
        match (self.resume.as_deref(), self.retry_failed.as_deref()) {
            (None, run) | (run, None) | (run, Some(UNNAMED)) | (Some(UNNAMED), run) => Ok(run),
            (Some(one), Some(other)) if one == other => Ok(Some(one)),
            (Some(one), Some(other)) => Err(format!(
                "--resume and --retry-failed go on with one run, not with {one} and {other}: name \
                 it once"
            )),
        }
    }

    /// What is left to do of a job, and how much of what that is.
    pub(super) fn left_of(&self, job: &Job) -> (Vec<String>, String) {
        let (mut left, mut what) = (Vec::new(), Vec::new());
        let (undone, failed) = (job.in_state(State::Undone), job.in_state(State::Failed));
        if self.resume.is_some() {
            what.push(format!("{} undone", undone.len()));
            left.extend(undone.iter().cloned());
        }
        match (self.retry_failed.is_some(), failed.len()) {
            (true, number) => {
                if self.resume.is_none() && !undone.is_empty() {
                    what.push(format!("{} undone (for these, --resume)", undone.len()));
                }
                what.push(format!("{number} failed"));
                left.extend(failed);
            }
            (false, 0) => {}
            (false, number) => what.push(format!("{number} failed (for these, --retry-failed)")),
        }
        (left, what.join(", "))
    }
}

/// The summary of a run that had nothing to do.
fn nothing_done(settings: &RunSettings) -> Summary {
    Summary {
        server: settings.server.clone(),
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

/// Everything that was not typed is as it was.
fn apply(typed: &mut Download, settings: &RunSettings, matches: &ArgMatches) -> anyhow::Result<()> {
    let is_typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    // All of it, so that a new setting cannot be forgotten.
    let RunSettings {
        mode,
        server,
        codes: _,
        wanted: _,
        workers,
        connections,
        dest,
        options,
        continues: _,
    } = settings;
    if !is_typed("server") {
        typed.origin.server = server.parse()?;
    }
    if !is_typed("dest") {
        typed.dest = PathBuf::from(dest);
    }
    let is_same_mode = !is_typed("mode");
    if is_same_mode {
        typed.mode = mode_named(mode)?;
        let in_processes = typed.mode == Mode::Processes;
        if !is_typed("workers") && in_processes {
            let most = typed.max_req.filter(|_| is_typed("max_req")).unwrap_or(usize::MAX);
            typed.workers = Some((*workers).max(1).min(most.max(1)));
        }
        // There were so many only because there were so many workers.
        let asked = typed.workers.filter(|_| is_typed("workers"));
        let are_too_few = in_processes
            && asked.is_some_and(|asked| connections <= workers || *connections < asked);
        if !is_typed("max_req") && !are_too_few {
            typed.max_req = Some((*connections).max(1));
        }
    }
    let Some(RunOptions { seed, timeout_s, retries, task_timeout_s, max_tasks, update }) = options
    else {
        return Ok(());
    };
    if !is_typed("seed") {
        typed.origin.seed = (typed.origin.server == Site::Error).then_some(*seed);
    }
    if !is_typed("timeout") {
        typed.origin.timeout = Duration::try_from_secs_f64(*timeout_s)?;
    }
    if !is_typed("retries") {
        typed.origin.retries = *retries;
    }
    if !is_typed("update") {
        typed.update = *update;
    }
    if typed.mode == Mode::Processes {
        if !is_typed("task_timeout") {
            typed.task_timeout = task_timeout_s.map(Duration::try_from_secs_f64).transpose()?;
        }
        if !is_typed("max_tasks_per_worker") {
            let most = max_tasks.and_then(|most| usize::try_from(most).ok());
            typed.max_tasks_per_worker = most.filter(|most| *most > 0);
        }
    }
    Ok(())
}

fn mode_named(name: &str) -> anyhow::Result<Mode> {
    [Mode::Sequential, Mode::Threads, Mode::Processes]
        .into_iter()
        .find(|mode| mode.name() == name)
        .with_context(|| format!("the log tells of a mode {name:?}: add --mode"))
}
