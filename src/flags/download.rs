//! One flag from the server to the disk: fetch, check, save, timed.
//!
//! Must never panic or print: whatever happens is in the outcome.

use std::path::Path;
use std::time::Instant;

use ureq::Agent;

use super::client::FetchSettings;
use super::codes::Code;
use super::fetch::{Again, Fetched, fetch_telling};
use super::fetch_error::FetchError;
use super::outcome::{Outcome, Status, milliseconds};
use super::save;

/// Downloads the flag of `code` into the directory `dest`, which must exist. The outcome names
/// this process and no worker; a worker puts in its own number. Tries that fail and are followed by
/// others are told as they happen.
pub fn download(
    agent: &Agent,
    settings: &FetchSettings,
    dest: &Path,
    code: Code,
    tell: impl FnMut(&Again<'_>),
) -> Outcome {
    let start = Instant::now();
    let Fetched { result, http_status, attempts } = fetch_telling(agent, settings, code, tell);
    let saved = result.and_then(|bytes| {
        save::save(dest, code, &bytes)?;
        Ok(bytes.len() as u64)
    });
    let (status, bytes, error, cause) = match saved {
        Ok(bytes) => (Status::Ok, Some(bytes), None, None),
        Err(FetchError::NotFound) => (Status::NotFound, None, None, None),
        Err(error) => (Status::Error, None, Some(error.to_string()), error.cause()),
    };
    Outcome {
        status,
        data: code,
        bytes,
        elapsed_ms: milliseconds(start.elapsed()),
        attempts,
        http_status,
        error,
        cause,
        worker: None,
        pid: std::process::id(),
    }
}
