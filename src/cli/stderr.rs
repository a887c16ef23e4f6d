//! Diagnostics on stderr. Unlike `eprintln!`, this does not panic if stderr is closed or its disk is
//! full, and shows control characters: parts of a line come from servers and from workers.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use anstream::AutoStream;
use console::Term;

use super::format::printable_lines;
use super::{prose, stdout};

/// Prints a line on stderr, broken between words where the terminal is narrower; an error is ignored.
pub(super) fn print(line: fmt::Arguments<'_>) {
    let text = format!("{}\n", printable_lines(&line.to_string()));
    let text = prose::fit(&text, width(), stdout::has_unicode());
    // With one write: other processes may write to the same terminal.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Prints an error of the parser in the same way, coloured where the terminal has colours.
pub(super) fn print_usage_error(error: &clap::Error) {
    let text = error.render().ansi().to_string();
    let text = prose::fit(&text, width(), stdout::has_unicode());
    // An error means that stderr is closed.
    let _ = AutoStream::auto(io::stderr()).write_all(text.as_bytes());
}

fn width() -> usize {
    match io::stderr().is_terminal() {
        true => Term::stderr().size_checked().map_or(usize::MAX, |(_, width)| width.into()),
        false => usize::MAX,
    }
}
