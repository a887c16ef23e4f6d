//! A wrapper of the deserializer of `serde_json` that notes calls of `deserialize_any`. A type that
//! calls it, such as an untagged enum, inspects the value to find out what it is, and may be decoded as
//! another value than the one that was sent. So may a struct of which a field was left out, and has a default, or
//! that ignores a field, since its fields are read by other names than they are written; and an enum that takes
//! the name of a variant which it does not know for another one (`serde(other)`).

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use crate::blob;

/// What the type has asked for.
#[derive(Clone, Copy)]
enum Expected {
    /// Nothing that can be left out or misnamed.
    Value,
    /// The fields of a struct. This number of them is still to come.
    Fields(usize),
    /// A variant of one of these names.
    Variant(&'static [&'static str]),
}

/// What is recorded while a value is read.
pub(super) struct Notes {
    /// The value has to be verified.
    pub(super) is_doubtful: Cell<bool>,
    /// It is nested more deeply than [`deepest`](Self::deepest), so it was not read.
    pub(super) is_too_deep: Cell<bool>,
    pub(super) deepest: u32,
}

impl Notes {
    pub(super) fn new(deepest: u32) -> Self {
        Self { is_doubtful: Cell::new(false), is_too_deep: Cell::new(false), deepest }
    }
}

/// Forwards all calls, and wraps nested deserializers, visitors and accesses in the same way.
pub(super) struct Watch<'w, I> {
    inner: I,
    notes: &'w Notes,
    /// How many values are around this one.
    depth: u32,
    expected: Expected,
    /// It is the whole value.
    is_whole: bool,
}

impl<'w, I> Watch<'w, I> {
    #[inline]
    pub(super) fn new(inner: I, notes: &'w Notes) -> Self {
        Self { inner, notes, depth: 0, expected: Expected::Value, is_whole: true }
    }

    #[inline]
    fn wrap<J>(&self, inner: J) -> Watch<'w, J> {
        self.wrap_expected(inner, Expected::Value)
    }

    #[inline]
    fn wrap_expected<J>(&self, inner: J, expected: Expected) -> Watch<'w, J> {
        Watch { inner, notes: self.notes, depth: self.depth, expected, is_whole: false }
    }

    /// Wraps what is within the value.
    #[inline]
    fn wrap_nested<J, E: Error>(&self, inner: J) -> Result<Watch<'w, J>, E> {
        let depth = self.depth + 1;
        if depth > self.notes.deepest {
            return Err(self.too_deep());
        }
        Ok(Watch { depth, ..self.wrap_expected(inner, self.expected) })
    }

    #[cold]
    fn too_deep<E: Error>(&self) -> E {
        self.notes.is_too_deep.set(true);
        E::custom("it is nested too deeply")
    }

    /// Counts a field, or notes that the rest were left out.
    #[inline]
    fn count_field(&mut self, is_there: bool) {
        match &mut self.expected {
            Expected::Fields(left) if is_there => *left = left.saturating_sub(1),
            Expected::Fields(1..) => self.notes.is_doubtful.set(true),
            _ => (),
        }
    }

    /// Notes a variant that the type does not know, and may take for another.
    #[inline]
    fn check_variant(&self, name: &str) {
        if let Expected::Variant(variants) = self.expected
            && !variants.contains(&name)
        {
            self.notes.is_doubtful.set(true);
        }
    }
}

macro_rules! forward {
    ($($method:ident($($name:ident: $type:ty),*))*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.wrap(visitor);
            self.inner.$method($($name,)* visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Watch<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        if !blob::is_asking() {
            self.notes.is_doubtful.set(true);
        }
        let visitor = self.wrap(visitor);
        self.inner.deserialize_any(visitor)
    }

    /// A part that is ignored, such as a field of another name, would be left out of the value. The whole is
    /// ignored by those who want no value.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        if !self.is_whole {
            self.notes.is_doubtful.set(true);
        }
        self.inner.deserialize_ignored_any(visitor)
    }

    forward! {
        deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64()
        deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64()
        deserialize_u128() deserialize_f32() deserialize_f64() deserialize_char() deserialize_str()
        deserialize_string() deserialize_bytes() deserialize_byte_buf() deserialize_option()
        deserialize_unit() deserialize_seq() deserialize_map()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize)
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.wrap_expected(visitor, self.expected);
        self.inner.deserialize_identifier(visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.wrap_expected(visitor, Expected::Variant(variants));
        self.inner.deserialize_enum(name, variants, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.wrap_expected(visitor, Expected::Fields(len));
        self.inner.deserialize_tuple_struct(name, len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.wrap_expected(visitor, Expected::Fields(fields.len()));
        self.inner.deserialize_struct(name, fields, visitor)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! forward_visit {
    ($($method:ident: $type:ty),*) => {
        $(#[inline]
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

macro_rules! forward_visit_nested {
    ($($method:ident: $trait:ident),*) => {
        $(#[inline]
        fn $method<A: $trait<'de>>(self, nested: A) -> Result<V::Value, A::Error> {
            let nested = self.wrap_nested(nested)?;
            self.inner.$method(nested)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watch<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    forward_visit!(
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64,
        visit_i128: i128, visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64,
        visit_u128: u128, visit_f32: f32, visit_f64: f64, visit_char: char, visit_string: String,
        visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>
    );

    #[inline]
    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        self.check_variant(value);
        self.inner.visit_str(value)
    }

    #[inline]
    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<V::Value, E> {
        self.check_variant(value);
        self.inner.visit_borrowed_str(value)
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    forward_visit_nested!(
        visit_some: Deserializer, visit_newtype_struct: Deserializer, visit_seq: SeqAccess,
        visit_map: MapAccess, visit_enum: EnumAccess
    );
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Watch<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.wrap_expected(deserializer, self.expected);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Watch<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        let seed = self.wrap(seed);
        let element = self.inner.next_element_seed(seed)?;
        self.count_field(element.is_some());
        Ok(element)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Watch<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let seed = self.wrap(seed);
        let key = self.inner.next_key_seed(seed)?;
        self.count_field(key.is_some());
        Ok(key)
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.wrap(seed);
        self.inner.next_value_seed(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'w, A: EnumAccess<'de>> EnumAccess<'de> for Watch<'w, A> {
    type Error = A::Error;
    type Variant = Watch<'w, A::Variant>;

    #[inline]
    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        let seed = self.wrap_expected(seed, self.expected);
        let (notes, depth) = (self.notes, self.depth);
        let (value, inner) = self.inner.variant_seed(seed)?;
        Ok((value, Watch { inner, notes, depth, expected: Expected::Value, is_whole: false }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Watch<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.wrap(seed);
        self.inner.newtype_variant_seed(seed)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.wrap_expected(visitor, Expected::Fields(len));
        self.inner.tuple_variant(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.wrap_expected(visitor, Expected::Fields(fields.len()));
        self.inner.struct_variant(fields, visitor)
    }
}
