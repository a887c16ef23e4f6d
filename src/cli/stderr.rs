//! Diagnostics on stderr. Unlike `eprintln!`, this does not panic if stderr is closed or its disk is
//! full, and shows control characters: parts of a line come from servers and from workers.

use std::fmt;
use std::io::{self, Write};

use super::format::printable_lines;

/// Prints a line on stderr; an error is ignored.
pub(super) fn print(line: fmt::Arguments<'_>) {
    // With one write: other processes may write to the same terminal.
    let _ = io::stderr().write_all(format!("{}\n", printable_lines(&line.to_string())).as_bytes());
}
