//! What a run shows: reports and data on stdout; the bar and diagnostics on stderr.
//!
//! A stdout that was closed by its reader is not an error but the end of interest, so every write
//! is checked, by the caller.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::flags::outcome::{Counts, Outcome, Status};
use crate::flags::report::{self, Summary};

use super::args::{Color, Progress};
use super::settings::DisplaySettings;
use super::stderr;

/// How often the bar is drawn at most, a second.
const FRAMES: u8 = 15;

/// Shows one run.
pub(super) struct Display {
    out: AutoStream<io::Stdout>,
    kind: Kind,
    bar: ProgressBar,
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
        let bar = ProgressBar::with_draw_target(Some(total as u64), bar_target(progress, kind));
        bar.set_style(bar_style(color));
        Self { out: AutoStream::new(io::stdout(), choice), kind, bar, counts: Counts::default() }
    }

    /// What will be done.
    pub(super) fn begin(&mut self, report: &str) -> io::Result<()> {
        if self.kind != Kind::Json {
            self.out.write_all(report.as_bytes())?;
            self.out.flush()?;
        }
        self.bar.tick();
        Ok(())
    }

    /// One more is done.
    pub(super) fn outcome(&mut self, outcome: &Outcome) -> io::Result<()> {
        self.counts.add(outcome.status);
        match self.kind {
            Kind::Reports => {}
            Kind::Verbose => {
                let style = match outcome.status {
                    Status::Ok => Style::new(),
                    Status::NotFound => AnsiColor::Yellow.on_default(),
                    Status::Error => AnsiColor::Red.on_default(),
                };
                let line = report::verbose_line(outcome);
                writeln!(self.out, "{style}{line}{style:#}")?;
            }
            Kind::Json => {
                serde_json::to_writer(&mut self.out, outcome)?;
                writeln!(self.out)?;
            }
        }
        let Counts { ok, not_found, error } = self.counts;
        self.bar.set_message(format!("{ok} ok, {not_found} not found, {error} failed"));
        self.bar.inc(1);
        Ok(())
    }

    /// How many ended how, so far.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Something that a person should know in between.
    pub(super) fn notice(&self, text: &str) {
        self.bar.suspend(|| stderr::say(format_args!("coordinator: {text}")));
    }

    /// How it ended.
    pub(super) fn end(&mut self, summary: &Summary, elapsed: Duration) -> io::Result<()> {
        self.bar.finish_and_clear();
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
        self.bar.finish_and_clear();
    }
}

fn bar_target(progress: Progress, kind: Kind) -> ProgressDrawTarget {
    let can = io::stderr().is_terminal() && env::var_os("TERM").is_some_and(|term| term != "dumb");
    match progress {
        Progress::None => ProgressDrawTarget::hidden(),
        Progress::Auto if !can || kind == Kind::Verbose => ProgressDrawTarget::hidden(),
        Progress::Auto => ProgressDrawTarget::stderr_with_hz(FRAMES),
        Progress::Bar => ProgressDrawTarget::term_like_with_hz(Box::new(Term::stderr()), FRAMES),
    }
}

fn bar_style(color: Color) -> ProgressStyle {
    // In colour `auto` the bar's own library looks at NO_COLOR and the terminal.
    let bar = if color == Color::Never { "{wide_bar}" } else { "{wide_bar:.green}" };
    ProgressStyle::with_template(&format!("{bar} {{pos}}/{{len}} {{msg}} {{per_sec}}"))
        .expect("a template that is part of the program")
}
