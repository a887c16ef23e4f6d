//! One measured run: its time, its use of resources, and its result.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::files::outcome::OutcomeCounts;

use super::mode::MeasuredMode;
use super::runner::{ProcessRunner, ProcessUsage};

/// A job that can be run in every mode.
pub(super) trait MeasuredJob: Sync {
    /// Runs the job once.
    fn run(&self, id: RunId, runner: &ProcessRunner) -> Result<MeasuredRun, RunError>;

    /// Whether a run with errors only is a valid result.
    fn may_fail_entirely(&self) -> bool {
        false
    }
}

/// Identifies a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunId {
    pub mode: MeasuredMode,
    /// Number of the run in its mode, from 1. Warm-up runs have numbers of their own.
    pub number: usize,
    pub is_warmup: bool,
}

impl RunId {
    /// The name without the mode.
    pub(super) fn name(self) -> String {
        let kind = if self.is_warmup { "warm-up" } else { "run" };
        format!("{kind} {}", self.number)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name(), self.mode)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct MeasuredRun {
    /// Number of the run in its mode, from 1.
    pub round: usize,
    pub seconds: f64,
    pub user: f64,
    pub system: f64,
    /// In bytes.
    pub peak_rss: u64,
    /// Number of worker processes; 0 in modes without.
    pub workers: usize,
    /// How many tasks ran at a time.
    pub concurrency: usize,
    pub result: RunResult,
}

impl MeasuredRun {
    pub(super) fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// The result of a run, which should be the same in every mode.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RunResult {
    pub counts: OutcomeCounts,
    /// Digests of the files, or of the list of results, by name.
    pub digests: BTreeMap<String, String>,
    /// The first error.
    pub error: Option<String>,
}

impl RunResult {
    pub(super) fn is_nothing_but_errors(&self) -> bool {
        self.counts.error > 0 && self.counts.error == self.counts.total()
    }

    /// The difference from an expected result, in words.
    pub(super) fn difference(&self, expected: &Self) -> Option<String> {
        if self.counts != expected.counts {
            let why = self.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
            let (counts, others) = (in_words(self.counts), in_words(expected.counts));
            return Some(format!("{counts}{why}, not {others}"));
        }
        let missing = expected.digests.keys().find(|name| !self.digests.contains_key(*name));
        let new = self.digests.keys().find(|name| !expected.digests.contains_key(*name));
        let differs =
            |(name, digest): &(&String, &String)| expected.digests.get(*name) != Some(digest);
        match (missing, new) {
            (Some(name), _) => Some(format!("{name} is missing")),
            (None, Some(name)) => Some(format!("{name} is new")),
            (None, None) => {
                let other = self.digests.iter().find(differs);
                other.map(|(name, _)| format!("{name} is another one"))
            }
        }
    }
}

/// Counts in words.
pub(super) fn in_words(counts: OutcomeCounts) -> String {
    let OutcomeCounts { ok, not_found, error, not_done: _, unchanged: _ } = counts;
    let s = if error == 1 { "" } else { "s" };
    format!("{ok} ok, {not_found} not found, {error} error{s}")
}

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// A signal has ended the comparison.
    #[error("stopped")]
    Stopped,
    #[error("cannot run it: {0}")]
    Io(#[source] io::Error),
    #[error("it ended with {status}{said}")]
    ExitStatus { status: ExitStatus, said: String },
    #[error("its output {output:?} is invalid: {error}")]
    Output {
        output: String,
        #[source]
        error: serde_json::Error,
    },
    #[error("its output has no summary")]
    NoSummary,
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Interrupted => Self::Stopped,
            _ => Self::Io(error),
        }
    }
}

/// Runs a program with its output in files in this directory; returns the text of its stdout. The
/// program must end with one of these exit codes.
pub(super) fn run_program(
    command: &mut Command,
    dir: &Path,
    runner: &ProcessRunner,
    codes: &[i32],
) -> Result<(ProcessUsage, String), RunError> {
    let (out, err) = (dir.join("stdout"), dir.join("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let usage = runner.run(command)?;
    if runner.is_closed() {
        return Err(RunError::Stopped);
    }
    let status = usage.status;
    if !status.code().is_some_and(|code| codes.contains(&code)) {
        let stderr = fs::read(&err).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr);
        let last_line = stderr.lines().rfind(|line| !line.trim().is_empty());
        let said =
            last_line.map_or(", and printed no error".to_owned(), |line| format!(": {line}"));
        return Err(RunError::ExitStatus { status, said });
    }
    Ok((usage, fs::read_to_string(&out)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_quoted_only_if_it_said_something() {
        let failed = |script: &str| {
            let dir = tempfile::tempdir().unwrap();
            let mut sh = Command::new("sh");
            let ran =
                run_program(sh.args(["-c", script]), dir.path(), &ProcessRunner::default(), &[0]);
            ran.unwrap_err().to_string()
        };
        assert_eq!(
            failed("echo first >&2; echo last >&2; echo >&2; exit 3"),
            "it ended with exit status: 3: last"
        );
        let silent = "it ended with signal: 9 (SIGKILL), and printed no error";
        assert_eq!(failed("kill -9 $$"), silent);
    }

    #[test]
    fn the_difference_of_two_results_is_described() {
        let counts = OutcomeCounts { ok: 2, not_found: 0, error: 0, not_done: 0, unchanged: 0 };
        let digests = |digests: &[(&str, &str)]| {
            digests.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let result =
            |list: &[(&str, &str)]| RunResult { counts, digests: digests(list), error: None };
        let first = result(&[("br.gif", "1"), ("cn.gif", "2")]);
        assert_eq!(first.difference(&first), None);
        let difference = |other: RunResult| other.difference(&first).unwrap();
        assert_eq!(difference(result(&[("br.gif", "1")])), "cn.gif is missing");
        let other = result(&[("br.gif", "1"), ("cn.gif", "3")]);
        assert_eq!(difference(other), "cn.gif is another one");
        let more = result(&[("br.gif", "1"), ("cn.gif", "2"), ("us.gif", "3")]);
        assert_eq!(difference(more), "us.gif is new");
        let failed = RunResult {
            counts: OutcomeCounts { ok: 1, not_found: 0, error: 1, not_done: 0, unchanged: 0 },
            digests: digests(&[("br.gif", "1")]),
            error: Some("HTTP 503".to_owned()),
        };
        assert_eq!(
            difference(failed),
            "1 ok, 0 not found, 1 error (HTTP 503), not 2 ok, 0 not found, 0 errors"
        );
    }
}
