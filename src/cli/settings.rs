//! The command line as resolved: files read, defaults of the mode put in, limits applied.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use crate::flag_server::DEFAULT_SEED;
use crate::flags::client::FetchSettings;
use crate::flags::codes::Code;
use crate::flags::report::Style;
use crate::flags::selection::{CodesError, CodesFile, Selection};
use crate::flags::site::Site;

use super::args::{self, Color, Mode, Progress};
use super::{contradictions, which_run};

/// The most concurrent requests of all but the sequential mode.
const CEILING: usize = 1000;
/// Of the thread mode, where nothing else is asked for; as in the book.
const THREADS: usize = 30;

/// A download job, ready to be run.
#[derive(Debug)]
pub(super) struct Settings {
    pub codes: Vec<Code>,
    pub site: Site,
    /// Of the ERROR server.
    pub seed: u64,
    /// Without the base URL, which the embedded servers know only once they run, and the number
    /// of connections in one process.
    pub fetch: FetchSettings,
    /// Whether flags that have not changed are let be.
    pub update: bool,
    /// The run that this one goes on with.
    pub continues: Option<String>,
    pub crew: Crew,
    pub workers: WorkerSettings,
    pub dest: PathBuf,
    pub display: DisplaySettings,
    pub fail_on_missing: bool,
    pub logs: Logs,
    /// Of how many runs logs are kept.
    pub keep_runs: usize,
    /// Where to show the run as it goes on.
    pub dashboard: Option<SocketAddr>,
}

/// Who runs the job, with how many hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crew {
    Sequential,
    Threads { connections: usize },
    Processes { workers: usize, connections: usize },
}

/// What holds for worker processes only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkerSettings {
    pub task_timeout: Option<Duration>,
    pub max_tasks: Option<u64>,
    /// Of a flag whose worker died or was ended.
    pub retries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DisplaySettings {
    pub verbose: bool,
    pub json: bool,
    pub progress: Progress,
    pub color: Color,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Logs {
    None,
    /// Nobody asked for them in particular, so a run can do without.
    Default(PathBuf),
    Asked(PathBuf),
}

/// Why a command line makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum UsageError {
    #[error(transparent)]
    Codes(#[from] CodesError),
    #[error("{0} is a command, which must come first: see coordinator {0} --help")]
    CommandComesFirst(String),
    #[error("--codes-file FILE must be readable text: {}: {cause}", file.display())]
    CodesFile { file: PathBuf, cause: io::Error },
    #[error("{0} needs --mode processes: only a worker process can be ended or replaced")]
    OnlyProcesses(&'static str),
    #[error("{0}")]
    Contradiction(String),
    #[error("{0}")]
    Dashboard(String),
    #[error("--dest DIR must be a UTF-8 path that exists or can be made: {0}")]
    Dest(String),
}

/// Resolves what was typed.
pub(super) fn resolve(typed: args::Download) -> Result<Settings, UsageError> {
    contradictions::in_download(&typed).map_err(UsageError::Contradiction)?;
    // All of it, so that a new option cannot be forgotten.
    let args::Download {
        which,
        resume,
        origin: args::Origin { server, seed, timeout, retries },
        update,
        mode,
        max_req,
        workers,
        task_timeout,
        max_tasks_per_worker,
        dest,
        dashboard,
        verbose,
        json,
        progress,
        color,
        fail_on_missing,
        log_dir,
        keep_runs,
        no_logs,
    } = typed;
    let codes = which.resolve()?;
    let fetch = FetchSettings { timeout, retries, ..FetchSettings::new("") };
    let dashboard = dashboard.resolve().map_err(UsageError::Dashboard)?;
    if dashboard.is_some() && no_logs {
        let why = "--dashboard shows what the logs tell, so it cannot be used with --no-logs";
        return Err(UsageError::Dashboard(why.to_owned()));
    }
    let logs = match (no_logs, log_dir) {
        (true, _) => Logs::None,
        (false, Some(dir)) => Logs::Asked(dir),
        (false, None) => Logs::Default(PathBuf::from(which_run::LOGS)),
    };
    if mode != Mode::Processes {
        if task_timeout.is_some() {
            return Err(UsageError::OnlyProcesses("--task-timeout SECS"));
        }
        if max_tasks_per_worker.is_some() {
            return Err(UsageError::OnlyProcesses("--max-tasks-per-worker N"));
        }
    }
    Ok(Settings {
        workers: WorkerSettings {
            task_timeout,
            max_tasks: max_tasks_per_worker.map(|most| most as u64),
            retries: fetch.retries,
        },
        crew: Crew::resolve(mode, max_req, workers, codes.len()),
        codes,
        site: server,
        seed: seed.unwrap_or(DEFAULT_SEED),
        fetch,
        update,
        continues: resume.continues,
        dest: resolve_dest(&dest)?,
        display: DisplaySettings { verbose, json, progress, color },
        fail_on_missing,
        logs,
        keep_runs,
        dashboard,
    })
}

impl args::Which {
    /// The codes that were asked for.
    pub(super) fn resolve(self) -> Result<Vec<Code>, UsageError> {
        let Self { cc, all, every, codes_file, limit } = self;
        let codes_file = codes_file.map(|file| read_codes_file(&file)).transpose()?;
        let is_command = |word: &&String| {
            ["bench", "compare", "completions", "demo", "logs", "serve", "timeline"]
                .contains(&word.as_str())
        };
        if let Some(command) = cc.iter().find(is_command) {
            return Err(UsageError::CommandComesFirst(command.clone()));
        }
        Ok(Selection { args: cc, all, every, codes_file, limit }.expand()?)
    }
}

impl Crew {
    /// The number of connections is what was asked for, but no more than the mode can do, nor
    /// than there are codes; and a worker without a connection need not be started.
    fn resolve(mode: Mode, asked: Option<usize>, workers: Option<usize>, codes: usize) -> Self {
        let most = CEILING.min(codes).max(1);
        match mode {
            Mode::Sequential => Self::Sequential,
            Mode::Threads => Self::Threads { connections: asked.unwrap_or(THREADS).min(most) },
            Mode::Processes => {
                let workers = workers.unwrap_or_else(num_cpus::get);
                let connections = asked.unwrap_or(workers).min(most);
                Self::Processes { workers: workers.min(connections), connections }
            }
        }
    }

    pub(super) fn mode(self) -> &'static str {
        match self {
            Self::Sequential => Mode::Sequential,
            Self::Threads { .. } => Mode::Threads,
            Self::Processes { .. } => Mode::Processes,
        }
        .name()
    }

    pub(super) fn workers(self) -> usize {
        match self {
            Self::Sequential | Self::Threads { .. } => 0,
            Self::Processes { workers, .. } => workers,
        }
    }

    pub(super) fn connections(self) -> usize {
        match self {
            Self::Sequential => 1,
            Self::Threads { connections } | Self::Processes { connections, .. } => connections,
        }
    }

    /// How many of the connections one process has.
    pub(super) fn connections_per_process(self) -> usize {
        self.connections().div_ceil(self.workers().max(1))
    }

    pub(super) fn style(self) -> Style {
        match self {
            Self::Sequential => Style::InProcess { connections: 1 },
            Self::Threads { connections } => Style::InProcess { connections },
            Self::Processes { workers, connections } => Style::Processes { workers, connections },
        }
    }
}

fn read_codes_file(file: &Path) -> Result<CodesFile, UsageError> {
    let is_stdin = file.as_os_str() == "-";
    let text = if is_stdin {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let text = text.map_err(|cause| UsageError::CodesFile { file: file.to_owned(), cause })?;
    let name = if is_stdin { "standard input".to_owned() } else { file.display().to_string() };
    Ok(CodesFile { name, text })
}

/// Workers are told where to save in JSON, which holds text only, and with a path that does not
/// depend on where they stand.
fn resolve_dest(dest: &Path) -> Result<PathBuf, UsageError> {
    let refused =
        |why: &dyn std::fmt::Display| UsageError::Dest(format!("{}: {why}", dest.display()));
    let absolute = std::path::absolute(dest).map_err(|error| refused(&error))?;
    match absolute.to_str() {
        Some(_) => Ok(absolute),
        None => Err(refused(&"it is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crew(args: &[&str]) -> Crew {
        resolve(args::Download::typed(args)).expect("a command line that makes sense").crew
    }

    #[test]
    fn the_number_of_connections_is_asked_capped_by_the_mode_and_the_codes() {
        let processes = |workers, connections| Crew::Processes { workers, connections };
        assert_eq!(crew(&["-a", "-w", "2"]), processes(2, 2));
        assert_eq!(crew(&["-a", "-w", "2", "-m", "30"]), processes(2, 30));
        assert_eq!(crew(&["-e", "-w", "2", "-m", "5000"]), processes(2, 676));
        assert_eq!(crew(&["br", "-w", "4"]), processes(1, 1));
        assert_eq!(crew(&["-a", "--mode", "threads"]), Crew::Threads { connections: 30 });
        assert_eq!(crew(&["--mode", "threads"]), Crew::Threads { connections: 20 });
        assert_eq!(crew(&["-a", "--mode", "sequential", "-m", "1"]), Crew::Sequential);
    }

    #[test]
    fn what_only_processes_can_do_is_refused_elsewhere() {
        for mode in ["threads", "sequential"] {
            for option in ["--task-timeout", "--max-tasks-per-worker"] {
                let typed = args::Download::typed(&["--mode", mode, option, "3"]);
                let error = resolve(typed).expect_err("refused").to_string();
                assert!(error.starts_with(option), "{error}");
                assert!(error.contains("needs --mode processes"), "{error}");
            }
        }
    }

    #[test]
    fn logs_are_kept_unless_told_otherwise() {
        let logs = |args| resolve(args::Download::typed(args)).expect("makes sense").logs;
        assert_eq!(logs(&[]), Logs::Default("logs".into()));
        assert_eq!(logs(&["--log-dir", "x"]), Logs::Asked("x".into()));
        assert_eq!(logs(&["--no-logs"]), Logs::None);
    }
}
