//! The output of a run: reports and data on stdout; the bar and diagnostics on stderr.
//!
//! Every write is checked. After the first error nothing more is written, and outcomes are still
//! counted. The caller decides what a closed pipe or a full disk means.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::flags::codes::Code;
use crate::flags::outcome::{DownloadOutcome, DownloadStatus, OutcomeCounts};
use crate::flags::report::{self, CauseGroup, RunSummary};

use super::settings::DisplaySettings;
use crate::cli::bar::RunProgressBar;
use crate::cli::format::printable;
use crate::cli::options::ColorOption;

/// The output of one run.
pub(super) struct RunDisplay {
    out: AutoStream<io::Stdout>,
    /// Whether stdout is a terminal, so that the bar must be hidden while it is written to.
    is_terminal: bool,
    kind: OutputKind,
    bar: RunProgressBar,
    counts: OutcomeCounts,
    /// The errors so far: the code and the cause of each.
    errors: Vec<(Code, String)>,
    /// The first error of a write to standard output.
    write_error: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputKind {
    /// Only the reports.
    Reports,
    /// The reports, and a line for each flag.
    Verbose,
    /// Lines of JSON and nothing else.
    Json,
}

impl RunDisplay {
    pub(super) fn new(settings: DisplaySettings, total: usize) -> Self {
        let DisplaySettings { verbose, json, progress, color } = settings;
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
        let may_draw = match kind {
            OutputKind::Reports => true,
            OutputKind::Verbose => false,
            OutputKind::Json => !io::stdout().is_terminal(),
        };
        let bar = RunProgressBar::new(total, progress, may_draw, color);
        let out = AutoStream::new(io::stdout(), choice);
        Self {
            out,
            is_terminal: io::stdout().is_terminal(),
            kind,
            bar,
            counts: OutcomeCounts::default(),
            errors: Vec::new(),
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
        let out = &mut self.out;
        let mut write = || out.write_all(text.as_bytes()).and_then(|()| out.flush());
        let written = if self.is_terminal { self.bar.suspend(write) } else { write() };
        self.write_error = written.err();
    }

    /// Shows one more outcome.
    pub(super) fn outcome(&mut self, outcome: &DownloadOutcome) {
        self.counts.add(outcome);
        if outcome.status == DownloadStatus::Error {
            self.errors.push((outcome.data, outcome.kind().to_owned()));
        }
        let line = match self.kind {
            OutputKind::Reports => None,
            OutputKind::Verbose => {
                let style = match outcome.status {
                    DownloadStatus::Ok => Style::new(),
                    DownloadStatus::NotFound | DownloadStatus::NotDone => {
                        AnsiColor::Yellow.on_default()
                    }
                    DownloadStatus::Error => AnsiColor::Red.on_default(),
                };
                Some(format!("{style}{}{style:#}\n", printable(&report::verbose_line(outcome))))
            }
            OutputKind::Json => Some(report::json_line(outcome) + "\n"),
        };
        if let Some(line) = line {
            self.write(&line);
        }
        self.bar.step(self.counts);
    }

    /// The errors so far, by cause.
    pub(super) fn causes(&self) -> Vec<CauseGroup> {
        report::causes(self.errors.iter().map(|(code, cause)| (*code, cause.as_str())))
    }

    /// The first error of a write to standard output, if there was one.
    pub(super) fn write_error(&self) -> Option<&io::Error> {
        self.write_error.as_ref()
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
                let mut text = report::final_report(&self.counts, elapsed);
                for line in report::causes_report(&summary.errors).lines() {
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
