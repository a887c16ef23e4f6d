//! The line of one file: of `--verbose`, and of `--json`.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::item::FileItem;
use super::outcome::{DownloadOutcome, DownloadStatus};

/// The line of one file, without a line feed.
pub fn verbose(outcome: &DownloadOutcome) -> String {
    let code = &outcome.code;
    match outcome.status {
        DownloadStatus::Ok if outcome.unchanged => format!("{code} unchanged"),
        DownloadStatus::Ok => format!("{code} ok"),
        DownloadStatus::NotFound => format!("{code} not found"),
        DownloadStatus::Error => {
            let why = outcome.error.as_deref().unwrap_or("unknown");
            format!("*** Error for {code}: {why}")
        }
        DownloadStatus::NotDone => format!("{code} not done"),
    }
}

/// The line of one file in JSON. Where a field is in the logs as well, it has the same name and meaning.
#[derive(Debug, Serialize)]
struct FileLine<'o> {
    code: &'o str,
    status: DownloadStatus,
    url: &'o str,
    /// Of a file that is saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unchanged: bool,
    /// When it began, and when it ended.
    started: String,
    ts: String,
    elapsed_ms: f64,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'o str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'o str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<usize>,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'o str>,
}

/// The line of one file in JSON, without a line feed.
pub fn json(item: &FileItem, outcome: &DownloadOutcome, dest: &Path) -> String {
    let path = || dest.join(&item.file).display().to_string();
    let line = FileLine {
        code: &outcome.code,
        status: outcome.status,
        url: &item.url,
        path: (outcome.status == DownloadStatus::Ok).then(path),
        http: outcome.http_status,
        bytes: outcome.bytes,
        unchanged: outcome.unchanged,
        started: time(outcome.started_us()),
        ts: time(outcome.ended_us),
        elapsed_ms: outcome.elapsed_ms,
        attempt: outcome.attempts,
        error: outcome.error.as_deref(),
        cause: outcome.cause.as_deref(),
        worker: outcome.worker,
        pid: outcome.pid,
        host: outcome.host.as_deref(),
    };
    serde_json::to_string(&line).expect("a line is plain data")
}

/// A time, given in microseconds since 1970, as the logs have it: `2026-11-22T23:49:32.123456Z`.
pub fn time(us: i64) -> String {
    format!("{:.6}", Timestamp::from_microsecond(us).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::flags::items;

    #[test]
    fn a_line_a_flag() {
        let error = DownloadOutcome::failed("KE", "HTTP 503 - Service Unavailable", Duration::ZERO);
        assert_eq!(verbose(&error), "*** Error for KE: HTTP 503 - Service Unavailable");
        let ok = DownloadOutcome { status: DownloadStatus::Ok, error: None, ..error.clone() };
        assert_eq!(verbose(&ok), "KE ok");
        let missing = DownloadOutcome { status: DownloadStatus::NotFound, ..ok };
        assert_eq!(verbose(&missing), "KE not found");
    }

    #[test]
    fn a_line_of_json_has_the_names_of_the_logs() {
        let outcome = DownloadOutcome {
            status: DownloadStatus::Ok,
            bytes: Some(590),
            http_status: Some(200),
            error: None,
            ended_us: 1_000_000_001_900,
            pid: 4712,
            ..DownloadOutcome::failed("BR", "", Duration::from_micros(1900))
        };
        let item = &items::item("http://localhost:40761/flags", "BR".parse().unwrap());
        assert_eq!(
            json(item, &outcome, Path::new("/d")),
            r#"{"code":"BR","status":"ok","url":"http://localhost:40761/flags/br/br.gif","path":"/d/br.gif","http":200,"bytes":590,"started":"1970-01-12T13:46:40.000000Z","ts":"1970-01-12T13:46:40.001900Z","elapsed_ms":1.9,"attempt":0,"pid":4712}"#
        );
        let not_done = DownloadOutcome::not_done("BR", None);
        assert!(!json(item, &not_done, Path::new("/d")).contains("\"path\""));
    }
}
