//! Reads whole files, up to a bound. Refuses pipes and devices, which may block or never end.

use std::io::{self, ErrorKind, Read};
use std::path::Path;

use procession_os::regular_file;

/// The content of a file, in bytes at most `most`.
///
/// # Errors
///
/// If it cannot be read, is longer, or is no regular file: to open a pipe would block.
pub fn file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    at_most(most, regular_file::to_read(path)?)
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
}
