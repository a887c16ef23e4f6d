//! Reads whole files, up to a bound. What is no file (a pipe, a device) may block or never end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The content of a file, in bytes at most `most`.
///
/// # Errors
///
/// If it cannot be read, is longer, or is no regular file: to open a pipe would block.
pub fn file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    at_most(most, regular(File::options().read(true), OFlags::empty(), path)?)
}

/// Opens a file. A worker that was taken over may have put a pipe in its place, also between a look at it and this call:
/// the open of a pipe waits, unless it is told not to.
///
/// # Errors
///
/// If it cannot be opened, or is no regular file.
pub fn regular(options: &mut OpenOptions, flags: OFlags, path: &Path) -> io::Result<File> {
    let refused = || io::Error::new(ErrorKind::InvalidInput, "it is not a file");
    // A device may do something when it is opened.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(refused());
    }
    let flags = (flags | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused()) }
}

/// All that there is to read, in bytes at most `most`.
///
/// # Errors
///
/// If it cannot be read, or is longer.
pub fn at_most(most: u64, reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let message = format!("it is longer than {} MiB", most >> 20);
        return Err(io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// The same as a text.
///
/// # Errors
///
/// If it cannot be read, is longer, or is not UTF-8.
pub fn text_at_most(most: u64, reader: impl Read) -> io::Result<String> {
    let bytes = at_most(most, reader)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_or_is_no_file_is_refused() {
        assert_eq!(at_most(8, &b"12345678"[..]).unwrap(), b"12345678");
        assert_eq!(at_most(7, &b"12345678"[..]).unwrap_err().kind(), ErrorKind::FileTooLarge);
        let endless = at_most(1 << 20, io::repeat(0)).unwrap_err();
        assert_eq!(endless.to_string(), "it is longer than 1 MiB");
        assert_eq!(text_at_most(8, &b"\xff"[..]).unwrap_err().kind(), ErrorKind::InvalidData);
        let device = file(Path::new("/dev/zero"), 8).unwrap_err();
        assert_eq!(device.to_string(), "it is not a file");
    }

    #[test]
    fn what_is_in_the_place_of_a_file_is_neither_waited_for_nor_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "text").unwrap();
        for (to, link) in [("file", "link"), ("new", "nowhere")] {
            std::os::unix::fs::symlink(path(to), path(link)).unwrap();
        }
        let append = |name: &str| {
            let mut options = File::options();
            regular(options.append(true).create(true), OFlags::NOFOLLOW, &path(name))
        };
        assert!(append("file").is_ok() && append("another").is_ok());
        assert!(append("link").is_err() && append("nowhere").is_err() && !path("new").exists());
        assert_eq!(file(&path("link"), 8).unwrap(), b"text");
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success() && append("pipe").is_err() && file(&path("pipe"), 8).is_err());
    }
}
