//! How values become bytes and are read back: tasks on their way to a worker, and outputs on
//! their way back. A value is read back equal, or it is refused before it is sent.

mod binary;
mod json;
mod refusal;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::refusal::Refusal;
use crate::blob::{self, Blob};
use crate::error::TaskError;
use crate::guard;

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
    let (written, blobs) = blob::set_aside(|| guard::catch(|| write(encoding, value, out)));
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
    let written = guard::catch(|| write(encoding, value, out));
    if written.unwrap_or_else(|panic| Err(Refusal::new(panic.message)))? {
        look_again(encoding, value, &out[before..], None)?;
    }
    Ok(())
}

/// Reads a value back. The error says why that is not possible.
pub(crate) fn decode<T: DeserializeOwned>(
    encoding: Encoding,
    bytes: &[u8],
    blobs: Vec<Blob>,
) -> Result<T, String> {
    blob::put_back(blobs, || guard::catch(|| read(encoding, bytes)))
        .unwrap_or_else(|panic| Err(panic.message))
}

/// The same where there are no blobs and panics are caught by the caller.
#[inline]
pub(crate) fn read<T: DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Result<T, String> {
    match encoding {
        Encoding::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
        Encoding::Binary => binary::read(bytes).map_err(|error| error.to_string()),
    }
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
    let back: T = decode(encoding, written, blobs.unwrap_or_default().to_vec())
        .map_err(|error| Refusal::new(format!("it would not be read back: {error}")))?;
    let again = in_kinds(&back, blobs.is_some());
    guard::discard(back);
    let again = again?;
    let is_same = match encoding {
        Encoding::Binary => is_same(written, &again),
        // In JSON a key that is a number and one that is a text are the same.
        Encoding::Json => is_same(&in_kinds(value, blobs.is_some())?, &again),
    };
    if is_same { Ok(()) } else { Err(Refusal::new("it would be read back as another value")) }
}

/// A value in the binary encoding, in which each value says of which kind it is.
fn in_kinds<T: Serialize>(value: &T, with_blobs: bool) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let mut write = || guard::catch(|| self::write(Encoding::Binary, value, &mut bytes));
    let written = if with_blobs { blob::set_aside(write).0 } else { write() };
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
