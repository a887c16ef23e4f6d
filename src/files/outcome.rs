//! The outcome of one file, as a value between processes. It does not hold the body: outcomes are sent
//! between processes, bodies are not.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DownloadStatus {
    /// The file is saved.
    Ok,
    /// The server has no such file.
    NotFound,
    /// Anything else.
    Error,
    /// The run ended before it was requested or before there was a response.
    NotDone,
}

impl DownloadStatus {
    /// The name in JSON and in the journal: `ok`, `not_found`, `error` or `not_done`.
    pub fn as_str(self) -> &'static str {
        match self {
            DownloadStatus::Ok => "ok",
            DownloadStatus::NotFound => "not_found",
            DownloadStatus::Error => "error",
            DownloadStatus::NotDone => "not_done",
        }
    }
}

/// The outcome of one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DownloadOutcome {
    /// How it ended.
    pub status: DownloadStatus,
    /// The name of the item: the code of a flag, or the name of the file.
    pub code: String,
    /// The size of the saved file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether the file that was saved before has not changed, so that nothing was downloaded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// The time it took, retries included, in milliseconds with three decimals.
    pub elapsed_ms: f64,
    /// When it ended, in microseconds since 1970.
    pub ended_us: i64,
    /// How many requests were tried; 0 if the task never ran.
    pub attempts: u32,
    /// The status of the last answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// The error, if `status` is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The text by which errors are grouped, where it is not the message itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Which worker of its executor ran it: a process, or a thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<usize>,
    /// The process that ran it, or the coordinator if none did.
    pub pid: u32,
    /// The other host on which that process is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl DownloadOutcome {
    /// The outcome of a task that returned none itself: cancelled, or lost with its worker.
    pub fn failed(code: impl Into<String>, error: impl Into<String>, elapsed: Duration) -> Self {
        DownloadOutcome {
            status: DownloadStatus::Error,
            code: code.into(),
            bytes: None,
            unchanged: false,
            elapsed_ms: milliseconds(elapsed),
            ended_us: now_us(),
            attempts: 0,
            http_status: None,
            error: Some(error.into()),
            cause: None,
            worker: None,
            pid: std::process::id(),
            host: None,
        }
    }

    /// The outcome of a task that was not done; `error` is the reason, unless the run was interrupted.
    pub fn not_done(code: impl Into<String>, error: Option<String>) -> Self {
        DownloadOutcome {
            status: DownloadStatus::NotDone,
            error,
            ..Self::failed(code, String::new(), Duration::ZERO)
        }
    }

    /// When it began, in microseconds since 1970.
    pub fn started_us(&self) -> i64 {
        self.ended_us.saturating_sub((self.elapsed_ms * 1e3) as i64)
    }

    /// The text by which errors are grouped.
    pub fn kind(&self) -> &str {
        self.cause.as_deref().or(self.error.as_deref()).unwrap_or("unknown")
    }
}

/// A duration in milliseconds, rounded to 0.001.
pub(crate) fn milliseconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e6).round() / 1e3
}

/// The time of day, in microseconds since 1970.
pub(super) fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}

/// How many ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCounts {
    /// Files saved.
    pub ok: u64,
    /// Files that the server does not have.
    pub not_found: u64,
    /// Everything else that was tried.
    pub error: u64,
    /// Files that the run did not get to.
    #[serde(default)]
    pub not_done: u64,
    /// Of those saved, how many had not changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unchanged: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl OutcomeCounts {
    /// Counts one more.
    pub fn add(&mut self, outcome: &DownloadOutcome) {
        self.unchanged += u64::from(outcome.unchanged);
        match outcome.status {
            DownloadStatus::Ok => self.ok += 1,
            DownloadStatus::NotFound => self.not_found += 1,
            DownloadStatus::Error => self.error += 1,
            DownloadStatus::NotDone => self.not_done += 1,
        }
    }

    /// All that were counted.
    pub fn total(&self) -> u64 {
        self.ok + self.not_found + self.error + self.not_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok() -> DownloadOutcome {
        DownloadOutcome {
            status: DownloadStatus::Ok,
            code: "BR".into(),
            bytes: Some(590),
            unchanged: false,
            elapsed_ms: 1.9,
            ended_us: 7,
            attempts: 1,
            http_status: Some(200),
            error: None,
            cause: None,
            worker: Some(0),
            pid: 4712,
            host: None,
        }
    }

    fn there_and_back(outcome: &DownloadOutcome) -> String {
        let json = serde_json::to_string(outcome).unwrap();
        assert_eq!(&serde_json::from_str::<DownloadOutcome>(&json).unwrap(), outcome, "{json}");
        json
    }

    #[test]
    fn a_flag_is_one_short_line() {
        assert_eq!(
            there_and_back(&ok()),
            r#"{"status":"ok","code":"BR","bytes":590,"elapsed_ms":1.9,"ended_us":7,"attempts":1,"http_status":200,"worker":0,"pid":4712}"#
        );
    }

    #[test]
    fn each_status_of_an_answer_arrives_as_it_was() {
        for http_status in [None, Some(200), Some(203), Some(206), Some(404), Some(503)] {
            there_and_back(&DownloadOutcome { http_status, ..ok() });
        }
    }

    #[test]
    fn an_error_tells_why() {
        let error = DownloadOutcome {
            status: DownloadStatus::Error,
            bytes: None,
            http_status: Some(503),
            error: Some("HTTP 503 - Service Unavailable".into()),
            worker: None,
            ..ok()
        };
        assert_eq!(
            there_and_back(&error),
            r#"{"status":"error","code":"BR","elapsed_ms":1.9,"ended_us":7,"attempts":1,"http_status":503,"error":"HTTP 503 - Service Unavailable","pid":4712}"#
        );
        there_and_back(&DownloadOutcome { http_status: None, ..error });
    }

    #[test]
    fn a_flag_that_has_not_changed_says_so() {
        let unchanged = DownloadOutcome { unchanged: true, http_status: Some(304), ..ok() };
        assert_eq!(
            there_and_back(&unchanged),
            r#"{"status":"ok","code":"BR","bytes":590,"unchanged":true,"elapsed_ms":1.9,"ended_us":7,"attempts":1,"http_status":304,"worker":0,"pid":4712}"#
        );
    }

    #[test]
    fn a_missing_flag_is_no_error() {
        let missing = DownloadOutcome {
            status: DownloadStatus::NotFound,
            bytes: None,
            http_status: Some(404),
            ..ok()
        };
        let json = there_and_back(&missing);
        assert!(json.starts_with(r#"{"status":"not_found","#) && !json.contains("error"), "{json}");
    }

    #[test]
    fn a_lost_task_has_an_outcome_too() {
        let not_done = DownloadOutcome::not_done(ok().code, None);
        let json = there_and_back(&not_done);
        assert!(json.starts_with(r#"{"status":"not_done","#) && !json.contains("error"), "{json}");
        let lost = DownloadOutcome::failed(ok().code, "cancelled", Duration::from_nanos(1_234_567));
        assert_eq!((lost.elapsed_ms, lost.attempts), (1.235, 0));
        there_and_back(&lost);
    }

    #[test]
    fn counts_add_up() {
        let mut counts = OutcomeCounts::default();
        for status in [
            DownloadStatus::Ok,
            DownloadStatus::Error,
            DownloadStatus::Ok,
            DownloadStatus::NotFound,
            DownloadStatus::NotDone,
        ] {
            counts.add(&DownloadOutcome { status, ..ok() });
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert_eq!(
            counts,
            OutcomeCounts { ok: 2, not_found: 1, error: 1, not_done: 1, unchanged: 0 }
        );
        assert_eq!(counts.total(), 5);
    }
}
