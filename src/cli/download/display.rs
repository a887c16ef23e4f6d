//! The output of a run: reports and data on stdout; the bar and diagnostics on stderr.
//!
//! Every write is checked. After the first error nothing more is written, and outcomes are still
//! counted. The caller decides what a closed pipe or a full disk means.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::files::item::FileItem;
use crate::files::line;
use crate::files::outcome::{DownloadOutcome, DownloadStatus, OutcomeCounts};
use crate::files::report::{self, CauseGroup, FileNoun, RunResults, RunSummary};

use super::joblog::JobLog;
use super::settings::{DisplaySettings, DownloadSettings};
use crate::cli::bar::RunProgressBar;
use crate::cli::format::printable;
use crate::cli::options::ColorOption;
use crate::cli::{prose, stdout};

/// The output of one run.
pub(super) struct RunDisplay {
    out: AutoStream<io::Stdout>,
    /// Whether stdout is a terminal, so that the bar must be hidden while it is written to.
    is_terminal: bool,
    kind: OutputKind,
    bar: RunProgressBar,
    counts: OutcomeCounts,
    noun: FileNoun,
    /// The destination, as typed and in full.
    dest: PathBuf,
    full_dest: PathBuf,
    joblog: Option<JobLog>,
    /// The errors so far: the code and the cause of each.
    errors: Vec<(String, String)>,
    /// The codes that were not found, so far.
    not_found: Vec<String>,
    /// The first error of a write to standard output.
    write_error: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputKind {
    /// Only the reports.
    Reports,
    /// The reports, and a line for each file.
    Verbose,
    /// Lines of JSON and nothing else.
    Json,
}

impl RunDisplay {
    pub(super) fn new(settings: &DownloadSettings, joblog: Option<JobLog>) -> Self {
        let DisplaySettings { verbose, json, progress, color } = settings.display;
        let kind = match (json, verbose) {
            (true, _) => OutputKind::Json,
            (false, true) => OutputKind::Verbose,
            (false, false) => OutputKind::Reports,
        };
        let choice = match color {
            ColorOption::Auto => ColorChoice::Auto,
            ColorOption::Always => ColorChoice::Always,
            ColorOption::Never => ColorChoice::Never,
        };
        // Where lines are printed, they show the progress.
        let may_show = match kind {
            OutputKind::Reports => true,
            OutputKind::Verbose => false,
            OutputKind::Json => !io::stdout().is_terminal(),
        };
        let bar = RunProgressBar::new(settings.source.len(), progress, may_show, color);
        let out = AutoStream::new(io::stdout(), choice);
        Self {
            out,
            is_terminal: io::stdout().is_terminal(),
            kind,
            bar,
            counts: OutcomeCounts::default(),
            noun: settings.source.noun(),
            dest: settings.shown_dest.clone(),
            full_dest: settings.dest.clone(),
            joblog,
            errors: Vec::new(),
            not_found: Vec::new(),
            write_error: None,
        }
    }

    /// Prints the first report and draws the bar.
    pub(super) fn begin(&mut self, report: &str) {
        if self.kind != OutputKind::Json {
            self.write(report);
        }
        self.bar.begin();
    }

    fn write(&mut self, text: &str) {
        if self.write_error.is_some() {
            return;
        }
        let text = match self.kind {
            OutputKind::Json => Cow::Borrowed(text),
            OutputKind::Reports | OutputKind::Verbose => {
                Cow::Owned(prose::fit(text, stdout::width(), stdout::has_unicode()))
            }
        };
        let out = &mut self.out;
        let mut write = || out.write_all(text.as_bytes()).and_then(|()| out.flush());
        let written = if self.is_terminal { self.bar.suspend(write) } else { write() };
        self.write_error = written.err();
    }

    /// Shows one more outcome.
    pub(super) fn outcome(&mut self, item: &FileItem, outcome: &DownloadOutcome) {
        self.counts.add(outcome);
        match outcome.status {
            DownloadStatus::Error => {
                self.errors.push((item.code.clone(), outcome.kind().to_owned()));
            }
            DownloadStatus::NotFound => self.not_found.push(item.code.clone()),
            DownloadStatus::Ok | DownloadStatus::NotDone => {}
        }
        if let Some(joblog) = &mut self.joblog {
            joblog.add(item, outcome);
        }
        let text = match self.kind {
            OutputKind::Reports => None,
            OutputKind::Verbose => {
                let style = match outcome.status {
                    DownloadStatus::Ok => Style::new(),
                    DownloadStatus::NotFound | DownloadStatus::NotDone => {
                        AnsiColor::Yellow.on_default()
                    }
                    DownloadStatus::Error => AnsiColor::Red.on_default(),
                };
                Some(format!("{style}{}{style:#}\n", printable(&line::verbose(outcome))))
            }
            OutputKind::Json => Some(line::json(item, outcome, &self.full_dest) + "\n"),
        };
        if let Some(text) = text {
            self.write(&text);
        }
        self.bar.step(self.counts, outcome.bytes.filter(|_| !outcome.unchanged));
    }

    /// The errors so far, by cause.
    pub(super) fn causes(&self) -> Vec<CauseGroup> {
        report::causes(self.errors.iter().map(|(code, cause)| (code.as_str(), cause.as_str())))
    }

    /// The first error of a write to standard output, if there was one.
    pub(super) fn write_error(&self) -> Option<&io::Error> {
        self.write_error.as_ref()
    }

    /// Ends the job log, and says why it is not whole, if it is not.
    pub(super) fn end_joblog(&mut self) -> Option<String> {
        self.joblog.take()?.end()
    }

    /// The number of outcomes so far, by status.
    pub(super) fn counts(&self) -> OutcomeCounts {
        self.counts
    }

    /// The bar, which prints other lines.
    pub(super) fn bar(&self) -> &RunProgressBar {
        &self.bar
    }

    /// Removes the bar and prints the last report.
    pub(super) fn end(&mut self, summary: &RunSummary, elapsed: Duration) {
        self.bar.end();
        let text = match self.kind {
            OutputKind::Json => summary.line() + "\n",
            OutputKind::Reports | OutputKind::Verbose => {
                self.not_found.sort_unstable();
                let results = RunResults {
                    counts: &self.counts,
                    not_found: &self.not_found,
                    dest: &self.dest.display().to_string(),
                    elapsed,
                };
                let report = report::final_report(self.noun, &results);
                let causes = report::causes_report(&summary.errors);
                let mut text = String::new();
                for line in report.lines().chain(causes.lines()) {
                    text += &printable(line);
                    text.push('\n');
                }
                if let Some(next) = &summary.next {
                    text += &format!("To go on: {next}\n");
                }
                text
            }
        };
        self.write(&text);
    }
}

impl Drop for RunDisplay {
    /// Removes the bar, whatever ends the run.
    fn drop(&mut self) {
        self.bar.end();
    }
}
