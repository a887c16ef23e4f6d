//! Where the blobs of a text go: the list of those that are sent beside it.
//!
//! The list is thread-local, since `Serialize` has no other way to reach it.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::Blob;
use crate::codec::Encoding;
use crate::panics;
use procession_os::sealed;

/// The longest blob that is part of the encoding, in bytes. Bytes in the encoding cost more, the more they are. A
/// segment or a memory file costs the same for each length: about 6 and 40 µs there and back. Below this length the
/// encoding costs less.
const fn longest_inline(encoding: Encoding, gets_segment: bool) -> usize {
    match (encoding, gets_segment) {
        (Encoding::Json, true) => 2 * 1024,
        (Encoding::Json, false) => 12 * 1024,
        (Encoding::Binary, true) => 12 * 1024,
        (Encoding::Binary, false) => 32 * 1024,
    }
}

/// For this number of blobs of one text, a segment is expected to be free for each. A worker may have none for more.
const MOST_IN_SEGMENTS: usize = 8;

/// The most blobs of one task or output that are sent beside its encoding. Each takes a descriptor
/// until its record is read.
pub(crate) const MOST: usize = 256;

thread_local! {
    /// The blobs of all texts that this thread is encoding or decoding. There can be several texts,
    /// since a `Serialize` implementation may itself submit a task. The blobs of the innermost text
    /// are last.
    static ENCLOSED: RefCell<Vec<EnclosedBlob>> = const { RefCell::new(Vec::new()) };
    /// The innermost text. Texts without blobs, which are most, use only this.
    static INNERMOST: Innermost = const { Innermost::new() };
}

/// A cell for each part: a load of several parts that were stored one by one would wait for all stores.
struct Innermost {
    form: Cell<BlobForm>,
    from: Cell<usize>,
    to: Cell<usize>,
    marked: Cell<usize>,
}

impl Innermost {
    const fn new() -> Self {
        let (from, to, marked) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Self { form: Cell::new(BlobForm::Bytes), from, to, marked }
    }

    #[inline]
    fn get(&self) -> Enclosing {
        let (form, from, to) = (self.form.get(), self.from.get(), self.to.get());
        Enclosing { form, from, to, marked: self.marked.get() }
    }

    #[inline]
    fn set(&self, Enclosing { form, from, to, marked }: Enclosing) {
        self.form.set(form);
        self.from.set(from);
        self.to.set(to);
        self.marked.set(marked);
    }
}

/// Uses the list. `None` if it is gone, in destructors at the end of a thread: then no blob is set aside, and none
/// that was is decoded.
fn with<R>(use_it: impl FnOnce(&mut Vec<EnclosedBlob>) -> R) -> Option<R> {
    ENCLOSED.try_with(|all| use_it(&mut all.borrow_mut())).ok()
}

fn has_list() -> bool {
    with(|_| ()).is_some()
}

struct EnclosedBlob {
    blob: Blob,
    /// It was decoded.
    is_disclosed: bool,
}

/// How blobs are encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BlobForm {
    /// As bytes: this is not the text of a task.
    Bytes,
    /// In the text.
    Inline(Encoding),
    /// In the text if they are short. Long ones are set aside.
    Aside(Encoding),
}

#[derive(Clone, Copy)]
struct Enclosing {
    form: BlobForm,
    /// The range of its blobs in `ENCLOSED`.
    from: usize,
    to: usize,
    /// The number of blobs for which an object stands in the text.
    marked: usize,
}

/// Encodes something, and returns the blobs that were set aside.
#[inline]
pub(crate) fn set_aside<R>(encoding: Encoding, encode: impl FnOnce() -> R) -> (R, Vec<Blob>) {
    let _text = Text::begin(BlobForm::Aside(encoding), 0);
    let encoded = encode();
    let Enclosing { from, to, .. } = INNERMOST.with(Innermost::get);
    let blobs = match to - from {
        0 => Vec::new(),
        _ => take_from(from),
    };
    (encoded, blobs)
}

/// Takes the blobs from an index on out of the list.
fn take_from(from: usize) -> Vec<Blob> {
    with(|all| all.drain(from..).map(|one| one.blob).collect()).unwrap_or_default()
}

fn append(blobs: Vec<Blob>) {
    let enclosed = blobs.into_iter().map(|blob| EnclosedBlob { blob, is_disclosed: false });
    with(|all| all.extend(enclosed));
}

fn are_disclosed(blobs: Range<usize>) -> bool {
    with(|all| all[blobs].iter().all(|one| one.is_disclosed)) == Some(true)
}

/// The number of blobs for which an object stands in the text that is being encoded.
#[inline]
pub(crate) fn marked() -> usize {
    INNERMOST.with(|innermost| innermost.marked.get())
}

/// Encodes something with the bytes of its blobs.
pub(crate) fn leave_in_place<R>(encoding: Encoding, encode: impl FnOnce() -> R) -> R {
    let _text = Text::begin(BlobForm::Inline(encoding), 0);
    encode()
}

/// Decodes something whose blobs were set aside. The result says whether each of them was decoded. It is compiled once,
/// and not for each type: `decode` keeps what it decodes.
pub(crate) fn put_back(blobs: Vec<Blob>, decode: &mut dyn FnMut()) -> bool {
    // What is encoded until then is not the text of a task.
    let _text = Text::begin(BlobForm::Bytes, blobs.len());
    if blobs.is_empty() {
        decode();
        return true;
    }
    append(blobs);
    decode();
    let Enclosing { from, to, .. } = INNERMOST.with(Innermost::get);
    are_disclosed(from..to)
}

/// A guard that makes a text the innermost one until it is dropped, also by a panic of the user's
/// code.
struct Text {
    around: Enclosing,
}

impl Text {
    #[inline]
    fn begin(form: BlobForm, blobs: usize) -> Self {
        let around = INNERMOST.with(Innermost::get);
        INNERMOST.with(|innermost| {
            innermost.set(Enclosing { form, from: around.to, to: around.to + blobs, marked: 0 })
        });
        Self { around }
    }
}

impl Drop for Text {
    #[inline]
    fn drop(&mut self) {
        let (from, to) = INNERMOST.with(|innermost| {
            let range = (innermost.from.get(), innermost.to.get());
            innermost.set(self.around);
            range
        });
        if to > from {
            discard_from(from);
        }
    }
}

fn discard_from(from: usize) {
    let blobs = with(|all| all.split_off(from.min(all.len())));
    // Not while the list is in use: the owner of the bytes may be the program's code, which may encode.
    panics::discard(blobs);
}

/// What stands for a blob in what is encoded.
pub(super) enum Encoded {
    Bytes,
    Base64,
    /// It was set aside, with this index.
    Index(usize),
}

/// Whether bytes of this number are set aside by [`enclose`].
#[cfg(feature = "bytemuck")]
pub(super) fn is_long(bytes: usize) -> bool {
    matches!(INNERMOST.with(|innermost| innermost.form.get()), BlobForm::Aside(encoding) if bytes > longest_inline(encoding, false))
}

/// Sets a blob aside if it is long, and says what stands for it.
pub(super) fn enclose(blob: &Blob) -> Encoded {
    let Enclosing { form, from, to, marked } = INNERMOST.with(Innermost::get);
    // The same in each process, and whatever else there is of the blob: what was decoded is compared as it is encoded.
    let gets_segment = || to - from < MOST_IN_SEGMENTS && sealed::is_available();
    match form {
        BlobForm::Aside(encoding)
            if blob.len() > longest_inline(encoding, true)
                && blob.len() > longest_inline(encoding, gets_segment())
                && to - from < MOST
                && has_list() =>
        {
            let enclosed = EnclosedBlob { blob: blob.to_send(), is_disclosed: false };
            with(|all| all.push(enclosed));
            INNERMOST.with(|innermost| {
                innermost.set(Enclosing { form, from, to: to + 1, marked: marked + 1 })
            });
            Encoded::Index(to - from)
        }
        BlobForm::Aside(Encoding::Json) | BlobForm::Inline(Encoding::Json) => {
            INNERMOST
                .with(|innermost| innermost.set(Enclosing { form, from, to, marked: marked + 1 }));
            Encoded::Base64
        }
        _ => Encoded::Bytes,
    }
}

/// A blob that was set aside. It stays in the list, since an untagged enum may decode it for
/// several variants.
pub(super) fn disclose(index: usize) -> Option<Blob> {
    let Enclosing { from, to, .. } = INNERMOST.with(Innermost::get);
    let at = from.checked_add(index).filter(|at| *at < to)?;
    with(|all| {
        let one = all.get_mut(at)?;
        one.is_disclosed = true;
        Some(one.blob.clone())
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_back_and_read(blobs: Vec<Blob>, json: &str) -> (Vec<Blob>, bool) {
        let mut back = Vec::new();
        let read = &mut || back = serde_json::from_str(json).expect("blobs");
        let are_disclosed = put_back(blobs, read);
        (back, are_disclosed)
    }

    #[test]
    fn a_blob_that_is_set_aside_is_an_index_in_the_json() {
        let blobs: Vec<Blob> = [30_000, 3, 40_000].map(|len| vec![7; len].into()).into();
        let (json, enclosed) =
            set_aside(Encoding::Json, || serde_json::to_string(&blobs).expect("JSON"));
        assert_eq!(json, r#"[{"$blob":0},{"$base64":"BwcH"},{"$blob":1}]"#);
        let back = put_back_and_read(enclosed, &json);
        assert_eq!(back, (blobs.clone(), true));
        // A text within a text, as in a `Serialize` implementation that submits a task.
        let (outer, outside) = set_aside(Encoding::Json, || {
            let first = serde_json::to_string(&blobs[0]).expect("JSON");
            let (inner, inside) =
                set_aside(Encoding::Json, || serde_json::to_string(&blobs).expect("JSON"));
            assert_eq!((&inner, inside.len()), (&json, 2));
            let back = put_back_and_read(inside, &inner);
            assert_eq!(back, (blobs.clone(), true));
            first + &serde_json::to_string(&blobs[2]).expect("JSON")
        });
        assert_eq!(outer, r#"{"$blob":0}{"$blob":1}"#);
        assert_eq!(outside, [blobs[0].clone(), blobs[2].clone()]);
        let twice = r#"[{"$blob":0},{"$blob":0}]"#;
        let (_, enclosed) =
            set_aside(Encoding::Json, || serde_json::to_string(&blobs).expect("JSON"));
        let back = put_back_and_read(enclosed, twice);
        assert_eq!(back, (vec![blobs[0].clone(); 2], false));
    }

    /// An owner of bytes that encodes a value when it is dropped.
    struct Encodes(Vec<u8>, std::sync::Arc<std::sync::atomic::AtomicUsize>);

    impl AsRef<[u8]> for Encodes {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Encodes {
        fn drop(&mut self) {
            let blob = Blob::from(vec![1; 40_000]);
            let encode = || serde_json::to_string(&blob).expect("JSON");
            let (_, blobs) = set_aside(Encoding::Json, encode);
            self.1.fetch_add(blobs.len(), std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn an_owner_of_bytes_may_encode_when_it_is_dropped() {
        let encoded = std::sync::Arc::default();
        let owner = Encodes(vec![7; 30_000], std::sync::Arc::clone(&encoded));
        // The last handle is that in the list.
        put_back(vec![Blob::from_owner(owner)], &mut || ());
        assert_eq!(encoded.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert_eq!(ENCLOSED.with_borrow(Vec::len), 0);
    }

    #[test]
    fn a_panic_leaves_no_blobs_in_the_list() {
        let blob = Blob::from(vec![7; 30_000]);
        let _ = panics::catch(|| put_back(vec![blob.clone()], &mut || panic!("while decoding")));
        let _ = panics::catch(|| {
            set_aside(Encoding::Json, || {
                serde_json::to_string(&blob).expect("JSON");
                panic!("while encoding");
            })
        });
        assert_eq!(ENCLOSED.with_borrow(Vec::len), 0);
        assert!(serde_json::to_string(&blob).expect("JSON").starts_with("[7,7,"));
    }
}
