//! [`ReceivedBytes`]: an item of an attachment, as this process holds it.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use procession_os::sealed::{self, Sealed};
use procession_os::segment::Lent;

use crate::long_buffers::LongBuffer;

/// Bytes that another process has sent beside a record.
#[derive(Debug)]
pub(crate) enum ReceivedBytes {
    Sealed(Sealed),
    Lent(Lent),
    Own(LongBuffer),
}

impl Deref for ReceivedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Sealed(memory) => memory,
            Self::Lent(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

impl ReceivedBytes {
    /// An error of kind `InvalidData` means that the file does not fit its length; any other, that
    /// the system lacks a resource.
    pub(crate) fn open(file: OwnedFd, len: u64) -> io::Result<Self> {
        let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let len = usize::try_from(len).map_err(|_| refused("an impossible length"))?;
        if sealed::is_available() {
            return Sealed::open(file, len).map(Self::Sealed);
        }
        let file = File::from(file);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() != len as u64 {
            return Err(refused("not a file of the length announced"));
        }
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::Own(bytes.into()))
    }
}
