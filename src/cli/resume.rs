//! `--resume` and `--retry-failed`: an earlier run's log is its list of jobs.
//!
//! What was typed is completed by what that log tells, and then resolved like any other command
//! line: the codes are those that are left, and all else is as it was, unless it was typed.
//! Everything goes by the code, never by a position. A run may itself have gone on with an earlier
//! one: together they are one job, and what is left of it is left of all of them.

use std::collections::{HashMap, HashSet};
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
    let path = which_run::find(&logs, Some(run))?;
    let (name, story) = read(&path)?;
    let Some(setting) = &story.setting else {
        bail!(
            "the log of {name} does not tell what was asked for; an older run may be meant: see \
             coordinator logs --list"
        );
    };
    let mut job = Job::default();
    let must_tell = typed.resume.resume.is_some();
    for (name, story) in earlier(&path, setting)? {
        job.go_on(&name, &story, must_tell)?;
    }
    job.go_on(&name, &story, must_tell)?;
    let (left, what) = typed.resume.left_of(&job);
    let all = count(job.codes.len() as u64, "flag");
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

    /// What is left to do of a job, and how much of what that is.
    fn left_of(&self, job: &Job) -> (Vec<String>, String) {
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

/// What became of the codes of a run, and of those that it went on with.
#[derive(Default)]
struct Job {
    /// In the order in which they were asked for.
    codes: Vec<String>,
    states: HashMap<String, State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Undone,
    Failed,
}

impl Job {
    /// Adds a run that went on with those before: what it was asked for, it has decided anew.
    fn go_on(&mut self, name: &str, story: &Story, must_tell: bool) -> anyhow::Result<()> {
        let undone = story.undone();
        if undone.is_none() && must_tell {
            bail!("the log of {name} does not tell which flags were asked for");
        }
        let wanted = story.setting.iter().flat_map(|setting| setting.wanted.iter().cloned());
        let done = wanted.map(|code| (code, State::Done));
        let undone = undone.into_iter().flatten().map(|code| (code, State::Undone));
        let failed = story.failed().into_iter().map(|code| (code, State::Failed));
        for (code, state) in done.chain(undone).chain(failed) {
            if self.states.insert(code.clone(), state).is_none() {
                self.codes.push(code);
            }
        }
        Ok(())
    }

    fn in_state(&self, state: State) -> Vec<String> {
        let codes = self.codes.iter().filter(|code| self.states[*code] == state);
        codes.cloned().collect()
    }
}

/// The runs that a run went on with, the first one first. Those that are not kept any more are
/// told, and done without.
fn earlier(path: &Path, setting: &Setting) -> anyhow::Result<Vec<(String, Story)>> {
    let path = path.canonicalize()?;
    let logs = path.parent().unwrap_or(&path);
    let mut runs = Vec::new();
    let mut known = HashSet::from([which_run::name(&path)]);
    let mut next = setting.continues.clone();
    while let Some(name) = next.take().filter(|name| known.insert(name.clone())) {
        let Ok(path) = which_run::find(logs, Some(&name)) else {
            super::stderr::say(format_args!(
                "coordinator: {} is not kept any more; what failed there is not known",
                printable(&name)
            ));
            break;
        };
        let (name, story) = read(&path)?;
        next = story.setting.as_ref().and_then(|setting| setting.continues.clone());
        runs.push((name, story));
    }
    runs.reverse();
    Ok(runs)
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
