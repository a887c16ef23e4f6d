//! The comparison as a file: one exporter for each format.

mod csv;
mod facts;
mod html;
mod json;
mod markdown;
mod svg;

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::comparison::Comparison;
use super::report::ComparisonReport;

/// A file format.
pub(super) trait Exporter: Sync {
    /// The ending of file names of this format.
    fn extension(&self) -> &'static str;

    /// The content of the file.
    fn export(&self, comparison: &Comparison, report: &ComparisonReport) -> String;
}

/// All formats.
const EXPORTERS: [&dyn Exporter; 5] =
    [&markdown::Markdown, &json::JsonExport, &csv::Csv, &html::Html, &svg::Svg];

/// A file name without the ending of a format.
#[derive(Debug, thiserror::Error)]
#[error("--export FILE must end with .md, .json, .csv, .html or .svg: {}", .0.display())]
pub(super) struct UnknownFormat(PathBuf);

/// The exporter for a file.
pub(super) fn exporter(path: &Path) -> Result<&'static dyn Exporter, UnknownFormat> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_it = |exporter: &&dyn Exporter| exporter.extension().eq_ignore_ascii_case(extension);
    EXPORTERS.into_iter().find(is_it).ok_or_else(|| UnknownFormat(path.to_owned()))
}

/// An export, which gets its name when it is complete.
pub(super) struct ExportFile {
    path: PathBuf,
    exporter: &'static dyn Exporter,
    draft: NamedTempFile,
}

impl ExportFile {
    /// Creates a temporary file beside the export, so that an error is found before the measurement.
    pub(super) fn prepare(path: PathBuf) -> anyhow::Result<Self> {
        let exporter = exporter(&path)?;
        let draft = create_draft(&path)?;
        Ok(Self { path, exporter, draft })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn finish(
        self,
        comparison: &Comparison,
        report: &ComparisonReport,
    ) -> io::Result<()> {
        let Self { path, exporter, mut draft } = self;
        draft.write_all(exporter.export(comparison, report).as_bytes())?;
        draft.persist(path)?;
        Ok(())
    }
}

fn create_draft(path: &Path) -> io::Result<NamedTempFile> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // The system's error for a missing directory.
    fs::metadata(dir)?;
    let mut draft = tempfile::Builder::new();
    // The mode of an ordinary file, which the umask reduces.
    draft.permissions(Permissions::from_mode(0o666)).prefix(".compare-");
    // The error without the name of the temporary file.
    Ok(draft.tempfile_in(dir).map_err(|error| error.kind())?)
}
