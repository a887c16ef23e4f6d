//! Which lines are wanted; decided by their heads, since most are passed over.

use std::str::FromStr;

use jiff::Timestamp;

use super::FilterArgs;
use crate::flags::codes::Code;
use procession_journal::{EntryHeader, Level};

/// What a line must have to be shown. Of several of a kind one will do.
#[derive(Debug)]
pub(super) struct Filter {
    workers: Vec<usize>,
    pids: Vec<u32>,
    codes: Vec<String>,
    statuses: Vec<String>,
    level: Level,
    since: Timestamp,
}

impl Filter {
    /// `since` is the earliest time wanted.
    pub(super) fn new(args: &FilterArgs, is_json: bool, since: Timestamp) -> Self {
        let FilterArgs { worker, pid, code, status, level, since: _ } = args;
        let level = match level {
            Some(level) => level.clone(),
            None if is_json || !code.is_empty() => Level::Debug,
            None => Level::Info,
        };
        Self {
            workers: worker.clone(),
            pids: pid.clone(),
            codes: code.clone(),
            statuses: status.clone(),
            level,
            since,
        }
    }

    /// Whether the line is wanted, which happened `at` this time.
    pub(super) fn wants(&self, header: &EntryHeader<'_>, at: Timestamp) -> bool {
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
            && among(&self.codes, header.code())
            && among(&self.statuses, header.status())
    }
}

/// A status as typed.
pub(super) fn status(typed: &str) -> Result<String, String> {
    let status = typed.trim().to_lowercase().replace(['-', ' '], "_");
    match status.as_str() {
        "ok" | "not_found" | "error" | "not_done" => Ok(status),
        _ => Err("--status STATUS must be ok, not_found, error or not_done".to_owned()),
    }
}

/// A level as typed.
pub(super) fn level(typed: &str) -> Result<Level, String> {
    match typed.to_lowercase().as_str() {
        "debug" => Ok(Level::Debug),
        "info" => Ok(Level::Info),
        "warn" | "warning" => Ok(Level::Warn),
        "error" => Ok(Level::Error),
        _ => Err("--level LEVEL must be debug, info, warn or error".to_owned()),
    }
}

/// A code as typed: two letters.
pub(super) fn code(typed: &str) -> Result<String, String> {
    match typed.trim().parse::<Code>() {
        Ok(code) => Ok(code.to_string()),
        Err(error) => Err(format!("--code CC: {error}")),
    }
}

/// A number of lines as typed.
pub(super) fn lines(typed: &str) -> Result<usize, String> {
    whole("-n LINES", typed)
}

/// A worker as typed.
pub(super) fn worker(typed: &str) -> Result<usize, String> {
    whole("--worker N", typed)
}

/// A process as typed.
pub(super) fn pid(typed: &str) -> Result<u32, String> {
    whole("--pid PID", typed)
}

fn whole<N: FromStr>(option: &str, typed: &str) -> Result<N, String> {
    typed.parse().map_err(|_| format!("{option} must be a whole number >= 0"))
}
