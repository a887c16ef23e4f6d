//! Which run's logs are meant: an argument that several commands have.

use std::path::{Path, PathBuf};

use crate::journal::RunDir;
use crate::journal::run_dir::FindError;

/// Where logs lie unless told otherwise.
pub(super) const LOGS: &str = "logs";

/// A run, as typed.
#[derive(Debug, clap::Args)]
pub(super) struct WhichRun {
    /// The run: its name or a part of it, or the path of its logs [default: the latest]
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Where runs keep their logs
    #[arg(long, value_name = "DIR", default_value = LOGS)]
    pub log_dir: PathBuf,
}

impl WhichRun {
    /// The directory of its logs, or the one file that is meant.
    pub(super) fn find(&self) -> Result<PathBuf, FindError> {
        find(&self.log_dir, self.run.as_deref())
    }
}

/// The directory of a run's logs: by its path, or its name in `logs`.
pub(super) fn find(logs: &Path, run: Option<&str>) -> Result<PathBuf, FindError> {
    match run.map(Path::new) {
        Some(path) if path.components().count() > 1 && path.exists() => Ok(path.to_owned()),
        _ => RunDir::find(logs, run).map(|run| run.path()),
    }
}

/// The name of a run, by its path.
pub(super) fn name(path: &Path) -> String {
    // A link such as `latest` is told by what it points to.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
