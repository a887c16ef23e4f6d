//! Downloads one flag: fetch, check, save, timed.
//!
//! Every error is in the outcome; nothing is printed.

use std::path::Path;
use std::time::Instant;

use ureq::Agent;

use super::client::FetchSettings;
use super::codes::Code;
use super::fetch::{Fetched, RetryNotice, fetch_if_changed};
use super::fetch_error::FetchError;
use super::outcome::{DownloadOutcome, DownloadStatus, milliseconds};
use super::save;
use super::validators::{KnownFlag, ValidatorCache};

/// Where a flag is saved, and what is known of the one that is already there.
#[derive(Debug, Clone, Copy)]
pub struct SaveTarget<'p> {
    /// The directory, which must exist.
    pub dest: &'p Path,
    /// Where the validators of the response are kept.
    pub cache: Option<&'p ValidatorCache>,
    /// The record of the flag that was saved before. If its file has changed since, it is ignored.
    pub known: Option<&'p KnownFlag>,
}

impl<'p> SaveTarget<'p> {
    /// A directory without validators.
    pub fn new(dest: &'p Path) -> Self {
        Self { dest, cache: None, known: None }
    }
}

/// Downloads the flag of `code`. The outcome has the id of this process and no worker index; a worker
/// adds its own. `on_retry` is called before each retry.
pub fn download(
    agent: &Agent,
    settings: &FetchSettings,
    target: SaveTarget<'_>,
    code: Code,
    on_retry: impl FnMut(&RetryNotice<'_>),
) -> DownloadOutcome {
    let start = Instant::now();
    let SaveTarget { dest, cache, known } = target;
    let known = known.filter(|known| known.fits(dest, code));
    let sent = known.map(|known| known.validators.clone()).unwrap_or_default();
    let Fetched { result, http_status, attempts, validators } =
        fetch_if_changed(agent, settings, code, &sent, on_retry);
    let saved = result.and_then(|bytes| {
        save::save(dest, code, &bytes)?;
        if let (Some(cache), false) = (cache, validators.is_empty()) {
            cache.append(&settings.server, code, &validators);
        }
        Ok(bytes.len() as u64)
    });
    let unchanged = matches!(saved, Err(FetchError::NotModified));
    let (status, bytes, error, cause) = match saved {
        Ok(bytes) => (DownloadStatus::Ok, Some(bytes), None, None),
        Err(FetchError::NotModified) => {
            (DownloadStatus::Ok, known.map(|known| known.bytes), None, None)
        }
        Err(FetchError::NotFound) => (DownloadStatus::NotFound, None, None, None),
        Err(error) => (DownloadStatus::Error, None, Some(error.message()), error.cause()),
    };
    DownloadOutcome {
        status,
        data: code,
        bytes,
        unchanged,
        elapsed_ms: milliseconds(start.elapsed()),
        attempts,
        http_status,
        error,
        cause,
        worker: None,
        pid: std::process::id(),
    }
}
