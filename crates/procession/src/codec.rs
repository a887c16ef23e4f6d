//! How values become bytes and are read back: tasks on their way to a worker, and outputs on
//! their way back. A value is read back equal, or it is refused before it is sent; where only the
//! reader can see that it is not equal, the reader gives an error.

mod binary;
mod json;
mod refusal;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::refusal::Refusal;
use crate::blob::{self, Blob};
use crate::error::TaskError;
use crate::panics;

/// How a task and its output are written when they cross the border of a process; see
/// [`Task::ENCODING`](crate::Task::ENCODING).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// JSON, exact in every number. What JSON cannot hold is refused with an error: NaN and
    /// infinities, `Some(x)` where `x` is written as `null`, and map keys that are neither texts,
    /// numbers, booleans nor variants without data.
    #[default]
    Json,
    /// A compact form of serde's own data model, which holds all of that as well: floats by their
    /// bits, nested options, and maps with keys of every type.
    Binary,
}

/// Appends a value. Where it is refused, what was appended is of no use.
///
/// `Serialize` and `Deserialize` are the user's code: what they panic with is a refusal.
pub(crate) fn encode<T: Serialize + DeserializeOwned>(
    encoding: Encoding,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Vec<Blob>, Refusal> {
    let before = out.len();
    let (written, blobs) = blob::set_aside(|| panics::catch(|| write(encoding, value, out)));
    if written.unwrap_or_else(|panic| Err(Refusal::new(panic.message)))? {
        look_again(encoding, value, &out[before..], Some(&blobs))?;
    }
    Ok(blobs)
}

/// The same with blobs in the text, as any other bytes.
pub(crate) fn encode_without_blobs<T: Serialize + DeserializeOwned>(
    encoding: Encoding,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let before = out.len();
    let written = blob::leave_in_place(|| panics::catch(|| write(encoding, value, out)));
    if written.unwrap_or_else(|panic| Err(Refusal::new(panic.message)))? {
        look_again(encoding, value, &out[before..], None)?;
    }
    Ok(())
}

/// Reads a value back. The error says why that is not possible.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(
    encoding: Encoding,
    bytes: &[u8],
    blobs: Vec<Blob>,
) -> Result<T, String> {
    let has_blobs = !blobs.is_empty();
    let (value, is_doubtful) = parse_with(encoding, bytes, blobs)?;
    if is_doubtful { verified(encoding, value, bytes, has_blobs) } else { Ok(value) }
}

/// The same where there are no blobs and panics are caught by the caller.
#[inline]
pub(crate) fn read<T: Serialize + DeserializeOwned>(
    encoding: Encoding,
    bytes: &[u8],
) -> Result<T, String> {
    let (value, is_doubtful) = parse(encoding, bytes)?;
    if is_doubtful { verified(encoding, value, bytes, false) } else { Ok(value) }
}

/// Reads a value whose blobs were set aside, and says whether it may be another than the one that
/// was written.
fn parse_with<T: DeserializeOwned>(
    encoding: Encoding,
    bytes: &[u8],
    blobs: Vec<Blob>,
) -> Result<(T, bool), String> {
    blob::put_back(blobs, || panics::catch(|| parse(encoding, bytes)))
        .unwrap_or_else(|panic| Err(panic.message))
}

#[inline]
fn parse<T: DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Result<(T, bool), String> {
    match encoding {
        Encoding::Json => json::read(bytes).map_err(|error| error.to_string()),
        Encoding::Binary => binary::read(bytes).map_err(|error| error.to_string()),
    }
}

/// A type that finds out from a value what it is, such as an untagged enum, may take it for
/// something else. That is seen only by the one who reads it: what was read must be written as the
/// same bytes.
#[cold]
fn verified<T: Serialize>(
    encoding: Encoding,
    value: T,
    bytes: &[u8],
    has_blobs: bool,
) -> Result<T, String> {
    let reason = match rewritten(encoding, &value, has_blobs) {
        Ok(again) if is_same(bytes, &again) => return Ok(value),
        Ok(_) => "it was read back as another value".to_owned(),
        Err(refusal) => format!("it was read back as another value: {refusal}"),
    };
    panics::discard(value);
    Err(reason)
}

impl Refusal {
    /// The error of a task whose encoding ended like this.
    pub(crate) fn into_error(self, what: &str, task: &str) -> TaskError {
        let (what, task, field) = (what.to_owned(), task.to_owned(), self.field());
        TaskError::Unencodable { what, task, field, reason: self.into_reason() }
    }
}

/// Says whether what was written has to be looked at once more.
#[inline]
fn write<T: Serialize>(encoding: Encoding, value: &T, out: &mut Vec<u8>) -> Result<bool, Refusal> {
    match encoding {
        Encoding::Json => {
            let mut writer = json::Writer::new(out);
            value.serialize(&mut writer)?;
            Ok(writer.is_doubtful)
        }
        Encoding::Binary => {
            let mut writer = binary::Writer::new(out);
            value.serialize(&mut writer)?;
            Ok(writer.is_doubtful)
        }
    }
}

/// Some values can be written and are then not read back, or read back as another value, for
/// reasons that only the type knows: integers above 64 bits, or map keys that are numbers, inside
/// of an enum with an internal tag; an optional struct that is flattened. Where such a thing was
/// written, the value is read here before it is sent. There are no blobs where they were written
/// as other bytes.
#[cold]
fn look_again<T: Serialize + DeserializeOwned>(
    encoding: Encoding,
    value: &T,
    written: &[u8],
    blobs: Option<&[Blob]>,
) -> Result<(), Refusal> {
    let (back, _): (T, bool) = parse_with(encoding, written, blobs.unwrap_or_default().to_vec())
        .map_err(|error| Refusal::new(format!("it would not be read back: {error}")))?;
    let again = in_kinds(&back, blobs.is_some());
    panics::discard(back);
    let again = again?;
    let is_same = match encoding {
        Encoding::Binary => is_same(written, &again),
        // In JSON a key that is a number and one that is a text are the same.
        Encoding::Json => is_same(&in_kinds(value, blobs.is_some())?, &again),
    };
    if is_same { Ok(()) } else { Err(Refusal::new("it would be read back as another value")) }
}

/// A value in the encoding in which each value says of which kind it is.
fn in_kinds<T: Serialize>(value: &T, with_blobs: bool) -> Result<Vec<u8>, Refusal> {
    rewritten(Encoding::Binary, value, with_blobs)
}

/// A value as bytes for a comparison.
fn rewritten<T: Serialize>(
    encoding: Encoding,
    value: &T,
    with_blobs: bool,
) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let write = || panics::catch(|| write(encoding, value, &mut bytes));
    let written = if with_blobs { blob::set_aside(write).0 } else { blob::leave_in_place(write) };
    written.unwrap_or_else(|panic| Err(Refusal::new(panic.message)))?;
    Ok(bytes)
}

/// Whether both are of the same value. The entries of a hash map may come in another order.
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
        /// Read again before it is sent.
        numbers: BTreeMap<u64, f64>,
        blob: Blob,
    }

    #[test]
    fn what_is_read_and_verified_is_equal_with_blobs_set_aside_or_in_the_text() {
        let value = Buffered {
            raw: RawValue::from_string(r#"{ "a":[1 , 2.50]}"#.to_owned()).expect("JSON"),
            any: serde_json::json!({"b": [u64::MAX, -1, 0.1, null, "x"]}),
            numbers: [(1, 0.5), (u64::MAX, -0.0)].into(),
            blob: vec![7; 300].into(),
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
}
