//! `--joblog FILE`: a line for each file of the job, with tabs between the columns, for `awk`, `sort` and
//! spreadsheets.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use csv::{Writer, WriterBuilder};
use serde::Serialize;

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
        let file = File::create(path)
            .with_context(|| format!("cannot write the job log {}", path.display()))?;
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
