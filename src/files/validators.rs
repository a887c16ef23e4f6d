//! Validators, from which a server knows whether a file has changed: its entity tag, and the date of
//! its last change (RFC 9110, section 8.8). They are kept beside the files and sent with the next
//! request.
//!
//! ```text
//!  DEST/.validators.jsonl   {"server":"LOCAL","code":"BR","etag":"\"5d41\"","bytes":590,"written_ns":…}
//! ```
//!
//! The server of a flag is known by its label, wherever it listens, and any other file by its URL. Each
//! line is one file and is appended by one write, so that any number of processes can write. The
//! last line of a file counts, and only for the file that was saved with it. A line that is lost, or
//! whose file has changed, costs a download and nothing else.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use procession_os::regular_file;
use serde::{Deserialize, Serialize};
use ureq::http::HeaderMap;
use ureq::http::header::{ETAG, HeaderName, LAST_MODIFIED};

use super::item::FileItem;
use super::read;
use super::save::{self, VALIDATORS_FILE};

/// A file that is larger is rewritten without superseded lines.
const LARGE: u64 = 256 * 1024;

/// A file that is larger, in bytes, is not read. It grows by some 200 bytes for each file that is downloaded.
const LARGEST: u64 = 256 << 20;

/// A validator that is longer is not kept.
const LONGEST: usize = 1024;

/// The validators of a file.
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
    code: String,
    #[serde(flatten)]
    known: KnownFile,
}

/// The validators of a file that was saved, and the size and time of its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFile {
    /// From the server.
    #[serde(flatten)]
    pub validators: Validators,
    /// The size of the file.
    pub bytes: u64,
    written_ns: u64,
}

impl KnownFile {
    /// Whether the file at `path` is still the one that was saved with these validators.
    pub fn fits(&self, path: &Path) -> bool {
        stamp(path).is_ok_and(|stamp| stamp == (self.bytes, self.written_ns))
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
    /// Opened at the first write. If that fails, the next run downloads unchanged files again.
    file: OnceLock<Option<File>>,
}

impl ValidatorCache {
    /// For the files in `dest`.
    pub fn open(dest: &Path) -> Self {
        Self { dest: dest.to_owned(), file: OnceLock::new() }
    }

    /// Appends the validators of a file that was just saved.
    pub fn append(&self, server: Option<&str>, item: &FileItem, validators: &Validators) {
        // A worker that was taken over may have put a link there, to a file that it may not write.
        let open = || {
            let mut options = File::options();
            let options = options.append(true).create(true);
            regular_file::without_link(options, &self.dest.join(VALIDATORS_FILE)).ok()
        };
        let Some(mut file) = self.file.get_or_init(open).as_ref() else { return };
        let Ok((bytes, written_ns)) = stamp(&self.dest.join(&item.file)) else { return };
        let known = KnownFile { validators: validators.clone(), bytes, written_ns };
        let server = server.unwrap_or(&item.url).to_owned();
        let record = ValidatorRecord { server, code: item.code.clone(), known };
        if let Ok(json) = serde_json::to_string(&record) {
            // One write. If the line before is incomplete, only that one is lost.
            let _ = file.write_all(format!("{json}\n").as_bytes());
        }
    }
}

/// The records of the files in a destination, by server and code.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KnownFiles(HashMap<(String, String), KnownFile>);

impl KnownFiles {
    /// Reads those in `dest`.
    pub fn read(dest: &Path) -> Self {
        let records = records(dest).into_iter();
        // The last record of a file counts.
        Self(records.map(|record| ((record.server, record.code), record.known)).collect())
    }

    /// Takes out the record of an item that was saved from the same server, or from the same URL.
    pub fn take(&mut self, server: Option<&str>, item: &FileItem) -> Option<KnownFile> {
        let server = server.unwrap_or(&item.url).to_owned();
        self.0.remove(&(server, item.code.clone()))
    }
}

fn records(dest: &Path) -> Vec<ValidatorRecord> {
    let bytes = read::file(&dest.join(VALIDATORS_FILE), LARGEST).unwrap_or_default();
    let lines = bytes.split(|&byte| byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Keeps the file small.
pub fn tidy(dest: &Path) {
    let path = dest.join(VALIDATORS_FILE);
    if !fs::metadata(&path).is_ok_and(|file| file.len() > LARGE) {
        return;
    }
    let last: HashMap<_, _> = records(dest)
        .into_iter()
        .map(|record| ((record.server.clone(), record.code.clone()), record))
        .collect();
    let lines = last.values().filter_map(|record| serde_json::to_string(record).ok());
    let text: String = lines.map(|line| line + "\n").collect();
    let replaced = save::create_part(dest).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.persist(&path).map_err(|error| error.error)
    });
    // It will be tried again.
    let _ = replaced;
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::files::save::ReceivedBody;
    use crate::flags::items;

    fn item() -> FileItem {
        items::item("http://localhost:1", "BR".parse().unwrap())
    }

    fn etag(tag: &str) -> Validators {
        Validators { etag: Some(tag.to_owned()), last_modified: None }
    }

    fn save(dest: &Path, text: &str) {
        save::save(dest, "br.gif", ReceivedBody::Bytes(text.into())).unwrap();
    }

    fn known(dest: &Path, server: Option<&str>) -> Option<KnownFile> {
        KnownFiles::read(dest).take(server, &item())
    }

    #[test]
    fn the_last_record_counts_and_only_for_the_file_it_was_made_for() {
        let dir = tempfile::tempdir().unwrap();
        let (dest, path) = (dir.path(), dir.path().join("br.gif"));
        let cache = ValidatorCache::open(dest);
        save(dest, "one");
        cache.append(Some("LOCAL"), &item(), &etag("1"));
        save(dest, "other");
        cache.append(Some("LOCAL"), &item(), &etag("2"));
        cache.append(Some("DELAY"), &item(), &etag("3"));
        cache.append(None, &item(), &etag("4"));
        assert_eq!(known(dest, None).unwrap().validators, etag("4"));
        let known = known(dest, Some("LOCAL")).unwrap();
        assert_eq!(known.validators, etag("2"));
        assert!(known.fits(&path));
        fs::write(&path, "OTHER").unwrap();
        assert!(!known.fits(&path), "another program wrote the file");
        fs::remove_file(&path).unwrap();
        assert!(!known.fits(&path));
    }

    #[test]
    fn a_pipe_in_place_of_the_file_is_neither_read_nor_written() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path();
        let made =
            std::process::Command::new("mkfifo").arg(dest.join(VALIDATORS_FILE)).status().unwrap();
        assert!(made.success());
        // If the open waited for the pipe, both calls would block for ever.
        save(dest, "one");
        ValidatorCache::open(dest).append(Some("LOCAL"), &item(), &etag("1"));
        assert_eq!(known(dest, Some("LOCAL")), None);
        tidy(dest);
    }

    #[test]
    fn garbage_is_passed_over_and_a_large_file_is_tidied() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path();
        assert_eq!(known(dest, Some("LOCAL")), None);
        save(dest, "one");
        fs::write(dest.join(VALIDATORS_FILE), "\u{0}garbage\n{}\n".repeat(30_000)).unwrap();
        ValidatorCache::open(dest).append(Some("LOCAL"), &item(), &etag("1"));
        let before = known(dest, Some("LOCAL"));
        assert!(before.is_some());
        tidy(dest);
        assert_eq!(known(dest, Some("LOCAL")), before);
        assert!(fs::metadata(dest.join(VALIDATORS_FILE)).unwrap().len() < 200);
    }
}
