//! Vectors of numbers that are read at once.
//!
//! serde reads the elements of a `Vec` one by one, and the vector grows as they come. From numbers of its own kind the
//! visitor of a `Vec` always makes a vector with the same bytes, so these are copied instead. Each other visitor reads
//! the numbers one by one: it may do anything with them, also if it makes a vector.

use std::any::TypeId;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;

use super::kind;
use procession_os::numbers::{PlainNumber, type_id_of, vec_of};

/// The numbers of this kind, if the visitor is that of a `Vec` of them.
#[inline]
pub(super) fn read_at_once<'de, V: Visitor<'de>>(kind: u8, bytes: &[u8]) -> Option<V::Value> {
    if cfg!(target_endian = "big") {
        return None;
    }
    match kind {
        kind::U8 => vector::<u8, V>(bytes),
        kind::U16 => vector::<u16, V>(bytes),
        kind::U32 => vector::<u32, V>(bytes),
        kind::U64 => vector::<u64, V>(bytes),
        kind::I8 => vector::<i8, V>(bytes),
        kind::I16 => vector::<i16, V>(bytes),
        kind::I32 => vector::<i32, V>(bytes),
        kind::I64 => vector::<i64, V>(bytes),
        kind::F32 => vector::<f32, V>(bytes),
        kind::F64 => vector::<f64, V>(bytes),
        _ => None,
    }
}

#[inline]
fn vector<'de, T, V>(bytes: &[u8]) -> Option<V::Value>
where
    T: PlainNumber + Deserialize<'static>,
    V: Visitor<'de>,
{
    let visitor = Vec::<T>::deserialize(VisitorProbe).err()?.0?;
    if visitor == type_id_of::<V>() { vec_of::<T, V::Value>(bytes) } else { None }
}

/// A deserializer without a value, which finds out the type of the visitor that is to read a sequence.
struct VisitorProbe;

/// The type of the visitor, if it was to read a sequence.
#[derive(Debug)]
struct FoundVisitor(Option<TypeId>);

impl Error for FoundVisitor {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(None)
    }
}

impl std::error::Error for FoundVisitor {}

impl fmt::Display for FoundVisitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no value")
    }
}

impl<'de> Deserializer<'de> for VisitorProbe {
    type Error = FoundVisitor;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, FoundVisitor> {
        Err(FoundVisitor(None))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, _: V) -> Result<V::Value, FoundVisitor> {
        Err(FoundVisitor(Some(type_id_of::<V>())))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    /// A sequence of numbers of this kind, for visitors that take them at once.
    struct AtOnce<'b>(u8, &'b [u8]);

    impl<'de> Deserializer<'de> for AtOnce<'_> {
        type Error = FoundVisitor;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, FoundVisitor> {
            Err(FoundVisitor(None))
        }

        fn deserialize_seq<V: Visitor<'de>>(self, _: V) -> Result<V::Value, FoundVisitor> {
            read_at_once::<V>(self.0, self.1).ok_or(FoundVisitor(None))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct tuple tuple_struct map struct enum identifier ignored_any
        }
    }

    #[test]
    fn a_vec_of_each_kind_of_number_is_read_at_once_and_no_other_one() {
        macro_rules! at_once {
            ($($kind:ident $type:ty;)*) => {
                $(let bytes = [<$type>::MIN.to_le_bytes(), <$type>::MAX.to_le_bytes()].concat();
                let read = Vec::<$type>::deserialize(AtOnce(kind::$kind, &bytes[..]));
                assert_eq!(read.expect("at once"), [<$type>::MIN, <$type>::MAX]);
                assert!(Vec::<char>::deserialize(AtOnce(kind::$kind, &bytes[..])).is_err());)*
            };
        }
        at_once!(U8 u8; U16 u16; U32 u32; U64 u64; I8 i8; I16 i16; I32 i32; I64 i64; F32 f32; F64 f64;);
        assert!(Vec::<u32>::deserialize(AtOnce(kind::F32, &[0; 8])).is_err());
    }
}
