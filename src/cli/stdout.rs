//! Standard output: coloured if the options say so, and with every write checked. A reader that closes
//! it early ends the program, see [`ClosedPipe`].

use std::env;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use anstream::{AutoStream, ColorChoice};
use anyhow::Context;
use console::Term;
use procession_os::{descriptors, startup};

use super::options::ColorOption;
use super::prose;

/// Standard output, locked.
pub(super) struct Stdout {
    out: BufWriter<AutoStream<StdoutLock<'static>>>,
}

impl Stdout {
    pub(super) fn lock(color: ColorOption) -> Self {
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

/// The number of columns; without a terminal it is not limited.
pub(super) fn width() -> usize {
    match io::stdout().is_terminal() {
        true => usize::from(Term::stdout().size().1).max(20),
        false => usize::MAX,
    }
}

/// Whether another program reads what is written: standard output is a pipe or a socket.
pub(super) fn has_reader() -> bool {
    let Ok(out) = io::stdout().as_fd().try_clone_to_owned() else { return false };
    let kind = File::from(out).metadata().map(|file| file.file_type());
    kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket())
}

/// Whether the locale has an encoding of Unicode.
pub(super) fn has_unicode() -> bool {
    let set = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The reader of standard output has closed it: the program ends without a message, with
/// [`ProgramExit::ClosedPipe`](super::exit::ProgramExit::ClosedPipe).
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed by its reader")]
pub(super) struct ClosedPipe;

/// Makes each write to a standard output that was closed when this program was started (`>&-`) an error:
/// without that it would succeed and arrive nowhere.
pub(super) fn fail_if_closed() {
    if startup::had_no_stdout() {
        // If no pipe can be made, the command works, and its writes go nowhere.
        let _ = descriptors::break_stdout();
    }
}

/// For commands that do nothing but write to standard output: an error before they begin, if it was
/// closed.
pub(super) fn ensure_open() -> anyhow::Result<()> {
    written(if startup::had_no_stdout() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) })
}

/// Standard output was closed when this program was started.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(super) struct Closed;

/// Why nothing arrives at standard output, if that is not because its reader has closed it.
pub(super) fn failure(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::BrokenPipe if startup::had_no_stdout() => Some(Closed.to_string()),
        io::ErrorKind::BrokenPipe => None,
        _ => Some(error.to_string()),
    }
}

/// The result of a write to standard output.
pub(super) fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe && startup::had_no_stdout() => {
            Err(Closed).context("cannot write to standard output")
        }
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ClosedPipe.into()),
        result => result.context("cannot write to standard output"),
    }
}

/// Writes a text to standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output.
pub(super) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Writes a text for a person, in the width and the characters of the terminal, and coloured if the option
/// says so, to standard output.
pub(super) fn print_prose(text: &str, color: ColorOption) -> anyhow::Result<()> {
    print_colored(&prose::fit(text, width(), has_unicode()), color)
}

/// Writes a text, coloured if the option says so, to standard output.
pub(super) fn print_colored(text: &str, color: ColorOption) -> anyhow::Result<()> {
    let mut out = Stdout::lock(color);
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}
