//! What ends the measuring before its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::cli::Exit;
use crate::error::TaskError;

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
pub(super) struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    pub(super) fn set(&self, exit: Exit) {
        self.0.store(exit as u8, Ordering::Relaxed);
    }

    /// Asked between any two tries, none of which takes long.
    pub(super) fn check(&self) -> Result<(), Ended> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            exit if exit == Exit::Terminated as u8 => Err(Ended::Interrupted(Exit::Terminated)),
            _ => Err(Ended::Interrupted(Exit::Interrupted)),
        }
    }
}
