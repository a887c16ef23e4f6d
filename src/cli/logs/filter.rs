//! The filter of lines. It needs only their headers, since it passes over most lines.

use jiff::Timestamp;

use super::FilterArgs;
use crate::flags::codes::{Code, InvalidCode};
use procession_journal::{EntryHeader, Level};

/// What a line must have to be shown. Several values of one option are alternatives.
#[derive(Debug)]
pub(super) struct Filter {
    workers: Vec<usize>,
    pids: Vec<u32>,
    codes: Vec<String>,
    tasks: Vec<String>,
    statuses: Vec<String>,
    level: Level,
    since: Timestamp,
}

impl Filter {
    /// `since` is the earliest time of a line.
    pub(super) fn new(args: &FilterArgs, is_json: bool, since: Timestamp) -> Self {
        let FilterArgs { worker, pid, code, task, status, level, since: _ } = args;
        let level = match level {
            Some(level) => level.clone(),
            None if is_json || !code.is_empty() || !task.is_empty() => Level::Debug,
            None => Level::Info,
        };
        Self {
            workers: worker.clone(),
            pids: pid.clone(),
            codes: code.clone(),
            tasks: task.clone(),
            statuses: status.clone(),
            level,
            since,
        }
    }

    /// Whether the line of this time is to be shown.
    pub(super) fn matches(&self, header: &EntryHeader<'_>, at: Timestamp) -> bool {
        let among = |wanted: &[String], is: Option<&str>| {
            wanted.is_empty() || is.is_some_and(|is| wanted.iter().any(|wanted| wanted == is))
        };
        at >= self.since
            && header.level() >= self.level
            && (self.workers.is_empty()
                || header.about_worker().is_some_and(|worker| self.workers.contains(&worker)))
            && (self.pids.is_empty()
                || self.pids.contains(&header.pid)
                || header.about_pid().is_some_and(|pid| self.pids.contains(&pid)))
            && (self.tasks.is_empty() || self.tasks.iter().any(|task| header.is_of_task(task)))
            && among(&self.codes, header.code())
            && among(&self.statuses, header.status())
    }
}

/// A filter that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    #[error("--status STATUS must be ok, not_found, error or not_done")]
    Status,
    #[error("--level LEVEL must be debug, info, warn or error")]
    Level,
    #[error("--code CC: {0}")]
    Code(#[from] InvalidCode),
}

/// A status as typed.
pub(super) fn status(typed: &str) -> Result<String, FilterError> {
    let status = typed.trim().to_lowercase().replace(['-', ' '], "_");
    match status.as_str() {
        "ok" | "not_found" | "error" | "not_done" => Ok(status),
        _ => Err(FilterError::Status),
    }
}

/// A level as typed.
pub(super) fn level(typed: &str) -> Result<Level, FilterError> {
    match typed.to_lowercase().as_str() {
        "debug" => Ok(Level::Debug),
        "info" => Ok(Level::Info),
        "warn" | "warning" => Ok(Level::Warn),
        "error" => Ok(Level::Error),
        _ => Err(FilterError::Level),
    }
}

/// A code as typed: two letters, or the name of a file, unless it is up to three letters: that is rather a
/// slip.
pub(super) fn code(typed: &str) -> Result<String, FilterError> {
    let typed = typed.trim();
    match typed.parse::<Code>() {
        Ok(code) => Ok(code.to_string()),
        Err(_) if typed.len() > 3 || typed.contains(|c: char| !c.is_alphabetic()) => {
            Ok(typed.to_owned())
        }
        Err(error) => Err(error.into()),
    }
}
