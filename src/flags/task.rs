//! The download of a flag as a [`Task`], for any executor to run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::client::{self, FetchSettings};
use super::codes::Code;
use super::download::download;
use super::outcome::{Outcome, Status};
use crate::error::Failure;
use crate::journal::{self, Event, Level};
use crate::task::{Context, Task};

/// Downloads one flag. All that it must know travels with it, so that workers need no settings of
/// their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Download {
    /// Whose flag.
    pub code: Code,
    /// From where, and how.
    pub fetch: FetchSettings,
    /// The directory to save it in, which exists.
    pub dest: PathBuf,
}

impl Task for Download {
    const NAME: &'static str = "download";
    type Output = Outcome;

    /// Never fails as a task: what went wrong with the download is in its outcome.
    fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let agent = context.local(|| client::agent(&self.fetch));
        let mut outcome = download(&agent, &self.fetch, &self.dest, self.code);
        outcome.worker = Some(context.worker());
        // Those of earlier runs, which did not live to tell how many requests they made, count one
        // each.
        outcome.attempts += context.attempt() - 1;
        note(&outcome);
        Ok(outcome)
    }
}

/// Writes the outcome down in the journal of this process, if it keeps one.
pub fn note(outcome: &Outcome) {
    let Some(journal) = journal::current() else { return };
    let Outcome {
        status,
        data,
        bytes,
        elapsed_ms,
        attempts,
        http_status,
        error,
        worker: _,
        pid: _,
    } = outcome;
    let level = if *status == Status::Error { Level::Warn } else { Level::Info };
    let event = Event::Task {
        code: data.to_string(),
        status: status.as_str().to_owned(),
        http: *http_status,
        bytes: *bytes,
        elapsed_ms: *elapsed_ms,
        attempt: *attempts,
        error: error.clone(),
    };
    journal.record(level, event);
}
