//! A task that a process pool owes an answer for, encoded for the journey.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::TaskError;
use crate::executor::job::{Encoded, Owed};
use crate::task::TaskId;
use crate::wire::{INLINE_LIMIT, Text};

/// A task and who is owed its output.
pub(crate) struct Parcel {
    pub id: TaskId,
    pub name: &'static str,
    pub submitted: Instant,
    json: String,
    owed: Mutex<Option<Box<dyn Owed>>>,
}

/// As how many bytes a text counts that travels beside its call: so few of them lie ahead that
/// the channel never is full.
const ENCLOSED_COUNTS_AS: usize = 2048;

impl Parcel {
    pub(crate) fn new(Encoded { id, name, json, owed }: Encoded) -> Self {
        Self { id, name, submitted: Instant::now(), json, owed: Mutex::new(Some(owed)) }
    }

    /// How much room the task takes on the way.
    pub(crate) fn bytes(&self) -> usize {
        self.inline().map_or(ENCLOSED_COUNTS_AS, str::len)
    }

    /// The text, if it is short enough for a record.
    pub(crate) fn inline(&self) -> Option<&str> {
        (self.json.len() <= INLINE_LIMIT).then_some(&self.json)
    }

    /// The text, if it is not.
    pub(crate) fn enclosed(&self) -> Text {
        Text::shared(&self.json)
    }

    pub(crate) fn set_running(&self, running: bool) {
        if let Some(owed) = &*self.owed() {
            owed.set_running(running);
        }
    }

    /// The promise, for whoever may keep it; only the first to ask gets it.
    pub(crate) fn take_owed(&self) -> Option<Box<dyn Owed>> {
        self.owed().take()
    }

    pub(crate) fn fail(&self, error: TaskError) {
        if let Some(owed) = self.take_owed() {
            owed.fail(error);
        }
    }

    fn owed(&self) -> MutexGuard<'_, Option<Box<dyn Owed>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
