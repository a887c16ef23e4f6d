//! One flag from the server to the disk: fetch, check, save, timed.
//!
//! Must never panic or print: whatever happens is in the outcome.

use std::path::Path;
use std::time::Instant;

use ureq::Agent;

use super::client::FetchSettings;
use super::codes::Code;
use super::fetch::{Fetched, fetch};
use super::fetch_error::FetchError;
use super::outcome::{Outcome, Status, milliseconds};
use super::save;

/// Downloads the flag of `code` into the directory `dest`, which must exist. The outcome names
/// this process and no worker; a worker puts in its own number.
pub fn download(agent: &Agent, settings: &FetchSettings, dest: &Path, code: Code) -> Outcome {
    let start = Instant::now();
    let Fetched { result, http_status, attempts } = fetch(agent, settings, code);
    let saved = result.and_then(|bytes| {
        save::save(dest, code, &bytes)?;
        Ok(bytes.len() as u64)
    });
    let (status, bytes, error) = match saved {
        Ok(bytes) => (Status::Ok, Some(bytes), None),
        Err(FetchError::NotFound) => (Status::NotFound, None, None),
        Err(error) => (Status::Error, None, Some(error.to_string())),
    };
    Outcome {
        status,
        data: code,
        bytes,
        elapsed_ms: milliseconds(start.elapsed()),
        attempts,
        http_status,
        error,
        worker: None,
        pid: std::process::id(),
    }
}
