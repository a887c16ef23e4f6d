//! Validators, from which a server knows whether a flag has changed: its entity tag, and the date of
//! its last change (RFC 9110, section 8.8). They are kept beside the flags and sent with the next
//! request.
//!
//! ```text
//!  DEST/.validators.jsonl   {"server":"LOCAL","code":"BR","etag":"\"5d41\"","bytes":590,"written_ns":…}
//! ```
//!
//! Each line is one flag and is appended by one write, so that any number of processes can write. The
//! last line of a flag counts, and only for the file that was saved with it. A line that is lost, or
//! whose file has changed, costs a download and nothing else.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use ureq::http::HeaderMap;
use ureq::http::header::{ETAG, HeaderName, LAST_MODIFIED};

use super::codes::Code;
use super::save;

/// The name of the file.
pub const FILE: &str = ".validators.jsonl";

/// A file that is larger is rewritten without superseded lines.
const LARGE: u64 = 256 * 1024;

/// A validator that is longer is not kept.
const LONGEST: usize = 1024;

/// The validators of a flag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// `ETag`, sent back as `If-None-Match`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// `Last-Modified`, sent back as `If-Modified-Since`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

impl Validators {
    /// The validators in the headers of a response.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| {
            let value = headers.get(name)?.to_str().ok()?.trim();
            (!value.is_empty() && value.len() <= LONGEST).then(|| value.to_owned())
        };
        Self { etag: text(ETAG), last_modified: text(LAST_MODIFIED) }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ValidatorRecord {
    server: String,
    code: Code,
    #[serde(flatten)]
    known: KnownFlag,
}

/// The validators of a flag that was saved, and the size and time of its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFlag {
    /// From the server.
    #[serde(flatten)]
    pub validators: Validators,
    /// The size of the flag.
    pub bytes: u64,
    written_ns: u64,
}

impl KnownFlag {
    /// Whether the flag in `dest` is still the one that was saved with these validators.
    pub fn fits(&self, dest: &Path, code: Code) -> bool {
        stamp(&save::path(dest, code)).is_ok_and(|stamp| stamp == (self.bytes, self.written_ns))
    }
}

/// The size of a file, and when it was written.
fn stamp(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::metadata(path)?;
    let written = file.modified()?.duration_since(SystemTime::UNIX_EPOCH);
    let written = written.map_or(0, |since| since.as_nanos());
    Ok((file.len(), u64::try_from(written).unwrap_or(0)))
}

/// Appends validators to the file; one for each process.
#[derive(Debug)]
pub struct ValidatorCache {
    dest: PathBuf,
    /// Opened at the first write. If that fails, the next run downloads unchanged flags again.
    file: OnceLock<Option<File>>,
}

impl ValidatorCache {
    /// For the flags in `dest`.
    pub fn open(dest: &Path) -> Self {
        Self { dest: dest.to_owned(), file: OnceLock::new() }
    }

    /// Appends the validators of a flag that was just saved.
    pub fn append(&self, server: &str, code: Code, validators: &Validators) {
        let path = || self.dest.join(FILE);
        let open = || OpenOptions::new().append(true).create(true).open(path()).ok();
        let Some(mut file) = self.file.get_or_init(open).as_ref() else { return };
        let Ok((bytes, written_ns)) = stamp(&save::path(&self.dest, code)) else { return };
        let known = KnownFlag { validators: validators.clone(), bytes, written_ns };
        let record = ValidatorRecord { server: server.to_owned(), code, known };
        if let Ok(json) = serde_json::to_string(&record) {
            // One write. If the line before is incomplete, only that one is lost.
            let _ = file.write_all(format!("{json}\n").as_bytes());
        }
    }
}

/// The records of the flags in `dest` from this server.
pub fn read(dest: &Path, server: &str) -> HashMap<Code, KnownFlag> {
    let records = records(dest).into_iter().filter(|record| record.server == server);
    records.map(|ValidatorRecord { code, known, .. }| (code, known)).collect()
}

fn records(dest: &Path) -> Vec<ValidatorRecord> {
    let bytes = fs::read(dest.join(FILE)).unwrap_or_default();
    let lines = bytes.split(|&byte| byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Keeps the file small.
pub fn tidy(dest: &Path) {
    let path = dest.join(FILE);
    if !fs::metadata(&path).is_ok_and(|file| file.len() > LARGE) {
        return;
    }
    let last: HashMap<_, _> = records(dest)
        .into_iter()
        .map(|record| ((record.server.clone(), record.code), record))
        .collect();
    let lines = last.values().filter_map(|record| serde_json::to_string(record).ok());
    let text: String = lines.map(|line| line + "\n").collect();
    let replaced = save::create_part(dest, FILE).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.persist(&path).map_err(|error| error.error)
    });
    // It will be tried again.
    let _ = replaced;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> Code {
        "BR".parse().unwrap()
    }

    fn etag(tag: &str) -> Validators {
        Validators { etag: Some(tag.to_owned()), last_modified: None }
    }

    #[test]
    fn the_last_note_counts_and_only_for_the_file_it_was_made_for() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path();
        let cache = ValidatorCache::open(dest);
        save::save(dest, code(), b"one").unwrap();
        cache.append("LOCAL", code(), &etag("1"));
        save::save(dest, code(), b"other").unwrap();
        cache.append("LOCAL", code(), &etag("2"));
        cache.append("DELAY", code(), &etag("3"));
        let known = read(dest, "LOCAL");
        assert_eq!((known.len(), &known[&code()].validators), (1, &etag("2")));
        assert!(known[&code()].fits(dest, code()));
        fs::write(save::path(dest, code()), "OTHER").unwrap();
        assert!(!known[&code()].fits(dest, code()), "another program wrote the file");
        fs::remove_file(save::path(dest, code())).unwrap();
        assert!(!known[&code()].fits(dest, code()));
    }

    #[test]
    fn garbage_is_passed_over_and_a_large_file_is_tidied() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path();
        assert!(read(dest, "LOCAL").is_empty());
        save::save(dest, code(), b"one").unwrap();
        fs::write(dest.join(FILE), "\u{0}garbage\n{}\n".repeat(30_000)).unwrap();
        ValidatorCache::open(dest).append("LOCAL", code(), &etag("1"));
        let before = read(dest, "LOCAL");
        assert_eq!(before.len(), 1);
        tidy(dest);
        assert_eq!(read(dest, "LOCAL"), before);
        assert!(fs::metadata(dest.join(FILE)).unwrap().len() < 200);
    }
}
