//! Sequences of numbers: the kind of all is written once, in front of the first.

use serde::ser::{Serialize, Serializer};

use super::{BinaryCompound, BinaryWriter, kind, number_of_elements};
use crate::codec::refusal::Refusal;
use crate::long_buffers;
use procession_os::{memory, numbers};

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

/// Where one element of a sequence goes of which all elements so far are numbers of one kind.
pub(super) trait NumberSink: Sized {
    type Writer: Serializer<Ok = (), Error = Refusal>;

    /// Takes a number behind others of its kind. If there are others, returns the writer of a value with its kind.
    fn number<const N: usize>(self, kind: u8, bytes: [u8; N]) -> Option<Self::Writer>;
    /// The writer of a value with its kind.
    fn one_by_one(self) -> Self::Writer;
}

/// Writes one element for a [`NumberSink`].
pub(super) struct FirstElements<S>(pub S);

impl<'c, 'w> NumberSink for &'c mut BinaryCompound<'_, 'w> {
    type Writer = &'c mut BinaryWriter<'w>;

    #[inline]
    fn number<const N: usize>(self, kind: u8, bytes: [u8; N]) -> Option<Self::Writer> {
        if let Alike::Unknown { expected } = self.alike {
            self.alike = Alike::Numbers(kind);
            self.writer.begin_numbers(kind, expected.saturating_mul(N));
        } else if self.alike != Alike::Numbers(kind) {
            return Some(self.one_by_one());
        }
        self.writer.out.extend_from_slice(&bytes);
        None
    }

    #[inline]
    fn one_by_one(self) -> Self::Writer {
        if let Alike::Numbers(kind) = std::mem::replace(&mut self.alike, Alike::No) {
            self.writer.give_each_its_kind(self.at, kind);
        }
        &mut *self.writer
    }
}

/// Numbers that are appended together. To append them one by one costs several times as much.
pub(super) struct Block {
    bytes: [u8; Self::LEN],
    len: usize,
}

impl Block {
    /// Few, since a short sequence has one as well.
    const LEN: usize = 128;

    pub(super) const fn new() -> Self {
        Self { bytes: [0; Self::LEN], len: 0 }
    }

    /// Appends what it has.
    #[inline]
    pub(super) fn append_to(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.len]);
        self.len = 0;
    }
}

/// The next element goes into a block.
pub(super) struct ByBlocks<'c, 'w> {
    pub(super) writer: &'c mut BinaryWriter<'w>,
    /// The offset of the number of elements.
    pub(super) at: usize,
    pub(super) alike: &'c mut Alike,
    pub(super) block: &'c mut Block,
}

impl<'c, 'w> NumberSink for ByBlocks<'c, 'w> {
    type Writer = &'c mut BinaryWriter<'w>;

    #[inline]
    fn number<const N: usize>(self, kind: u8, bytes: [u8; N]) -> Option<Self::Writer> {
        match *self.alike {
            Alike::Numbers(same) if same == kind => {}
            Alike::Unknown { expected } => {
                *self.alike = Alike::Numbers(kind);
                self.writer.begin_numbers(kind, expected.saturating_mul(N));
            }
            Alike::Numbers(_) | Alike::No => return Some(self.one_by_one()),
        }
        if self.block.len + N > Block::LEN {
            self.block.append_to(&mut *self.writer.out);
        }
        self.block.bytes[self.block.len..self.block.len + N].copy_from_slice(&bytes);
        self.block.len += N;
        None
    }

    #[inline]
    fn one_by_one(self) -> Self::Writer {
        if let Alike::Numbers(kind) = std::mem::replace(self.alike, Alike::No) {
            self.block.append_to(&mut *self.writer.out);
            self.writer.give_each_its_kind(self.at, kind);
        }
        self.writer
    }
}

/// Makes room for many numbers at once, of which fresh pages are a good part of the cost.
fn make_room(out: &mut Vec<u8>, bytes: usize) {
    /// Less than this grows as it is needed.
    const MANY: usize = 1 << 20;
    /// A number that a type only expects is not to take all memory.
    const MOST: usize = 1 << 30;
    if bytes < MANY {
        return;
    }
    let additional = bytes.min(MOST);
    let room = out.len() + additional;
    if out.capacity() >= room {
        return;
    }
    let mut kept = long_buffers::take(room);
    if kept.capacity() >= room {
        kept.extend_from_slice(out);
        *out = kept;
    } else {
        memory::reserve(out, additional);
    }
}

/// The kind, the count and the bytes of the numbers, if this is a `Vec` or a slice of numbers of one kind. `None` if it
/// is empty: then no kind is written.
#[inline]
pub(super) fn at_once<S>(sequence: &S) -> Option<(u8, usize, &[u8])> {
    macro_rules! first_of {
        ($($kind:ident $type:ty;)*) => {
            $(if let Some(bytes) = numbers::bytes_of::<$type, S>(sequence) {
                let number = bytes.len() / size_of::<$type>();
                return (number > 0).then_some((kind::$kind, number, bytes));
            })*
        };
    }
    // The encoding has the bytes of a number in this order.
    if cfg!(target_endian = "little") {
        first_of!(U8 u8; U16 u16; U32 u32; U64 u64; I8 i8; I16 i16; I32 i32; I64 i64; F32 f32; F64 f64;);
    }
    None
}

impl Alike {
    /// Whether a sequence is written as numbers of one kind.
    #[inline]
    pub(super) fn are_numbers(self) -> bool {
        matches!(self, Self::Numbers(_))
    }
}

impl BinaryWriter<'_> {
    /// Writes the kind of the numbers that follow, and makes room for them: `bytes` is about what they take.
    #[inline]
    fn begin_numbers(&mut self, kind: u8, bytes: usize) {
        self.out.push(kind);
        make_room(self.out, bytes);
    }

    /// Writes a sequence of numbers that have these bytes.
    #[inline]
    pub(super) fn put_numbers(
        &mut self,
        kind: u8,
        number: usize,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        // One level, as of any sequence.
        self.descend()?;
        self.depth -= 1;
        self.put(kind::NUMBERS, &number_of_elements(number)?)?;
        self.begin_numbers(kind, bytes.len());
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// Rewrites the numbers that were written without their kind. They stand behind the number of elements, which is at
    /// this offset.
    #[cold]
    fn give_each_its_kind(&mut self, at: usize, kind: u8) {
        let written = self.out.split_off(at + 4);
        self.put_each(kind, &written[1..]);
    }

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
            match self.0.number(kind::$kind, value.to_le_bytes()) {
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

impl<S: NumberSink> Serializer for FirstElements<S> {
    type Ok = ();
    type Error = Refusal;
    type SerializeSeq = <S::Writer as Serializer>::SerializeSeq;
    type SerializeTuple = <S::Writer as Serializer>::SerializeTuple;
    type SerializeTupleStruct = <S::Writer as Serializer>::SerializeTupleStruct;
    type SerializeTupleVariant = <S::Writer as Serializer>::SerializeTupleVariant;
    type SerializeMap = <S::Writer as Serializer>::SerializeMap;
    type SerializeStruct = <S::Writer as Serializer>::SerializeStruct;
    type SerializeStructVariant = <S::Writer as Serializer>::SerializeStructVariant;

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
