//! [`HeldDir`]: a directory that is open. What is found and opened in it is in this very directory, also if something
//! else, such as a link, has taken its place since then.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat};

/// An open directory.
#[derive(Debug)]
pub struct HeldDir(OwnedFd);

/// The names in a directory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HeldNames {
    /// The names of regular files.
    pub files: Vec<String>,
    /// The names of directories.
    pub dirs: Vec<String>,
}

impl HeldDir {
    /// Opens a directory. Links are followed.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or is no directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens a directory in this one. A link is not followed.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or is no directory.
    pub fn dir(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(openat(&self.0, one_name(name)?, flags, Mode::empty())?))
    }

    /// Opens a regular file in this directory, to read it. A link is not followed.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or is no regular file.
    pub fn file(&self, name: &str) -> io::Result<File> {
        let name = one_name(name)?;
        // To open a device can have effects. To open a pipe does not wait.
        self.kind(name)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.0, name, flags, Mode::empty())?;
        match FileType::from_raw_mode(fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(file.into()),
            _ => Err(refused()),
        }
    }

    /// The names of the files and directories in it. Others, such as links, and names that are no text are left out.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn names(&self) -> io::Result<HeldNames> {
        let mut names = HeldNames::default();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if [".", ".."].contains(&name) {
                continue;
            }
            // It may have been removed.
            let Ok(found) = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            match FileType::from_raw_mode(found.st_mode) {
                FileType::RegularFile => names.files.push(name.to_owned()),
                FileType::Directory => names.dirs.push(name.to_owned()),
                _ => {}
            }
        }
        Ok(names)
    }

    /// No error: it is a regular file now.
    fn kind(&self, name: &str) -> io::Result<()> {
        let found = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => Ok(()),
            _ => Err(refused()),
        }
    }
}

/// A path with several parts could lead through a link.
fn one_name(name: &str) -> io::Result<&str> {
    let is_one = !name.is_empty() && !name.contains('/') && name != "..";
    if is_one { Ok(name) } else { Err(refused()) }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a file in this directory")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn what_takes_the_place_of_an_open_directory_is_not_read() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |path: &str| place.path().join(path);
        for dir in ["logs/run", "other"] {
            fs::create_dir_all(at(dir)).expect("a directory");
            fs::write(at(dir).join("file"), dir).expect("a file");
        }
        let logs = HeldDir::open(&at("logs")).expect("a directory");
        let run = logs.dir("run").expect("a directory");
        fs::rename(at("logs/run"), at("logs/gone")).expect("another name");
        symlink(at("other"), at("logs/run")).expect("a link");
        let mut text = String::new();
        run.file("file").expect("a file").read_to_string(&mut text).expect("text");
        assert_eq!(text, "logs/run");
        assert!(logs.dir("run").is_err(), "it is a link");
        assert_eq!(logs.names().expect("names").dirs, ["gone"]);
    }

    #[test]
    fn only_regular_files_of_the_directory_itself_are_found_and_opened() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |path: &str| place.path().join(path);
        fs::create_dir_all(at("dir/deep")).expect("directories");
        fs::write(at("dir/deep/file"), "x").expect("a file");
        fs::write(at("dir/file"), "x").expect("a file");
        symlink(at("dir/file"), at("dir/link")).expect("a link");
        let made = Command::new("mkfifo").arg(at("dir/pipe")).status();
        assert!(made.expect("a program").success());
        let dir = HeldDir::open(&at("dir")).expect("a directory");
        let names = dir.names().expect("names");
        assert_eq!((names.files, names.dirs), (vec!["file".to_owned()], vec!["deep".to_owned()]));
        assert!(dir.file("file").is_ok());
        for name in ["link", "pipe", "deep", "deep/file", "../dir/file", "..", "", "missing"] {
            assert!(dir.file(name).is_err(), "{name}");
        }
        assert!(dir.dir("deep").is_ok() && dir.dir("..").is_err() && dir.dir("file").is_err());
    }
}
