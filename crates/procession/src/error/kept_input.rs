//! [`KeptInput`]: where the task of an error was kept.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the task of an error was kept: [`Builder::keep_crashes`](crate::Builder::keep_crashes).
///
/// ```
/// use procession::TaskError;
///
/// fn print_input(error: &TaskError) {
///     if let TaskError::WorkerDied(death) = error
///         && let Some(kept) = &death.kept
///     {
///         println!("{kept}"); // "its input is kept in crashes/….procession"
///         assert_eq!(kept.file().is_some(), kept.failure().is_none());
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptInput {
    /// The file, or why it could not be written. Boxed, so that errors stay small.
    written: Box<Result<PathBuf, String>>,
}

impl KeptInput {
    pub(crate) fn new(written: Result<PathBuf, String>) -> Self {
        Self { written: Box::new(written) }
    }

    /// The file, which [`KeptTask::read`](crate::KeptTask::read) reads. `None`: it could not be written. See the example of [`KeptInput`].
    pub fn file(&self) -> Option<&Path> {
        self.written.as_ref().as_ref().ok().map(PathBuf::as_path)
    }

    /// Why the file could not be written, if it could not. See the example of [`KeptInput`].
    pub fn failure(&self) -> Option<&str> {
        self.written.as_ref().as_ref().err().map(String::as_str)
    }
}

impl fmt::Display for KeptInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.written {
            Ok(path) => write!(f, "its input is kept in {}", path.display()),
            Err(reason) => write!(f, "its input could not be kept: {reason}"),
        }
    }
}
