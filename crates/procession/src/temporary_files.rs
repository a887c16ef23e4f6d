//! Where temporary files are made, if not in the temporary directory of the crate `tempfile`.

use std::fs::File;
use std::path::PathBuf;
use std::{env, io};

/// All candidates, the temporary directory of the system first.
pub(crate) fn candidates() -> impl Iterator<Item = PathBuf> {
    [env::temp_dir()].into_iter().chain(fallbacks())
}

/// Candidates if the temporary directory is unusable.
pub(crate) fn fallbacks() -> impl Iterator<Item = PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime.into_iter().chain(["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from))
}

/// A file without a name. If the temporary directory was removed, it is in another one.
pub(crate) fn unnamed_file() -> io::Result<File> {
    tempfile::tempfile()
        .or_else(|error| candidates().find_map(|dir| tempfile::tempfile_in(dir).ok()).ok_or(error))
}
