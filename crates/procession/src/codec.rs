//! Encodes tasks for a worker and outputs for the coordinator, and decodes them.
//!
//! A value is decoded equal, or it is refused. Two checks ensure this:
//!
//! | check | by | applies to a value that | costs |
//! |---|---|---|---|
//! | [`check_before_sending`] | writer | has a form that some types do not decode: integers above 64 bits, JSON keys that are not texts, flattened fields, JSON objects that look like blobs | 2 to 3 times the encoding |
//! | [`verified`] | reader | a type inspects to find out what it is: untagged enums and the like; or of which fields are missing | the encoding once |
//!
//! Both also compare the number of blobs, since an object of the text stands for each (`blob.rs`). In JSON a map
//! may look like such an object. A text with such maps is checked before it is sent, and begins with
//! [`HAS_LOOKALIKES`]; in each other JSON text, every such object is a blob.
//!
//! `docs/encodings.md` has the table of what each encoding holds.

mod binary;
mod compound;
mod difference;
mod json;
mod refusal;
mod stack;

use std::borrow::Cow;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

pub(crate) use self::refusal::Refusal;
use self::stack::{NotDecoded, Parsed, SHALLOW, with_enough_stack};
use crate::blob::{self, Blob};
use crate::error::TaskError;
use crate::panics;

/// The encoding of a task and of its output between processes, set by
/// [`Task::ENCODING`](crate::Task::ENCODING).
///
/// A value that the encoding cannot hold is an error
/// ([`TaskError::Unencodable`](crate::TaskError::Unencodable)), which names the field.
///
/// ```
/// use procession::{Context, Encoding, Failure, Task};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Mean(Vec<f64>);
///
/// impl Task for Mean {
///     const NAME: &'static str = "mean";
///     const ENCODING: Encoding = Encoding::Binary; // the mean of nothing is NaN
///     type Output = f64;
///     fn run(self, _: &Context) -> Result<f64, Failure> {
///         Ok(self.0.iter().sum::<f64>() / self.0.len() as f64)
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Encoding {
    /// JSON. All finite numbers are exact. Refused are NaN and infinities, `Some(x)` where `x` is
    /// written as `null`, map keys other than texts, numbers, booleans and variants without data,
    /// and values that are nested more than 127 levels deep.
    #[default]
    Json,
    /// Serde's data model, with a byte before each value that says what it is. It also holds NaN (with its bits) and infinities,
    /// nested options, and map keys of all types. Refused are values that are nested more than 512
    /// levels deep.
    Binary,
}

/// The second byte of a JSON text in which not each object that looks like a blob is one: white space, which
/// JSON may have after its first bracket. The reader compares it with the other bytes.
const HAS_LOOKALIKES: u8 = b' ';

/// A value of any type, which is not decoded.
#[derive(Debug, Serialize)]
pub(crate) struct IgnoredValue;

impl<'de> Deserialize<'de> for IgnoredValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// Appends a value to `out` and returns the blobs that are sent beside it. After a refusal, the
/// appended bytes are to be discarded.
///
/// `Serialize` and `Deserialize` are the user's code. A panic there is a refusal with the panic's
/// message.
pub(crate) fn encode<T: Serialize + DeserializeOwned>(
    encoding: Encoding,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Vec<Blob>, Refusal> {
    let before = out.len();
    let (written, blobs) =
        blob::set_aside(encoding, || panics::catch(|| write(encoding, value, out)));
    if written.unwrap_or_else(|panic| Err(Refusal::new(panic.message)))? {
        check_before_sending(encoding, value, &out[before..], Some(&blobs))?;
    }
    // No blobs, which is usual, are not moved but made anew: that writes constants.
    Ok(if blobs.is_empty() { Vec::new() } else { blobs })
}

/// The same with the bytes of blobs in `out`.
pub(crate) fn encode_without_blobs<T: Serialize + DeserializeOwned>(
    encoding: Encoding,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let before = out.len();
    let written = blob::leave_in_place(encoding, || panics::catch(|| write(encoding, value, out)));
    if written.unwrap_or_else(|panic| Err(Refusal::new(panic.message)))? {
        check_before_sending(encoding, value, &out[before..], None)?;
    }
    Ok(())
}

/// Decodes a value with its blobs. The error is for [`Refusal::into_undecodable`].
pub(crate) fn decode<T: Serialize + DeserializeOwned + Send>(
    encoding: Encoding,
    bytes: &[u8],
    blobs: Vec<Blob>,
) -> Result<T, Refusal> {
    with_enough_stack(blobs, |blobs, deepest| {
        let number = blobs.len();
        let (value, is_doubtful) = parse_with(encoding, bytes, blobs, deepest)?;
        Ok(if is_doubtful { verified(encoding, value, bytes, number)? } else { value })
    })
}

/// The same without blobs. The caller catches panics.
#[inline]
pub(crate) fn read<T: Serialize + DeserializeOwned + Send>(
    encoding: Encoding,
    bytes: &[u8],
) -> Result<T, Refusal> {
    match parse(encoding, bytes, SHALLOW) {
        Ok((value, false)) => Ok(value),
        Ok((value, true)) => verified(encoding, value, bytes, 0),
        Err(NotDecoded::Because(refusal)) => Err(refusal),
        Err(NotDecoded::TooDeep) => decode(encoding, bytes, Vec::new()),
    }
}

/// Decodes a value. The second part of the result says whether the value has to be verified.
fn parse_with<T: DeserializeOwned>(
    encoding: Encoding,
    bytes: &[u8],
    blobs: Vec<Blob>,
    deepest: u32,
) -> Result<(T, bool), NotDecoded> {
    let (parsed, are_disclosed) =
        blob::put_back(blobs, || panics::catch(|| parse(encoding, bytes, deepest)));
    let parsed = parsed.unwrap_or_else(|panic| Err(panic.message.into()))?;
    if !are_disclosed {
        panics::discard(parsed);
        return Err("not all of its blobs were read".to_owned().into());
    }
    Ok(parsed)
}

#[inline]
fn parse<T: DeserializeOwned>(
    encoding: Encoding,
    bytes: &[u8],
    deepest: u32,
) -> Result<(T, bool), NotDecoded> {
    let parsed = match encoding {
        Encoding::Json => json::read(bytes, deepest),
        Encoding::Binary => binary::read(bytes, deepest),
    };
    if parsed.is_too_deep && deepest == SHALLOW {
        // A type may ignore an error and make a value.
        panics::discard(parsed.value);
        return Err(NotDecoded::TooDeep);
    }
    Ok((parsed.value?, parsed.is_doubtful))
}

/// Checks that a decoded value encodes to the same bytes, with as many blobs. A type that inspects the
/// value to find out what it is, such as an untagged enum, may have become another value; a field that was left
/// out may have become a default that it was not.
#[cold]
fn verified<T: Serialize>(
    encoding: Encoding,
    value: T,
    bytes: &[u8],
    blobs: usize,
) -> Result<T, Refusal> {
    let refusal = match rewritten(encoding, &value, blobs > 0) {
        Ok(again) if again.blobs == blobs && is_same(bytes, &again.bytes) => return Ok(value),
        Ok(again) => difference::between(encoding, bytes, &again.bytes),
        Err(refusal) => Some(refusal),
    };
    panics::discard(value);
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

impl Refusal {
    /// The refusal as an error of a task: `what` is "task" or "output".
    pub(crate) fn into_error(self, what: &str, task: &str) -> TaskError {
        let (what, task, field) = (what.to_owned(), task.to_owned(), self.field());
        TaskError::Unencodable { what, task, field, reason: self.into_reason() }
    }

    /// The same for a value that was not read: `task` is empty if it is not known.
    pub(crate) fn into_undecodable(self, what: &str, task: &str) -> TaskError {
        let (what, task, field) = (what.to_owned(), task.to_owned(), self.field());
        TaskError::Undecodable { what, task, field, reason: self.into_reason() }
    }
}

/// Encodes a value, and returns whether it needs [`check_before_sending`].
#[inline]
fn write<T: Serialize>(encoding: Encoding, value: &T, out: &mut Vec<u8>) -> Result<bool, Refusal> {
    match encoding {
        Encoding::Json => {
            let before = out.len();
            let mut writer = json::JsonWriter::new(out);
            value.serialize(&mut writer)?;
            let (is_doubtful, marks) = (writer.is_doubtful, writer.marks);
            if marks == blob::marked() {
                return Ok(is_doubtful);
            }
            if marks > 0 {
                out.insert(before + 1, HAS_LOOKALIKES);
            }
            Ok(true)
        }
        // The reader knows the number of blobs that were set aside, and others are bytes.
        Encoding::Binary => {
            let mut writer = binary::BinaryWriter::new(out);
            value.serialize(&mut writer)?;
            Ok(writer.is_doubtful)
        }
    }
}

/// Decodes what was written, and refuses it if the result is an error or another value. For values
/// that some types cannot decode: integers above 64 bits or map keys that are numbers, inside an
/// internally tagged enum; an optional struct that is flattened; a map that looks like a blob. `blobs`
/// is `None` if their bytes are in `written`.
#[cold]
fn check_before_sending<T: Serialize + DeserializeOwned>(
    encoding: Encoding,
    value: &T,
    written: &[u8],
    blobs: Option<&[Blob]>,
) -> Result<(), Refusal> {
    let is_beside = blobs.is_some();
    let read_again = |blobs: Vec<Blob>, deepest| {
        let (back, _): (T, bool) = parse_with(encoding, written, blobs, deepest)?;
        let again = in_kinds(&back, is_beside);
        panics::discard(back);
        Ok(again)
    };
    let again = with_enough_stack(blobs.unwrap_or_default().to_vec(), read_again)
        .map_err(|why| why.map_reason(|why| format!("it would not be read back: {why}")))??;
    let (bytes, number) = match encoding {
        Encoding::Binary => (Cow::Borrowed(written), blobs.map_or(0, <[Blob]>::len)),
        // In JSON, keys 1 and "1" are the same bytes, and so may be a blob and a map.
        Encoding::Json => {
            let right = in_kinds(value, blobs.is_some())?;
            (Cow::Owned(right.bytes), right.blobs)
        }
    };
    if number == again.blobs && is_same(&bytes, &again.bytes) {
        return Ok(());
    }
    let found = difference::between(Encoding::Binary, &bytes, &again.bytes);
    Err(another_value("would be", encoding, found))
}

/// A value that was encoded once more, for a comparison.
struct Rewritten {
    bytes: Vec<u8>,
    /// The number of blobs that were set aside.
    blobs: usize,
}

/// Encodes a value with the kind of each part.
fn in_kinds<T: Serialize>(value: &T, with_blobs: bool) -> Result<Rewritten, Refusal> {
    rewritten(Encoding::Binary, value, with_blobs)
}

/// Encodes a value without further checks.
fn rewritten<T: Serialize>(
    encoding: Encoding,
    value: &T,
    with_blobs: bool,
) -> Result<Rewritten, Refusal> {
    let mut bytes = Vec::new();
    let write = || panics::catch(|| write(encoding, value, &mut bytes));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Buffered {
        raw: Box<RawValue>,
        any: serde_json::Value,
        /// With keys that are checked before sending.
        numbers: BTreeMap<u64, f64>,
        blob: Blob,
    }

    #[test]
    fn verified_values_are_equal_with_blobs_beside_or_inside_their_bytes() {
        let value = Buffered {
            raw: RawValue::from_string(r#"{ "a":[1 , 2.50]}"#.to_owned()).expect("JSON"),
            any: serde_json::json!({"b": [u64::MAX, -1, 0.1, null, "x"]}),
            numbers: [(1, 0.5), (u64::MAX, -0.0)].into(),
            blob: vec![7; 40_000].into(),
        };
        for encoding in [Encoding::Json, Encoding::Binary] {
            let (mut beside, mut inside) = (Vec::new(), Vec::new());
            let blobs = encode(encoding, &value, &mut beside).expect("encoded");
            encode_without_blobs(encoding, &value, &mut inside).expect("encoded");
            assert!(blobs.len() == 1 && beside.len() + 200 < inside.len());
            for (bytes, blobs) in [(beside, blobs), (inside, Vec::new())] {
                let back: Buffered = decode(encoding, &bytes, blobs).expect("decoded");
                assert_eq!(back.raw.get(), value.raw.get());
                assert_eq!((back.any, back.numbers), (value.any.clone(), value.numbers.clone()));
                assert_eq!(back.blob, value.blob);
            }
        }
    }

    /// Types whose fields are read by other names than they are written.
    #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
    enum Misnamed {
        Renamed {
            #[serde(rename(serialize = "sent"), default)]
            number: u8,
        },
        NotRead {
            #[serde(skip_deserializing)]
            number: u8,
            other: u8,
        },
    }

    #[test]
    fn a_field_that_is_not_read_is_no_other_value_in_silence() {
        let each = |number| [Misnamed::Renamed { number }, Misnamed::NotRead { number, other: 1 }];
        for encoding in [Encoding::Json, Encoding::Binary] {
            let back = |value: &Misnamed| {
                let mut bytes = Vec::new();
                encode(encoding, value, &mut bytes).expect("encoded");
                decode::<IgnoredValue>(encoding, &bytes, Vec::new()).expect("ignored");
                decode::<Misnamed>(encoding, &bytes, Vec::new())
            };
            for value in each(0) {
                assert_eq!(back(&value).ok(), Some(value));
            }
            for value in each(3) {
                assert!(back(&value).is_err(), "{encoding:?}: {value:?} became {:?}", back(&value));
            }
        }
    }

    /// Variants that are read as another one, and one that is read as itself.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Named {
        #[serde(alias = "former")]
        Known(u8),
        #[serde(skip_deserializing)]
        NotRead,
        #[serde(skip_deserializing)]
        NotReadWithData(()),
        #[serde(rename(serialize = "sent", deserialize = "received"))]
        Renamed,
        #[serde(other)]
        Other,
    }

    #[test]
    fn a_variant_that_is_not_read_is_no_other_value_in_silence() {
        for encoding in [Encoding::Json, Encoding::Binary] {
            let back = |values: Vec<Named>| {
                let mut bytes = Vec::new();
                encode(encoding, &values, &mut bytes).expect("encoded");
                decode::<Vec<Named>>(encoding, &bytes, Vec::new())
            };
            let known = vec![Named::Known(1), Named::Other];
            assert_eq!(back(known.clone()).ok(), Some(known));
            for value in [Named::NotRead, Named::NotReadWithData(()), Named::Renamed] {
                let back = back(vec![value.clone()]);
                assert!(back.is_err(), "{encoding:?}: {value:?} became {back:?}");
            }
        }
    }
}
