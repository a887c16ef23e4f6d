//! `coordinator timeline`: when each process ran which task, as swim lanes.
//!
//! ```text
//!   history ─► lanes ─► terminal         (by default)
//!          ├─► picture ─► page           (--html; of the crate procession-dashboard)
//!          └─► trace                     (--trace, for Perfetto)
//! ```

mod lanes;
mod terminal;
mod trace;

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anstream::ColorChoice;
use anyhow::Context;
use console::Term;

use super::contradiction::{self, Contradiction};
use super::exit::ProgramExit;
use super::logs::print_warnings;
use super::options::{ColorArgs, ColorOption};
use super::run_selection::{self, RunSelectionArgs};
use super::stdout;
use super::usage_error::UsageError;
use procession_dashboard::{Picture, page};
use procession_journal as journal;

/// Width of the lines where there is no terminal.
const WIDTH: usize = 100;

/// Draw when each task ran in which process: in the terminal, as a page, or as a trace
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coordinator timeline                    the latest run, in the terminal
  coordinator timeline --html run.html    a page to zoom into, without a network
  coordinator timeline --trace run.json   for https://ui.perfetto.dev
  coordinator timeline 4711 --html -      an older run's page, to stdout

A lane is a worker, or a thread inside it. RUN may be a part of a name that no
other run has; see coordinator logs --list.")]
pub(super) struct TimelineArgs {
    #[command(flatten)]
    pub run: RunSelectionArgs,
    /// Write it as a page for a browser, in one file; - for standard output
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write it as Chrome trace events, which Perfetto shows; - for standard output
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    #[command(flatten)]
    pub color: ColorArgs,
}

/// Runs the command.
pub(super) fn run(args: TimelineArgs) -> anyhow::Result<ProgramExit> {
    args.check().map_err(|error| UsageError::new(&["timeline"], error))?;
    let path = args.run.find()?;
    let read = journal::read(&path);
    let (history, warnings) =
        read.with_context(|| format!("cannot read the logs in {}", path.display()))?;
    let name = run_selection::name(&path);
    if let Some(file) = &args.html {
        let picture = Picture::of(&name, &history, !journal::is_running(&path));
        put(file, &page::still(&picture)?, args.color.color)?;
    }
    if let Some(file) = &args.trace {
        put(file, &trace::of(&name, &history), args.color.color)?;
    }
    if args.html.is_none() && args.trace.is_none() {
        let style = terminal::TerminalStyle {
            // If standard output is a pipe, the width of the terminal of stderr is used.
            width: match io::stdout().is_terminal() {
                true => stdout::width(),
                false => Term::stderr().size_checked().map_or(WIDTH, |(_, width)| width.into()),
            },
            is_coloured: args.color.color.for_stdout() != ColorChoice::Never,
            has_unicode: stdout::has_unicode(),
        };
        let text = terminal::draw(&name, &history, style);
        stdout::print_prose(&text, args.color.color)?;
    }
    print_warnings(&warnings);
    Ok(ProgramExit::Success)
}

impl TimelineArgs {
    fn check(&self) -> Result<(), Contradiction> {
        let html = self.html.as_ref().map(|_| "--html");
        let plain_option = html.or(self.trace.as_ref().map(|_| "--trace"));
        contradiction::check_color(self.color.color, plain_option)?;
        self.run.check()?;
        match self.html.is_some() && self.html == self.trace {
            true => Err(Contradiction::SameFile),
            false => Ok(()),
        }
    }
}

fn put(file: &Path, text: &str, color: ColorOption) -> anyhow::Result<()> {
    if file.as_os_str() == "-" {
        return stdout::print_colored(text, color);
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
