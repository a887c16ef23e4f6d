//! The error of an invalid command line.

use std::error::Error;
use std::fmt;

/// An invalid command line. The program prints it with the usage of the subcommand and ends with
/// [`ProgramExit::Usage`](super::exit::ProgramExit::Usage).
#[derive(Debug)]
pub(super) struct UsageError {
    subcommand: &'static [&'static str],
    error: Box<dyn Error + Send + Sync>,
}

impl UsageError {
    /// `subcommand` has the names that lead to the subcommand: none for a download.
    pub(super) fn new(
        subcommand: &'static [&'static str],
        error: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { subcommand, error: error.into() }
    }

    /// The error of this type in the chain of causes, if there is one.
    pub(super) fn find<E: Error + 'static>(&self) -> Option<&E> {
        let mut error: &(dyn Error + 'static) = &*self.error;
        loop {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            error = error.source()?;
        }
    }

    /// The error with its causes. An error that forwards its cause has the same text, which is shown
    /// once.
    pub(super) fn message(&self) -> String {
        let mut last = self.to_string();
        let mut message = last.clone();
        for cause in std::iter::successors(self.source(), |&error| error.source()) {
            let text = cause.to_string();
            if text != last {
                message = format!("{message}: {text}");
                last = text;
            }
        }
        message
    }

    pub(super) fn subcommand(&self) -> &'static [&'static str] {
        self.subcommand
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for UsageError {
    /// The error itself is shown as this one.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
