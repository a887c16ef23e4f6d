//! Which run's logs are meant: an argument that several commands have.

use std::path::{Path, PathBuf};

use procession_journal::RunDir;
use procession_journal::run_dir::FindError;

/// Where logs lie unless told otherwise.
pub(super) const LOGS: &str = "logs";

/// A run, as typed.
#[derive(Debug, clap::Args)]
pub(super) struct WhichRun {
    /// The run: its name or a part of it, or the path of its logs [default: the latest]
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Where runs keep their logs [default: logs]
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
}

impl WhichRun {
    /// The directory of its logs, or the one file that is meant.
    pub(super) fn find(&self) -> Result<PathBuf, FindError> {
        find(self.log_dir(), self.run.as_deref())
    }

    /// Where runs keep their logs.
    pub(super) fn log_dir(&self) -> &Path {
        self.log_dir.as_deref().unwrap_or(Path::new(LOGS))
    }

    /// A run that is given by its path needs no directory to look for it in.
    pub(super) fn check(&self) -> Result<(), String> {
        match (&self.run, &self.log_dir) {
            (Some(run), Some(dir)) if is_path(run) => Err(format!(
                "--log-dir {} contradicts RUN {run}, which is a path: leave --log-dir away, or \
                 give the name of the run",
                dir.display()
            )),
            _ => Ok(()),
        }
    }
}

/// The directory of a run's logs: by its path, or its name in `logs`.
pub(super) fn find(logs: &Path, run: Option<&str>) -> Result<PathBuf, FindError> {
    match run {
        Some(run) if is_path(run) => Ok(PathBuf::from(run)),
        _ => RunDir::find(logs, run).map(|run| run.path()),
    }
}

fn is_path(run: &str) -> bool {
    let path = Path::new(run);
    path.components().count() > 1 && path.exists()
}

/// The name of a run, by its path.
pub(super) fn name(path: &Path) -> String {
    // A link such as `latest` is told by what it points to.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
