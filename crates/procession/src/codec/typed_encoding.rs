//! The encodings as types: a task has one of them, and the code for the other one is not compiled for it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Encoding, HAS_LOOKALIKES, Parsed, Refusal, binary, json};
use crate::blob;

/// An encoding that is known when the program is compiled.
pub(crate) trait TypedEncoding {
    const ENCODING: Encoding;

    /// Encodes a value, and returns whether it needs [`check_before_sending`](super::checks::check_before_sending).
    fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<bool, Refusal>;

    /// Decodes one value, which must use all bytes, if it is nested no deeper than `deepest`.
    fn parse<T: DeserializeOwned>(bytes: &[u8], deepest: u32) -> Parsed<T>;
}

/// [`Encoding::Json`].
pub(crate) enum JsonEncoding {}

/// [`Encoding::Binary`].
pub(crate) enum BinaryEncoding {}

impl TypedEncoding for JsonEncoding {
    const ENCODING: Encoding = Encoding::Json;

    #[inline]
    fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<bool, Refusal> {
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

    #[inline]
    fn parse<T: DeserializeOwned>(bytes: &[u8], deepest: u32) -> Parsed<T> {
        json::read(bytes, deepest)
    }
}

impl TypedEncoding for BinaryEncoding {
    const ENCODING: Encoding = Encoding::Binary;

    // The reader knows the number of blobs that were set aside, and others are bytes.
    #[inline]
    fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        let mut writer = binary::BinaryWriter::new(out);
        value.serialize(&mut writer)?;
        Ok(writer.is_doubtful)
    }

    #[inline]
    fn parse<T: DeserializeOwned>(bytes: &[u8], deepest: u32) -> Parsed<T> {
        binary::read(bytes, deepest)
    }
}

/// Evaluates an expression with the type `$form` of an encoding that is constant. The compiler translates only that one.
macro_rules! with_encoding {
    ($encoding:expr, $form:ident => $value:expr) => {
        if const { matches!($encoding, $crate::Encoding::Json) } {
            type $form = $crate::codec::JsonEncoding;
            $value
        } else {
            type $form = $crate::codec::BinaryEncoding;
            $value
        }
    };
}
pub(crate) use with_encoding;

#[cfg(test)]
pub(super) use tests::{encode_in, encode_without_blobs_in, read_in};

#[cfg(test)]
mod tests {
    use super::super::{encode, encode_without_blobs, read};
    use super::*;
    use crate::blob::Blob;

    pub(in crate::codec) fn encode_in<T: Serialize + DeserializeOwned>(
        encoding: Encoding,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<Vec<Blob>, Refusal> {
        match encoding {
            Encoding::Json => encode::<JsonEncoding, T>(value, out),
            Encoding::Binary => encode::<BinaryEncoding, T>(value, out),
        }
    }

    pub(in crate::codec) fn encode_without_blobs_in<T: Serialize + DeserializeOwned>(
        encoding: Encoding,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        match encoding {
            Encoding::Json => encode_without_blobs::<JsonEncoding, T>(value, out),
            Encoding::Binary => encode_without_blobs::<BinaryEncoding, T>(value, out),
        }
    }

    pub(in crate::codec) fn read_in<T: Serialize + DeserializeOwned + Send>(
        encoding: Encoding,
        bytes: &[u8],
    ) -> Result<T, Refusal> {
        match encoding {
            Encoding::Json => read::<JsonEncoding, T>(bytes),
            Encoding::Binary => read::<BinaryEncoding, T>(bytes),
        }
    }
}
