//! The writer of the binary encoding.

mod numbers;

use serde::ser::{Serialize, Serializer};

use self::numbers::{Alike, Block, ByBlocks, FirstElements, at_once};
use super::{DEEPEST, kind};
use crate::codec::compound::impl_compound;
use crate::codec::refusal::Refusal;

/// Appends one value.
pub(in crate::codec) struct BinaryWriter<'w> {
    out: &'w mut Vec<u8>,
    depth: u32,
    /// The value needs [`check_before_sending`](crate::codec::checks::check_before_sending).
    pub(in crate::codec) is_doubtful: bool,
}

impl<'w> BinaryWriter<'w> {
    pub(in crate::codec) fn new(out: &'w mut Vec<u8>) -> Self {
        Self { out, depth: 0, is_doubtful: false }
    }

    #[inline]
    fn put(&mut self, kind: u8, bytes: &[u8]) -> Result<(), Refusal> {
        self.out.push(kind);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn groups(&mut self, mut number: u128) {
        while number >= 0x80 {
            self.out.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    /// The same for 64 bits, which is faster.
    #[inline]
    fn short_groups(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    #[inline]
    fn unsigned(&mut self, kind: u8, number: u64) -> Result<(), Refusal> {
        self.out.push(kind);
        self.short_groups(number);
        Ok(())
    }

    #[inline]
    fn signed(&mut self, kind: u8, number: i64) -> Result<(), Refusal> {
        self.unsigned(kind, (number << 1 ^ number >> 63).cast_unsigned())
    }

    #[inline]
    fn sized(&mut self, kind: u8, bytes: &[u8]) -> Result<(), Refusal> {
        self.out.push(kind);
        self.short_groups(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn descend(&mut self) -> Result<(), Refusal> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(too_deep());
        }
        Ok(())
    }

    #[inline]
    fn open(&mut self, kind: u8) -> Result<BinaryCompound<'_, 'w>, Refusal> {
        self.descend()?;
        self.out.push(kind);
        let at = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        Ok(BinaryCompound { writer: self, at, number: 0, levels: 1, alike: Alike::No })
    }

    /// A variant whose value is a sequence or map.
    fn open_variant(&mut self, name: &str, kind: u8) -> Result<BinaryCompound<'_, 'w>, Refusal> {
        self.descend()?;
        self.sized(kind::VARIANT, name.as_bytes())?;
        Ok(BinaryCompound { levels: 2, ..self.open(kind)? })
    }
}

/// The number of elements, as it is written.
#[inline]
fn number_of_elements(number: usize) -> Result<[u8; 4], Refusal> {
    let number = u32::try_from(number);
    let number = number.map_err(|_| Refusal::new("it has more than 2^32 - 1 elements"))?;
    Ok(number.to_le_bytes())
}

#[cold]
fn too_deep() -> Refusal {
    Refusal::new(format!("it is nested more than {DEEPEST} levels deep"))
}

impl<'a, 'w> Serializer for &'a mut BinaryWriter<'w> {
    type Ok = ();
    type Error = Refusal;
    type SerializeSeq = BinaryCompound<'a, 'w>;
    type SerializeTuple = BinaryCompound<'a, 'w>;
    type SerializeTupleStruct = BinaryCompound<'a, 'w>;
    type SerializeTupleVariant = BinaryCompound<'a, 'w>;
    type SerializeMap = BinaryCompound<'a, 'w>;
    type SerializeStruct = BinaryCompound<'a, 'w>;
    type SerializeStructVariant = BinaryCompound<'a, 'w>;

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Refusal> {
        self.put(if value { kind::TRUE } else { kind::FALSE }, &[])
    }

    #[inline]
    fn serialize_i8(self, value: i8) -> Result<(), Refusal> {
        self.put(kind::I8, &value.to_le_bytes())
    }

    #[inline]
    fn serialize_i16(self, value: i16) -> Result<(), Refusal> {
        self.signed(kind::I16, value.into())
    }

    #[inline]
    fn serialize_i32(self, value: i32) -> Result<(), Refusal> {
        self.signed(kind::I32, value.into())
    }

    #[inline]
    fn serialize_i64(self, value: i64) -> Result<(), Refusal> {
        self.signed(kind::I64, value)
    }

    fn serialize_i128(self, value: i128) -> Result<(), Refusal> {
        self.is_doubtful |= i64::try_from(value).is_err() && u64::try_from(value).is_err();
        self.out.push(kind::I128);
        self.groups((value << 1 ^ value >> 127).cast_unsigned());
        Ok(())
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Result<(), Refusal> {
        self.put(kind::U8, &[value])
    }

    #[inline]
    fn serialize_u16(self, value: u16) -> Result<(), Refusal> {
        self.unsigned(kind::U16, value.into())
    }

    #[inline]
    fn serialize_u32(self, value: u32) -> Result<(), Refusal> {
        self.unsigned(kind::U32, value.into())
    }

    #[inline]
    fn serialize_u64(self, value: u64) -> Result<(), Refusal> {
        self.unsigned(kind::U64, value)
    }

    fn serialize_u128(self, value: u128) -> Result<(), Refusal> {
        self.is_doubtful |= u64::try_from(value).is_err();
        self.out.push(kind::U128);
        self.groups(value);
        Ok(())
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<(), Refusal> {
        self.put(kind::F32, &value.to_bits().to_le_bytes())
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<(), Refusal> {
        self.put(kind::F64, &value.to_bits().to_le_bytes())
    }

    fn serialize_char(self, value: char) -> Result<(), Refusal> {
        self.unsigned(kind::CHAR, u32::from(value).into())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Refusal> {
        self.sized(kind::STR, value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Refusal> {
        self.sized(kind::BYTES, value)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Refusal> {
        self.put(kind::NONE, &[])
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refusal> {
        self.descend()?;
        self.out.push(kind::SOME);
        value.serialize(&mut *self)?;
        self.depth -= 1;
        Ok(())
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Refusal> {
        self.put(kind::UNIT, &[])
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refusal> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Refusal> {
        self.sized(kind::UNIT_VARIANT, variant.as_bytes())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refusal> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refusal> {
        self.descend()?;
        self.sized(kind::VARIANT, variant.as_bytes())?;
        value.serialize(&mut *self).map_err(|refusal| refusal.in_field(variant))?;
        self.depth -= 1;
        Ok(())
    }

    /// All elements have one type, so if one is a number, most likely all are.
    #[inline]
    fn collect_seq<I: IntoIterator<Item: Serialize>>(self, elements: I) -> Result<(), Refusal> {
        if let Some((kind, number, bytes)) = at_once(&elements) {
            return self.put_numbers(kind, number, bytes);
        }
        let elements = elements.into_iter();
        // Without the exact number there is no expectation, as in `serialize_seq`.
        let (least, most) = elements.size_hint();
        let expected = if most == Some(least) { least } else { 0 };
        let mut compound = self.open(kind::SEQ)?;
        let (mut alike, mut block) = (Alike::Unknown { expected }, Block::new());
        let (at, mut number) = (compound.at, 0);
        for element in elements {
            let writer = &mut *compound.writer;
            let result = match alike {
                Alike::No => element.serialize(writer),
                _ => {
                    let (alike, block) = (&mut alike, &mut block);
                    element.serialize(FirstElements(ByBlocks { writer, at, alike, block }))
                }
            };
            result.map_err(|refusal| refusal.in_element(number))?;
            number += 1;
        }
        block.append_to(&mut *compound.writer.out);
        (compound.alike, compound.number) = (alike, number);
        compound.close()
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<BinaryCompound<'a, 'w>, Refusal> {
        let alike = Alike::Unknown { expected: len.unwrap_or(0) };
        Ok(BinaryCompound { alike, ..self.open(kind::SEQ)? })
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<BinaryCompound<'a, 'w>, Refusal> {
        self.open(kind::SEQ)
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<BinaryCompound<'a, 'w>, Refusal> {
        self.open(kind::SEQ)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<BinaryCompound<'a, 'w>, Refusal> {
        self.open_variant(variant, kind::SEQ)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<BinaryCompound<'a, 'w>, Refusal> {
        // No length: most likely a struct with flattened fields.
        self.is_doubtful |= len.is_none();
        self.open(kind::MAP)
    }

    #[inline]
    fn serialize_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<BinaryCompound<'a, 'w>, Refusal> {
        self.open(kind::MAP)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<BinaryCompound<'a, 'w>, Refusal> {
        self.open_variant(variant, kind::MAP)
    }
}

/// A sequence or a map that is being written.
pub(in crate::codec) struct BinaryCompound<'a, 'w> {
    writer: &'a mut BinaryWriter<'w>,
    /// The offset of the number of elements.
    at: usize,
    number: usize,
    /// The levels of nesting that it adds.
    levels: u32,
    /// Of the elements of a sequence.
    alike: Alike,
}

impl BinaryCompound<'_, '_> {
    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        let index = self.number;
        self.number += 1;
        let result = match self.alike {
            Alike::No => value.serialize(&mut *self.writer),
            Alike::Unknown { .. } | Alike::Numbers(_) => value.serialize(FirstElements(&mut *self)),
        };
        result.map_err(|refusal| refusal.in_element(index))
    }

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        let index = self.number;
        self.number += 1;
        let result = value.serialize(&mut *self.writer);
        result.map_err(|refusal| refusal.in_field(&index.to_string()))
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Refusal> {
        self.number += 1;
        self.writer.sized(kind::STR, name.as_bytes())?;
        value.serialize(&mut *self.writer).map_err(|refusal| refusal.in_field(name))
    }

    #[inline]
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refusal> {
        self.number += 1;
        let result = key.serialize(&mut *self.writer);
        result.map_err(|refusal| refusal.in_field(&format!("key {}", self.number - 1)))
    }

    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        let result = value.serialize(&mut *self.writer);
        result.map_err(|refusal| refusal.in_element(self.number - 1))
    }

    #[inline]
    fn close(self) -> Result<(), Refusal> {
        let number = number_of_elements(self.number)?;
        self.writer.out[self.at..self.at + 4].copy_from_slice(&number);
        if self.alike.are_numbers() {
            self.writer.out[self.at - 1] = kind::NUMBERS;
        }
        self.writer.depth -= self.levels;
        Ok(())
    }
}

impl_compound!(BinaryCompound<'_, '_>);
