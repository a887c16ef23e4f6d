//! Downloads one file: fetch, check, save, timed.
//!
//! Every error is in the outcome; nothing is printed.

use std::time::Instant;

use super::client::FetchSettings;
use super::fetch::{self, FetchTools, Fetched, RetryNotice};
use super::fetch_error::FetchError;
use super::item::FileItem;
use super::outcome::{DownloadOutcome, DownloadStatus, milliseconds, now_us};
use super::save;
use super::validators::{KnownFile, ValidatorCache};

/// What is known of the file that is already there, and where more is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpdateNotes<'p> {
    /// Where the validators of the response are kept.
    pub cache: Option<&'p ValidatorCache>,
    /// The record of the file that was saved before. If it has changed since, it is ignored.
    pub known: Option<&'p KnownFile>,
}

/// Downloads an item into the directory of `tools`, which must exist. The outcome has the id of this process
/// and no worker index; a worker adds its own. `on_retry` is called before each retry.
pub fn download(
    tools: FetchTools<'_>,
    settings: &FetchSettings,
    notes: UpdateNotes<'_>,
    item: &FileItem,
    on_retry: impl FnMut(&RetryNotice<'_>),
) -> DownloadOutcome {
    let start = Instant::now();
    let UpdateNotes { cache, known } = notes;
    let known = known.filter(|known| known.fits(&tools.dest.join(&item.file)));
    let sent = known.map(|known| known.validators.clone()).unwrap_or_default();
    let Fetched { result, http_status, attempts, validators, waited } =
        fetch::fetch(tools, settings, item, &sent, on_retry);
    let saved = result.and_then(|body| {
        let bytes = save::save(tools.dest, &item.file, body)?;
        if let (Some(cache), false) = (cache, validators.is_empty()) {
            cache.append(settings.server.as_deref(), item, &validators);
        }
        Ok(bytes)
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
        code: item.code.clone(),
        bytes,
        unchanged,
        elapsed_ms: milliseconds(start.elapsed().saturating_sub(waited)),
        ended_us: now_us(),
        attempts,
        http_status,
        error,
        cause,
        worker: None,
        pid: std::process::id(),
        host: None,
    }
}
