//! What ends a benchmark early.

use std::sync::{Arc, OnceLock};

use crate::cli::exit::ProgramExit;
use procession::TaskError;

/// Why a benchmark has no results.
pub(super) enum BenchError {
    Interrupted(ProgramExit),
    Failed(anyhow::Error),
}

impl From<TaskError> for BenchError {
    fn from(error: TaskError) -> Self {
        Self::Failed(error.into())
    }
}

/// Whether a signal has come. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt(Arc<OnceLock<ProgramExit>>);

impl Interrupt {
    pub(super) fn set(&self, exit: ProgramExit) {
        // The first signal decides the exit code.
        let _ = self.0.set(exit);
    }

    /// Checked between two tries, each of which is short.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        self.0.get().map_or(Ok(()), |exit| Err(BenchError::Interrupted(*exit)))
    }
}
