//! What the log of a run says of its items, in addition to their codes: where each comes from, and the options
//! that have no place among the settings of a run. It follows these settings, in the coordinator's log:
//!
//! ```json
//! {…,"event":"run",…}
//! {…,"event":"job","source":"urls","headers":["Authorization"],"max_bytes":1000,"rate":2.5}
//! {…,"event":"item","code":"a.png","url":"https://example.org/a.png"}
//! ```
//!
//! The items are logged if they are not flags, whose URLs follow from their codes. The values of headers
//! may be secrets, and are in no log.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use procession_journal::{Level, LogEvent, coordinators};
use procession_os::regular_file;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::DownloadSettings;
use super::source::ItemSource;
use crate::cli::run_log;
use crate::files::item::{BodyCheck, FileItem};

/// An event of the programs among those of any journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum JobEvent {
    Start,
    Run,
    Job(LoggedOptions),
    Item {
        code: String,
        url: String,
    },
    #[serde(other)]
    Other,
}

/// The kind of a source, and options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LoggedOptions {
    /// `flags` or `urls`.
    pub source: String,
    /// The names of the headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

const FLAGS: &str = "flags";
const URLS: &str = "urls";

/// Writes them into the log of this run.
pub(super) fn record(settings: &DownloadSettings) {
    let (source, items) = match &settings.source {
        ItemSource::Flags { .. } => (FLAGS, &[][..]),
        ItemSource::Urls { items, .. } => (URLS, &items[..]),
    };
    let options = LoggedOptions {
        source: source.to_owned(),
        headers: settings.headers.iter().map(|(name, _)| name.clone()).collect(),
        max_bytes: settings.max_bytes,
        rate: settings.rate,
    };
    record_event(Level::Info, &JobEvent::Job(options));
    for FileItem { code, url, .. } in items {
        record_event(Level::Debug, &JobEvent::Item { code: code.clone(), url: url.clone() });
    }
}

fn record_event(level: Level, event: &JobEvent) {
    if let Ok(Value::Object(fields)) = serde_json::to_value(event) {
        run_log::record(level, LogEvent::Other(fields));
    }
}

/// What a log tells.
#[derive(Debug, Default)]
pub(super) struct LoggedItems {
    pub options: LoggedOptions,
    /// The URLs by their codes.
    urls: HashMap<String, String>,
    /// The codes in the order of the log.
    pub codes: Vec<String>,
}

impl LoggedItems {
    /// Reads the log of the run in this directory, up to its first task.
    pub(super) fn read(run: &Path) -> Self {
        let mut logged = Self::default();
        let logs = coordinators(run).into_iter();
        for file in logs.filter_map(|path| regular_file::to_read(&path).ok()) {
            for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
                match serde_json::from_slice(&line) {
                    Ok(JobEvent::Start | JobEvent::Run) => {}
                    Ok(JobEvent::Job(options)) => logged.options = options,
                    Ok(JobEvent::Item { code, url }) => {
                        logged.codes.push(code.clone());
                        logged.urls.insert(code, url);
                    }
                    Ok(JobEvent::Other) | Err(_) => break,
                }
            }
        }
        logged
    }

    /// Whether the items are any URLs.
    pub(super) fn are_urls(&self) -> bool {
        self.options.source == URLS
    }

    /// The item of this code, if the log has it.
    pub(super) fn item(&self, code: &str) -> Option<FileItem> {
        let url = self.urls.get(code)?.clone();
        let (code, file) = (code.to_owned(), code.to_owned());
        Some(FileItem { code, url, file, check: BodyCheck::Any })
    }
}
