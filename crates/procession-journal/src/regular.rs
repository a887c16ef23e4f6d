//! Opens regular files alone. In the directory of a run, a worker that was taken over may put something else in the place
//! of a file, also between a look at it and its open: a pipe, whose open waits, or a link to a file that it may not write.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file to read it.
pub(super) fn to_read(path: &Path) -> io::Result<File> {
    open(File::options().read(true), OFlags::empty(), path)
}

/// Opens a file with these options, which write to it. The last part of the path must be no link.
pub(super) fn to_write(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    open(options, OFlags::NOFOLLOW, path)
}

fn open(options: &mut OpenOptions, flags: OFlags, path: &Path) -> io::Result<File> {
    // The open of a pipe does not wait then. It means nothing for a file.
    let flags = (flags | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn no_pipe_and_no_link_is_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "text").expect("a file");
        symlink(path("file"), path("link")).expect("a link");
        symlink(path("new"), path("nowhere")).expect("a link");
        let append = |name: &str| to_write(File::options().append(true).create(true), &path(name));
        assert!(append("file").is_ok() && append("another").is_ok());
        assert!(append("link").is_err() && append("nowhere").is_err());
        assert!(!path("new").exists());
        assert!(to_read(&path("file")).is_ok() && to_read(&path("link")).is_ok());
        assert!(Command::new("mkfifo").arg(path("pipe")).status().expect("a program").success());
        assert!(to_read(&path("pipe")).is_err() && append("pipe").is_err());
        let both = to_write(File::options().read(true).write(true), &path("pipe"));
        assert!(both.is_err());
    }
}
