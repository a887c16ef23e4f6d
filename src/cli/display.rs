//! What a run shows: reports and data on stdout; the bar and diagnostics on stderr.
//!
//! Every write is checked. After the first one that fails nothing more is written, and outcomes are
//! counted all the same; what a reader that is gone, or a full disk, means is for the caller.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::flags::codes::Code;
use crate::flags::outcome::{Counts, Outcome, Status};
use crate::flags::report::{self, Cause, Summary};

use super::args::Color;
use super::bar::Bar;
use super::settings::DisplaySettings;
use super::words::printable;

/// Shows one run.
pub(super) struct Display {
    out: AutoStream<io::Stdout>,
    /// Whether stdout is a terminal, as the bar's is: it must make room then.
    is_shared: bool,
    kind: Kind,
    bar: Bar,
    counts: Counts,
    /// The errors so far, each with what it has in common with others.
    errors: Vec<(Code, String)>,
    /// Why standard output cannot be written any more.
    broken: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Only the reports.
    Reports,
    /// The reports, and a line a flag.
    Verbose,
    /// Lines of JSON and nothing else.
    Json,
}

impl Display {
    pub(super) fn new(settings: DisplaySettings, total: usize) -> Self {
        let DisplaySettings { verbose, json, progress, color } = settings;
        let kind = match (json, verbose) {
            (true, _) => Kind::Json,
            (false, true) => Kind::Verbose,
            (false, false) => Kind::Reports,
        };
        let choice = match color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        // Lines that scroll by show the progress well enough.
        let may = match kind {
            Kind::Reports => true,
            Kind::Verbose => false,
            Kind::Json => !io::stdout().is_terminal(),
        };
        let bar = Bar::new(total, progress, may, color);
        let out = AutoStream::new(io::stdout(), choice);
        Self {
            out,
            is_shared: io::stdout().is_terminal(),
            kind,
            bar,
            counts: Counts::default(),
            errors: Vec::new(),
            broken: None,
        }
    }

    /// What will be done.
    pub(super) fn begin(&mut self, report: &str) {
        if self.kind != Kind::Json {
            self.write(report);
        }
        self.bar.begin();
    }

    fn write(&mut self, text: &str) {
        if self.broken.is_some() {
            return;
        }
        let out = &mut self.out;
        let mut write = || out.write_all(text.as_bytes()).and_then(|()| out.flush());
        let written = if self.is_shared { self.bar.aside(write) } else { write() };
        self.broken = written.err();
    }

    /// One more is done.
    pub(super) fn outcome(&mut self, outcome: &Outcome) {
        self.counts.add(outcome);
        if outcome.status == Status::Error {
            self.errors.push((outcome.data, outcome.kind().to_owned()));
        }
        let line = match self.kind {
            Kind::Reports => None,
            Kind::Verbose => {
                let style = match outcome.status {
                    Status::Ok => Style::new(),
                    Status::NotFound | Status::NotDone => AnsiColor::Yellow.on_default(),
                    Status::Error => AnsiColor::Red.on_default(),
                };
                Some(format!("{style}{}{style:#}\n", report::verbose_line(outcome)))
            }
            Kind::Json => Some(report::json_line(outcome) + "\n"),
        };
        if let Some(line) = line {
            self.write(&line);
        }
        self.bar.step(self.counts);
    }

    /// The errors so far, by their causes.
    pub(super) fn causes(&self) -> Vec<Cause> {
        report::causes(self.errors.iter().map(|(code, cause)| (*code, cause.as_str())))
    }

    /// Why standard output cannot be written any more, if it cannot.
    pub(super) fn broken(&self) -> Option<&io::Error> {
        self.broken.as_ref()
    }

    /// How many ended how, so far.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// For whoever has something to say in between.
    pub(super) fn bar(&self) -> &Bar {
        &self.bar
    }

    /// How it ended.
    pub(super) fn end(&mut self, summary: &Summary, elapsed: Duration) {
        self.bar.end();
        let text = match self.kind {
            Kind::Json => summary.line() + "\n",
            Kind::Reports | Kind::Verbose => {
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

impl Drop for Display {
    /// Whatever ends a run, the terminal is left clean.
    fn drop(&mut self) {
        self.bar.end();
    }
}
