//! Sequences of numbers: the kind of all is written once, in front of the first.

use serde::ser::{Serialize, Serializer};

use super::{BinaryCompound, BinaryWriter, kind};
use crate::codec::refusal::Refusal;
use procession_os::memory;

/// What a sequence has been found to consist of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alike {
    /// It has no elements yet. So many are expected, or 0.
    Unknown { expected: usize },
    /// Numbers of this kind.
    Numbers(u8),
    /// Values with a kind each.
    No,
}

/// Writes one element of a sequence of which all elements so far are numbers of one kind.
pub(super) struct FirstElements<'c, 'a, 'w>(pub &'c mut BinaryCompound<'a, 'w>);

impl<'c, 'w> FirstElements<'c, '_, 'w> {
    /// Writes a number behind others of its kind. If there are others, returns the writer of a value with
    /// its kind.
    #[inline]
    fn number<const N: usize>(self, kind: u8, bytes: [u8; N]) -> Option<&'c mut BinaryWriter<'w>> {
        let compound = self.0;
        if let Alike::Unknown { expected } = compound.alike {
            compound.alike = Alike::Numbers(kind);
            compound.writer.out.push(kind);
            make_room(&mut *compound.writer.out, expected.saturating_mul(N));
        } else if compound.alike != Alike::Numbers(kind) {
            return Some(compound.one_by_one());
        }
        compound.writer.out.extend_from_slice(&bytes);
        None
    }
}

/// Makes room for many numbers at once, of which fresh pages are a good part of the cost.
#[inline]
fn make_room(out: &mut Vec<u8>, bytes: usize) {
    /// Less than this grows as it is needed.
    const MANY: usize = 1 << 20;
    /// A number that a type only expects is not to take all memory.
    const MOST: usize = 1 << 30;
    if bytes >= MANY {
        memory::reserve(out, bytes.min(MOST));
    }
}

impl<'w> BinaryCompound<'_, 'w> {
    /// The writer for elements with a kind each.
    #[inline]
    fn one_by_one(&mut self) -> &mut BinaryWriter<'w> {
        if let Alike::Numbers(kind) = std::mem::replace(&mut self.alike, Alike::No) {
            self.give_each_its_kind(kind);
        }
        &mut *self.writer
    }

    /// Writes the numbers again that were written without their kind.
    #[cold]
    fn give_each_its_kind(&mut self, kind: u8) {
        let written = self.writer.out.split_off(self.at + 4);
        self.writer.put_each(kind, &written[1..]);
    }

    /// Whether it is written as numbers of one kind.
    #[inline]
    pub(super) fn has_numbers_only(&self) -> bool {
        matches!(self.alike, Alike::Numbers(_))
    }
}

impl BinaryWriter<'_> {
    /// Writes numbers of one kind with a kind each.
    fn put_each(&mut self, kind: u8, bytes: &[u8]) {
        macro_rules! put_each {
            ($($kind:ident $method:ident $type:ty;)*) => {
                match kind {
                    $(kind::$kind => {
                        for bytes in bytes.as_chunks::<{ size_of::<$type>() }>().0 {
                            // Numbers are never refused.
                            let _ = self.$method(<$type>::from_le_bytes(*bytes));
                        }
                    })*
                    _ => {}
                }
            };
        }
        put_each! {
            U8 serialize_u8 u8;
            U16 serialize_u16 u16;
            U32 serialize_u32 u32;
            U64 serialize_u64 u64;
            I8 serialize_i8 i8;
            I16 serialize_i16 i16;
            I32 serialize_i32 i32;
            I64 serialize_i64 i64;
            F32 serialize_f32 f32;
            F64 serialize_f64 f64;
        }
    }
}

macro_rules! numbers {
    ($($method:ident $type:ty, $kind:ident;)*) => {
        $(#[inline]
        fn $method(self, value: $type) -> Result<(), Refusal> {
            match self.number(kind::$kind, value.to_le_bytes()) {
                None => Ok(()),
                Some(writer) => writer.$method(value),
            }
        })*
    };
}

macro_rules! others {
    ($($method:ident($($name:ident: $type:ty),*) -> $result:ty;)*) => {
        $(#[inline]
        fn $method(self, $($name: $type),*) -> Result<$result, Refusal> {
            self.0.one_by_one().$method($($name),*)
        })*
    };
}

impl<'c, 'w> Serializer for FirstElements<'c, '_, 'w> {
    type Ok = ();
    type Error = Refusal;
    type SerializeSeq = BinaryCompound<'c, 'w>;
    type SerializeTuple = BinaryCompound<'c, 'w>;
    type SerializeTupleStruct = BinaryCompound<'c, 'w>;
    type SerializeTupleVariant = BinaryCompound<'c, 'w>;
    type SerializeMap = BinaryCompound<'c, 'w>;
    type SerializeStruct = BinaryCompound<'c, 'w>;
    type SerializeStructVariant = BinaryCompound<'c, 'w>;

    numbers! {
        serialize_u8 u8, U8;
        serialize_u16 u16, U16;
        serialize_u32 u32, U32;
        serialize_u64 u64, U64;
        serialize_i8 i8, I8;
        serialize_i16 i16, I16;
        serialize_i32 i32, I32;
        serialize_i64 i64, I64;
        serialize_f32 f32, F32;
        serialize_f64 f64, F64;
    }

    others! {
        serialize_bool(value: bool) -> ();
        serialize_i128(value: i128) -> ();
        serialize_u128(value: u128) -> ();
        serialize_char(value: char) -> ();
        serialize_str(value: &str) -> ();
        serialize_bytes(value: &[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(name: &'static str) -> ();
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str) -> ();
        serialize_seq(len: Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(len: usize) -> Self::SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> Self::SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> Self::SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> Self::SerializeStruct;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> Self::SerializeStructVariant;
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refusal> {
        self.0.one_by_one().serialize_some(value)
    }

    /// A newtype is what is in it.
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
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refusal> {
        self.0.one_by_one().serialize_newtype_variant(name, index, variant, value)
    }
}
