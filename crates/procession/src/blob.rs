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
#[cfg(feature = "bytemuck")]
mod pod;
mod writer;

use std::cell::Cell;
use std::fmt;
use std::io::Cursor;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::enclosed::{Encoded, disclose, enclose};
pub(crate) use self::enclosed::{MOST, leave_in_place, marked, put_back, set_aside};
#[cfg(feature = "bytemuck")]
pub use self::pod::{PodVec, ValuesError};
pub use self::writer::BlobWriter;
use crate::long_buffers::LongBuffer;
use crate::shared_value::SharedContent;
use crate::transport::ReceivedBytes;
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
                own.copied.get_or_init(|| own.to_vec().into()).clone()
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
                Ok(own) => own.to_vec(),
                Err(shared) => shared.to_vec(),
            },
            Bytes::Sealed(memory) => memory.to_vec(),
            Bytes::Lent(memory) => memory.to_vec(),
        }
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
            ReceivedBytes::Sealed(memory) if is_scarce(memory.as_fd()) => memory.to_vec().into(),
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

thread_local! {
    /// `Blob::deserialize` is calling `deserialize_any`.
    static IS_ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a blob has called `deserialize_any`. A blob decodes to what it was, unlike a type that
/// inspects a value to find out what it is, so the value need not be verified.
pub(crate) fn is_asking() -> bool {
    IS_ASKING.replace(false)
}

/// The key of the object that stands for a blob that was set aside.
const MENTION: &str = "$blob";
/// The key of the object that holds a blob in a text.
const BASE64: &str = "$base64";

/// Whether a key is that of an object which stands for a blob.
#[inline]
pub(crate) fn is_mark(key: &str) -> bool {
    key.starts_with("$b") && (key == MENTION || key == BASE64)
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoded = enclose(self);
        if let Encoded::Bytes = encoded {
            return serializer.serialize_bytes(self);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        match encoded {
            Encoded::Index(index) => map.serialize_entry(MENTION, &index)?,
            _ => map.serialize_entry(BASE64, &Base64(self))?,
        }
        map.end()
    }
}

/// The bytes of a blob as text: a string that needs no escapes.
struct Base64<'b>(&'b [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

/// Reads what [`Base64`] has written.
struct FromBase64;

impl<'de> DeserializeSeed<'de> for FromBase64 {
    type Value = Blob;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Blob, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FromBase64 {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes as base64")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Blob, E> {
        STANDARD.decode(text).map(Blob::from).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IS_ASKING.set(true);
        let result = deserializer.deserialize_any(BlobVisitor);
        IS_ASKING.set(false);
        result
    }
}

struct BlobVisitor;

impl<'de> Visitor<'de> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(bytes.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Blob, A::Error> {
        let mut bytes = Vec::with_capacity(seq.size_hint().unwrap_or_default().min(4096));
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Blob, A::Error> {
        // Owned, since a buffered map, such as a `serde_json::Value`, lends no key.
        let key = map.next_key::<String>()?;
        match key.as_deref() {
            Some(BASE64) => map.next_value_seed(FromBase64),
            Some(MENTION) => {
                let index = map.next_value()?;
                disclose(index).ok_or_else(|| A::Error::custom("a blob that was not enclosed"))
            }
            _ => Err(A::Error::custom("an object that stands for no blob")),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_tasks_a_blob_is_a_sequence_of_bytes() {
        let json = serde_json::to_string(&Blob::from(vec![1; 300])).expect("JSON");
        assert!(json.starts_with("[1,1,"));
        assert_eq!(serde_json::from_str::<Blob>(&json).expect("a blob"), vec![1; 300].into());
        for wrong in [r#"{"$blob":0}"#, r#"{"blob":0}"#, "{}", "[256]", "7"] {
            assert!(serde_json::from_str::<Blob>(wrong).is_err(), "{wrong}");
        }
    }
}
