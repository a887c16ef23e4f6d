//! The reader of the binary encoding. All malformed bytes are errors.

mod access;
mod numbers;
mod vectors;

use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{Deserializer, Error, Visitor};

use self::access::{AsEntry, Elements, Variant};
use self::numbers::Numbers;
use super::kind;
use crate::blob;

/// The bytes are no value of the wanted type.
#[derive(Debug)]
pub(in crate::codec) struct Malformed(Box<str>);

impl Malformed {
    #[cold]
    fn new(message: &str) -> Self {
        Self(message.into())
    }
}

impl Error for Malformed {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string().into())
    }
}

impl std::error::Error for Malformed {}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Result<T> = std::result::Result<T, Malformed>;

/// The name under which `serde_json` asks for JSON text as it was written.
const RAW: &str = "$serde_json::private::RawValue";

/// Decodes one value.
pub(super) struct ByteReader<'de> {
    rest: &'de [u8],
    depth: u32,
    /// Values that are nested more deeply are not read.
    deepest: u32,
    pub(super) is_too_deep: bool,
    /// A type inspected a value to find out what it is, so it may have become another value.
    pub(super) is_doubtful: bool,
}

impl<'de> ByteReader<'de> {
    pub(super) fn new(bytes: &'de [u8], deepest: u32) -> Self {
        Self { rest: bytes, depth: 0, deepest, is_too_deep: false, is_doubtful: false }
    }

    /// Checks that all bytes were used.
    pub(super) fn end(&self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(Malformed(format!("{left} bytes behind the value").into())),
        }
    }

    #[inline]
    fn bytes(&mut self, number: usize) -> Result<&'de [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(number).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    fn peek(&self) -> Result<u8> {
        self.rest.first().copied().ok_or_else(cut_short)
    }

    fn groups(&mut self) -> Result<u128> {
        let mut number = 0_u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed::new("an integer of more than 128 bits"))
    }

    #[inline]
    fn short_groups(&mut self) -> Result<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed::new("an integer of more than 64 bits"))
    }

    fn unsigned<N: TryFrom<u64>>(&mut self) -> Result<N> {
        N::try_from(self.short_groups()?).map_err(|_| Malformed::new("an integer out of its range"))
    }

    fn signed<N: TryFrom<i64>>(&mut self) -> Result<N> {
        let number = self.short_groups()?;
        let number = (number >> 1).cast_signed() ^ -((number & 1).cast_signed());
        N::try_from(number).map_err(|_| Malformed::new("an integer out of its range"))
    }

    #[inline]
    fn sized(&mut self) -> Result<&'de [u8]> {
        let len = self.unsigned()?;
        self.bytes(len)
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str> {
        std::str::from_utf8(self.sized()?).map_err(Malformed::custom)
    }

    /// The number of elements of a sequence or map. Each element has at least one byte, which
    /// bounds the number.
    fn number(&mut self) -> Result<usize> {
        let number = u32::from_le_bytes(self.array()?) as usize;
        if number > self.rest.len() {
            return Err(cut_short());
        }
        Ok(number)
    }

    /// Decodes something one level deeper.
    #[inline]
    fn nested<R>(&mut self, read: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        self.depth += 1;
        if self.depth > self.deepest {
            self.is_too_deep = true;
            return Err(Malformed::new("it is nested too deeply"));
        }
        let result = read(self)?;
        self.depth -= 1;
        Ok(result)
    }

    #[inline]
    fn elements<R>(&mut self, read: impl FnOnce(&mut Elements<'_, 'de>) -> Result<R>) -> Result<R> {
        let left = self.number()?;
        self.nested(|reader| {
            let mut elements = Elements { reader, left };
            let result = read(&mut elements)?;
            all_read(elements.left).map(|()| result)
        })
    }

    /// Decodes a value as its kind says.
    fn any<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        match self.byte()? {
            kind::UNIT => visitor.visit_unit(),
            kind::NONE => visitor.visit_none(),
            kind::SOME => self.nested(|reader| visitor.visit_some(reader)),
            kind::FALSE => visitor.visit_bool(false),
            kind::TRUE => visitor.visit_bool(true),
            kind::U8 => visitor.visit_u8(self.byte()?),
            kind::U16 => visitor.visit_u16(self.unsigned()?),
            kind::U32 => visitor.visit_u32(self.unsigned()?),
            kind::U64 => visitor.visit_u64(self.unsigned()?),
            kind::I8 => visitor.visit_i8(i8::from_le_bytes(self.array()?)),
            kind::I16 => visitor.visit_i16(self.signed()?),
            kind::I32 => visitor.visit_i32(self.signed()?),
            kind::I64 => visitor.visit_i64(self.signed()?),
            kind::U128 => {
                let number = self.groups()?;
                // serde's buffer for untagged types holds 64 bits.
                match u64::try_from(number) {
                    Ok(short) => visitor.visit_u64(short),
                    Err(_) => visitor.visit_u128(number),
                }
            }
            kind::I128 => {
                let number = self.groups()?;
                let number = (number >> 1).cast_signed() ^ -((number & 1).cast_signed());
                match (i64::try_from(number), u64::try_from(number)) {
                    (Ok(short), _) => visitor.visit_i64(short),
                    (_, Ok(short)) => visitor.visit_u64(short),
                    _ => visitor.visit_i128(number),
                }
            }
            kind::F32 => visitor.visit_f32(f32::from_bits(u32::from_le_bytes(self.array()?))),
            kind::F64 => visitor.visit_f64(f64::from_bits(u64::from_le_bytes(self.array()?))),
            kind::CHAR => {
                let number = self.unsigned()?;
                visitor.visit_char(char::from_u32(number).ok_or_else(|| {
                    Malformed(format!("{number:#x} is no Unicode scalar value").into())
                })?)
            }
            kind::STR | kind::UNIT_VARIANT => visitor.visit_borrowed_str(self.text()?),
            kind::BYTES => visitor.visit_borrowed_bytes(self.sized()?),
            kind::SEQ => self.elements(|elements| visitor.visit_seq(elements)),
            kind::NUMBERS => {
                let mut numbers = Numbers::of(self)?;
                if let Some(vector) = numbers.at_once::<V>() {
                    return Ok(vector);
                }
                let value = visitor.visit_seq(&mut numbers)?;
                all_read(numbers.left()).map(|()| value)
            }
            kind::MAP => self.elements(|elements| visitor.visit_map(elements)),
            // As in JSON, a map of one entry.
            kind::VARIANT => {
                let name = Some(self.text()?);
                self.nested(|reader| visitor.visit_map(AsEntry { reader, name }))
            }
            other => Err(Malformed(format!("no value is of kind {other}").into())),
        }
    }

    /// Decodes something that has this number of fields. A field that was left out may be decoded as another value.
    #[inline]
    pub(super) fn fields<V: Visitor<'de>>(
        &mut self,
        fields: usize,
        visitor: V,
    ) -> Result<V::Value> {
        let kind = self.skip_some()?.peek()?;
        let number = self.rest.get(1..5).and_then(|number| number.first_chunk());
        let number = number.map_or(0, |number| u32::from_le_bytes(*number) as usize);
        self.is_doubtful |=
            matches!(kind, kind::SEQ | kind::NUMBERS | kind::MAP) && number < fields;
        self.any(visitor)
    }

    /// The name of a variant. The type may take one that it does not know for another (`serde(other)`).
    #[inline]
    fn variant(&mut self, known: &[&str]) -> Result<&'de str> {
        let name = self.text()?;
        self.is_doubtful |= !known.contains(&name);
        Ok(name)
    }

    /// Skips `Some`, where the type does not ask for an option.
    #[inline]
    fn skip_some(&mut self) -> Result<&mut Self> {
        while self.peek()? == kind::SOME {
            self.byte()?;
        }
        Ok(self)
    }
}

/// Checks that no elements are left.
#[inline]
fn all_read(left: usize) -> Result<()> {
    match left {
        0 => Ok(()),
        left => Err(Malformed(format!("{left} elements more than expected").into())),
    }
}

#[cold]
fn cut_short() -> Malformed {
    Malformed::new("it ends too early")
}

macro_rules! as_it_is {
    ($($method:ident)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            self.skip_some()?.any(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for &mut ByteReader<'de> {
    type Error = Malformed;

    as_it_is!(
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_seq deserialize_map
        deserialize_identifier
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.is_doubtful |= !blob::is_asking();
        self.any(visitor)
    }

    #[inline]
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        // A number of another kind may be rounded.
        self.is_doubtful |= self.skip_some()?.peek()? != kind::F32;
        self.any(visitor)
    }

    #[inline]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.is_doubtful |= self.skip_some()?.peek()? != kind::F64;
        self.any(visitor)
    }

    /// A part that is ignored, such as a field of another name, would be left out of the value. The whole is
    /// ignored by those who want no value.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let is_doubtful = self.is_doubtful || self.depth > 0;
        let value = self.any(visitor)?;
        self.is_doubtful = is_doubtful;
        Ok(value)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            kind::NONE | kind::UNIT => {
                self.byte()?;
                visitor.visit_none()
            }
            kind::SOME => {
                self.byte()?;
                self.nested(|reader| visitor.visit_some(reader))
            }
            // Options count as levels as well: if the content is always an option again, no byte ends the recursion.
            _ => self.nested(|reader| visitor.visit_some(reader)),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.skip_some()?.peek()? == kind::NONE {
            self.byte()?;
            return visitor.visit_unit();
        }
        self.any(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_unit(visitor)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        if name == RAW {
            return self.any(visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.skip_some()?.any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.fields(len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.fields(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.skip_some()?.byte()? {
            kind::UNIT_VARIANT | kind::STR => {
                let name: BorrowedStrDeserializer<'_, Malformed> =
                    BorrowedStrDeserializer::new(self.variant(variants)?);
                visitor.visit_enum(name)
            }
            kind::VARIANT => {
                let name = self.variant(variants)?;
                self.nested(|reader| visitor.visit_enum(Variant { reader, name }))
            }
            // The type wrote a map that looks like an enum in JSON.
            kind::MAP if self.number()? == 1 => match self.byte()? {
                kind::STR => {
                    let name = self.variant(variants)?;
                    self.nested(|reader| visitor.visit_enum(Variant { reader, name }))
                }
                _ => Err(Malformed::new("an enum whose variant is no text")),
            },
            _ => Err(Malformed::new("it is no enum")),
        }
    }
}
