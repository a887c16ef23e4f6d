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
//! | numbers: a sequence of numbers of one kind, of 64 bits at most | number of elements (4 bytes, little-endian), their kind, all bytes of each, little-endian |

mod read;
mod write;

use serde::de::DeserializeOwned;

pub(super) use self::write::BinaryWriter;
use super::Parsed;

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
    /// Each is written without its kind. An empty sequence is a [`SEQ`].
    pub(super) const NUMBERS: u8 = 24;
}

/// Decodes one value, which must use all bytes, if it is nested no deeper than `deepest`.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8], deepest: u32) -> Parsed<T> {
    let mut reader = read::ByteReader::new(bytes, deepest.min(DEEPEST));
    let value = T::deserialize(&mut reader);
    let value = value.and_then(|value| reader.end().map(|()| value));
    let (is_doubtful, is_too_deep) = (reader.is_doubtful, reader.is_too_deep);
    Parsed { value: value.map_err(|error| error.to_string()), is_doubtful, is_too_deep }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    /// The value, and whether it has to be verified.
    fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, bool), String> {
        let Parsed { value, is_doubtful, .. } = super::read(bytes, DEEPEST);
        Ok((value?, is_doubtful))
    }

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
        for kind in [kind::SEQ, kind::NUMBERS] {
            let bytes = [kind, 255, 255, 255, 255, kind::U64, 0];
            assert!(read::<Vec<u64>>(&bytes).is_err(), "more elements than bytes");
        }
        assert!(read::<Vec<u8>>(&[kind::NUMBERS, 1, 0, 0, 0, kind::STR, 0]).is_err());
    }

    fn written<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.serialize(&mut BinaryWriter::new(&mut bytes)).expect("written");
        bytes
    }

    fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
        let (back, _) = read::<T>(&written(&value)).expect("read");
        assert_eq!(back, value);
    }

    /// As a type that writes several kinds of numbers in one sequence.
    #[derive(Debug, Clone, Copy, PartialEq, Serialize, serde::Deserialize)]
    #[serde(untagged)]
    enum Any {
        Float(f32),
        Flag(bool),
    }

    #[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
    struct Metres(f64);

    /// Writes one element after the other, by itself.
    struct InParts(Vec<u16>);

    impl Serialize for InParts {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut elements = serializer.serialize_seq(Some(self.0.len()))?;
            self.0.iter().try_for_each(|element| elements.serialize_element(element))?;
            elements.end()
        }
    }

    #[test]
    fn the_kind_of_many_numbers_is_written_once() {
        let header = 1 + 4 + 1;
        assert_eq!(written(&vec![0.5_f32; 1000]).len(), header + 4000);
        assert_eq!(written(&[u64::MAX; 3][..]).len(), header + 24);
        assert_eq!(written(&vec![Metres(0.5); 1][..]).len(), header + 8);
        there_and_back(vec![u8::MAX, 0, 7]);
        there_and_back(vec![u16::MAX, 0, 7]);
        there_and_back(vec![u32::MAX, 0, 7]);
        there_and_back(vec![u64::MAX, 0, 7]);
        there_and_back(vec![i8::MIN, -1, 7]);
        there_and_back(vec![i16::MIN, -1, 7]);
        there_and_back(vec![i32::MIN, -1, 7]);
        there_and_back(vec![i64::MIN, -1, 7]);
        there_and_back(vec![f32::MIN, -0.0, 7.0]);
        there_and_back(vec![f64::MIN, f64::INFINITY, 7.0]);
        for len in 0..300 {
            there_and_back((0..len).collect::<Vec<u64>>());
            there_and_back((0..len).map(|n| n as u8).collect::<Vec<_>>());
            let short: Vec<u16> = (0..len).map(|n| n as u16).collect();
            assert_eq!(written(&short), written(&InParts(short)), "{len} elements");
        }
        there_and_back(vec![Metres(1.5), Metres(-0.0)]);
        there_and_back(vec![vec![1_u32, 2], vec![], vec![3]]);
        there_and_back(vec![u128::MAX, 1]);
        there_and_back(vec![Some(1_u8), None, Some(2)]);
        there_and_back(std::collections::BTreeSet::from([3_i64, -9]));
        let nan = f32::from_bits(0x7fc0_1234);
        let (back, _) = read::<Vec<f32>>(&written(&vec![nan, 1.0])).expect("read");
        assert_eq!(back[0].to_bits(), nan.to_bits());
    }

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Count(u16);

    #[test]
    fn numbers_are_written_and_read_alike_at_once_and_one_by_one() {
        for len in 0..300 {
            let numbers: Vec<u16> = (0..len).map(|n| n * 200).collect();
            let counts: Vec<Count> = numbers.iter().copied().map(Count).collect();
            let bytes = written(&numbers);
            assert_eq!(bytes, written(&counts), "{len} elements");
            assert_eq!(bytes, written(&InParts(numbers.clone())), "{len} elements");
            assert_eq!(bytes, written::<[u16]>(&numbers), "{len} elements");
            assert_eq!(read::<Vec<u16>>(&bytes).expect("read"), (numbers.clone(), false));
            assert_eq!(read::<Vec<Count>>(&bytes).expect("read"), (counts, false));
            assert_eq!(read::<Box<[u16]>>(&bytes).expect("read"), (numbers.into(), false));
        }
        there_and_back((Some(vec![1.5_f32]), vec![vec![i64::MIN], vec![]], "behind".to_owned()));
        let bytes = written(&vec![1.5_f32, -0.0]);
        for end in 0..bytes.len() {
            assert!(read::<Vec<f32>>(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(read::<Vec<f32>>(&[&bytes[..], &[0]].concat()).is_err(), "bytes behind it");
    }

    #[test]
    fn a_visitor_that_makes_a_vector_of_its_own_gets_the_numbers() {
        /// Its visitor has the same value as that of a `Vec`.
        #[derive(Debug, PartialEq)]
        struct Doubled(Vec<f32>);

        impl<'de> serde::Deserialize<'de> for Doubled {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct VecVisitor;
                impl<'de> serde::de::Visitor<'de> for VecVisitor {
                    type Value = Vec<f32>;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a sequence")
                    }
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(
                        self,
                        mut from: A,
                    ) -> Result<Vec<f32>, A::Error> {
                        let next = || from.next_element::<f32>().transpose();
                        std::iter::from_fn(next).map(|number| Ok(2.0 * number?)).collect()
                    }
                }
                from.deserialize_seq(VecVisitor).map(Doubled)
            }
        }
        let (doubled, is_doubtful) = read::<Doubled>(&written(&vec![1.5_f32, 2.0])).expect("read");
        assert_eq!((doubled, is_doubtful), (Doubled(vec![3.0, 4.0]), false));
    }

    #[test]
    fn a_vector_of_numbers_is_a_level_as_any_sequence() {
        #[derive(Serialize)]
        enum Nested<T> {
            Deeper(Box<Nested<T>>),
            Here(T),
        }
        fn is_written<T: Serialize>(innermost: T, levels: u32) -> bool {
            let here = Nested::Here(innermost);
            let nested = (1..levels).fold(here, |inner, _| Nested::Deeper(Box::new(inner)));
            nested.serialize(&mut BinaryWriter::new(&mut Vec::new())).is_ok()
        }
        for levels in [DEEPEST - 1, DEEPEST] {
            assert_eq!(is_written(vec![1_u16], levels), levels < DEEPEST);
            assert_eq!(is_written(vec![Count(1)], levels), levels < DEEPEST);
        }
    }

    #[test]
    fn a_sequence_of_several_kinds_has_the_kind_of_each_wherever_it_changes() {
        let (float, flag) = (Any::Float(1.5), Any::Flag(true));
        let each = |values: &[Any]| {
            let floats = values.iter().filter(|value| **value == float).count();
            1 + 4 + 5 * floats + (values.len() - floats)
        };
        // Numbers are appended 128 bytes at a time.
        for at in 0..70 {
            let mut values = vec![float; 70];
            values[at] = flag;
            assert_eq!(written(&values).len(), each(&values), "changes at {at}");
            there_and_back(values);
        }
        let json = serde_json::json!([1, -1, 0.5, [1, 2, "x"], [1, 2], 300, u64::MAX]);
        assert_eq!(read::<serde_json::Value>(&written(&json)).expect("read").0, json);
    }

    #[test]
    fn numbers_are_read_as_what_a_type_asks_for() {
        let bytes = written(&vec![1_u16, 2]);
        assert_eq!(read::<Vec<u64>>(&bytes).expect("wider").0, [1, 2]);
        assert_eq!(read::<(u8, i32)>(&bytes).expect("a tuple").0, (1, 2));
        assert_eq!(read::<Vec<Option<u16>>>(&bytes).expect("options").0, [Some(1), Some(2)]);
        let (floats, is_doubtful) = read::<Vec<f64>>(&bytes).expect("floats");
        assert!(floats == [1.0, 2.0] && is_doubtful, "they may have been rounded");
        assert!(read::<serde_json::Value>(&bytes).expect("any").1, "it was inspected");
        assert!(!read::<Vec<u16>>(&bytes).expect("the same").1);
        read::<serde::de::IgnoredAny>(&bytes).expect("ignored");
        for wrong in [read::<Vec<String>>(&bytes).err(), read::<[Kind; 2]>(&bytes).err()] {
            assert!(wrong.is_some());
        }
        assert!(read::<(u16, u16, u16)>(&bytes).is_err() && read::<(u16,)>(&bytes).is_err());
        assert!(read::<Vec<u8>>(&written(&vec![256_u16])).is_err(), "out of range");
    }

    #[test]
    fn fields_that_are_missing_in_numbers_are_doubtful() {
        #[derive(Debug, serde::Deserialize)]
        struct Size(u32, #[serde(default)] u32);
        let (Size(width, height), is_doubtful) = read(&written(&vec![7_u32])).expect("read");
        assert_eq!((width, height, is_doubtful), (7, 0, true));
        let (Size(width, height), is_doubtful) = read(&written(&vec![7_u32, 8])).expect("read");
        assert_eq!((width, height, is_doubtful), (7, 8, false));
    }

    #[derive(Debug, serde::Deserialize)]
    enum Kind {
        _A,
    }
}
