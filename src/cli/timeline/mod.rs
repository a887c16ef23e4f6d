//! `coordinator timeline`: who did what when, as swim lanes.
//!
//! ```text
//!   story ─► lanes ─► terminal           (by default)
//!        ├─► picture ─► page             (--html; and the dashboard, as it goes on)
//!        └─► trace                       (--trace, for Perfetto)
//! ```

mod lanes;
pub(super) mod page;
pub(super) mod picture;
mod terminal;
mod trace;

use std::env;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anstream::ColorChoice;
use anyhow::Context;
use console::Term;

use super::args::Color;
use super::which_run::{self, WhichRun};
use super::{Exit, contradictions, stdout, usage_error};
use procession_journal as journal;

/// Lines are this wide where there is no terminal.
const WIDTH: usize = 100;

/// Which run, and for whom.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coordinator timeline                    the latest run, in the terminal
  coordinator timeline --html run.html    a page to zoom into, which needs no network
  coordinator timeline --trace run.json   for https://ui.perfetto.dev or chrome://tracing
  coordinator timeline 4711 --html -      an older run's page, on standard output

A lane is a worker, or a thread inside it. RUN may be a part of a name that no other run has; see
coordinator logs --list.")]
pub(super) struct Timeline {
    #[command(flatten)]
    pub which: WhichRun,
    /// Write it as a page for a browser, in one file; - for standard output
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write it as Chrome trace events, which Perfetto shows; - for standard output
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Whether to use colour: auto, always or never
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub color: Color,
}

/// Runs the command.
pub(super) fn run(args: &Timeline) -> anyhow::Result<Exit> {
    let colourless =
        args.html.as_ref().map(|_| "--html").or(args.trace.as_ref().map(|_| "--trace"));
    let contradiction =
        contradictions::in_color(args.color, colourless).and_then(|()| args.which.check());
    if let Err(why) = contradiction {
        return usage_error(Some(&["timeline"]), why);
    }
    if args.html.is_some() && args.html == args.trace {
        let why = "--html FILE and --trace FILE must be written to different places";
        return usage_error(Some(&["timeline"]), why);
    }
    let path = args.which.find()?;
    let read = journal::read(&path);
    let (history, warnings) =
        read.with_context(|| format!("cannot read the logs in {}", path.display()))?;
    let name = which_run::name(&path);
    if let Some(file) = &args.html {
        let picture = picture::Picture::of(&name, &history, !journal::is_running(&path));
        put(file, &page::still(&picture)?, args.color)?;
    }
    if let Some(file) = &args.trace {
        put(file, &trace::of(&name, &history), args.color)?;
    }
    if args.html.is_none() && args.trace.is_none() {
        let style = terminal::Style {
            // Through a pipe, as wide as the terminal that is likely behind it.
            width: match io::stdout().is_terminal() {
                true => stdout::width(),
                false => Term::stderr().size_checked().map_or(WIDTH, |(_, width)| width.into()),
            },
            is_coloured: args.color.for_stdout() != ColorChoice::Never,
            has_unicode: has_unicode(),
        };
        let text = terminal::draw(&name, &history, style);
        put(Path::new("-"), &text, args.color)?;
    }
    super::logs::tell(&warnings);
    Ok(Exit::Answered)
}

fn put(file: &Path, text: &str, color: Color) -> anyhow::Result<()> {
    if file.as_os_str() == "-" {
        let mut out = stdout::Stdout::lock(color);
        return stdout::written(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Whether the locale can show more than ASCII.
fn has_unicode() -> bool {
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
