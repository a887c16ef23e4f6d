//! The lines of a run, merged by time, and the lines that are added while it continues.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;

use super::super::format::count;
use super::super::{prose, run_selection, stderr, stdout};
use super::LogsArgs;
use super::filter::Filter;
use super::line::LineFormatter;
use procession_journal::{FindError, is_fresh};
use procession_journal::{
    LineError, LogEntry, LogLine, Merge, ReadWarnings, RunDir, RunHistory, is_running,
};

/// Interval of the search for new lines and runs.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Shows the selected lines of the run in this directory.
pub(super) fn run(path: &Path, args: &LogsArgs) -> anyhow::Result<()> {
    let is_over = !(is_running(path) || args.follow && is_fresh(path));
    let cannot = || format!("cannot read the logs in {}", path.display());
    let merge = Merge::open(path, is_over).with_context(cannot)?;
    let mut viewer = LogViewer::new(merge, args);
    let written = viewer.show(path, args.follow && !is_over);
    super::print_warnings(&viewer.warnings);
    if viewer.shown == 0 && written.is_ok() {
        let name = run_selection::name(path);
        match viewer.read {
            // The warnings say that there are no logs.
            0 if !viewer.warnings.lines().is_empty() => {}
            0 => stderr::print(format_args!("coordinator: {name} has left no line of a log")),
            read => stderr::print(format_args!(
                "coordinator: none of the {} of {name} is of this kind",
                count(read, "line")
            )),
        }
    }
    stdout::written(written)
}

/// Waits until there is a run that has not ended, and returns its directory.
pub(super) fn await_run(logs: &Path) -> Result<PathBuf, FindError> {
    let report_wait = |details: fmt::Arguments<'_>| {
        let logs = logs.display();
        stderr::print(format_args!("coordinator: waiting for a run in {logs}{details}"));
    };
    let mut over: Option<Option<PathBuf>> = None;
    loop {
        match RunDir::find(logs, None).map(|run| run.path()) {
            Err(FindError::None { .. }) => {
                over.get_or_insert_with(|| {
                    report_wait(format_args!(""));
                    None
                });
            }
            Ok(path) if over.is_none() && !is_running(&path) && !is_fresh(&path) => {
                let name = run_selection::name(&path);
                report_wait(format_args!("; {name} is over, and coordinator logs shows it"));
                over = Some(Some(path));
            }
            Ok(path) if over.as_ref().is_some_and(|over| over.as_ref() == Some(&path)) => {}
            found => return found,
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Shows the lines of one run.
struct LogViewer {
    merge: Merge,
    warnings: ReadWarnings,
    /// The begins and ends of processes, which show the processes that were killed.
    process_events: RunHistory,
    filter: Filter,
    lines: LineFormatter,
    is_json: bool,
    /// The columns of standard output, and whether it takes all characters.
    terminal: (usize, bool),
    out: stdout::Stdout,
    /// With `--lines`: the last lines so far, and their maximum number.
    last: VecDeque<String>,
    keep: Option<usize>,
    /// Number of lines that were read.
    read: u64,
    /// Number of lines that matched the filter.
    shown: u64,
}

impl LogViewer {
    fn new(merge: Merge, args: &LogsArgs) -> Self {
        let begin = merge.begin().unwrap_or_else(Timestamp::now);
        let since = args.filter.since.map_or(Timestamp::MIN, |since| since.resolve(begin));
        Self {
            merge,
            warnings: ReadWarnings::default(),
            process_events: RunHistory::default(),
            filter: Filter::new(&args.filter, args.json, since),
            lines: LineFormatter::new(args.color.color),
            is_json: args.json,
            terminal: (stdout::width(), stdout::has_unicode()),
            out: stdout::Stdout::lock(args.color.color),
            last: VecDeque::new(),
            keep: args.lines,
            read: 0,
            shown: 0,
        }
    }

    /// Shows the lines; with `follow`, also the lines that are added until the run ends.
    fn show(&mut self, path: &Path, mut follow: bool) -> io::Result<()> {
        self.show_available()?;
        // All later lines are shown.
        self.keep = None;
        for line in std::mem::take(&mut self.last) {
            self.out.write_all(line.as_bytes())?;
        }
        while follow {
            self.out.flush()?;
            thread::sleep(POLL_INTERVAL);
            // Checked before the lines are read, so that the last lines of the run are not missed. A
            // new run may not have a log yet.
            follow = is_running(path) || is_fresh(path);
            if let Err(error) = self.merge.refresh_in_order(!follow) {
                stderr::print(format_args!(
                    "coordinator: cannot follow {}: {error}",
                    path.display()
                ));
                break;
            }
            self.show_available()?;
        }
        self.warnings.add_files(&mut self.merge);
        self.warnings.add_gaps(&self.process_events, is_running(path));
        self.out.flush()
    }

    /// The line in the width and the characters of the terminal.
    fn fit(&self, line: String) -> String {
        match self.terminal {
            (usize::MAX, true) => line,
            (width, has_unicode) => prose::fit(&line, width, has_unicode),
        }
    }

    fn show_available(&mut self) -> io::Result<()> {
        while let Some(item) = self.merge.next() {
            let (text, header) = match item.line {
                LogLine::Valid(text, header) => (text, header),
                LogLine::Invalid(_, flaw) => {
                    self.warnings.add_line(item.path, item.number, flaw);
                    continue;
                }
            };
            let is_process_event = [
                "start",
                "exit",
                "lines_lost",
                "worker_started",
                "worker_not_started",
                "worker_exited",
            ]
            .contains(&header.event);
            let is_wanted = self.filter.matches(&header, item.at);
            self.read += 1;
            self.shown += u64::from(is_wanted);
            if is_wanted && self.is_json {
                put(format!("{text}\n"), &mut self.out, &mut self.last, self.keep)?;
            }
            if !is_process_event && (!is_wanted || self.is_json) {
                continue;
            }
            let Ok(entry) = LogEntry::from_json(text.as_bytes()) else {
                self.warnings.add_line(item.path, item.number, LineError::Unrecognized);
                continue;
            };
            if is_wanted && !self.is_json {
                let line = self.lines.line(&entry);
                let line = self.fit(line);
                put(line, &mut self.out, &mut self.last, self.keep)?;
            }
            if is_process_event {
                self.process_events.add(entry);
            }
        }
        Ok(())
    }
}

/// Writes a line; or keeps it, if only the last lines are to be shown.
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
