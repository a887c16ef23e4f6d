//! `--resume` and `--retry-failed`: an earlier run's log is its list of jobs.
//!
//! What was typed is completed by what that log tells, and then resolved like any other command
//! line: the codes are those that are left, and all else is as it was, unless it was typed.
//! Everything goes by the code, never by a position.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ArgMatches;
use clap::parser::ValueSource;

use super::args::{Download, Mode};
use super::which_run;
use super::words::{count, printable};
use crate::flags::report::Summary;
use crate::journal::story::Setting;
use crate::journal::{self, Story, Terms};

/// Which run to go on with, and with what of it.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Going on with an earlier run")]
pub(super) struct Resume {
    /// What an interrupted or killed run left undone, into the same destination [RUN: the latest]
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = LATEST, conflicts_with_all = SELECTION)]
    pub resume: Option<String>,
    /// What failed in a run [RUN: the latest]; together with --resume, both
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = LATEST, conflicts_with_all = SELECTION)]
    pub retry_failed: Option<String>,
    /// The run that is gone on with, once that is known.
    #[arg(skip)]
    pub continues: Option<String>,
}

/// The run that is meant where none is named.
const LATEST: &str = "latest";

/// What the earlier run has decided.
const SELECTION: [&str; 5] = ["cc", "all", "every", "codes_file", "limit"];

/// What is to be done.
pub(super) enum Work {
    /// What was typed.
    AsTyped,
    /// What is left of a run, and how that is told.
    Left(String),
    /// Nothing is left of it. How that is told, and what the run came to.
    Nothing(String, Box<Summary>),
}

/// Completes what was typed by the log of the run that is to be gone on with, if there is one.
pub(super) fn complete(typed: &mut Download, matches: &ArgMatches) -> anyhow::Result<Work> {
    let Some(run) = typed.resume.run()? else { return Ok(Work::AsTyped) };
    let logs = typed.log_dir.clone().unwrap_or_else(|| PathBuf::from(which_run::LOGS));
    let (name, story) = read(&which_run::find(&logs, Some(run))?)?;
    let Some(setting) = &story.setting else {
        bail!(
            "the log of {name} does not tell what was asked for; an older run may be meant: see \
             coordinator logs --list"
        );
    };
    let (left, what) = typed
        .resume
        .left_of(&story)
        .with_context(|| format!("the log of {name} does not tell which flags were asked for"))?;
    let all = count(setting.codes as u64, "flag");
    if left.is_empty() {
        let told = format!("nothing to do: of {all} in {name} {what}");
        return Ok(Work::Nothing(told, Box::new(nothing_done(setting))));
    }
    typed.which.cc = left;
    apply(typed, setting, matches)?;
    let told = format!("going on with {name}: of {all} {what}");
    typed.resume.continues = Some(name);
    Ok(Work::Left(told))
}

impl Resume {
    /// The run that is meant, if one is.
    fn run(&self) -> anyhow::Result<Option<&str>> {
        match (self.resume.as_deref(), self.retry_failed.as_deref()) {
            (None, run) | (run, None) | (run, Some(LATEST)) | (Some(LATEST), run) => Ok(run),
            (Some(one), Some(other)) if one == other => Ok(Some(one)),
            (Some(one), Some(other)) => {
                bail!("--resume and --retry-failed go on with one run, not with {one} and {other}")
            }
        }
    }

    /// What is left to do of a run, and how much of what that is; `None` if its log does not tell.
    fn left_of(&self, story: &Story) -> Option<(Vec<String>, String)> {
        let (mut left, mut what) = (Vec::new(), Vec::new());
        if self.resume.is_some() {
            let undone = story.undone()?;
            what.push(format!("{} undone", undone.len()));
            left.extend(undone);
        }
        if self.retry_failed.is_some() {
            let failed = story.failed();
            what.push(format!("{} failed", failed.len()));
            left.extend(failed);
        }
        Some((left, what.join(", ")))
    }
}

/// The summary of a run that had nothing to do.
fn nothing_done(setting: &Setting) -> Summary {
    Summary {
        server: setting.server.clone(),
        mode: setting.mode.clone(),
        workers: setting.workers,
        connections: setting.connections,
        counts: Default::default(),
        total: 0,
        elapsed_s: 0.0,
        interrupted: false,
    }
}

fn read(path: &Path) -> anyhow::Result<(String, Story)> {
    let name = which_run::name(path);
    if journal::is_going_on(path) {
        bail!("the run {name} still goes on: see coordinator logs --follow");
    }
    let (story, troubles) =
        journal::read(path).with_context(|| format!("cannot read the log of {name}"))?;
    for trouble in troubles.lines() {
        super::stderr::say(format_args!("coordinator: {}", printable(&trouble)));
    }
    Ok((name, story))
}

/// Everything that was not typed is as it was.
fn apply(typed: &mut Download, setting: &Setting, matches: &ArgMatches) -> anyhow::Result<()> {
    let is_typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    // All of it, so that a new setting cannot be forgotten.
    let Setting {
        mode,
        server,
        codes: _,
        wanted: _,
        workers,
        connections,
        dest,
        terms,
        continues: _,
    } = setting;
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
            typed.workers = Some((*workers).max(1));
        }
        // There were so many only because there were so many workers.
        let are_too_few = in_processes && is_typed("workers") && connections <= workers;
        if !is_typed("max_req") && !are_too_few {
            typed.max_req = Some((*connections).max(1));
        }
    }
    let Some(Terms { seed, timeout_s, retries, task_timeout_s, max_tasks, update }) = terms else {
        return Ok(());
    };
    if !is_typed("seed") {
        typed.origin.seed = *seed;
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
