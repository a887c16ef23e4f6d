//! Standard output for what a command tells: coloured where that is wanted, and with every write
//! checked. A reader that closes it early ends the program, see [`ClosedPipe`].

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context;
use console::Term;

use super::args::Color;

/// Standard output, locked.
pub(super) struct Stdout {
    out: BufWriter<AutoStream<StdoutLock<'static>>>,
}

impl Color {
    /// What it means for standard output.
    pub(super) fn for_stdout(self) -> ColorChoice {
        match self {
            Color::Auto => AutoStream::choice(&io::stdout()),
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
    }
}

impl Stdout {
    pub(super) fn lock(color: Color) -> Self {
        let choice = color.for_stdout();
        let choice = if choice == ColorChoice::Never { choice } else { ColorChoice::AlwaysAnsi };
        Self { out: BufWriter::new(AutoStream::new(io::stdout().lock(), choice)) }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// How many columns there are; without a terminal there is no end to them.
pub(super) fn width() -> usize {
    match io::stdout().is_terminal() {
        true => usize::from(Term::stdout().size().1).max(20),
        false => usize::MAX,
    }
}

/// The reader of standard output has closed it: the program ends, with no word to the terminal and
/// with an exit status of its own.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed by its reader")]
pub(super) struct ClosedPipe;

/// What a write to standard output came to.
pub(super) fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ClosedPipe.into()),
        result => result.context("cannot write to standard output"),
    }
}

/// Writes a text to standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}
