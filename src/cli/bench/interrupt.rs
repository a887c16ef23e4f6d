//! What ends the measuring before its time.

use std::sync::{Arc, OnceLock};

use crate::cli::Exit;
use procession::TaskError;

/// Why there are no figures.
pub(super) enum Ended {
    Interrupted(Exit),
    Failed(anyhow::Error),
}

impl From<TaskError> for Ended {
    fn from(error: TaskError) -> Self {
        Self::Failed(error.into())
    }
}

/// Whether somebody wants it to end.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt(Arc<OnceLock<Exit>>);

impl Interrupt {
    pub(super) fn set(&self, exit: Exit) {
        // The first signal decides the exit status.
        let _ = self.0.set(exit);
    }

    /// Asked between any two tries, none of which takes long.
    pub(super) fn check(&self) -> Result<(), Ended> {
        self.0.get().map_or(Ok(()), |exit| Err(Ended::Interrupted(*exit)))
    }
}
