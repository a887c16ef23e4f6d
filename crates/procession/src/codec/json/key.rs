//! The writer of map keys, which JSON has as texts only. Numbers, booleans, characters and unit
//! variants are written as texts; other keys are refused.

use std::fmt::Display;

use serde::ser::{Impossible, Serialize, Serializer};

use super::{JsonWriter, not_finite};
use crate::codec::refusal::Refusal;

/// Writes one key.
pub(super) struct Key<'a, 'w>(pub(super) &'a mut JsonWriter<'w>);

type Never = Impossible<(), Refusal>;

impl Key<'_, '_> {
    /// Writes a key that is no text. A type that inspects it, such as an untagged enum, decodes a
    /// text, so the value is doubtful.
    fn quoted(self, value: impl Display) -> Result<(), Refusal> {
        use std::io::Write;
        self.0.is_doubtful = true;
        write!(self.0.out, "\"{value}\"").map_err(|error| Refusal::new(error.to_string()))
    }
}

fn no_key<T>(what: &str) -> Result<T, Refusal> {
    Err(Refusal::new(format!("JSON has no map keys that are {what}")))
}

macro_rules! quoted {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, value: $type) -> Result<(), Refusal> {
            self.quoted(value)
        })*
    };
}

impl Serializer for Key<'_, '_> {
    type Ok = ();
    type Error = Refusal;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    quoted!(
        serialize_bool: bool,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128
    );

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Refusal> {
        self.0.name(value)
    }

    fn serialize_char(self, value: char) -> Result<(), Refusal> {
        self.0.leaf(&value)
    }

    fn serialize_f32(self, value: f32) -> Result<(), Refusal> {
        self.finite(value.is_finite(), f64::from(value), &value)
    }

    fn serialize_f64(self, value: f64) -> Result<(), Refusal> {
        self.finite(value.is_finite(), value, &value)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Refusal> {
        self.0.name(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refusal> {
        value.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), Refusal> {
        no_key("options")
    }

    fn serialize_none(self) -> Result<(), Refusal> {
        no_key("options")
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Refusal> {
        no_key("bytes")
    }

    fn serialize_unit(self) -> Result<(), Refusal> {
        no_key("units")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refusal> {
        no_key("units")
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Refusal> {
        no_key("enum variants with data")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Never, Refusal> {
        no_key("sequences")
    }

    fn serialize_tuple(self, _: usize) -> Result<Never, Refusal> {
        no_key("tuples")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Never, Refusal> {
        no_key("tuples")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never, Refusal> {
        no_key("enum variants with data")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Never, Refusal> {
        no_key("maps")
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Never, Refusal> {
        no_key("structs")
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never, Refusal> {
        no_key("enum variants with data")
    }
}

impl Key<'_, '_> {
    fn finite<T: Serialize>(self, is: bool, as_f64: f64, value: &T) -> Result<(), Refusal> {
        if !is {
            return Err(not_finite(as_f64));
        }
        self.0.is_doubtful = true;
        self.0.put(b"\"");
        self.0.leaf(value)?;
        self.0.put(b"\"");
        Ok(())
    }
}
