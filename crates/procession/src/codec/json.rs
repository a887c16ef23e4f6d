//! The JSON encoding, without values that would be decoded as others.
//!
//! `serde_json` writes NaN, infinities, `None` and `()` all as `null`. So it would decode
//! `Some(NaN)`, `Some(None)` and `Some(())` as `None`. [`JsonWriter`] writes the same text as
//! `serde_json` and refuses these.

mod key;
mod watch;

use serde::de::DeserializeOwned;
use serde::ser::{Error as _, Serialize, Serializer};

use self::key::Key;
use self::watch::{Notes, Watch};
use super::Parsed;
use super::compound::impl_compound;
use super::refusal::Refusal;
use crate::blob;

/// The deepest nesting that `serde_json` decodes.
const DEEPEST: u32 = 127;

/// Maximum number of `Some` and newtype structs around each other. They add nothing to the text, but each takes stack:
/// a list that consists of them would overflow the stack of the program.
const MOST_WRAPPERS: u32 = 512;

/// The depth of a value that may be read. The reader counts arrays, objects, `Some` and newtype structs alike. A type
/// that consists only of the last two could be read for ever, since no byte of a text ends them.
const DEEPEST_READ: u32 = DEEPEST + MOST_WRAPPERS + 1;

/// The names of structs whose only field `serde_json` writes as it is.
const RAW: [&str; 2] = ["$serde_json::private::RawValue", "$serde_json::private::Number"];

/// Decodes one value, which must use all bytes, if it is nested no deeper than `deepest`.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8], deepest: u32) -> Parsed<T> {
    let notes = Notes::new(deepest.min(DEEPEST_READ));
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    // A `match`, and no closures: each would be compiled for each type.
    let value = match T::deserialize(Watch::new(&mut reader, &notes)) {
        Ok(value) => match reader.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(error.to_string()),
        },
        Err(error) => Err(error.to_string()),
    };
    Parsed { value, is_doubtful: notes.is_doubtful.get(), is_too_deep: notes.is_too_deep.get() }
}

/// Appends one value.
pub(super) struct JsonWriter<'w> {
    out: &'w mut Vec<u8>,
    depth: u32,
    /// The number of `Some` and newtype structs around the value.
    wrappers: u32,
    /// The value needs [`check_before_sending`](super::checks::check_before_sending).
    pub(super) is_doubtful: bool,
    /// The number of keys that are those of objects which stand for blobs.
    pub(super) marks: usize,
}

impl<'w> JsonWriter<'w> {
    pub(super) fn new(out: &'w mut Vec<u8>) -> Self {
        Self { out, depth: 0, wrappers: 0, is_doubtful: false, marks: 0 }
    }

    #[inline]
    fn leaf<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        serde_json::to_writer(&mut *self.out, value).map_err(Refusal::custom)
    }

    /// A key that is a text.
    #[inline]
    fn name(&mut self, name: &str) -> Result<(), Refusal> {
        self.marks += usize::from(blob::is_mark(name));
        self.leaf(name)
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    fn descend(&mut self, levels: u32) -> Result<(), Refusal> {
        self.depth += levels;
        if self.depth > DEEPEST {
            return Err(too_deep());
        }
        Ok(())
    }

    /// The content of a `Some` or a newtype struct.
    #[inline]
    fn wrapped<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        self.wrappers += 1;
        if self.wrappers > MOST_WRAPPERS {
            return Err(too_wrapped());
        }
        value.serialize(&mut *self)?;
        self.wrappers -= 1;
        Ok(())
    }

    #[inline]
    fn open(&mut self, open: &[u8], close: &'static [u8]) -> Result<JsonCompound<'_, 'w>, Refusal> {
        self.descend(1)?;
        self.put(open);
        Ok(JsonCompound { writer: self, close, levels: 1, index: 0, key: (0, 0), is_raw: false })
    }

    /// An object whose only key is the name of a variant.
    fn open_variant(
        &mut self,
        name: &str,
        open: &[u8],
        close: &'static [u8],
    ) -> Result<JsonCompound<'_, 'w>, Refusal> {
        self.descend(2)?;
        self.put(b"{");
        self.name(name)?;
        self.put(b":");
        self.put(open);
        Ok(JsonCompound { writer: self, close, levels: 2, index: 0, key: (0, 0), is_raw: false })
    }
}

#[cold]
fn too_deep() -> Refusal {
    Refusal::new(format!("JSON that is nested more than {DEEPEST} levels deep is not read back"))
}

#[cold]
fn too_wrapped() -> Refusal {
    Refusal::new(format!(
        "it has more than {MOST_WRAPPERS} `Some` and newtype structs around each other"
    ))
}

#[cold]
fn not_finite(number: f64) -> Refusal {
    Refusal::new(format!("JSON has no number {number}"))
}

/// Types that buffer a number before they decode it get a float for one above 64 bits.
fn fits_64_bits(number: i128) -> bool {
    i64::try_from(number).is_ok() || u64::try_from(number).is_ok()
}

macro_rules! leaves {
    ($($method:ident: $type:ty),*) => {
        $(#[inline]
        fn $method(self, value: $type) -> Result<(), Refusal> {
            self.leaf(&value)
        })*
    };
}

impl<'a, 'w> Serializer for &'a mut JsonWriter<'w> {
    type Ok = ();
    type Error = Refusal;
    type SerializeSeq = JsonCompound<'a, 'w>;
    type SerializeTuple = JsonCompound<'a, 'w>;
    type SerializeTupleStruct = JsonCompound<'a, 'w>;
    type SerializeTupleVariant = JsonCompound<'a, 'w>;
    type SerializeMap = JsonCompound<'a, 'w>;
    type SerializeStruct = JsonCompound<'a, 'w>;
    type SerializeStructVariant = JsonCompound<'a, 'w>;

    leaves!(
        serialize_bool: bool, serialize_char: char, serialize_str: &str,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64
    );

    fn serialize_i128(self, value: i128) -> Result<(), Refusal> {
        self.is_doubtful |= !fits_64_bits(value);
        self.leaf(&value)
    }

    fn serialize_u128(self, value: u128) -> Result<(), Refusal> {
        self.is_doubtful |= u64::try_from(value).is_err();
        self.leaf(&value)
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<(), Refusal> {
        if value.is_finite() { self.leaf(&value) } else { Err(not_finite(value.into())) }
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<(), Refusal> {
        if value.is_finite() { self.leaf(&value) } else { Err(not_finite(value)) }
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Refusal> {
        self.descend(1)?;
        self.leaf(value)?;
        self.depth -= 1;
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Refusal> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refusal> {
        let before = self.out.len();
        self.wrapped(value)?;
        if &self.out[before..] == b"null" {
            return Err(Refusal::new("in JSON this value inside Some(..) would be read as None"));
        }
        Ok(())
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Refusal> {
        self.put(b"null");
        Ok(())
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
        self.leaf(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refusal> {
        self.wrapped(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refusal> {
        self.descend(1)?;
        self.put(b"{");
        self.name(variant)?;
        self.put(b":");
        value.serialize(&mut *self).map_err(|refusal| refusal.in_field(variant))?;
        self.put(b"}");
        self.depth -= 1;
        Ok(())
    }

    #[inline]
    fn serialize_seq(self, _: Option<usize>) -> Result<JsonCompound<'a, 'w>, Refusal> {
        self.open(b"[", b"]")
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<JsonCompound<'a, 'w>, Refusal> {
        self.open(b"[", b"]")
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<JsonCompound<'a, 'w>, Refusal> {
        self.open(b"[", b"]")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<JsonCompound<'a, 'w>, Refusal> {
        self.open_variant(variant, b"[", b"]}")
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<JsonCompound<'a, 'w>, Refusal> {
        // No length: most likely a struct with flattened fields.
        self.is_doubtful |= len.is_none();
        self.open(b"{", b"}")
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<JsonCompound<'a, 'w>, Refusal> {
        if RAW.contains(&name) {
            let (close, levels, key, is_raw) = (&b""[..], 0, (0, 0), true);
            return Ok(JsonCompound { writer: self, close, levels, index: 0, key, is_raw });
        }
        self.open(b"{", b"}")
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<JsonCompound<'a, 'w>, Refusal> {
        self.open_variant(variant, b"{", b"}}")
    }
}

/// An array or an object that is being written.
pub(super) struct JsonCompound<'a, 'w> {
    writer: &'a mut JsonWriter<'w>,
    close: &'static [u8],
    /// The levels of nesting that it adds.
    levels: u32,
    /// The number of elements so far.
    index: usize,
    /// The range of the last key in the text.
    key: (usize, usize),
    /// Its only field is JSON text, to be written as it is.
    is_raw: bool,
}

impl JsonCompound<'_, '_> {
    #[inline]
    fn separate(&mut self) {
        if self.index > 0 {
            self.writer.put(b",");
        }
        self.index += 1;
    }

    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        self.separate();
        value.serialize(&mut *self.writer).map_err(|refusal| refusal.in_element(self.index - 1))
    }

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        self.separate();
        let result = value.serialize(&mut *self.writer);
        result.map_err(|refusal| refusal.in_field(&(self.index - 1).to_string()))
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Refusal> {
        if self.is_raw {
            return self.raw(value);
        }
        self.separate();
        self.writer.name(name)?;
        self.writer.put(b":");
        value.serialize(&mut *self.writer).map_err(|refusal| refusal.in_field(name))
    }

    /// The value is a text. It is written as a key is: that is less code for each type than a writer of any value.
    fn raw<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        let mut quoted = Vec::new();
        let mut writer = JsonWriter::new(&mut quoted);
        value.serialize(Key(&mut writer))?;
        let is_text = !writer.is_doubtful;
        self.put_unquoted(&quoted, is_text)
    }

    /// `is_text`: the value was no number or boolean, which [`Key`] puts into quotes.
    fn put_unquoted(&mut self, quoted: &[u8], is_text: bool) -> Result<(), Refusal> {
        if !is_text {
            return Err(Refusal::new("only a text is written into JSON as it is"));
        }
        let text: String = serde_json::from_slice(quoted).map_err(Refusal::custom)?;
        self.writer.put(text.as_bytes());
        Ok(())
    }

    #[inline]
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refusal> {
        self.separate();
        let before = self.writer.out.len();
        let result = key.serialize(Key(self.writer));
        result.map_err(|refusal| refusal.in_field(&format!("key {}", self.index - 1)))?;
        self.key = (before, self.writer.out.len());
        Ok(())
    }

    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        self.writer.put(b":");
        let result = value.serialize(&mut *self.writer);
        result.map_err(|refusal| refusal.under_key(&self.writer.out[self.key.0..self.key.1]))
    }

    #[inline]
    fn close(self) -> Result<(), Refusal> {
        self.writer.put(self.close);
        self.writer.depth -= self.levels;
        Ok(())
    }
}

impl_compound!(JsonCompound<'_, '_>);
