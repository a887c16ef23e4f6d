//! Opens regular files, and nothing else. Where a worker may write, one that was taken over may put something else in
//! the place of a file, also between a look at it and its open: a pipe, whose open waits, or a link to a file that the
//! worker may not read or write.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file to read it. Links are followed.
///
/// # Errors
///
/// If it cannot be opened, or is no regular file.
pub fn to_read(path: &Path) -> io::Result<File> {
    open(File::options().read(true), OFlags::empty(), path)
}

/// Opens a file with these options. The last part of the path must be no link.
///
/// # Errors
///
/// If it cannot be opened, or is no regular file.
pub fn without_link(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    open(options, OFlags::NOFOLLOW, path)
}

fn open(options: &mut OpenOptions, flags: OFlags, path: &Path) -> io::Result<File> {
    // To open a device can have effects.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(refused());
    }
    open_checked(options, flags, path)
}

fn open_checked(options: &mut OpenOptions, flags: OFlags, path: &Path) -> io::Result<File> {
    // The open of a pipe does not wait then. It means nothing for a file.
    let flags = (flags | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused()) }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn no_pipe_and_no_device_is_opened_and_no_link_is_followed_unless_asked() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "text").expect("a file");
        symlink(path("file"), path("link")).expect("a link");
        symlink(path("new"), path("nowhere")).expect("a link");
        let append =
            |name: &str| without_link(File::options().append(true).create(true), &path(name));
        assert!(append("file").is_ok() && append("another").is_ok());
        assert!(append("link").is_err() && append("nowhere").is_err());
        assert!(!path("new").exists());
        assert!(to_read(&path("file")).is_ok() && to_read(&path("link")).is_ok());
        assert!(without_link(File::options().read(true), &path("link")).is_err());
        assert!(Command::new("mkfifo").arg(path("pipe")).status().expect("a program").success());
        assert!(to_read(&path("pipe")).is_err() && append("pipe").is_err());
        let both = without_link(File::options().read(true).write(true), &path("pipe"));
        assert!(both.is_err());
        let device = to_read(Path::new("/dev/zero")).expect_err("a refusal");
        assert_eq!(device.to_string(), "it is not a file");
    }

    /// What was there at the look may be another thing at the open.
    #[test]
    fn the_open_itself_does_not_wait_for_a_pipe() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("a program").success());
        let opened = open_checked(File::options().read(true), OFlags::empty(), &pipe);
        assert_eq!(opened.expect_err("a refusal").to_string(), "it is not a file");
    }
}
