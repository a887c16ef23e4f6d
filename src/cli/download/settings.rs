//! The command line of a download as resolved: files are read, defaults of the mode are filled in,
//! invalid combinations are refused.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{JobArgs, JobRequest, SourceArgs};
use super::joblog::{self, JobLogError};
use super::parallelism::Parallelism;
use super::source::{ItemSource, SourceError};
use crate::cli::contradiction::Contradiction;
use crate::cli::dashboard::{AddressError, DashboardArgs};
use crate::cli::hosts::NatsArgs;
use crate::cli::options::{
    ColorOption, DisplayArgs, Mode, ProgressOption, RequestArgs, SandboxOption,
};
use crate::cli::run_log::LogPolicy;
use crate::files::client::{self, EnvironmentError};

/// A download job.
#[derive(Debug)]
pub(super) struct DownloadSettings {
    pub source: ItemSource,
    /// Timeout of a request.
    pub timeout: Duration,
    /// Further tries of a request, and of a file whose worker died or was killed.
    pub retries: u32,
    /// Headers of each request.
    pub headers: Vec<(String, String)>,
    /// The largest file that is accepted, in bytes.
    pub max_bytes: Option<u64>,
    /// The most requests per second.
    pub rate: Option<f64>,
    /// The number of errors after which no more is begun.
    pub max_errors: Option<usize>,
    /// Whether nothing is to be done.
    pub dry_run: bool,
    /// Whether files that have not changed are skipped.
    pub update: bool,
    /// Name of the run that this one continues.
    pub continues: Option<String>,
    pub parallelism: Parallelism,
    pub workers: WorkerSettings,
    /// The absolute path of the destination.
    pub dest: PathBuf,
    /// The destination as typed.
    pub shown_dest: PathBuf,
    pub joblog: Option<PathBuf>,
    pub display: DisplaySettings,
    pub fail_on_missing: bool,
    pub logs: LogPolicy,
    /// Number of runs whose logs are kept.
    pub keep_runs: usize,
    /// Address of the dashboard, if there is one.
    pub dashboard: Option<SocketAddr>,
}

/// Settings of worker processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WorkerSettings {
    pub task_timeout: Option<Duration>,
    pub max_tasks: Option<u64>,
    pub sandbox: SandboxOption,
    /// Where the agents of other hosts are found.
    pub nats: Option<NatsArgs>,
    /// The name of the job on other hosts, if it has one.
    pub job: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DisplaySettings {
    pub verbose: bool,
    pub json: bool,
    pub progress: ProgressOption,
    pub color: ColorOption,
}

/// The settings are invalid.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error("{0} needs --mode processes: only a worker process can be ended, replaced or confined")]
    OnlyProcesses(&'static str),
    #[error("--mode hosts needs --nats URL, the address of the NATS servers")]
    HostsWithoutNats,
    #[error("--nats URL needs --mode hosts: in other modes nothing is asked of NATS")]
    NatsWithoutHosts,
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    #[error(transparent)]
    DashboardAddress(#[from] AddressError),
    #[error("--dashboard shows what the logs tell, so it cannot be used with --no-logs")]
    DashboardWithoutLogs,
    #[error(transparent)]
    JobLog(#[from] JobLogError),
    #[error("--dest DIR must be a UTF-8 path that exists or can be made: {}", path.display())]
    Dest { path: PathBuf, source: io::Error },
    #[error("--dest DIR must be a UTF-8 path that exists or can be made: {}: it is not UTF-8", .0.display())]
    DestNotUnicode(PathBuf),
}

impl DownloadSettings {
    /// Resolves the arguments.
    pub(super) fn resolve(request: JobRequest) -> Result<Self, SettingsError> {
        request.check()?;
        let JobRequest { source, resume, job } = request;
        let headers = job.headers().cloned().collect();
        // All fields, so that a new option cannot be forgotten.
        let JobArgs {
            request: RequestArgs { timeout, retries },
            header: _,
            update,
            max_size,
            rate,
            fail_fast,
            max_errors,
            dry_run,
            joblog,
            mode,
            max_req,
            workers,
            nats,
            job_name,
            task_timeout,
            max_tasks_per_worker,
            sandbox,
            dest,
            dashboard,
            verbose,
            json,
            display: DisplayArgs { progress, color },
            fail_on_missing,
            log_dir,
            keep_runs,
            no_logs,
        } = job;
        let source = resolve_source(source, mode)?;
        Ok(Self {
            joblog: joblog::resolve(joblog, &dest, &source)?,
            workers: WorkerSettings {
                nats: resolve_nats(mode, nats)?,
                job: job_name,
                ..WorkerSettings::resolve(mode, task_timeout, max_tasks_per_worker, sandbox)?
            },
            parallelism: Parallelism::resolve(mode, max_req, workers, source.len()),
            timeout: timeout.unwrap_or(source.default_timeout()),
            retries,
            headers,
            max_bytes: max_size.or(source.default_max_bytes()),
            source,
            rate,
            max_errors: if fail_fast { Some(1) } else { max_errors },
            dry_run,
            update,
            continues: resume.continues,
            dest: resolve_dest(&dest)?,
            shown_dest: dest,
            display: DisplaySettings { verbose, json, progress, color },
            fail_on_missing,
            logs: LogPolicy::resolve(no_logs, log_dir),
            keep_runs,
            dashboard: resolve_dashboard(&dashboard, no_logs)?,
        })
    }
}

fn resolve_dashboard(
    dashboard: &DashboardArgs,
    no_logs: bool,
) -> Result<Option<SocketAddr>, SettingsError> {
    let addr = dashboard.resolve()?;
    match (addr, no_logs) {
        (Some(_), true) => Err(SettingsError::DashboardWithoutLogs),
        (addr, _) => Ok(addr),
    }
}

impl WorkerSettings {
    fn resolve(
        mode: Mode,
        task_timeout: Option<Duration>,
        max_tasks: Option<usize>,
        sandbox: SandboxOption,
    ) -> Result<Self, SettingsError> {
        if mode != Mode::Processes {
            if task_timeout.is_some() {
                return Err(SettingsError::OnlyProcesses("--task-timeout SECS"));
            }
            if max_tasks.is_some() {
                return Err(SettingsError::OnlyProcesses("--max-tasks-per-worker N"));
            }
            if matches!(sandbox, SandboxOption::Basic | SandboxOption::Strict) {
                return Err(SettingsError::OnlyProcesses("--sandbox LEVEL"));
            }
        }
        let max_tasks = max_tasks.map(|most| most as u64);
        Ok(Self { task_timeout, max_tasks, sandbox, nats: None, job: None })
    }
}

/// The items, if the environment lets them be asked for.
fn resolve_source(source: SourceArgs, mode: Mode) -> Result<ItemSource, SettingsError> {
    let source = ItemSource::resolve(source)?;
    // The requests of other hosts have other variables.
    if mode != Mode::Hosts {
        client::check_environment(source.planned().iter().map(|item| &*item.url))?;
    }
    Ok(source)
}

fn resolve_nats(mode: Mode, nats: NatsArgs) -> Result<Option<NatsArgs>, SettingsError> {
    match (mode, nats.nats.is_some()) {
        (Mode::Hosts, true) => Ok(Some(nats)),
        (Mode::Hosts, false) => Err(SettingsError::HostsWithoutNats),
        (_, true) => Err(SettingsError::NatsWithoutHosts),
        (_, false) => Ok(None),
    }
}

/// The absolute path of the destination: workers get it in JSON, which holds only text, and may have
/// another working directory.
fn resolve_dest(dest: &Path) -> Result<PathBuf, SettingsError> {
    let absolute = std::path::absolute(dest)
        .map_err(|source| SettingsError::Dest { path: dest.to_owned(), source })?;
    match absolute.to_str() {
        Some(_) => Ok(absolute),
        None => Err(SettingsError::DestNotUnicode(absolute)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(args: &[&str]) -> DownloadSettings {
        DownloadSettings::resolve(JobRequest::typed(args)).expect("a valid command line")
    }

    #[test]
    fn the_number_of_connections_is_limited_by_the_mode_and_the_codes() {
        let parallelism = |args| resolved(args).parallelism;
        let processes = |workers, connections| Parallelism::Processes { workers, connections };
        let threads = |connections| Parallelism::Threads { connections };
        assert_eq!(parallelism(&["-a", "-w", "2"]), processes(2, 2));
        assert_eq!(parallelism(&["-a", "-w", "2", "-m", "30"]), processes(2, 30));
        assert_eq!(parallelism(&["-e", "-w", "2", "-m", "5000"]), processes(2, 676));
        assert_eq!(parallelism(&["br", "-w", "4"]), processes(1, 1));
        assert_eq!(parallelism(&["-a", "--mode", "threads"]), threads(30));
        assert_eq!(parallelism(&["--mode", "threads"]), threads(20));
        let sequential = parallelism(&["-a", "--mode", "sequential", "-m", "1"]);
        assert_eq!(sequential, Parallelism::Sequential);
    }

    #[test]
    fn options_of_worker_processes_are_refused_in_other_modes() {
        for mode in ["threads", "sequential"] {
            for option in ["--task-timeout", "--max-tasks-per-worker"] {
                let args = JobRequest::typed(&["--mode", mode, option, "3"]);
                let error = DownloadSettings::resolve(args).expect_err("refused").to_string();
                assert!(error.starts_with(option), "{error}");
                assert!(error.contains("needs --mode processes"), "{error}");
            }
        }
    }

    #[test]
    fn logs_are_kept_by_default() {
        assert_eq!(resolved(&[]).logs, LogPolicy::Default("logs".into()));
        assert_eq!(resolved(&["--log-dir", "x"]).logs, LogPolicy::Required("x".into()));
        assert_eq!(resolved(&["--no-logs"]).logs, LogPolicy::None);
    }
}
