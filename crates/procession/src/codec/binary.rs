//! The binary encoding: serde's data model, with the kind of each value. So types that inspect a
//! value before they decode it (untagged, internally tagged, flattened) work.
//!
//! A value is one byte for its kind, and its contents:
//!
//! | kinds | contents |
//! |---|---|
//! | unit, none, false, true | - |
//! | some | a value |
//! | u8, i8 | 1 byte |
//! | u16 to u128, char, lengths | groups of 7 bits, lowest first; bit 7 is set if another group follows |
//! | i16 to i128 | zigzag, then as unsigned |
//! | f32, f64 | the bits, little-endian |
//! | str, bytes, unit variant (its name) | length, bytes |
//! | seq, map (and structs) | number of elements or entries (4 bytes, little-endian), values |
//! | variant | length of its name, name, value |

mod read;
mod write;

use serde::de::DeserializeOwned;

pub(super) use self::write::BinaryWriter;

/// The deepest nesting. Deeper values could overflow the stack of the thread that decodes them.
const DEEPEST: u32 = 512;

/// The first byte of a value.
mod kind {
    pub(super) const UNIT: u8 = 0;
    pub(super) const NONE: u8 = 1;
    pub(super) const SOME: u8 = 2;
    pub(super) const FALSE: u8 = 3;
    pub(super) const TRUE: u8 = 4;
    pub(super) const U8: u8 = 5;
    pub(super) const U16: u8 = 6;
    pub(super) const U32: u8 = 7;
    pub(super) const U64: u8 = 8;
    pub(super) const U128: u8 = 9;
    pub(super) const I8: u8 = 10;
    pub(super) const I16: u8 = 11;
    pub(super) const I32: u8 = 12;
    pub(super) const I64: u8 = 13;
    pub(super) const I128: u8 = 14;
    pub(super) const F32: u8 = 15;
    pub(super) const F64: u8 = 16;
    pub(super) const CHAR: u8 = 17;
    pub(super) const STR: u8 = 18;
    pub(super) const BYTES: u8 = 19;
    pub(super) const SEQ: u8 = 20;
    pub(super) const MAP: u8 = 21;
    /// A name.
    pub(super) const UNIT_VARIANT: u8 = 22;
    /// A name and a value.
    pub(super) const VARIANT: u8 = 23;
}

/// Decodes one value, which must use all bytes. The second part of the result says whether it has
/// to be verified.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, bool), read::Malformed> {
    let mut reader = read::ByteReader::new(bytes);
    let value = T::deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, reader.is_doubtful))
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    type Value = (Option<Option<i128>>, Vec<(char, f32)>, Result<String, u64>, serde_json::Value);

    #[test]
    fn malformed_bytes_are_an_error_and_never_a_panic() {
        let value: Value = (
            Some(None),
            vec![('ü', -0.0)],
            Ok("x".to_owned()),
            serde_json::json!({"a": [1, null]}),
        );
        let mut bytes = Vec::new();
        value.serialize(&mut BinaryWriter::new(&mut bytes)).expect("written");
        assert_eq!(read::<Value>(&bytes).expect("read").0, value);
        for end in 0..bytes.len() {
            assert!(read::<Value>(&bytes[..end]).is_err(), "cut at {end}");
        }
        // A changed byte makes another value or an error.
        for at in 0..bytes.len() {
            for byte in 0..=255 {
                let mut changed = bytes.clone();
                changed[at] = byte;
                let _ = read::<Value>(&changed);
                let _ = read::<serde_json::Value>(&changed);
            }
        }
        assert!(read::<serde_json::Value>(&[kind::SOME; 100_000]).is_err(), "too deep");
        assert!(
            read::<Vec<u8>>(&[kind::SEQ, 255, 255, 255, 255]).is_err(),
            "more elements than bytes"
        );
    }
}
