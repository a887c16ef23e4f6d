//! `--joblog FILE`: a line for each file of the job, with tabs between the columns, for `awk`, `sort` and
//! spreadsheets.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use csv::{Writer, WriterBuilder};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use serde::Serialize;

use super::source::ItemSource;
use crate::files::item::FileItem;
use crate::files::line;
use crate::files::outcome::{DownloadOutcome, DownloadStatus};

/// A line. The names are the head of the file; where `--json` has the same column, it has the same name.
#[derive(Debug, Serialize)]
struct JobLine<'l> {
    seq: usize,
    started: String,
    elapsed_ms: f64,
    status: DownloadStatus,
    http: Option<u16>,
    bytes: Option<u64>,
    attempt: u32,
    worker: Option<usize>,
    pid: u32,
    code: &'l str,
    url: &'l str,
    error: Option<&'l str>,
}

/// What a job log that is not empty begins with.
const HEAD: &str = "seq\tstarted\t";

/// The file that was named is not to be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobLogError {
    #[error(
        "--joblog FILE must be a file: write ./- for one of this name, /dev/stdout for standard output"
    )]
    Dash,
    #[error("--joblog FILE would replace {}, which is no job log: remove it, or name another file", .0.display())]
    OtherFile(PathBuf),
    #[error("--joblog FILE is also a file that is to be fetched: {}", .0.display())]
    Fetched(PathBuf),
}

/// Refuses to replace anything but an older job log, and a file that the job itself writes.
pub(super) fn resolve(
    typed: Option<PathBuf>,
    dest: &Path,
    source: &ItemSource,
) -> Result<Option<PathBuf>, JobLogError> {
    let Some(path) = typed else { return Ok(None) };
    if path.as_os_str() == "-" {
        return Err(JobLogError::Dash);
    }
    if is_other_file(&path).unwrap_or(false) {
        return Err(JobLogError::OtherFile(path));
    }
    let is_item =
        |inside: &Path| source.planned().iter().any(|item| Path::new(&item.file) == inside);
    match real_path(&path).strip_prefix(real_path(dest)) {
        Ok(inside) if is_item(inside) => Err(JobLogError::Fetched(path)),
        _ => Ok(Some(path)),
    }
}

/// Whether there is a regular file that begins with something else. What cannot be read is found when the
/// file is made.
fn is_other_file(path: &Path) -> io::Result<bool> {
    let metadata = path.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(false);
    }
    let mut begin = Vec::new();
    File::open(path)?.take(HEAD.len() as u64).read_to_end(&mut begin)?;
    Ok(begin != HEAD.as_bytes())
}

/// The absolute path, with links followed. The directories that do not exist yet will be no links.
fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in absolute.ancestors() {
        if let (Ok(there), Ok(rest)) = (ancestor.canonicalize(), absolute.strip_prefix(ancestor)) {
            return rest.components().fold(there, |mut path, part| {
                match part {
                    Component::ParentDir => _ = path.pop(),
                    part => path.push(part),
                }
                path
            });
        }
    }
    absolute
}

/// Makes the file, or empties it. The open of a pipe waits until a program reads from it, so there is a bound.
fn open(path: &Path) -> io::Result<File> {
    const LONGEST_WAIT: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_millis(20);
    let since = Instant::now();
    let no_wait = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = File::options();
    options.write(true).create(true).truncate(true).custom_flags(no_wait);
    let file = loop {
        match options.open(path) {
            // A socket or a device has the same error, for ever.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) && is_pipe(path) => {
                if since.elapsed() >= LONGEST_WAIT {
                    return Err(io::Error::other(
                        "no program reads from this pipe: start one first",
                    ));
                }
                thread::sleep(PAUSE);
            }
            opened => break opened?,
        }
    };
    // A full pipe is to be waited for.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

fn is_pipe(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.file_type().is_fifo())
}

/// The file, while it is written.
pub(super) struct JobLog {
    path: PathBuf,
    writer: Writer<File>,
    lines: usize,
    /// The first error.
    error: Option<csv::Error>,
}

impl JobLog {
    /// Makes the file, or empties it.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            open(path).with_context(|| format!("cannot write the job log {}", path.display()))?;
        let writer = WriterBuilder::new().delimiter(b'\t').from_writer(file);
        Ok(Self { path: path.to_owned(), writer, lines: 0, error: None })
    }

    /// Writes the line of a file. Each line is written at once, so that the log can be followed.
    pub(super) fn add(&mut self, item: &FileItem, outcome: &DownloadOutcome) {
        if self.error.is_some() {
            return;
        }
        self.lines += 1;
        let row = JobLine {
            seq: self.lines,
            started: line::time(outcome.started_us()),
            elapsed_ms: outcome.elapsed_ms,
            status: outcome.status,
            http: outcome.http_status,
            bytes: outcome.bytes,
            attempt: outcome.attempts,
            worker: outcome.worker,
            pid: outcome.pid,
            code: &item.code,
            url: &item.url,
            error: outcome.error.as_deref(),
        };
        let written = self.writer.serialize(row);
        self.error = written.and_then(|()| Ok(self.writer.flush()?)).err();
    }

    /// Why the file is not whole, if it is not.
    pub(super) fn end(self) -> Option<String> {
        let error = self.error?;
        Some(format!("cannot write the job log {}: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_not_taken_for_a_pipe_without_a_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NXIO));
    }
}
