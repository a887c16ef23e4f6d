//! [`ProgramExit`]: how a program ends, and its exit code.

use std::process::ExitCode;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ProgramExit {
    /// Every code has an answer; or the command did its work.
    Success = 0,
    /// Some codes ended in an error.
    SomeErrors = 1,
    /// The command line is invalid.
    Usage = 2,
    /// The job could not be started, or was broken off.
    CouldNotWork = 3,
    /// Ended by SIGHUP.
    HungUp = 129,
    /// Ended by Ctrl-C.
    Interrupted = 130,
    /// Ended by SIGQUIT.
    Quit = 131,
    /// The reader of standard output closed it before all was written.
    ClosedPipe = 141,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl From<ProgramExit> for ExitCode {
    fn from(exit: ProgramExit) -> Self {
        Self::from(exit as u8)
    }
}
