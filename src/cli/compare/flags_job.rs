//! The download of flags as a measured job: each run is a `coordinator` with a destination of its own,
//! and all runs use one server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::cli::dashboard::RunDashboard;
use crate::cli::hosts::NatsArgs;
use crate::files::outcome::OutcomeCounts;
use crate::files::report::RunSummary;
use crate::flags::codes::Code;
use crate::workload::hex;

use super::mode::{ExecutorSpec, MeasuredMode, PoolSize};
use super::run::{MeasuredJob, MeasuredRun, RunError, RunId, RunResult, run_program};
use super::runner::ProcessRunner;

/// The codes and the server.
pub(super) struct FlagsJob<'d> {
    /// This executable.
    pub program: PathBuf,
    pub codes: Vec<Code>,
    pub url: String,
    /// Whether the server is embedded, so that its errors are intended.
    pub is_embedded: bool,
    pub timeout: Duration,
    pub retries: u32,
    /// The number of workers of modes without one.
    pub workers: Option<usize>,
    /// Shows each run, which then keeps logs.
    pub dashboard: Option<&'d RunDashboard>,
    /// How the mode `hosts` reaches the agents.
    pub nats: NatsArgs,
}

impl FlagsJob<'_> {
    fn command(&self, mode: MeasuredMode, dest: &Path, logs: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.codes.iter().map(Code::as_str));
        let mut option = |name: &str, value: &dyn ToString| {
            command.arg(name).arg(value.to_string());
        };
        option("--server", &self.url);
        option("--timeout", &self.timeout.as_secs_f64());
        option("--retries", &self.retries);
        let kind = MeasuredMode::kind(mode);
        option("--mode", &kind);
        option("--progress", &"none");
        match mode.executor {
            ExecutorSpec::Sequential | ExecutorSpec::Threads(None) | ExecutorSpec::Hosts => {}
            ExecutorSpec::Threads(Some(threads)) => option("--max_req", &threads),
            ExecutorSpec::Processes(Some(PoolSize { workers, threads })) => {
                option("--workers", &workers);
                option("--max_req", &(workers * threads));
            }
            ExecutorSpec::Processes(None) => {
                if let Some(workers) = self.workers {
                    option("--workers", &workers);
                }
            }
        }
        if mode.executor == ExecutorSpec::Hosts {
            command.args(self.nats.to_arguments());
        }
        command.arg("--dest").arg(dest).arg("--json");
        match self.dashboard {
            Some(_) => command.arg("--log-dir").arg(logs),
            None => command.arg("--no-logs"),
        };
        command
    }
}

impl MeasuredJob for FlagsJob<'_> {
    fn run(&self, id: RunId, runner: &ProcessRunner) -> Result<MeasuredRun, RunError> {
        let scratch = scratch()?;
        let (dest, logs) = (scratch.path().join("flags"), scratch.path().join("logs"));
        let mut command = self.command(id.mode, &dest, &logs);
        if let Some(dashboard) = self.dashboard {
            dashboard.expect(&id.to_string(), &logs)?;
        }
        // Exit codes of runs without and with errors.
        let ran = run_program(&mut command, scratch.path(), runner, &[0, 1]);
        if let Some(dashboard) = self.dashboard {
            dashboard.show_end();
        }
        let (used, output) = ran?;
        let (summary, error) = read(&output).ok_or(RunError::NoSummary)?;
        Ok(MeasuredRun {
            round: id.number,
            seconds: used.wall.as_secs_f64(),
            user: used.user.as_secs_f64(),
            system: used.system.as_secs_f64(),
            peak_rss: used.peak_rss,
            workers: summary.workers,
            concurrency: summary.connections,
            result: RunResult { counts: summary.counts, digests: digests(&dest)?, error },
        })
    }

    fn may_fail_entirely(&self) -> bool {
        self.is_embedded
    }
}

/// A directory that is removed when it is dropped.
pub(super) fn scratch() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("coordinator-compare-").tempdir()
}

/// The summary and the first error in the output of `--json`.
fn read(output: &str) -> Option<(RunSummary, Option<String>)> {
    #[derive(Deserialize)]
    struct Last {
        summary: RunSummary,
    }
    #[derive(Deserialize)]
    struct OutputLine {
        error: Option<String>,
    }
    let last: Last = serde_json::from_slice(output.lines().next_back()?.as_bytes()).ok()?;
    let OutcomeCounts { ok: _, not_found: _, error, not_done: _, unchanged: _ } =
        last.summary.counts;
    let lines = output.lines();
    let lines = lines.filter_map(|it| serde_json::from_slice::<OutputLine>(it.as_bytes()).ok());
    let first = if error > 0 { lines.filter_map(|line| line.error).next() } else { None };
    Some((last.summary, first))
}

fn digests(dir: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // The file of validators differs from run to run.
        if entry.path().extension().is_none_or(|extension| extension != "gif") {
            continue;
        }
        let digest = hex(&Sha256::digest(fs::read(entry.path())?));
        digests.insert(entry.file_name().to_string_lossy().into_owned(), digest);
    }
    Ok(digests)
}
