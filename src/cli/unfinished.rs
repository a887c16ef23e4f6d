//! What is left to do of the runs whose logs are there.
//!
//! A run may have gone on with an earlier one: together they are one job, and what is left of it is
//! left of all of them, whichever of them is named.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, bail};

use super::resume::Resume;
use super::stderr;
use super::words::printable;
use procession_journal as journal;
use procession_journal::history::FinalStatus;
use procession_journal::{ReadWarnings, RunDir, RunHistory, RunSettings};

/// A run whose log is there.
pub(super) struct Run {
    pub(super) name: String,
    history: RunHistory,
    warnings: ReadWarnings,
    goes_on: bool,
}

impl Run {
    pub(super) fn settings(&self) -> anyhow::Result<&RunSettings> {
        self.history.settings.as_ref().with_context(|| {
            format!(
                "the log of {} does not tell what was asked for; an older run may be meant: see \
                 coordinator logs --list",
                self.name
            )
        })
    }

    fn continues(&self) -> Option<&String> {
        self.history.settings.as_ref()?.continues.as_ref()
    }

    /// Whether both were to save the same server's flags in the same directory.
    fn has_the_target_of(&self, other: &Self) -> bool {
        let target = |run: &Self| {
            run.history.settings.as_ref().map(|run| (run.server.clone(), run.dest.clone()))
        };
        target(self).is_some() && target(self) == target(other)
    }
}

/// All runs whose logs are there and can be read, the oldest first.
pub(super) struct Runs(pub(super) Vec<Run>);

impl Runs {
    pub(super) fn read(logs: &Path) -> anyhow::Result<Self> {
        let runs = RunDir::list(logs)?.into_iter().filter_map(|run| {
            let path = run.path();
            // Before the log is read: the run may end meanwhile.
            let goes_on = journal::is_running(&path);
            let (history, warnings) = journal::read(&path).ok()?;
            Some(Run { name: run.name().to_owned(), history, warnings, goes_on })
        });
        Ok(Self(runs.collect()))
    }

    /// The run of this name.
    pub(super) fn named(&self, name: &str) -> anyhow::Result<usize> {
        let found = self.0.iter().position(|run| run.name == name);
        let found = found.with_context(|| format!("cannot read the log of {name}"))?;
        self.refuse_what_goes_on(&self.members(found))?;
        Ok(found)
    }

    fn refuse_what_goes_on(&self, members: &[usize]) -> anyhow::Result<()> {
        match members.iter().map(|run| &self.0[*run]).find(|run| run.goes_on) {
            Some(run) => {
                bail!("the run {} still goes on: see coordinator logs --follow", run.name)
            }
            None => Ok(()),
        }
    }

    /// The newest run of which something is left; the newest of all if there is none.
    pub(super) fn newest_with_something_left(&self, resume: &Resume) -> anyhow::Result<usize> {
        let mut seen = HashSet::new();
        for run in (0..self.0.len()).rev() {
            if seen.contains(&run) {
                continue;
            }
            let members = self.members(run);
            let is_free = self.refuse_what_goes_on(&members).is_ok();
            seen.extend(members);
            if is_free
                && self.0[run].history.settings.is_some()
                && let Ok(job) = self.job(run, resume.resume.is_some())
                && !resume.left_of(&job).0.is_empty()
            {
                return Ok(run);
            }
        }
        let newest = self.0.len().checked_sub(1).context("none of the logs can be read")?;
        self.refuse_what_goes_on(&self.members(newest))?;
        Ok(newest)
    }

    /// The runs that are one job with this one: those that it went on with, those that went on
    /// with it, and so on. The oldest first.
    fn members(&self, run: usize) -> Vec<usize> {
        let goes_on_with = |one: &Run, other: &Run| one.continues() == Some(&other.name);
        let mut members = BTreeSet::from([run]);
        loop {
            let before = members.len();
            for (index, run) in self.0.iter().enumerate() {
                let is_linked = members
                    .iter()
                    .map(|member| &self.0[*member])
                    .any(|member| goes_on_with(run, member) || goes_on_with(member, run));
                if is_linked {
                    members.insert(index);
                }
            }
            if members.len() == before {
                return members.into_iter().collect();
            }
        }
    }

    /// What became of the codes of all runs of a job. What another, later run has brought from the
    /// same server into the same directory is done as well.
    pub(super) fn job(&self, run: usize, must_tell: bool) -> anyhow::Result<Job> {
        let members = self.members(run);
        let mut job = Job::default();
        for index in members[0]..self.0.len() {
            let Run { name, history, .. } = &self.0[index];
            if members.contains(&index) {
                job.go_on(name, history, must_tell)?;
            } else if self.0[index].has_the_target_of(&self.0[run]) {
                job.note_done(history);
            }
        }
        Ok(job)
    }

    /// Says what is wrong with the logs of a job, and which of its runs are not kept any more.
    pub(super) fn tell_troubles(&self, run: usize) {
        for run in self.members(run).into_iter().map(|member| &self.0[member]) {
            for trouble in run.warnings.lines() {
                stderr::say(format_args!("coordinator: {}", printable(&trouble)));
            }
            if let Some(name) = run.continues()
                && !self.0.iter().any(|run| run.name == *name)
            {
                stderr::say(format_args!(
                    "coordinator: {} is not kept any more; what failed there is not known",
                    printable(name)
                ));
            }
        }
    }
}

/// What became of the codes of a run, and of those that it went on with.
#[derive(Default)]
pub(super) struct Job {
    /// In the order in which they were asked for.
    pub(super) codes: Vec<String>,
    states: HashMap<String, State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Done,
    Undone,
    Failed,
}

impl Job {
    /// Adds a run that went on with those before: what it was asked for, it has decided anew.
    fn go_on(&mut self, name: &str, history: &RunHistory, must_tell: bool) -> anyhow::Result<()> {
        let undone = history.not_done();
        if undone.is_none() && must_tell {
            bail!("the log of {name} does not tell which flags were asked for");
        }
        let wanted = history.settings.iter().flat_map(|settings| settings.wanted.iter().cloned());
        let done = wanted.map(|code| (code, State::Done));
        let undone = undone.into_iter().flatten().map(|code| (code, State::Undone));
        let failed = history.failed().into_iter().map(|code| (code, State::Failed));
        for (code, state) in done.chain(undone).chain(failed) {
            if self.states.insert(code.clone(), state).is_none() {
                self.codes.push(code);
            }
        }
        Ok(())
    }

    /// Notes what another run has brought.
    fn note_done(&mut self, history: &RunHistory) {
        for (code, end) in history.final_outcomes() {
            let is_done = matches!(end.status, FinalStatus::Ok | FinalStatus::NotFound);
            if let (true, Some(state)) = (is_done, self.states.get_mut(&code)) {
                *state = State::Done;
            }
        }
    }

    /// The codes that are in this state, in the order in which they were asked for.
    pub(super) fn in_state(&self, state: State) -> Vec<String> {
        let codes = self.codes.iter().filter(|code| self.states[*code] == state);
        codes.cloned().collect()
    }
}
