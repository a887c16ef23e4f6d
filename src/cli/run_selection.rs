//! The selection of a run whose logs a command reads.

use std::path::{Path, PathBuf};

use procession_journal::{FindError, RunDir, coordinators};

use super::contradiction::Contradiction;

/// The default directory of logs.
pub(super) const DEFAULT_LOG_DIR: &str = "logs";

/// The run, as typed.
#[derive(Debug, clap::Args)]
pub(super) struct RunSelectionArgs {
    /// The run: its name or a part of it, or the path of its logs [default: the latest]
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Where runs keep their logs [default: logs]
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
}

impl RunSelectionArgs {
    /// The directory of the run's logs, or a single file of them.
    pub(super) fn find(&self) -> Result<PathBuf, FindError> {
        find(self.log_dir(), self.run.as_deref())
    }

    /// Where runs keep their logs.
    pub(super) fn log_dir(&self) -> &Path {
        self.log_dir.as_deref().unwrap_or(Path::new(DEFAULT_LOG_DIR))
    }

    /// Checks that there is no `--log-dir` if the run is a path.
    pub(super) fn check(&self) -> Result<(), Contradiction> {
        match (&self.run, &self.log_dir) {
            (Some(run), Some(log_dir)) if is_path(run) => {
                Err(Contradiction::LogDirOfPath { log_dir: log_dir.clone(), run: run.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// The directory of a run's logs: by its path, or its name in `logs`. A directory of logs stands for its
/// newest run.
pub(super) fn find(logs: &Path, run: Option<&str>) -> Result<PathBuf, FindError> {
    let named = match run {
        Some(run) if is_path(run) => None,
        _ => Some(RunDir::find(logs, run).map(|run| run.path())),
    };
    match (named, run) {
        (Some(Ok(found)), _) => Ok(found),
        (Some(Err(_)) | None, Some(run)) if Path::new(run).exists() => {
            let path = Path::new(run);
            let is_run = !path.is_dir() || !coordinators(path).is_empty();
            let newest = RunDir::find(path, None).ok().filter(|_| !is_run);
            Ok(newest.map_or_else(|| path.to_owned(), |newest| newest.path()))
        }
        (Some(error), _) => error,
        (None, _) => RunDir::find(logs, run).map(|run| run.path()),
    }
}

fn is_path(run: &str) -> bool {
    let path = Path::new(run);
    path.components().count() > 1 && path.exists()
}

/// The name of a run, by its path.
pub(super) fn name(path: &Path) -> String {
    // A link such as `latest` is resolved.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
