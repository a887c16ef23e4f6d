//! The lines of a run, merged by time; and those that are added, as long as it goes on.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;

use super::super::words::count;
use super::super::{stderr, stdout, which_run};
use super::Logs;
use super::filter::Filter;
use super::line::Lines;
use procession_journal::run_dir::{FindError, is_fresh};
use procession_journal::{
    LineError, LogEntry, LogLine, Merge, ReadWarnings, RunDir, RunHistory, is_running,
};

/// How often it is looked for something new.
const GLANCE: Duration = Duration::from_millis(100);

/// Shows what is wanted of the run whose logs lie there.
pub(super) fn run(path: &Path, args: &Logs) -> anyhow::Result<()> {
    let is_over = !(is_running(path) || args.follow && is_fresh(path));
    let cannot = || format!("cannot read the logs in {}", path.display());
    let merge = Merge::open(path, is_over).with_context(cannot)?;
    let mut shown = Shown::new(merge, args);
    let written = shown.all(path, args.follow && !is_over);
    super::tell(&shown.warnings);
    if shown.wanted == 0 && written.is_ok() {
        let name = which_run::name(path);
        match shown.read {
            // That there is nothing of ours was told.
            0 if !shown.warnings.lines().is_empty() => {}
            0 => stderr::say(format_args!("coordinator: {name} has left no line of a log")),
            read => stderr::say(format_args!(
                "coordinator: of the {} of {name} none is what was asked for",
                count(read, "line")
            )),
        }
    }
    stdout::written(written)
}

/// Waits until there is a run that is not over, and gives it.
pub(super) fn await_a_run(logs: &Path) -> Result<PathBuf, FindError> {
    let say = |of_the_latest: fmt::Arguments<'_>| {
        let logs = logs.display();
        stderr::say(format_args!("coordinator: waiting for a run in {logs}{of_the_latest}"));
    };
    let mut over: Option<Option<PathBuf>> = None;
    loop {
        match RunDir::find(logs, None).map(|run| run.path()) {
            Err(FindError::None { .. }) => {
                over.get_or_insert_with(|| {
                    say(format_args!(""));
                    None
                });
            }
            Ok(path) if over.is_none() && !is_running(&path) && !is_fresh(&path) => {
                let name = which_run::name(&path);
                say(format_args!("; {name} is over, and coordinator logs shows it"));
                over = Some(Some(path));
            }
            Ok(path) if over.as_ref().is_some_and(|over| over.as_ref() == Some(&path)) => {}
            found => return found,
        }
        thread::sleep(GLANCE);
    }
}

/// What is being shown.
struct Shown {
    merge: Merge,
    warnings: ReadWarnings,
    /// Of each process only how it began and ended: enough to tell who left no last line.
    lives: RunHistory,
    filter: Filter,
    lines: Lines,
    is_json: bool,
    out: stdout::Stdout,
    /// Those that wait until it is known whether they are among the last, and how many these are.
    last: VecDeque<String>,
    keep: Option<usize>,
    /// How many lines there were, and how many of them were wanted.
    read: u64,
    wanted: u64,
}

impl Shown {
    fn new(merge: Merge, args: &Logs) -> Self {
        let begin = merge.begin().unwrap_or_else(Timestamp::now);
        let since = args.filter.since.map_or(Timestamp::MIN, |since| since.resolve(begin));
        Self {
            merge,
            warnings: ReadWarnings::default(),
            lives: RunHistory::default(),
            filter: Filter::new(&args.filter, args.json, since),
            lines: Lines::new(args.color),
            is_json: args.json,
            out: stdout::Stdout::lock(args.color),
            last: VecDeque::new(),
            keep: args.lines,
            read: 0,
            wanted: 0,
        }
    }

    /// Shows what is there, then, if the run is followed, what is added until it ends.
    fn all(&mut self, path: &Path, mut follow: bool) -> io::Result<()> {
        self.what_is_there()?;
        // From here on all are wanted.
        self.keep = None;
        for line in std::mem::take(&mut self.last) {
            self.out.write_all(line.as_bytes())?;
        }
        while follow {
            self.out.flush()?;
            thread::sleep(GLANCE);
            // First this, so that the last lines of a run that ends just now are not missed. One that
            // is new may be about to begin.
            follow = is_running(path) || is_fresh(path);
            if let Err(error) = self.merge.refresh(!follow) {
                stderr::say(format_args!("coordinator: cannot follow {}: {error}", path.display()));
                break;
            }
            self.what_is_there()?;
        }
        self.warnings.add_files(&mut self.merge);
        self.warnings.add_gaps(&self.lives, is_running(path));
        self.out.flush()
    }

    fn what_is_there(&mut self) -> io::Result<()> {
        while let Some(item) = self.merge.next() {
            let (text, header) = match item.line {
                LogLine::Valid(text, header) => (text, header),
                LogLine::Invalid(_, flaw) => {
                    self.warnings.add_line(item.path, item.number, flaw);
                    continue;
                }
            };
            let tells_of_a_life = [
                "start",
                "exit",
                "lines_lost",
                "worker_started",
                "worker_not_started",
                "worker_exited",
            ]
            .contains(&header.event);
            let is_wanted = self.filter.wants(&header, item.at);
            self.read += 1;
            self.wanted += u64::from(is_wanted);
            if is_wanted && self.is_json {
                put(format!("{text}\n"), &mut self.out, &mut self.last, self.keep)?;
            }
            if !tells_of_a_life && (!is_wanted || self.is_json) {
                continue;
            }
            let Ok(entry) = serde_json::from_str::<LogEntry>(text) else {
                self.warnings.add_line(item.path, item.number, LineError::Unrecognized);
                continue;
            };
            if is_wanted && !self.is_json {
                put(self.lines.line(&entry), &mut self.out, &mut self.last, self.keep)?;
            }
            if tells_of_a_life {
                self.lives.add(entry);
            }
        }
        Ok(())
    }
}

/// Writes a line; or keeps it, if only the last ones are wanted.
fn put(
    line: String,
    out: &mut stdout::Stdout,
    last: &mut VecDeque<String>,
    keep: Option<usize>,
) -> io::Result<()> {
    let Some(most) = keep else { return out.write_all(line.as_bytes()) };
    last.push_back(line);
    if last.len() > most {
        last.pop_front();
    }
    Ok(())
}
