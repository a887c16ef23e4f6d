//! The codes that are left to do of the runs that have logs.
//!
//! A run that continues another is one job with it. What is left of a job does not depend on which of
//! its runs is named.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, bail};

use super::args::ResumeArgs;
use super::logged_items::LoggedItems;
use crate::cli::format::printable;
use crate::cli::stderr;
use crate::files::item::FileItem;
use procession_journal as journal;
use procession_journal::FinalStatus;
use procession_journal::{ReadWarnings, RunDir, RunHistory, RunSettings};

/// A run that has a log.
pub(super) struct LoggedRun {
    pub(super) name: String,
    history: RunHistory,
    pub(super) items: LoggedItems,
    warnings: ReadWarnings,
    is_running: bool,
}

impl LoggedRun {
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

    /// Whether both runs save the files of the same server in the same directory.
    fn has_same_target(&self, other: &Self) -> bool {
        let target = |run: &Self| {
            run.history.settings.as_ref().map(|run| (run.server.clone(), run.dest.clone()))
        };
        target(self).is_some() && target(self) == target(other)
    }
}

/// All runs whose logs can be read, the oldest first.
pub(super) struct LoggedRuns(pub(super) Vec<LoggedRun>);

impl LoggedRuns {
    pub(super) fn read(logs: &Path) -> anyhow::Result<Self> {
        let runs = RunDir::list(logs)?.into_iter().filter_map(|run| {
            let path = run.path();
            // Checked before the log is read: the run may end during the reading.
            let is_running = journal::is_running(&path);
            let (mut history, warnings) = journal::read(&path).ok()?;
            let items = LoggedItems::read(&path);
            if let Some(settings) = &mut history.settings
                && settings.wanted.is_empty()
                // Fewer if the run was killed while it wrote them.
                && settings.codes == items.codes.len()
            {
                settings.wanted = items.codes.clone();
            }
            Some(LoggedRun { name: run.name().to_owned(), history, items, warnings, is_running })
        });
        Ok(Self(runs.collect()))
    }

    /// Index of the run with this name.
    pub(super) fn named(&self, name: &str) -> anyhow::Result<usize> {
        let found = self.0.iter().position(|run| run.name == name);
        let found = found.with_context(|| format!("cannot read the log of {name}"))?;
        self.refuse_running(&self.members(found))?;
        Ok(found)
    }

    fn refuse_running(&self, members: &[usize]) -> anyhow::Result<()> {
        match members.iter().map(|run| &self.0[*run]).find(|run| run.is_running) {
            Some(run) => {
                bail!("the run {} still goes on: see coordinator logs --follow", run.name)
            }
            None => Ok(()),
        }
    }

    /// Index of the newest run of which codes are left; that of the newest run if there is none.
    /// Only runs of one kind count: those of URLs, or those of flags.
    pub(super) fn newest_with_something_left(
        &self,
        resume: &ResumeArgs,
        are_urls: bool,
    ) -> anyhow::Result<usize> {
        let is_of_kind = |run: &usize| self.0[*run].items.are_urls() == are_urls;
        let mut seen = HashSet::new();
        for run in (0..self.0.len()).rev().filter(is_of_kind) {
            if seen.contains(&run) {
                continue;
            }
            let members = self.members(run);
            let is_free = self.refuse_running(&members).is_ok();
            seen.extend(members);
            if is_free
                && self.0[run].history.settings.is_some()
                && let Ok(job) = self.job(run, resume.resume.is_some())
                && !resume.left_of(&job).0.is_empty()
            {
                return Ok(run);
            }
        }
        let newest = (0..self.0.len()).rev().find(is_of_kind);
        let newest = newest.with_context(|| match (self.0.is_empty(), are_urls) {
            (true, _) => "none of the logs can be read",
            (false, true) => "none of the logs is of coordinator fetch",
            (false, false) => "all logs are of coordinator fetch: see coordinator fetch --resume",
        })?;
        self.refuse_running(&self.members(newest))?;
        Ok(newest)
    }

    /// The runs of the job of this run: those that it continues, those that continue it, and so on.
    /// The oldest first.
    fn members(&self, run: usize) -> Vec<usize> {
        let continues = |one: &LoggedRun, other: &LoggedRun| one.continues() == Some(&other.name);
        let mut members = BTreeSet::from([run]);
        loop {
            let before = members.len();
            for (index, run) in self.0.iter().enumerate() {
                let is_linked = members
                    .iter()
                    .map(|member| &self.0[*member])
                    .any(|member| continues(run, member) || continues(member, run));
                if is_linked {
                    members.insert(index);
                }
            }
            if members.len() == before {
                return members.into_iter().collect();
            }
        }
    }

    /// The states of all codes of a job. Codes that a later run of another job has saved from the same
    /// server in the same directory are done as well.
    pub(super) fn job(&self, run: usize, must_know_codes: bool) -> anyhow::Result<LoggedJob> {
        let members = self.members(run);
        let mut job = LoggedJob::default();
        for index in members[0]..self.0.len() {
            let LoggedRun { name, history, .. } = &self.0[index];
            if members.contains(&index) {
                job.continue_with(name, history, must_know_codes)?;
            } else if self.0[index].has_same_target(&self.0[run]) {
                job.note_done(history, |code| {
                    let here = self.0[index].items.item(code);
                    here == members.iter().find_map(|run| self.0[*run].items.item(code))
                });
            }
        }
        Ok(job)
    }

    /// The items with these codes, as the runs of a job logged them.
    pub(super) fn items(&self, run: usize, codes: &[String]) -> Vec<FileItem> {
        let members = self.members(run);
        let item = |code: &String| members.iter().find_map(|run| self.0[*run].items.item(code));
        codes.iter().filter_map(item).collect()
    }

    /// Prints the warnings about the logs of a job, and which of its runs have no log any more.
    pub(super) fn print_warnings(&self, run: usize) {
        for run in self.members(run).into_iter().map(|member| &self.0[member]) {
            for warning in run.warnings.lines() {
                stderr::print(format_args!("coordinator: {}", printable(&warning)));
            }
            if let Some(name) = run.continues()
                && !self.0.iter().any(|run| run.name == *name)
            {
                stderr::print(format_args!(
                    "coordinator: {} is not kept any more; what failed there is not known",
                    printable(name)
                ));
            }
        }
    }
}

/// The codes of the runs of a job, and their states.
#[derive(Default)]
pub(super) struct LoggedJob {
    /// In the order in which they were requested.
    pub(super) codes: Vec<String>,
    states: HashMap<String, CodeState>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CodeState {
    Done,
    Undone,
    Failed,
}

impl LoggedJob {
    /// Adds a run that continues those before. It decides the states of the codes that it requested.
    fn continue_with(
        &mut self,
        name: &str,
        history: &RunHistory,
        must_know_codes: bool,
    ) -> anyhow::Result<()> {
        let undone = history.not_done();
        if undone.is_none() && must_know_codes {
            bail!("the log of {name} does not tell which flags were asked for");
        }
        let wanted = history.settings.iter().flat_map(|settings| settings.wanted.iter().cloned());
        let done = wanted.map(|code| (code, CodeState::Done));
        let undone = undone.into_iter().flatten().map(|code| (code, CodeState::Undone));
        let failed = history.failed().into_iter().map(|code| (code, CodeState::Failed));
        for (code, state) in done.chain(undone).chain(failed) {
            if self.states.insert(code.clone(), state).is_none() {
                self.codes.push(code);
            }
        }
        Ok(())
    }

    /// Marks the codes as done that a run of another job has saved.
    fn note_done(&mut self, history: &RunHistory, is_same: impl Fn(&str) -> bool) {
        for (code, end) in history.final_outcomes() {
            let is_done = matches!(end.status, FinalStatus::Ok | FinalStatus::NotFound);
            if let (true, Some(state)) = (is_done && is_same(&code), self.states.get_mut(&code)) {
                *state = CodeState::Done;
            }
        }
    }

    /// The codes in this state, in the order in which they were requested.
    pub(super) fn in_state(&self, state: CodeState) -> Vec<String> {
        let codes = self.codes.iter().filter(|code| self.states[*code] == state);
        codes.cloned().collect()
    }
}

impl ResumeArgs {
    /// The codes of a job that the options select, and their numbers in words.
    pub(super) fn left_of(&self, job: &LoggedJob) -> (Vec<String>, String) {
        let (mut left, mut what) = (Vec::new(), Vec::new());
        let (undone, failed) = (job.in_state(CodeState::Undone), job.in_state(CodeState::Failed));
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
