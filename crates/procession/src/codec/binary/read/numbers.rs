//! Sequences of numbers whose kind is written once.

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::vectors::read_at_once;
use super::{ByteReader, Malformed, Result, cut_short, kind};
use crate::blob;

/// A sequence of numbers that is being read.
pub(super) struct Numbers<'r, 'de> {
    kind: u8,
    /// The length of each, in bytes.
    len: usize,
    rest: &'de [u8],
    /// That of the reader.
    is_doubtful: &'r mut bool,
}

impl<'r, 'de> Numbers<'r, 'de> {
    /// All of them are taken out of the reader.
    pub(super) fn of(reader: &'r mut ByteReader<'de>) -> Result<Self> {
        let number = reader.number()?;
        let kind = reader.byte()?;
        let len = match kind {
            kind::U8 | kind::I8 => 1,
            kind::U16 | kind::I16 => 2,
            kind::U32 | kind::I32 | kind::F32 => 4,
            kind::U64 | kind::I64 | kind::F64 => 8,
            _ => return Err(Malformed::new("a sequence of numbers that are none")),
        };
        let rest = reader.bytes(number.checked_mul(len).ok_or_else(cut_short)?)?;
        Ok(Self { kind, len, rest, is_doubtful: &mut reader.is_doubtful })
    }

    /// All of them, if the visitor makes a `Vec` of numbers of their kind.
    #[inline]
    pub(super) fn at_once<V: Visitor<'de>>(&self) -> Option<V::Value> {
        read_at_once::<V>(self.kind, self.rest)
    }

    /// How many are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len() / self.len
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (number, rest) = self.rest.split_first_chunk().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*number)
    }
}

impl<'de> SeqAccess<'de> for &mut Numbers<'_, 'de> {
    type Error = Malformed;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        seed.deserialize(NextNumber(self)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left())
    }
}

/// The next of them.
struct NextNumber<'n, 'r, 'de>(&'n mut Numbers<'r, 'de>);

impl<'de> NextNumber<'_, '_, 'de> {
    #[inline]
    fn any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let numbers = self.0;
        match numbers.kind {
            kind::U8 => visitor.visit_u8(u8::from_le_bytes(numbers.take()?)),
            kind::U16 => visitor.visit_u16(u16::from_le_bytes(numbers.take()?)),
            kind::U32 => visitor.visit_u32(u32::from_le_bytes(numbers.take()?)),
            kind::U64 => visitor.visit_u64(u64::from_le_bytes(numbers.take()?)),
            kind::I8 => visitor.visit_i8(i8::from_le_bytes(numbers.take()?)),
            kind::I16 => visitor.visit_i16(i16::from_le_bytes(numbers.take()?)),
            kind::I32 => visitor.visit_i32(i32::from_le_bytes(numbers.take()?)),
            kind::I64 => visitor.visit_i64(i64::from_le_bytes(numbers.take()?)),
            kind::F32 => visitor.visit_f32(f32::from_le_bytes(numbers.take()?)),
            _ => visitor.visit_f64(f64::from_le_bytes(numbers.take()?)),
        }
    }
}

/// For numbers of this kind without a look at the others.
macro_rules! of_kind {
    ($($method:ident $kind:ident $visit:ident $type:ty;)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            match self.0.kind {
                kind::$kind => visitor.$visit(<$type>::from_le_bytes(self.0.take()?)),
                _ => self.any(visitor),
            }
        })*
    };
}

/// A number of another kind may be rounded.
macro_rules! of_float_kind {
    ($($method:ident $kind:ident $visit:ident $type:ty;)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            match self.0.kind {
                kind::$kind => visitor.$visit(<$type>::from_le_bytes(self.0.take()?)),
                _ => {
                    *self.0.is_doubtful = true;
                    self.any(visitor)
                }
            }
        })*
    };
}

macro_rules! as_it_is {
    ($($method:ident($($argument:ty),*);)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, $(_: $argument,)* visitor: V) -> Result<V::Value> {
            self.any(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for NextNumber<'_, '_, 'de> {
    type Error = Malformed;

    of_kind! {
        deserialize_u8 U8 visit_u8 u8;
        deserialize_u16 U16 visit_u16 u16;
        deserialize_u32 U32 visit_u32 u32;
        deserialize_u64 U64 visit_u64 u64;
        deserialize_i8 I8 visit_i8 i8;
        deserialize_i16 I16 visit_i16 i16;
        deserialize_i32 I32 visit_i32 i32;
        deserialize_i64 I64 visit_i64 i64;
    }

    of_float_kind! {
        deserialize_f32 F32 visit_f32 f32;
        deserialize_f64 F64 visit_f64 f64;
    }

    as_it_is! {
        deserialize_bool();
        deserialize_i128();
        deserialize_u128();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_unit();
        deserialize_unit_struct(&'static str);
        deserialize_seq();
        deserialize_tuple(usize);
        deserialize_tuple_struct(&'static str, usize);
        deserialize_map();
        deserialize_struct(&'static str, &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        *self.0.is_doubtful |= !blob::is_asking();
        self.any(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value> {
        Err(Malformed::new("it is no enum"))
    }
}
