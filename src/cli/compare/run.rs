//! One measured run: what it took and what it brought.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::flags::outcome::Counts;

use super::mode::Mode;
use super::process::{Stage, Used};

/// A job that can be run in every mode.
pub(super) trait Job: Sync {
    /// Runs it once.
    fn run(&self, turn: Turn, stage: &Stage) -> Result<Run, Trouble>;

    /// Whether a run that brings nothing but errors may be as it should be.
    fn may_fail_entirely(&self) -> bool {
        false
    }
}

/// Whose turn it is, for which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub mode: Mode,
    /// From 1; those that do not count are numbered apart.
    pub number: usize,
    pub is_warmup: bool,
}

impl Turn {
    /// In a few words, for where the mode is known.
    pub(super) fn name(self) -> String {
        let kind = if self.is_warmup { "warm-up" } else { "run" };
        format!("{kind} {}", self.number)
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name(), self.mode)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    /// The number of its turn, from 1.
    pub round: usize,
    pub seconds: f64,
    pub user: f64,
    pub system: f64,
    /// In bytes.
    pub peak_rss: u64,
    /// Worker processes; none in the modes without.
    pub workers: usize,
    /// How many tasks it ran at a time.
    pub concurrency: usize,
    pub brought: Brought,
}

impl Run {
    pub(super) fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// What a run brought: the same in every mode, if all is well.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Brought {
    pub counts: Counts,
    /// What is there now, by name, as digests.
    pub things: BTreeMap<String, String>,
    /// What went wrong first.
    pub error: Option<String>,
}

impl Brought {
    pub(super) fn is_nothing_but_errors(&self) -> bool {
        self.counts.error > 0 && self.counts.error == self.counts.total()
    }

    /// In which way this is not what another run brought.
    pub(super) fn unlike(&self, expected: &Self) -> Option<String> {
        if self.counts != expected.counts {
            let why = self.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
            return Some(format!("{}{why}, not {}", told(self.counts), told(expected.counts)));
        }
        let missing = expected.things.keys().find(|name| !self.things.contains_key(*name));
        let new = self.things.keys().find(|name| !expected.things.contains_key(*name));
        let other =
            self.things.iter().find(|(name, thing)| expected.things.get(*name) != Some(thing));
        match (missing, new) {
            (Some(name), _) => Some(format!("{name} is missing")),
            (None, Some(name)) => Some(format!("{name} is new")),
            (None, None) => other.map(|(name, _)| format!("{name} is another one")),
        }
    }
}

/// Counts in words.
pub(super) fn told(counts: Counts) -> String {
    let Counts { ok, not_found, error, not_done: _, unchanged: _ } = counts;
    let s = if error == 1 { "" } else { "s" };
    format!("{ok} ok, {not_found} not found, {error} error{s}")
}

/// Why there is no run.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It was stopped.
    Stopped,
    /// It could not be run.
    CouldNot(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Interrupted => Self::Stopped,
            _ => Self::CouldNot(format!("cannot run it: {error}")),
        }
    }
}

/// Runs a program whose output goes to files in this directory; gives the text of its stdout. It
/// must end with one of these exit codes.
pub(super) fn run_program(
    command: &mut Command,
    dir: &Path,
    stage: &Stage,
    codes: &[i32],
) -> Result<(Used, String), Trouble> {
    let (out, err) = (dir.join("stdout"), dir.join("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let used = stage.run(command)?;
    if stage.is_closed() {
        return Err(Trouble::Stopped);
    }
    if !used.status.code().is_some_and(|code| codes.contains(&code)) {
        let said = std::fs::read(&err).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
        return Err(Trouble::CouldNot(format!("it ended with {}: {last}", used.status)));
    }
    Ok((used, std::fs::read_to_string(&out)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_brought_something_else_is_told_apart() {
        let counts = Counts { ok: 2, not_found: 0, error: 0, not_done: 0, unchanged: 0 };
        let things = |things: &[(&str, &str)]| {
            things.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let brought = |list: &[(&str, &str)]| Brought { counts, things: things(list), error: None };
        let first = brought(&[("br.gif", "1"), ("cn.gif", "2")]);
        assert_eq!(first.unlike(&first), None);
        let unlike = |other: Brought| other.unlike(&first).unwrap();
        assert_eq!(unlike(brought(&[("br.gif", "1")])), "cn.gif is missing");
        assert_eq!(unlike(brought(&[("br.gif", "1"), ("cn.gif", "3")])), "cn.gif is another one");
        let more = brought(&[("br.gif", "1"), ("cn.gif", "2"), ("us.gif", "3")]);
        assert_eq!(unlike(more), "us.gif is new");
        let failed = Brought {
            counts: Counts { ok: 1, not_found: 0, error: 1, not_done: 0, unchanged: 0 },
            things: things(&[("br.gif", "1")]),
            error: Some("HTTP 503".to_owned()),
        };
        assert_eq!(
            unlike(failed),
            "1 ok, 0 not found, 1 error (HTTP 503), not 2 ok, 0 not found, 0 errors"
        );
    }
}
