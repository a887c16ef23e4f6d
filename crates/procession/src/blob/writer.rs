//! [`BlobWriter`]: a blob that is written piece by piece.

use std::fmt;
use std::io::{self, Cursor, Seek, SeekFrom, Write};

use super::Blob;

/// Writes a [`Blob`] piece by piece, as a file: for encoders that take an `impl Write`, or `impl Write + Seek`. A
/// position behind the end is filled up with zeros when it is written to.
///
/// The bytes are in the memory of this process until the task or output with the blob is sent. To read a blob as
/// a file there is [`Blob::reader`].
///
/// ```
/// use std::io::{Read, Seek, SeekFrom, Write};
///
/// use procession::{Blob, BlobWriter};
///
/// let mut writer = BlobWriter::new();
/// write!(writer, "????{}", "body")?;
/// let length = writer.len() as u32;
/// writer.seek(SeekFrom::Start(0))?;
/// writer.write_all(&length.to_le_bytes())?;
/// let blob: Blob = writer.into();
///
/// let mut text = String::new();
/// let mut reader = blob.reader();
/// reader.seek(SeekFrom::Start(4))?;
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "body");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BlobWriter(Cursor<Vec<u8>>);

impl BlobWriter {
    /// A writer of an empty blob.
    ///
    /// ```
    /// # use std::io::Write;
    /// # use procession::{Blob, BlobWriter};
    /// let mut writer = BlobWriter::new();
    /// writer.write_all(b"PNG")?;
    /// assert_eq!(*Blob::from(writer), *b"PNG");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that allocates no more memory until this number of bytes was written.
    ///
    /// ```
    /// # use std::io::Write;
    /// # use procession::BlobWriter;
    /// let mut writer = BlobWriter::with_capacity(1 << 20);
    /// assert!(writer.is_empty());
    /// writer.write_all(&[7; 100])?;
    /// assert_eq!(writer.len(), 100);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Cursor::new(Vec::with_capacity(bytes)))
    }

    /// The length of the blob so far, in bytes. See the example of [`with_capacity`](Self::with_capacity).
    pub fn len(&self) -> usize {
        self.0.get_ref().len()
    }

    /// Whether nothing was written. See the example of [`with_capacity`](Self::with_capacity).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for BlobWriter {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl From<BlobWriter> for Blob {
    /// Copies nothing.
    fn from(writer: BlobWriter) -> Self {
        writer.0.into_inner().into()
    }
}

impl From<Blob> for BlobWriter {
    /// Writes behind what the blob has. It is copied unless it was made from a `Vec` in this process and has no
    /// clones.
    fn from(blob: Blob) -> Self {
        let mut bytes = Cursor::new(blob.into_vec());
        bytes.set_position(bytes.get_ref().len() as u64);
        Self(bytes)
    }
}

impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobWriter({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_written_like_a_file_and_continued() {
        let mut writer = BlobWriter::with_capacity(100);
        assert!(writer.is_empty());
        writer.write_all(b"abc").expect("memory");
        writer.seek(SeekFrom::Current(2)).expect("a position");
        writer.write_all(b"f").expect("memory");
        assert!(writer.seek(SeekFrom::End(-100)).is_err());
        let blob = Blob::from(writer);
        assert_eq!(*blob, *b"abc\0\0f");
        let mut writer = BlobWriter::from(blob.clone());
        writer.write_all(b"g").expect("memory");
        assert_eq!((&*blob, &*Blob::from(writer)), (&b"abc\0\0f"[..], &b"abc\0\0fg"[..]));
    }
}
