//! Diagnostics. Whoever closed stderr, or let its disk run full, must not stop a run by that, so
//! this room is used in place of `eprintln!`, which panics then.

use std::fmt;
use std::io::{self, Write};

/// Says a line on stderr, if it can be said.
pub(super) fn say(line: fmt::Arguments<'_>) {
    // In one piece: other processes may write to the same terminal.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
