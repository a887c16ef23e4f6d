//! Encodes tasks for a worker and outputs for the coordinator, and decodes them.
//!
//! A value is decoded equal, or it is refused. Two checks ensure this:
//!
//! | check | by | applies to a value that | costs |
//! |---|---|---|---|
//! | [`checks::check_before_sending`] | writer | has a form that some types do not decode: integers above 64 bits, JSON keys that are not texts, flattened fields, JSON objects that look like blobs | 2 to 3 times the encoding |
//! | [`verify`] | reader | a type inspects to find out what it is: untagged enums and the like; or of which fields are missing | the encoding once |
//!
//! Both also compare the number of blobs, since an object of the text stands for each (`blob.rs`). In JSON a map
//! may look like such an object. A text with such maps is checked before it is sent, and begins with
//! [`HAS_LOOKALIKES`]; in each other JSON text, every such object is a blob.
//!
//! `docs/encodings.md` has the table of what each encoding holds.

mod binary;
mod checks;
mod compound;
mod difference;
mod erased;
mod json;
mod refusal;
mod stack;
mod typed_encoding;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

use self::checks::verify;
use self::erased::{DecodeTarget, EncodeSource, ValueSource, ValueTarget};
pub(crate) use self::refusal::Refusal;
use self::stack::{NotDecoded, Parsed, SHALLOW, with_enough_stack};
pub(crate) use self::typed_encoding::{BinaryEncoding, JsonEncoding, TypedEncoding, with_encoding};
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
#[inline]
pub(crate) fn encode<F: TypedEncoding, T: Serialize + DeserializeOwned>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Vec<Blob>, Refusal> {
    encode_source(&ValueSource::<F, T>::new(value), out)
}

fn encode_source(source: &dyn EncodeSource, out: &mut Vec<u8>) -> Result<Vec<Blob>, Refusal> {
    let before = out.len();
    let write = || panics::catch(|| source.write(out));
    let (written, blobs) = blob::set_aside(source.encoding(), write);
    if written.unwrap_or_else(|panic| Err(Refusal::new(panic.message)))? {
        source.check(&out[before..], Some(&blobs))?;
    }
    // No blobs, which is usual, are not moved but made anew: that writes constants.
    Ok(if blobs.is_empty() { Vec::new() } else { blobs })
}

/// The same with the bytes of blobs in `out`.
#[inline]
pub(crate) fn encode_without_blobs<F: TypedEncoding, T: Serialize + DeserializeOwned>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    encode_source_without_blobs(&ValueSource::<F, T>::new(value), out)
}

fn encode_source_without_blobs(
    source: &dyn EncodeSource,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let before = out.len();
    let write = || panics::catch(|| source.write(out));
    let written = blob::leave_in_place(source.encoding(), write);
    if written.unwrap_or_else(|panic| Err(Refusal::new(panic.message)))? {
        source.check(&out[before..], None)?;
    }
    Ok(())
}

/// Decodes a value with its blobs. The error is for [`Refusal::into_undecodable`].
#[inline]
pub(crate) fn decode<F: TypedEncoding, T: Serialize + DeserializeOwned + Send>(
    bytes: &[u8],
    blobs: Vec<Blob>,
) -> Result<T, Refusal> {
    let mut target = ValueTarget::<F, T>::default();
    decode_into(&mut target, bytes, blobs)?;
    Ok(target.value.expect("it was decoded"))
}

fn decode_into(
    target: &mut (dyn DecodeTarget + Send),
    bytes: &[u8],
    blobs: Vec<Blob>,
) -> Result<(), Refusal> {
    let number = blobs.len();
    with_enough_stack(blobs, &mut |blobs, deepest| {
        if parse_with(target, bytes, blobs, deepest)? {
            verify(target, bytes, number)?;
        }
        Ok(())
    })
}

/// A function that decodes a value in this encoding, with its blobs.
pub(crate) type DecodeOutput<T> = fn(Encoding, &[u8], Vec<Blob>) -> Result<T, Refusal>;

/// Decodes a value that must be in one encoding.
pub(crate) fn decode_only<F: TypedEncoding, T: Serialize + DeserializeOwned + Send>(
    encoding: Encoding,
    bytes: &[u8],
    blobs: Vec<Blob>,
) -> Result<T, Refusal> {
    if encoding != F::ENCODING {
        return Err(other_encoding(F::ENCODING, encoding));
    }
    decode::<F, T>(bytes, blobs)
}

#[cold]
fn other_encoding(wanted: Encoding, found: Encoding) -> Refusal {
    Refusal::new(format!("it is in the encoding {found:?}, not {wanted:?}"))
}

/// The same in an encoding that is not known when the program is compiled.
pub(crate) fn decode_in<T: Serialize + DeserializeOwned + Send>(
    encoding: Encoding,
    bytes: &[u8],
    blobs: Vec<Blob>,
) -> Result<T, Refusal> {
    match encoding {
        Encoding::Json => decode::<JsonEncoding, T>(bytes, blobs),
        Encoding::Binary => decode::<BinaryEncoding, T>(bytes, blobs),
    }
}

/// The same without blobs. The caller catches panics.
#[inline]
pub(crate) fn read<F: TypedEncoding, T: Serialize + DeserializeOwned + Send>(
    bytes: &[u8],
) -> Result<T, Refusal> {
    let Parsed { value, is_doubtful, is_too_deep } = F::parse(bytes, SHALLOW);
    match value {
        Ok(value) if !is_doubtful && !is_too_deep => Ok(value),
        Err(error) if !is_too_deep => Err(Refusal::new(error)),
        value => {
            let mut target = ValueTarget::<F, T>::of(value.ok());
            check_or_read_again(&mut target, is_too_deep, bytes)?;
            Ok(target.value.expect("it was decoded"))
        }
    }
}

/// For the few values that have to be verified, or need more stack to be read.
#[cold]
fn check_or_read_again(
    target: &mut (dyn DecodeTarget + Send),
    is_too_deep: bool,
    bytes: &[u8],
) -> Result<(), Refusal> {
    if !is_too_deep {
        return verify(target, bytes, 0);
    }
    target.discard();
    decode_into(target, bytes, Vec::new())
}

/// Decodes a value. The result says whether the value has to be verified. After an error there is none.
fn parse_with(
    target: &mut dyn DecodeTarget,
    bytes: &[u8],
    blobs: Vec<Blob>,
    deepest: u32,
) -> Result<bool, NotDecoded> {
    let mut parsed = None;
    let are_disclosed = blob::put_back(blobs, &mut || {
        parsed = Some(panics::catch(|| target.parse(bytes, deepest)));
    });
    let Parsed { value, is_doubtful, is_too_deep } = match parsed.expect("it was parsed") {
        Ok(parsed) => parsed,
        Err(panic) => return Err(panic.message.into()),
    };
    if is_too_deep && deepest == SHALLOW {
        // A type may ignore an error and make a value.
        target.discard();
        return Err(NotDecoded::TooDeep);
    }
    value?;
    if !are_disclosed {
        target.discard();
        return Err("not all of its blobs were read".to_owned().into());
    }
    Ok(is_doubtful)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::typed_encoding::{encode_in, encode_without_blobs_in};
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
            let blobs = encode_in(encoding, &value, &mut beside).expect("encoded");
            encode_without_blobs_in(encoding, &value, &mut inside).expect("encoded");
            assert!(blobs.len() == 1 && beside.len() + 200 < inside.len());
            for (bytes, blobs) in [(beside, blobs), (inside, Vec::new())] {
                let back: Buffered = decode_in(encoding, &bytes, blobs).expect("decoded");
                assert_eq!(back.raw.get(), value.raw.get());
                assert_eq!((back.any, back.numbers), (value.any.clone(), value.numbers.clone()));
                assert_eq!(back.blob, value.blob);
            }
        }
    }

    /// Is written by the name of a type whose only field is JSON text, but its field is a number.
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(rename = "$serde_json::private::RawValue")]
    struct NoText<T> {
        field: T,
    }

    #[test]
    fn only_a_text_is_written_as_it_is() {
        let refused = [
            encode_in(Encoding::Json, &NoText { field: 1 }, &mut Vec::new()),
            encode_in(Encoding::Json, &NoText { field: true }, &mut Vec::new()),
            encode_in(Encoding::Json, &NoText { field: 0.5 }, &mut Vec::new()),
            encode_in(Encoding::Json, &NoText { field: [0] }, &mut Vec::new()),
        ];
        assert!(refused.iter().all(Result::is_err), "{refused:?}");
        let mut text = Vec::new();
        encode_in(Encoding::Json, &NoText { field: "{}".to_owned() }, &mut text).expect("encoded");
        assert_eq!(text, b"{}");
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
                encode_in(encoding, value, &mut bytes).expect("encoded");
                decode_in::<IgnoredValue>(encoding, &bytes, Vec::new()).expect("ignored");
                decode_in::<Misnamed>(encoding, &bytes, Vec::new())
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
                encode_in(encoding, &values, &mut bytes).expect("encoded");
                decode_in::<Vec<Named>>(encoding, &bytes, Vec::new())
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
