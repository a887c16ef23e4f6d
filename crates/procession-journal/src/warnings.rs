//! Warnings about the logs of a run. Each is shown once, and the rest of the log is shown as well.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::event::FORMAT;
use super::history::RunHistory;
use super::merge::Merge;
use super::tail::LineError;

/// How many processes or files a warning names; the others are counted.
const NAMED: usize = 4;

/// The warnings that the reading of a log produced.
#[derive(Debug, Default)]
pub struct ReadWarnings {
    /// By file and error: the number of lines, and the number of the first of them.
    lines: BTreeMap<(PathBuf, LineError), (u64, u64)>,
    other: Vec<String>,
}

impl ReadWarnings {
    /// Adds a line that could not be read; returns the number of lines with this error in its file.
    pub fn add_line(&mut self, path: &Path, number: u64, error: LineError) -> u64 {
        let key = (path.to_owned(), error);
        let (count, _) = self.lines.entry(key).or_insert((0, number));
        *count += 1;
        *count
    }

    /// Adds the files that are no logs, are empty, or cannot be read.
    pub fn add_files(&mut self, merge: &mut Merge) {
        match &merge.take_other_files()[..] {
            others if others.len() <= NAMED => self
                .other
                .extend(others.iter().map(|path| format!("{}: it is no log of ours", name(path)))),
            many => {
                let names: Vec<_> = many.iter().map(|path| name(path)).collect();
                self.other.push(format!("{}: they are no logs of ours", listed(&names)));
            }
        }
        self.other.extend(merge.empty_files().map(|path| format!("{}: it is empty", name(path))));
        let unreadable = merge.take_unreadable_files().into_iter();
        self.other.extend(
            unreadable.map(|(path, error)| format!("{}: cannot be read: {error}", name(&path))),
        );
    }

    /// Adds what is missing in the history: lines, last lines of processes, and the format of this
    /// version.
    pub fn add_gaps(&mut self, history: &RunHistory, is_running: bool) {
        self.other.extend(history.missing.as_ref().map(ToString::to_string));
        if !is_running {
            self.add_killed(history);
        }
        self.add_versions(history);
    }

    fn add_killed(&mut self, history: &RunHistory) {
        let has_no_end = history
            .processes
            .iter()
            .filter(|process| process.end.is_none() && process.version.is_some());
        let killed: Vec<_> =
            has_no_end.map(|process| format!("{} (pid {})", process.name(), process.pid)).collect();
        if killed.is_empty() {
            return;
        }
        let why = match (&history.missing, killed.len()) {
            (Some(_), _) => "killed, or the line is missing",
            (None, 1) => "it was killed",
            (None, _) => "they were killed",
        };
        self.other.push(format!("{} left no last line: {why}", listed(&killed)));
    }

    fn add_versions(&mut self, history: &RunHistory) {
        let mut others = BTreeMap::<&str, u32>::new();
        for (version, format) in history.processes.iter().flat_map(|process| &process.version) {
            if *format != FORMAT {
                *others.entry(version).or_default() += 1;
            }
        }
        for (version, count) in others {
            let files = if count == 1 { "a file is" } else { "some files are" };
            self.other.push(format!(
                "{files} of another version of procession ({version}): not all in it may be understood"
            ));
        }
    }

    /// A line for each warning.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.iter().map(|((path, error), (count, first))| {
            let what = match error {
                LineError::Incomplete => "is cut short",
                LineError::Unrecognized => "is no line of a log",
                LineError::TooLong => "is longer than any of ours",
            };
            match count {
                1 => format!("{}: line {first} {what}", name(path)),
                _ => format!("{}: line {first} {what}, and {} more", name(path), count - 1),
            }
        });
        lines.chain(self.other.iter().cloned()).collect()
    }
}

/// The first of these names, and the number of the others.
fn listed(names: &[impl AsRef<str>]) -> String {
    let named: Vec<_> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    match names.len() - named.len() {
        0 => named.join(", "),
        rest => format!("{} and {rest} more", named.join(", ")),
    }
}

fn name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()
}
