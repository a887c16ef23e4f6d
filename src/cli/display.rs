//! What a run shows: reports and data on stdout; the bar and diagnostics on stderr.
//!
//! A stdout that was closed by its reader is not an error but the end of interest, so every write
//! is checked, by the caller.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::flags::outcome::{Counts, Outcome, Status};
use crate::flags::report::{self, Summary};

use super::args::Color;
use super::bar::Bar;
use super::settings::DisplaySettings;

/// Shows one run.
pub(super) struct Display {
    out: AutoStream<io::Stdout>,
    /// Whether stdout is a terminal, as the bar's is: it must make room then.
    is_shared: bool,
    kind: Kind,
    bar: Bar,
    counts: Counts,
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
        Self { out, is_shared: io::stdout().is_terminal(), kind, bar, counts: Counts::default() }
    }

    /// What will be done.
    pub(super) fn begin(&mut self, report: &str) -> io::Result<()> {
        if self.kind != Kind::Json {
            self.out.write_all(report.as_bytes())?;
            self.out.flush()?;
        }
        self.bar.begin();
        Ok(())
    }

    /// One more is done.
    pub(super) fn outcome(&mut self, outcome: &Outcome) -> io::Result<()> {
        self.counts.add(outcome);
        let line = match self.kind {
            Kind::Reports => None,
            Kind::Verbose => {
                let style = match outcome.status {
                    Status::Ok => Style::new(),
                    Status::NotFound => AnsiColor::Yellow.on_default(),
                    Status::Error => AnsiColor::Red.on_default(),
                };
                Some(format!("{style}{}{style:#}\n", report::verbose_line(outcome)))
            }
            Kind::Json => Some(serde_json::to_string(outcome)? + "\n"),
        };
        match (line, &mut self.out) {
            (Some(line), out) if self.is_shared => {
                self.bar.aside(|| out.write_all(line.as_bytes()))?;
            }
            (Some(line), out) => out.write_all(line.as_bytes())?,
            (None, _) => {}
        }
        self.bar.step(self.counts);
        Ok(())
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
    pub(super) fn end(&mut self, summary: &Summary, elapsed: Duration) -> io::Result<()> {
        self.bar.end();
        let text = match self.kind {
            Kind::Json => summary.line() + "\n",
            Kind::Reports | Kind::Verbose => report::final_report(&self.counts, elapsed),
        };
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl Drop for Display {
    /// Whatever ends a run, the terminal is left clean.
    fn drop(&mut self) {
        self.bar.end();
    }
}
