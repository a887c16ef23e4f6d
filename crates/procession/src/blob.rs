//! [`Blob`]: bytes in a task or output that are sent as they are, beside its encoding, in memory that
//! only its writer can change.
//!
//! | while | a long blob | a short one |
//! |---|---|---|
//! | a task or output is encoded ([`set_aside`](enclosed::set_aside)) | is moved to a list; the encoding has `{"$blob": index}` | is in the encoding: in JSON as `{"$base64": text}` |
//! | it is sent | is an item of the attachment (`transport/attachment.rs`) | nothing more |
//! | it is decoded ([`put_back`](enclosed::put_back)) | is taken from the list by its index | is decoded |
//! | anything else is encoded or decoded | is a sequence of bytes | the same |
//!
//! `enclosed.rs` holds the list, and says which blobs are short.

mod enclosed;
mod form;
#[cfg(feature = "bytemuck")]
mod pod;
mod writer;

use std::fmt;
use std::io::Cursor;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

pub(crate) use self::enclosed::{MOST, leave_in_place, marked, put_back, set_aside};
pub(crate) use self::form::{is_asking, is_mark};
#[cfg(feature = "bytemuck")]
pub use self::pod::{PodVec, ValuesError};
pub use self::writer::BlobWriter;
use crate::long_buffers::LongBuffer;
use crate::received_bytes::ReceivedBytes;
use crate::shared_value::SharedContent;
use procession_os::memory::copied;
use procession_os::sealed::Sealed;
use procession_os::segment::Lent;

/// Bytes, for a field of a task or of its output.
///
/// A `Vec<u8>` of a megabyte is a million numbers in JSON. A blob is copied into memory that its worker
/// can read, and that only this process can write. An output is copied once more, by this process.
/// An input that many tasks share, as clones of one blob, is copied once for all of them, and not at all by a
/// task that passes it on.
///
/// Short blobs are part of the encoding, in JSON as base64: those of up to 2 KiB in JSON, or 12 KiB in the binary
/// encoding. For the blobs after the first eight of a task, and on other systems than Linux, the bounds are 12 and
/// 32 KiB. From the 257th blob of a task on, all blobs are part of the encoding. Outside of tasks and outputs a blob is
/// serialized as bytes (`serialize_bytes`): in JSON, an array of numbers.
///
/// `clone` copies no bytes. A blob is read through `Deref<Target = [u8]>`.
///
/// ```
/// use procession::{Blob, Context, Failure, Task};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Decode { image: Blob, width: usize }
///
/// impl Task for Decode {
///     const NAME: &'static str = "decode";
///     type Output = Blob;
///     fn run(self, _: &Context) -> Result<Blob, Failure> {
///         let rows = self.image.chunks(self.width).rev();
///         Ok(rows.flatten().copied().collect::<Vec<u8>>().into())
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Blob(Bytes);

#[derive(Clone)]
enum Bytes {
    Own(Arc<OwnBytes>),
    /// Received, in a sealed memory file.
    Sealed(Arc<Sealed>),
    /// Received, in a segment, which the other side uses again afterwards.
    Lent(Arc<Lent>),
}

/// Bytes of this process.
struct OwnBytes {
    owner: Owner,
    /// A copy of what is foreign, made when it is sent first.
    copied: OnceLock<Blob>,
    /// The sealed file with which they were sent, kept because another handle may be sent, too.
    file: OnceLock<OwnedFd>,
}

enum Owner {
    Vec(Vec<u8>),
    /// Copied by the library: out of a segment, or to be sent.
    Copied(LongBuffer),
    /// The encoding of a shared value.
    Shared(SharedContent),
    /// Plain values, whose bytes never change and whose drop does nothing more.
    #[cfg(feature = "bytemuck")]
    Values(Box<dyn AsRef<[u8]> + Send + Sync>),
    /// The program's code: the pool neither calls it nor drops it on its own threads.
    Foreign(Box<dyn AsRef<[u8]> + Send + Sync>),
}

impl Blob {
    /// A blob of bytes that something else owns, such as a `bytes::Bytes`, an `Arc<[u8]>` or a mapped
    /// file. They are copied when a task or output with it is sent, once for all clones; other executors
    /// than processes never copy them. The owner is dropped with the last clone of the blob; until then
    /// `as_ref` must always give the same bytes.
    ///
    /// The other way, `bytes::Bytes::from_owner(blob)` copies nothing either; with the feature `bytes` there is
    /// `From` for both.
    ///
    /// ```
    /// use procession::Blob;
    ///
    /// let page: std::sync::Arc<[u8]> = vec![7; 4096].into();
    /// let blob = Blob::from_owner(page);
    /// assert_eq!(blob.len(), 4096);
    /// ```
    pub fn from_owner(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::own(Owner::Foreign(Box::new(owner)))
    }

    /// The encoding of a shared value.
    pub(crate) fn shared(bytes: SharedContent) -> Self {
        Self::own(Owner::Shared(bytes))
    }

    fn own(owner: Owner) -> Self {
        let (copied, file) = (OnceLock::new(), OnceLock::new());
        Self(Bytes::Own(Arc::new(OwnBytes { owner, copied, file })))
    }

    /// What the pool holds in place of this blob until it is sent: the same bytes, of no foreign owner.
    fn to_send(&self) -> Self {
        match &self.0 {
            Bytes::Own(own) if matches!(own.owner, Owner::Foreign(_)) => {
                own.copied.get_or_init(|| copied::<u8>(own).into()).clone()
            }
            _ => self.clone(),
        }
    }

    /// Reads the bytes as a file: [`Read`](std::io::Read), [`BufRead`](std::io::BufRead) and
    /// [`Seek`](std::io::Seek). Copies nothing. [`BlobWriter`] is the other way.
    ///
    /// ```
    /// use std::io::BufRead;
    ///
    /// let blob = procession::Blob::from(b"a\nb\n".to_vec());
    /// assert_eq!(blob.reader().lines().collect::<Result<Vec<_>, _>>()?, ["a", "b"]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn reader(&self) -> Cursor<Self> {
        Cursor::new(self.clone())
    }

    /// The bytes. They are copied unless the blob was made from a `Vec` in this process and has no clones.
    ///
    /// ```
    /// let blob = procession::Blob::from(vec![1, 2, 3]); // such as the output of a task
    /// assert_eq!(blob.into_vec(), [1, 2, 3]);
    /// ```
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Bytes::Own(own) => match Arc::try_unwrap(own) {
                Ok(OwnBytes { owner: Owner::Vec(bytes), .. }) => bytes,
                Ok(OwnBytes { owner: Owner::Copied(bytes), .. }) => bytes.into_vec(),
                Ok(own) => copied(&own),
                Err(shared) => copied(&shared),
            },
            Bytes::Sealed(memory) => copied(&memory),
            Bytes::Lent(memory) => copied(&memory),
        }
    }

    /// Copies the bytes. On Linux, a copy of 4 MiB or more asks for huge pages, where
    /// [`slice::to_vec`] would wait several times longer for fresh small ones.
    ///
    /// ```
    /// let blob = procession::Blob::from(vec![1, 2, 3]);
    /// assert_eq!(blob.to_vec(), [1, 2, 3]);
    /// assert_eq!(blob.len(), 3); // it still has them
    /// ```
    pub fn to_vec(&self) -> Vec<u8> {
        copied(self)
    }

    /// A blob in sealed memory, for bytes that are only lent. Where there is none, they are copied.
    #[cfg(feature = "bytemuck")]
    fn sealed_copy(bytes: &[u8]) -> Self {
        let sealed = || {
            let file = procession_os::sealed::create(bytes)?;
            match is_scarce(file.as_fd()) {
                true => Err(std::io::ErrorKind::Other.into()),
                false => Sealed::open(file, bytes.len()),
            }
        };
        match procession_os::sealed::is_available().then(sealed) {
            Some(Ok(memory)) => Self(Bytes::Sealed(Arc::new(memory))),
            _ => bytes.into(),
        }
    }

    /// The sealed file in which it was received or sent, which can be sent again.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Bytes::Own(own) => own.file.get().map(AsFd::as_fd),
            Bytes::Sealed(memory) => Some(memory.as_fd()),
            Bytes::Lent(_) => None,
        }
    }

    /// Whether there are clones of bytes that are in no file, which may be sent as well.
    pub(crate) fn has_clones(&self) -> bool {
        matches!(&self.0, Bytes::Own(own) if Arc::strong_count(own) > 1)
    }

    /// Keeps the sealed file with which it is sent, if there are clones that may be sent as well. Gives
    /// the file back if it is not kept.
    pub(crate) fn keep_file(&self, file: OwnedFd) -> Option<OwnedFd> {
        match &self.0 {
            Bytes::Own(own) if Arc::strong_count(own) > 1 && !is_scarce(file.as_fd()) => {
                own.file.set(file).err()
            }
            _ => Some(file),
        }
    }
}

impl Deref for OwnBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.owner {
            Owner::Vec(bytes) => bytes,
            Owner::Copied(bytes) => bytes,
            Owner::Shared(bytes) => bytes.as_slice(),
            #[cfg(feature = "bytemuck")]
            Owner::Values(values) => (**values).as_ref(),
            Owner::Foreign(owner) => (**owner).as_ref(),
        }
    }
}

impl From<ReceivedBytes> for Blob {
    fn from(received: ReceivedBytes) -> Self {
        match received {
            // A program that keeps many blobs must not run out of descriptors.
            ReceivedBytes::Sealed(memory) if is_scarce(memory.as_fd()) => copied(&memory).into(),
            ReceivedBytes::Sealed(memory) => Self(Bytes::Sealed(Arc::new(memory))),
            ReceivedBytes::Lent(bytes) => Self(Bytes::Lent(Arc::new(bytes))),
            ReceivedBytes::Own(bytes) => Self::own(Owner::Copied(bytes)),
        }
    }
}

/// Whether half of the descriptors that this process may have were in use when it got this one.
/// Without free descriptors no worker can be started, and other parts of the program fail.
fn is_scarce(descriptor: BorrowedFd<'_>) -> bool {
    use rustix::process::{Resource, getrlimit};
    // Beyond that number, mappings become scarce.
    const ENOUGH: u64 = 8192;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(ENOUGH).min(ENOUGH);
    // The system gives out the lowest free number, so at least that many are in use.
    u64::try_from(descriptor.as_raw_fd()).is_ok_and(|number| number >= limit / 2)
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Own(own) => own,
            Bytes::Sealed(memory) => memory,
            Bytes::Lent(memory) => memory,
        }
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self::own(Owner::Vec(bytes))
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

/// Not copied before it is sent: see [`Blob::from_owner`].
#[cfg(feature = "bytes")]
impl From<bytes::Bytes> for Blob {
    fn from(bytes: bytes::Bytes) -> Self {
        Self::from_owner(bytes)
    }
}

/// Copies nothing.
#[cfg(feature = "bytes")]
impl From<Blob> for bytes::Bytes {
    fn from(blob: Blob) -> Self {
        Self::from_owner(blob)
    }
}

impl Default for Blob {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Blob {}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.len())
    }
}
