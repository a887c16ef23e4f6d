//! The download of flags as a measured run: a `coordinator` of its own each time, with a
//! destination of its own, and all from one server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::cli::dashboard::Dashboard;
use crate::flags::codes::Code;
use crate::flags::outcome::Counts;
use crate::flags::report::Summary;
use crate::workload::hex;

use super::mode::{Crew, Mode, Size};
use super::process::Stage;
use super::run::{Brought, Job, Run, Trouble, Turn, run_program};

/// Which flags, from where.
pub(super) struct Flags<'d> {
    /// This executable.
    pub program: PathBuf,
    pub codes: Vec<Code>,
    pub url: String,
    /// Whether the server is ours, and fails only on purpose.
    pub is_embedded: bool,
    pub timeout: Duration,
    pub retries: u32,
    /// Of modes that do not say it.
    pub workers: Option<usize>,
    /// Shows each run; for that, runs keep logs.
    pub dashboard: Option<&'d Dashboard>,
}

impl Flags<'_> {
    fn command(&self, mode: Mode, dest: &Path, logs: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.codes.iter().map(Code::as_str));
        let mut option = |name: &str, value: &dyn ToString| {
            command.arg(name).arg(value.to_string());
        };
        option("--server", &self.url);
        option("--timeout", &self.timeout.as_secs_f64());
        option("--retries", &self.retries);
        let kind = Mode::kind(mode);
        option("--mode", &kind);
        option("--progress", &"none");
        match mode.crew {
            Crew::Sequential | Crew::Threads(None) => {}
            Crew::Threads(Some(threads)) => option("--max_req", &threads),
            Crew::Processes(Some(Size { workers, threads })) => {
                option("--workers", &workers);
                option("--max_req", &(workers * threads));
            }
            Crew::Processes(None) => {
                if let Some(workers) = self.workers {
                    option("--workers", &workers);
                }
            }
        }
        command.arg("--dest").arg(dest).arg("--json");
        match self.dashboard {
            Some(_) => command.arg("--log-dir").arg(logs),
            None => command.arg("--no-logs"),
        };
        command
    }
}

impl Job for Flags<'_> {
    fn run(&self, turn: Turn, stage: &Stage) -> Result<Run, Trouble> {
        let scratch = scratch()?;
        let (dest, logs) = (scratch.path().join("flags"), scratch.path().join("logs"));
        let mut command = self.command(turn.mode, &dest, &logs);
        if let Some(dashboard) = self.dashboard {
            dashboard.expect(&turn.to_string(), &logs)?;
        }
        // 0 and 1: it could work, with or without errors.
        let ran = run_program(&mut command, scratch.path(), stage, &[0, 1]);
        if let Some(dashboard) = self.dashboard {
            dashboard.show_the_end();
        }
        let (used, told) = ran?;
        let (summary, error) = read(&told)
            .ok_or_else(|| Trouble::CouldNot("it told no summary of its run".to_owned()))?;
        Ok(Run {
            round: turn.number,
            seconds: used.wall.as_secs_f64(),
            user: used.user.as_secs_f64(),
            system: used.system.as_secs_f64(),
            peak_rss: used.peak_rss,
            workers: summary.workers,
            concurrency: summary.connections,
            brought: Brought { counts: summary.counts, things: digests(&dest)?, error },
        })
    }

    fn may_fail_entirely(&self) -> bool {
        self.is_embedded
    }
}

/// A directory that goes when it is dropped.
pub(super) fn scratch() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("coordinator-compare-").tempdir()
}

/// The summary, and the first error, of the lines that `--json` prints.
fn read(told: &str) -> Option<(Summary, Option<String>)> {
    #[derive(Deserialize)]
    struct Last {
        summary: Summary,
    }
    #[derive(Deserialize)]
    struct Line {
        error: Option<String>,
    }
    let last: Last = serde_json::from_str(told.lines().next_back()?).ok()?;
    let Counts { ok: _, not_found: _, error, not_done: _, unchanged: _ } = last.summary.counts;
    let lines = told.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let first = if error > 0 { lines.filter_map(|line| line.error).next() } else { None };
    Some((last.summary, first))
}

fn digests(dir: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // What is kept beside the flags differs from run to run.
        if entry.path().extension().is_none_or(|extension| extension != "gif") {
            continue;
        }
        let digest = hex(&Sha256::digest(fs::read(entry.path())?));
        digests.insert(entry.file_name().to_string_lossy().into_owned(), digest);
    }
    Ok(digests)
}
