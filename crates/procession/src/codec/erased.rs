//! A value without its type, so that what encodes and decodes values is compiled once, and not for each type. Only what
//! serde generates for a type is compiled for it.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::checks::{WithTarget, check_before_sending};
use super::stack::Parsed;
use super::{BinaryEncoding, Encoding, Refusal, TypedEncoding};
use crate::blob::Blob;
use crate::panics;

/// A value that is encoded.
pub(super) trait EncodeSource {
    fn encoding(&self) -> Encoding;
    /// See [`TypedEncoding::write`].
    fn write(&self, out: &mut Vec<u8>) -> Result<bool, Refusal>;
    /// Writes the value with the kind of each part.
    fn write_kinds(&self, out: &mut Vec<u8>) -> Result<bool, Refusal>;
    /// See [`check_before_sending`].
    fn check(&self, written: &[u8], blobs: Option<&[Blob]>) -> Result<(), Refusal>;
}

/// A place for a value that is decoded.
pub(super) trait DecodeTarget {
    fn encoding(&self) -> Encoding;
    /// Decodes a value, which must use all bytes, and keeps it, if it is nested no deeper than `deepest`.
    fn parse(&mut self, bytes: &[u8], deepest: u32) -> Parsed<()>;
    /// Encodes the value that is kept, in the encoding from which it was decoded.
    fn write(&self, out: &mut Vec<u8>) -> Result<bool, Refusal>;
    /// The same with the kind of each part.
    fn write_kinds(&self, out: &mut Vec<u8>) -> Result<bool, Refusal>;
    /// Drops the value that is kept, if there is one. Its `Drop` may panic.
    fn discard(&mut self);
}

/// A value of the type `T` that is encoded in the encoding `F`.
pub(super) struct ValueSource<'v, F, T> {
    value: &'v T,
    form: PhantomData<fn() -> F>,
}

impl<'v, F: TypedEncoding, T: Serialize + DeserializeOwned> ValueSource<'v, F, T> {
    #[inline]
    pub(super) fn new(value: &'v T) -> Self {
        Self { value, form: PhantomData }
    }
}

impl<F: TypedEncoding, T: Serialize + DeserializeOwned> EncodeSource for ValueSource<'_, F, T> {
    fn encoding(&self) -> Encoding {
        F::ENCODING
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        F::write(self.value, out)
    }

    fn write_kinds(&self, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        BinaryEncoding::write(self.value, out)
    }

    fn check(&self, written: &[u8], blobs: Option<&[Blob]>) -> Result<(), Refusal> {
        let with_target: &WithTarget<'_> = &|read| read(&mut ValueTarget::<F, T>::default());
        check_before_sending(self, written, blobs, with_target)
    }
}

/// A value of the type `T` that is decoded from the encoding `F`, or the place for one.
pub(super) struct ValueTarget<F, T> {
    pub(super) value: Option<T>,
    form: PhantomData<fn() -> F>,
}

impl<F, T> ValueTarget<F, T> {
    pub(super) fn of(value: Option<T>) -> Self {
        Self { value, form: PhantomData }
    }
}

impl<F, T> Default for ValueTarget<F, T> {
    fn default() -> Self {
        Self::of(None)
    }
}

impl<F: TypedEncoding, T: Serialize + DeserializeOwned> DecodeTarget for ValueTarget<F, T> {
    fn encoding(&self) -> Encoding {
        F::ENCODING
    }

    fn parse(&mut self, bytes: &[u8], deepest: u32) -> Parsed<()> {
        let Parsed { value, is_doubtful, is_too_deep } = F::parse(bytes, deepest);
        let value = match value {
            Ok(value) => {
                self.value = Some(value);
                Ok(())
            }
            Err(error) => Err(error),
        };
        Parsed { value, is_doubtful, is_too_deep }
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        match &self.value {
            Some(value) => F::write(value, out),
            None => Ok(false),
        }
    }

    fn write_kinds(&self, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        match &self.value {
            Some(value) => BinaryEncoding::write(value, out),
            None => Ok(false),
        }
    }

    fn discard(&mut self) {
        if let Some(value) = self.value.take() {
            panics::discard(value);
        }
    }
}
