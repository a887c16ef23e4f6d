//! The file of a kept task: one line of JSON, then the parts whose lengths the line has.
//!
//! ```text
//!   {"procession_kept_task":1,"task":"thumb","cause":{"died":{"signal":11}}, … ,"text":21,"blobs":[4096]}
//!   encoded task │ blob 0 │ blob 1 │ … │ encoded initializer │ encoded preload
//! ```

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Deref;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{KeptCause, ReplayError, unreadable};
use crate::codec::Encoding;
use crate::limits::Limits;

/// Incremented with every change of the format.
const FORMAT: u32 = 1;
/// The largest length of the first line, in bytes.
const LONGEST_HEADER: u64 = 1 << 20;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptHeader {
    #[serde(rename = "procession_kept_task")]
    pub format: u32,
    pub task: String,
    pub id: u64,
    pub cause: KeptCause,
    /// In UTC.
    pub time: String,
    pub worker: usize,
    pub pid: u32,
    pub attempts: u32,
    /// The program that the worker ran, and its directory: for the reader.
    pub program: String,
    pub directory: String,
    pub build: String,
    pub encoding: Encoding,
    /// Number of tasks that the worker ran at a time, and the stack size of its threads.
    pub threads: usize,
    pub stack: Option<usize>,
    pub limits: Limits,
    pub initializer: Option<KeptInitializer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preload: Option<KeptInitializer>,
    /// The length of the encoded task, in bytes.
    pub text: usize,
    /// The lengths of its blobs.
    pub blobs: Vec<usize>,
}

/// A task that the worker ran before all others: its initializer, or the preload before that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptInitializer {
    pub task: String,
    /// The length of the encoded task, in bytes.
    pub text: usize,
}

impl KeptHeader {
    pub(crate) const FORMAT: u32 = FORMAT;

    /// The number of bytes behind the first line; `None` if that is no number.
    pub(crate) fn len(&self) -> Option<u64> {
        let first =
            [&self.initializer, &self.preload].into_iter().flatten().map(|first| first.text);
        let lengths = self.blobs.iter().copied().chain([self.text]).chain(first);
        lengths.map(u64::try_from).try_fold(0_u64, |sum, len| sum.checked_add(len.ok()?))
    }
}

/// What a file contains.
pub(crate) struct KeptContents {
    pub header: KeptHeader,
    pub text: Vec<u8>,
    pub blobs: Vec<Vec<u8>>,
    pub initializer: Option<Vec<u8>>,
    pub preload: Option<Vec<u8>>,
}

/// Writes a file whose lengths are those of the header.
pub(crate) fn write(
    to: &mut impl Write,
    header: &KeptHeader,
    text: &[u8],
    blobs: &[impl Deref<Target = [u8]>],
    initializer: &[u8],
    preload: &[u8],
) -> io::Result<()> {
    to.write_all(&serde_json::to_vec(header)?)?;
    to.write_all(b"\n")?;
    to.write_all(text)?;
    blobs.iter().try_for_each(|blob| to.write_all(blob))?;
    to.write_all(initializer)?;
    to.write_all(preload)
}

/// The attempt whose end a file is of, if it is a kept task.
pub(crate) fn attempts(path: &Path) -> Option<u32> {
    let (header, _, _) = read_header(path).ok()?;
    Some(header.attempts)
}

/// Reads a file. No more is allocated than the file has bytes.
pub(super) fn read(path: &Path) -> Result<KeptContents, ReplayError> {
    let failed = |error: io::Error| unreadable(path, &error);
    let (header, mut file, behind) = read_header(path)?;
    if header.len() != Some(behind) {
        let reason = format!("{behind} bytes follow its first line, which says otherwise");
        return Err(malformed(path, reason));
    }
    let mut take = |len: usize| -> Result<Vec<u8>, ReplayError> {
        let mut bytes = vec![0; len];
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes)
    };
    let text = take(header.text)?;
    let blobs = header.blobs.iter().map(|len| take(*len)).collect::<Result<_, _>>()?;
    let mut take_first =
        |first: &Option<KeptInitializer>| first.as_ref().map(|first| take(first.text)).transpose();
    let initializer = take_first(&header.initializer)?;
    let preload = take_first(&header.preload)?;
    Ok(KeptContents { header, text, blobs, initializer, preload })
}

fn malformed(path: &Path, reason: String) -> ReplayError {
    ReplayError::Malformed { path: path.to_owned(), reason }
}

/// Reads the first line. Returns the rest as well, and its length.
fn read_header(path: &Path) -> Result<(KeptHeader, BufReader<File>, u64), ReplayError> {
    let failed = |error: io::Error| unreadable(path, &error);
    let malformed = |reason: String| malformed(path, reason);
    // Checked before it is opened: the open of a pipe waits for a writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(malformed("it is no regular file".to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let info = file.metadata().map_err(failed)?;
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    file.by_ref().take(LONGEST_HEADER).read_until(b'\n', &mut line).map_err(failed)?;
    let header: KeptHeader = serde_json::from_slice(&line)
        .map_err(|error| malformed(format!("its first line cannot be read: {error}")))?;
    if header.format != FORMAT {
        return Err(malformed(format!("its format is {}, not {FORMAT}", header.format)));
    }
    let behind = info.len().saturating_sub(line.len() as u64);
    Ok((header, file, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    fn header() -> KeptHeader {
        KeptHeader {
            format: FORMAT,
            task: "thumb".to_owned(),
            id: 7,
            cause: KeptCause::Died(Exit::Signal(11)),
            time: String::new(),
            worker: 1,
            pid: 4711,
            attempts: 1,
            program: "/bin/thumbs".to_owned(),
            directory: "/".to_owned(),
            build: "b".to_owned(),
            encoding: Encoding::Json,
            threads: 1,
            stack: None,
            limits: Limits::none().address_space(1 << 30),
            initializer: Some(KeptInitializer { task: "load".to_owned(), text: 4 }),
            preload: Some(KeptInitializer { task: "preload".to_owned(), text: 2 }),
            text: 3,
            blobs: vec![2, 0],
        }
    }

    fn bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        let blobs = [b"\n\0".to_vec(), Vec::new()];
        write(&mut bytes, &header(), b"[1]", &blobs, b"null", b"{}")
            .expect("memory takes any bytes");
        bytes
    }

    #[test]
    fn of_a_file_that_is_to_be_replaced_the_attempt_is_known() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (bytes, attempt) in [(&bytes()[..], Some(1)), (b"{}\n", None)] {
            std::fs::write(file.path(), bytes).expect("written");
            assert_eq!(attempts(file.path()), attempt);
        }
        assert_eq!(attempts(Path::new("/missing")), None);
    }

    fn read_bytes(bytes: &[u8]) -> Result<KeptContents, ReplayError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        read(file.path())
    }

    #[test]
    fn what_was_written_is_read() {
        let parts = read_bytes(&bytes()).expect("a kept task");
        assert_eq!((parts.header, &parts.text[..]), (header(), &b"[1]"[..]));
        assert_eq!(parts.blobs, [b"\n\0".to_vec(), Vec::new()]);
        assert_eq!(parts.initializer.as_deref(), Some(&b"null"[..]));
        assert_eq!(parts.preload.as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn a_file_that_was_cut_or_changed_is_refused_with_a_reason() {
        let whole = bytes();
        for cut in (0..whole.len()).chain([whole.len() + 1]) {
            let mut bytes = whole.clone();
            bytes.resize(cut, b'x');
            let error = read_bytes(&bytes).map(|parts| parts.header).expect_err("a refusal");
            assert!(matches!(error, ReplayError::Malformed { .. }), "{cut}: {error}");
        }
        let text = String::from_utf8_lossy(&whole).into_owned();
        let changed = [
            ("\"procession_kept_task\":1", "\"procession_kept_task\":2", "its format is 2, not 1"),
            ("\"blobs\":[2,0]", "\"blobs\":[18446744073709551615,3]", "which says otherwise"),
            ("\"blobs\":[2,0]", "\"blobs\":[1000000000000]", "which says otherwise"),
            ("\"text\":3", "\"text\":-3", "its first line cannot be read"),
        ];
        for (from, to, reason) in changed {
            let error = read_bytes(text.replace(from, to).as_bytes()).map(|parts| parts.header);
            let error = error.expect_err("a refusal").to_string();
            assert!(error.contains(reason), "{error}");
        }
        let error = read(Path::new("/")).map(|parts| parts.header).expect_err("a directory");
        assert!(matches!(error, ReplayError::Malformed { .. } | ReplayError::Unreadable { .. }));
    }
}
