//! The two checks that a value is decoded equal: [`check_before_sending`] and [`verify`]. Both encode it again.

use std::borrow::Cow;

use super::erased::{DecodeTarget, EncodeSource};
use super::stack::{NotDecoded, with_enough_stack};
use super::{Encoding, Refusal, difference, parse_with};
use crate::blob::{self, Blob};
use crate::panics;

/// Checks that a decoded value encodes to the same bytes, with as many blobs. A type that inspects the
/// value to find out what it is, such as an untagged enum, may have become another value; a field that was left
/// out may have become a default that it was not. After an error the target has no value.
#[cold]
pub(super) fn verify(
    target: &mut dyn DecodeTarget,
    bytes: &[u8],
    blobs: usize,
) -> Result<(), Refusal> {
    let again = rewritten(target.encoding(), blobs > 0, &|out| target.write(out));
    let compared = compare(target.encoding(), bytes, blobs, again);
    if compared.is_err() {
        target.discard();
    }
    compared
}

/// Compares a value that was encoded again with the bytes from which it was decoded.
fn compare(
    encoding: Encoding,
    bytes: &[u8],
    blobs: usize,
    again: Result<Rewritten, Refusal>,
) -> Result<(), Refusal> {
    let refusal = match again {
        Ok(again) if again.blobs == blobs && is_same(bytes, &again.bytes) => return Ok(()),
        Ok(again) => difference::between(encoding, bytes, &again.bytes),
        Err(refusal) => Some(refusal),
    };
    Err(another_value("was", encoding, refusal))
}

/// The error of a value that `verb` ("was", "would be") read back as another one, with the path of the part that
/// differs and how, if that is known.
#[cold]
fn another_value(verb: &str, encoding: Encoding, found: Option<Refusal>) -> Refusal {
    let (name, way_out) = match encoding {
        Encoding::Json => ("JSON", ", or try Encoding::Binary"),
        Encoding::Binary => ("the binary encoding", ""),
    };
    let about = |how: &str| {
        format!(
            "in {name} it {verb} read back as another value{how}. An untagged enum takes its first variant that \
             fits, and a field that was left out its default: put the right variant first, or tag the enum, send \
             the field{way_out}"
        )
    };
    match found {
        Some(found) => found.map_reason(|how| about(&format!(" ({how})"))),
        None => Refusal::new(about("")),
    }
}

/// Decodes what was written, and refuses it if the result is an error or another value. For values
/// that some types cannot decode: integers above 64 bits or map keys that are numbers, inside an
/// internally tagged enum; an optional struct that is flattened; a map that looks like a blob. `blobs`
/// is `None` if their bytes are in `written`.
#[cold]
pub(super) fn check_before_sending(
    source: &dyn EncodeSource,
    written: &[u8],
    blobs: Option<&[Blob]>,
    with_target: &WithTarget<'_>,
) -> Result<(), Refusal> {
    let is_beside = blobs.is_some();
    let blobs = blobs.unwrap_or_default();
    let mut again = None;
    with_enough_stack(blobs.to_vec(), &mut |mut blobs, deepest| {
        again = Some(with_target(&mut |target| {
            parse_with(target, written, std::mem::take(&mut blobs), deepest)?;
            let again = rewritten(Encoding::Binary, is_beside, &|out| target.write_kinds(out));
            target.discard();
            Ok(again)
        })?);
        Ok(())
    })
    .map_err(|why| why.map_reason(|why| format!("it would not be read back: {why}")))?;
    let again = again.expect("there was no refusal")?;
    let (bytes, number) = match source.encoding() {
        Encoding::Binary => (Cow::Borrowed(written), blobs.len()),
        // In JSON, keys 1 and "1" are the same bytes, and so may be a blob and a map.
        Encoding::Json => {
            let right = rewritten(Encoding::Binary, is_beside, &|out| source.write_kinds(out))?;
            (Cow::Owned(right.bytes), right.blobs)
        }
    };
    if number == again.blobs && is_same(&bytes, &again.bytes) {
        return Ok(());
    }
    let found = difference::between(Encoding::Binary, &bytes, &again.bytes);
    Err(another_value("would be", source.encoding(), found))
}

/// The result of reading a value and encoding it again.
type Rewriting = Result<Result<Rewritten, Refusal>, NotDecoded>;

/// Passes a new target to a function. It is made in the thread that reads, since the value may be one that no other
/// thread may have.
pub(super) type WithTarget<'a> =
    dyn Fn(&mut dyn FnMut(&mut dyn DecodeTarget) -> Rewriting) -> Rewriting + Sync + 'a;

/// A value that was encoded once more, for a comparison.
pub(super) struct Rewritten {
    pub(super) bytes: Vec<u8>,
    /// The number of blobs that were set aside.
    blobs: usize,
}

/// What `write` writes, without further checks.
pub(super) fn rewritten(
    encoding: Encoding,
    with_blobs: bool,
    write: &dyn Fn(&mut Vec<u8>) -> Result<bool, Refusal>,
) -> Result<Rewritten, Refusal> {
    let mut bytes = Vec::new();
    let write = || panics::catch(|| write(&mut bytes));
    let (written, blobs) = if with_blobs {
        blob::set_aside(encoding, write)
    } else {
        (blob::leave_in_place(encoding, write), Vec::new())
    };
    written.unwrap_or_else(|panic| Err(Refusal::new(panic.message)))?;
    Ok(Rewritten { bytes, blobs: blobs.len() })
}

/// Whether two encodings are of the same value. Entries of a hash map may have another order, so
/// the frequencies of bytes are compared where the bytes differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one == other || frequencies(one) == frequencies(other)
}

/// How often each byte occurs.
fn frequencies(bytes: &[u8]) -> [usize; 256] {
    let mut all = [0; 256];
    bytes.iter().for_each(|byte| all[usize::from(*byte)] += 1);
    all
}
