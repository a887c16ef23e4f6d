//! Diagnostics on stderr. Unlike `eprintln!`, this does not panic if stderr is closed or its disk is
//! full.

use std::fmt;
use std::io::{self, Write};

/// Prints a line on stderr; an error is ignored.
pub(super) fn print(line: fmt::Arguments<'_>) {
    // With one write: other processes may write to the same terminal.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
