//! One flag from the server to the disk: fetch, check, save, timed.
//!
//! Must never panic or print: whatever happens is in the outcome.

use std::path::Path;
use std::time::Instant;

use ureq::Agent;

use super::client::FetchSettings;
use super::codes::Code;
use super::fetch::{Fetched, RetryNotice, fetch_changed};
use super::fetch_error::FetchError;
use super::outcome::{DownloadOutcome, DownloadStatus, milliseconds};
use super::save;
use super::validators::{KnownFlag, ValidatorCache};

/// Where flags are saved, and what is known of the one that is there.
#[derive(Debug, Clone, Copy)]
pub struct SaveTarget<'p> {
    /// The directory, which must exist.
    pub dest: &'p Path,
    /// Where validators are written down.
    pub cache: Option<&'p ValidatorCache>,
    /// Of the flag that was saved before; one that has changed since is fetched as if it were not
    /// there.
    pub known: Option<&'p KnownFlag>,
}

impl<'p> SaveTarget<'p> {
    /// A directory of which nothing is known.
    pub fn new(dest: &'p Path) -> Self {
        Self { dest, cache: None, known: None }
    }
}

/// Downloads the flag of `code`. The outcome names this process and no worker; a worker puts in its
/// own number. Tries that fail and are followed by others are told as they happen.
pub fn download(
    agent: &Agent,
    settings: &FetchSettings,
    place: SaveTarget<'_>,
    code: Code,
    tell: impl FnMut(&RetryNotice<'_>),
) -> DownloadOutcome {
    let start = Instant::now();
    let SaveTarget { dest, cache, known } = place;
    let known = known.filter(|known| known.fits(dest, code));
    let asked = known.map(|known| known.validators.clone()).unwrap_or_default();
    let Fetched { result, http_status, attempts, validators } =
        fetch_changed(agent, settings, code, &asked, tell);
    let saved = result.and_then(|bytes| {
        save::save(dest, code, &bytes)?;
        if let (Some(cache), false) = (cache, validators.is_empty()) {
            cache.note(&settings.server, code, &validators);
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
        Err(error) => (DownloadStatus::Error, None, Some(error.to_string()), error.cause()),
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
