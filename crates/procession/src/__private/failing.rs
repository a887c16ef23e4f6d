//! How the error of a function becomes a [`Failure`], by the traits that the error has.
//!
//! The traits here have a method of the same name, and are implemented for references of different
//! depths to [`Kind`]. A method call on the deepest reference selects the first trait whose bounds hold, from
//! the top of this file to its end. This needs a known type of the error, which a task has.

use std::error::Error;
use std::fmt::Display;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Failure;

/// The type of an error.
#[derive(Debug)]
pub struct Kind<E>(PhantomData<fn(E)>);

impl<E> Kind<E> {
    /// Of this error.
    pub fn of(_: &E) -> Self {
        Self(PhantomData)
    }
}

/// A `Failure`, or a box that `Failure::from` cannot take.
pub trait AsFailure {
    /// The conversion.
    type With;
    /// Chooses it.
    fn choose(&self) -> Self::With;
}

impl AsFailure for &&&&Kind<Failure> {
    type With = Unchanged;
    fn choose(&self) -> Unchanged {
        Unchanged
    }
}

impl AsFailure for &&&&Kind<Box<dyn Error + Send + Sync>> {
    type With = FromBox;
    fn choose(&self) -> FromBox {
        FromBox
    }
}

impl AsFailure for &&&&Kind<Box<dyn Error + Send>> {
    type With = FromBox;
    fn choose(&self) -> FromBox {
        FromBox
    }
}

/// No conversion.
#[derive(Debug)]
pub struct Unchanged;

impl Unchanged {
    /// Converts.
    pub fn convert(self, error: Failure) -> Failure {
        error
    }
}

/// The conversion of a box.
#[derive(Debug)]
pub struct FromBox;

impl FromBox {
    /// Converts.
    pub fn convert<E: Boxed>(self, error: E) -> Failure {
        Failure::from_error(error.error())
    }
}

/// A box of an error.
pub trait Boxed {
    /// What is in it.
    fn error(&self) -> &(dyn Error + 'static);
}

impl Boxed for Box<dyn Error + Send + Sync> {
    fn error(&self) -> &(dyn Error + 'static) {
        &**self
    }
}

impl Boxed for Box<dyn Error + Send> {
    fn error(&self) -> &(dyn Error + 'static) {
        &**self
    }
}

/// An error that can be sent.
pub trait AsTyped {
    /// Chooses the conversion.
    fn choose(&self) -> Typed {
        Typed
    }
}

impl<E: Error + Serialize + DeserializeOwned> AsTyped for &&&Kind<E> {}

/// The conversion of an error that can be sent.
#[derive(Debug)]
pub struct Typed;

impl Typed {
    /// Converts.
    pub fn convert<E: Error + Serialize + DeserializeOwned>(self, error: E) -> Failure {
        Failure::typed(error)
    }
}

/// An error, or a value that can be converted into a box of one.
pub trait AsSource {
    /// Chooses the conversion.
    fn choose(&self) -> Source {
        Source
    }
}

impl<E: Into<Box<dyn Error>>> AsSource for &&Kind<E> {}

/// The conversion of an error.
#[derive(Debug)]
pub struct Source;

impl Source {
    /// Converts.
    pub fn convert<E: Into<Box<dyn Error>>>(self, error: E) -> Failure {
        Failure::from(error)
    }
}

/// No error, but a value that can be sent and has a text.
pub trait AsTypedMessage {
    /// Chooses the conversion.
    fn choose(&self) -> TypedMessage {
        TypedMessage
    }
}

impl<E: Display + Serialize + DeserializeOwned> AsTypedMessage for &Kind<E> {}

/// The conversion of a value that can be sent and has a text.
#[derive(Debug)]
pub struct TypedMessage;

impl TypedMessage {
    /// Converts.
    pub fn convert<E: Display + Serialize + DeserializeOwned>(self, error: E) -> Failure {
        Failure::typed_message(error)
    }
}

/// Everything else.
pub trait AsMessage {
    /// Chooses the conversion.
    fn choose(&self) -> MessageOnly {
        MessageOnly
    }
}

impl<E> AsMessage for Kind<E> {}

/// The conversion of what has a text, and of nothing else.
#[derive(Debug)]
pub struct MessageOnly;

impl MessageOnly {
    /// Converts.
    pub fn convert<E: TaskFails>(self, error: E) -> Failure {
        error.into_failure()
    }
}

/// What may be the error of a task.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a task",
    label = "has no text",
    note = "the error of a task implements `std::error::Error` or at least `Display`; one that also \
            implements `Serialize` and `Deserialize` is given back by `TaskError::downcast`"
)]
pub trait TaskFails {
    /// Converts.
    fn into_failure(self) -> Failure;
}

#[diagnostic::do_not_recommend]
impl<E: Display> TaskFails for E {
    fn into_failure(self) -> Failure {
        Failure::msg(self)
    }
}
