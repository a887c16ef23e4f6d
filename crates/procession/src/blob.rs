//! [`Blob`]: bytes in a task or output that are sent as they are, beside its encoding, in sealed
//! memory.
//!
//! | while | a blob of more than 256 bytes |
//! |---|---|
//! | a task or output is encoded ([`set_aside`]) | is moved to a list; the encoding has `{"$blob": index}` |
//! | it is sent | is an item of the attachment (`transport/attachment.rs`) |
//! | it is decoded ([`put_back`]) | is taken from the list by its index |
//! | anything else is encoded or decoded | is a sequence of bytes |
//!
//! The list is thread-local, since `Serialize` has no other way to reach it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::transport::ReceivedBytes;
use procession_os::sealed::Sealed;

/// Bytes, for a field of a task or of its output.
///
/// A `Vec<u8>` of a megabyte is a million numbers in JSON. A blob is sent in memory that both
/// processes can read and none can write. It is copied once, by its sender; a blob that was
/// received and is sent again is not copied.
///
/// Up to 256 bytes, and from the 257th blob of a task on, the bytes are part of the encoding.
/// Outside of tasks and outputs a blob is serialized as bytes (`serialize_bytes`): in JSON, an
/// array of numbers.
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
    Own(Arc<Vec<u8>>),
    /// Received, in a sealed memory file.
    Sealed(Arc<Sealed>),
}

/// Blobs up to this length, in bytes, are part of the encoding, which is faster than a file for
/// each.
const SHORT: usize = 256;
/// The most blobs of one task or output that are sent beside its encoding. Each takes a descriptor
/// until its record is read.
pub(crate) const MOST: usize = 256;

impl Blob {
    /// The bytes. They are copied if the blob was received, or has clones.
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Bytes::Own(bytes) => Arc::unwrap_or_clone(bytes),
            Bytes::Sealed(memory) => memory.to_vec(),
        }
    }

    /// The sealed file in which it was received, which can be sent again.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Bytes::Own(_) => None,
            Bytes::Sealed(memory) => Some(memory.as_fd()),
        }
    }
}

impl From<ReceivedBytes> for Blob {
    fn from(received: ReceivedBytes) -> Self {
        match received {
            // A program that keeps many blobs must not run out of descriptors.
            ReceivedBytes::Sealed(memory) if is_scarce(memory.as_fd()) => memory.to_vec().into(),
            ReceivedBytes::Sealed(memory) => Self(Bytes::Sealed(Arc::new(memory))),
            ReceivedBytes::Own(bytes) => bytes.into(),
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
    /// The blobs of all texts that this thread is encoding or decoding. There can be several texts,
    /// since a `Serialize` implementation may itself submit a task. The blobs of the innermost text
    /// are last.
    static ENCLOSED: RefCell<Vec<Blob>> = const { RefCell::new(Vec::new()) };
    /// The range of the innermost text in `ENCLOSED`. Texts without blobs, which are most, use only
    /// this.
    static INNERMOST: Cell<Enclosing> = const { Cell::new(Enclosing { is_on: false, from: 0, to: 0 }) };
}

#[derive(Clone, Copy)]
struct Enclosing {
    /// Blobs are set aside.
    is_on: bool,
    from: usize,
    to: usize,
}

/// Encodes something, and returns the blobs that were set aside.
pub(crate) fn set_aside<R>(encode: impl FnOnce() -> R) -> (R, Vec<Blob>) {
    let _text = Text::begin(0);
    let encoded = encode();
    let Enclosing { from, to, .. } = INNERMOST.get();
    let blobs = match to - from {
        0 => Vec::new(),
        _ => ENCLOSED.with_borrow_mut(|all| all.split_off(from)),
    };
    (encoded, blobs)
}

/// Encodes something with the bytes of its blobs.
pub(crate) fn leave_in_place<R>(encode: impl FnOnce() -> R) -> R {
    let _text = Text::begin(0);
    INNERMOST.set(Enclosing { is_on: false, ..INNERMOST.get() });
    encode()
}

/// Decodes something whose blobs were set aside.
pub(crate) fn put_back<R>(blobs: Vec<Blob>, decode: impl FnOnce() -> R) -> R {
    let _text = Text::begin(blobs.len());
    if !blobs.is_empty() {
        ENCLOSED.with_borrow_mut(|all| all.extend(blobs));
    }
    decode()
}

/// A guard that makes a text the innermost one until it is dropped, also by a panic of the user's
/// code.
struct Text {
    around: Enclosing,
}

impl Text {
    #[inline]
    fn begin(blobs: usize) -> Self {
        let around = INNERMOST.get();
        INNERMOST.set(Enclosing { is_on: true, from: around.to, to: around.to + blobs });
        Self { around }
    }
}

impl Drop for Text {
    #[inline]
    fn drop(&mut self) {
        let Enclosing { from, to, .. } = INNERMOST.replace(self.around);
        if to > from {
            ENCLOSED.with_borrow_mut(|all| all.truncate(from));
        }
    }
}

/// Sets a blob aside and returns its index. `None` if its bytes are to be part of the text.
fn enclose(blob: &Blob) -> Option<usize> {
    let Enclosing { is_on, from, to } = INNERMOST.get();
    let pays = is_on && to - from < MOST && blob.len() > SHORT;
    pays.then(|| {
        ENCLOSED.with_borrow_mut(|all| all.push(blob.clone()));
        INNERMOST.set(Enclosing { is_on, from, to: to + 1 });
        to - from
    })
}

/// A blob that was set aside. It stays in the list, since an untagged enum may decode it for
/// several variants.
fn disclose(index: usize) -> Option<Blob> {
    let Enclosing { from, to, .. } = INNERMOST.get();
    let at = from.checked_add(index).filter(|at| *at < to)?;
    ENCLOSED.with_borrow(|all| all.get(at).cloned())
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

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match enclose(self) {
            None => serializer.serialize_bytes(self),
            Some(index) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(MENTION, &index)?;
                map.end()
            }
        }
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
        if key.as_deref() != Some(MENTION) {
            return Err(A::Error::custom("an object that stands for no blob"));
        }
        let index = map.next_value()?;
        disclose(index).ok_or_else(|| A::Error::custom("a blob that was not enclosed"))
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Own(bytes) => bytes,
            Bytes::Sealed(memory) => memory,
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
        Self(Bytes::Own(Arc::new(bytes)))
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
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
    use crate::panics;

    #[test]
    fn outside_of_tasks_a_blob_is_a_sequence_of_bytes() {
        let json = serde_json::to_string(&Blob::from(vec![1; 300])).expect("JSON");
        assert!(json.starts_with("[1,1,"));
        assert_eq!(serde_json::from_str::<Blob>(&json).expect("a blob"), vec![1; 300].into());
        for wrong in [r#"{"$blob":0}"#, r#"{"blob":0}"#, "{}", "[256]", "7"] {
            assert!(serde_json::from_str::<Blob>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_blob_that_is_set_aside_is_an_index_in_the_json() {
        let blobs: Vec<Blob> = [300, 3, 400].map(|len| vec![7; len].into()).into();
        let (json, enclosed) = set_aside(|| serde_json::to_string(&blobs).expect("JSON"));
        assert_eq!(json, r#"[{"$blob":0},[7,7,7],{"$blob":1}]"#);
        let back = put_back(enclosed, || serde_json::from_str::<Vec<Blob>>(&json));
        assert_eq!(back.expect("blobs"), blobs);
        // A text within a text, as in a `Serialize` implementation that submits a task.
        let (outer, outside) = set_aside(|| {
            let first = serde_json::to_string(&blobs[0]).expect("JSON");
            let (inner, inside) = set_aside(|| serde_json::to_string(&blobs).expect("JSON"));
            assert_eq!((&inner, inside.len()), (&json, 2));
            let back = put_back(inside, || serde_json::from_str::<Vec<Blob>>(&inner));
            assert_eq!(back.expect("blobs"), blobs);
            first + &serde_json::to_string(&blobs[2]).expect("JSON")
        });
        assert_eq!(outer, r#"{"$blob":0}{"$blob":1}"#);
        assert_eq!(outside, [blobs[0].clone(), blobs[2].clone()]);
        let twice = r#"[{"$blob":0},{"$blob":0}]"#;
        let (_, enclosed) = set_aside(|| serde_json::to_string(&blobs).expect("JSON"));
        let back = put_back(enclosed, || serde_json::from_str::<Vec<Blob>>(twice));
        assert_eq!(back.expect("blobs"), vec![blobs[0].clone(); 2]);
    }

    #[test]
    fn a_panic_leaves_no_blobs_in_the_list() {
        let blob = Blob::from(vec![7; 300]);
        let _ = panics::catch(|| put_back(vec![blob.clone()], || panic!("while decoding")));
        let _ = panics::catch(|| {
            set_aside(|| {
                serde_json::to_string(&blob).expect("JSON");
                panic!("while encoding");
            })
        });
        assert_eq!(ENCLOSED.with_borrow(Vec::len), 0);
        assert!(serde_json::to_string(&blob).expect("JSON").starts_with("[7,7,"));
    }
}
