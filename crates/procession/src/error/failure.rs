//! The error of a task: [`Failure`], which the task returns, and [`Cause`], which arrives.
//!
//! The messages always arrive. The error itself arrives if it can be sent: it is encoded beside the messages,
//! with the name of its type, and [`Cause::downcast`] decodes it. All executors do this, also those that could
//! pass the error on as it is, so that a program gets the same from each.

use std::any::type_name;
use std::error::Error;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{self, BinaryEncoding};
use crate::printable::printable;

/// A task's own error as it crossed the process border: each message, outermost first.
///
/// It is an [`Error`] whose [`source`](Error::source) is the next cause, so reporters such as
/// `anyhow` print the chain as if the error had happened here. At most 64 messages of a chain are
/// kept; one more says where it was cut.
///
/// If the error could be sent, [`downcast`](Self::downcast) gives it back.
///
/// ```
/// use std::error::Error;
///
/// use procession::TaskError;
///
/// let TaskError::Failed(cause) = TaskError::failed("no such file") else { unreachable!() };
/// assert_eq!(cause.to_string(), "no such file");
/// assert!(cause.source().is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Box<Cause>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Box<EncodedError>>,
}

/// An encoded error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EncodedError {
    /// The name of its type.
    of: String,
    /// In [`Encoding::Binary`](crate::Encoding::Binary), two hexadecimal digits a byte.
    hex: String,
}

/// How many messages of a chain are kept. A chain may be endless: an error can be its own source.
const MAX_CAUSES: usize = 64;

impl Cause {
    fn of(error: &dyn Error) -> Self {
        let mut messages = vec![error.to_string()];
        let mut next = error.source();
        while let Some(error) = next {
            if messages.len() == MAX_CAUSES {
                messages.push(format!("the chain of causes was cut after {MAX_CAUSES} messages"));
                break;
            }
            messages.push(error.to_string());
            next = error.source();
        }
        let chain = messages
            .into_iter()
            .rev()
            .fold(None, |source, message| Some(Box::new(Cause { message, source, value: None })));
        *chain.expect("a chain of at least one message")
    }

    /// The task's error itself, if it is an `E` and could be sent.
    ///
    /// A function with [`task`](macro@crate::task) sends its error if that implements
    /// `Serialize` and `Deserialize`; a hand-written [`Task`](crate::Task) does with
    /// [`Failure::typed`]. The type is compared by its name, which does not tell two versions of a
    /// crate apart.
    ///
    /// ```
    /// # use procession::{Failure, TaskError};
    /// # #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize, thiserror::Error)]
    /// # #[error("no page {page}")]
    /// # struct NoPage { page: u32 }
    /// # let error = TaskError::failed(Failure::typed(NoPage { page: 7 }));
    /// let TaskError::Failed(cause) = error else { unreachable!() };
    /// assert_eq!(cause.to_string(), "no page 7"); // the message arrives always,
    /// assert_eq!(cause.downcast(), Ok(NoPage { page: 7 })); // the value if it can be sent
    /// ```
    ///
    /// # Errors
    ///
    /// - [`DowncastError::NoValue`]: only the messages were sent.
    /// - [`DowncastError::OfAnotherType`], [`DowncastError::Undecodable`].
    pub fn downcast<E: Serialize + DeserializeOwned + Send>(&self) -> Result<E, DowncastError> {
        let wanted = type_name::<E>();
        let Some(value) = &self.value else {
            return Err(DowncastError::NoValue { wanted, error: self.to_string() });
        };
        if value.of != wanted {
            return Err(DowncastError::OfAnotherType { wanted, found: value.of.clone() });
        }
        let undecodable = |reason| DowncastError::Undecodable { wanted, reason };
        let bytes =
            from_hex(&value.hex).ok_or_else(|| undecodable("it is not hexadecimal".to_owned()))?;
        codec::decode::<BinaryEncoding, E>(&bytes, Vec::new())
            .map_err(|refusal| undecodable(refusal.to_string()))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}

/// Why an error cannot be had as the type that was asked for.
///
/// ```
/// use procession::{DowncastError, TaskError};
///
/// let error = TaskError::failed("only a text").downcast::<u32>();
/// assert!(matches!(error, Err(DowncastError::NoValue { wanted: "u32", .. })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DowncastError {
    /// The task did not fail with an error of its own, but panicked or died, say; or only the messages of
    /// its error could be sent.
    #[error("there is no {wanted} in the error: {}", printable(error))]
    NoValue {
        /// The name of the type that was asked for.
        wanted: &'static str,
        /// What the error says that was asked.
        error: String,
    },
    /// The error has another type.
    #[error("the error has type {}, not {wanted}", printable(found))]
    OfAnotherType {
        /// The name of the type that was asked for.
        wanted: &'static str,
        /// The name of the type of the error.
        found: String,
    },
    /// The error has a type of this name and cannot be decoded.
    #[error("the error cannot be decoded as a {wanted}: {}", printable(reason))]
    Undecodable {
        /// The name of the type that was asked for.
        wanted: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

/// What a task returns when it fails: made by `?` from any [`Error`], from `Box<dyn Error>`, from
/// `anyhow::Error` and from texts.
///
/// Only the messages are kept, since few error values can leave their process; those that can are
/// kept by [`Failure::typed`]. Like `anyhow::Error` it is no [`Error`] itself; the future's
/// [`TaskError::Failed`](crate::TaskError::Failed) is.
///
/// ```
/// # use procession::Failure;
/// fn first(line: &str) -> Result<i64, Failure> {
///     let word = line.split(' ').next().ok_or("an empty line")?;
///     Ok(word.parse()?)
/// }
/// assert_eq!(first("7 8").ok(), Some(7));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(Box<Cause>);

impl Failure {
    /// A failure that is only a message.
    ///
    /// ```
    /// # use procession::{Failure, TaskError};
    /// let failure = Failure::msg(format_args!("line {} is empty", 3));
    /// assert_eq!(TaskError::failed(failure).to_string(), "line 3 is empty");
    /// ```
    pub fn msg(message: impl fmt::Display) -> Self {
        Self(Box::new(Cause { message: message.to_string(), source: None, value: None }))
    }

    /// A failure from an error behind a reference or a box, with its whole chain.
    ///
    /// ```
    /// # use procession::{Failure, TaskError};
    /// let error: Box<dyn std::error::Error + Send + Sync> = "no such file".into();
    /// let failure = Failure::from_error(&*error);
    /// assert_eq!(TaskError::failed(failure).to_string(), "no such file");
    /// ```
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self(Box::new(Cause::of(error)))
    }

    /// A failure that carries the error itself, beside its messages: [`Cause::downcast`] gives it
    /// back. If it cannot be encoded, only the messages are kept.
    ///
    /// ```
    /// use procession::{Context, Executor, Failure, Sequential, Task, TaskError};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
    /// #[error("no page {page}")]
    /// struct NoPage { page: u32 }
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Render(u32);
    ///
    /// impl Task for Render {
    ///     const NAME: &'static str = "render";
    ///     type Output = ();
    ///     fn run(self, _: &Context) -> Result<(), Failure> {
    ///         Err(NoPage { page: self.0 }).map_err(Failure::typed)
    ///     }
    /// }
    ///
    /// let error = Sequential::new().submit(Render(7)).result().unwrap_err();
    /// assert_eq!(error.downcast::<NoPage>(), Ok(NoPage { page: 7 }));
    /// ```
    pub fn typed<E: Error + Serialize + DeserializeOwned>(error: E) -> Self {
        Self(Box::new(Cause { value: encoded(&error), ..Cause::of(&error) }))
    }

    /// Like [`typed`](Self::typed), for a value that has a text and is not an [`Error`].
    #[cfg(feature = "macros")]
    pub(crate) fn typed_message<E: fmt::Display + Serialize + DeserializeOwned>(error: E) -> Self {
        Self(Box::new(Cause { value: encoded(&error), ..*Self::msg(&error).0 }))
    }

    pub(crate) fn into_cause(self) -> Cause {
        *self.0
    }
}

/// None if the error holds what cannot be sent: its messages arrive all the same.
fn encoded<E: Serialize + DeserializeOwned>(error: &E) -> Option<Box<EncodedError>> {
    let mut bytes = Vec::new();
    codec::encode_without_blobs::<BinaryEncoding, E>(error, &mut bytes).ok()?;
    Some(Box::new(EncodedError { of: type_name::<E>().to_owned(), hex: to_hex(&bytes) }))
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'e, E: Into<Box<dyn Error + 'e>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(Cause::of(&*error.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Death, Exit, TaskError};

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read settings")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn a_failure_keeps_the_whole_chain_of_causes() {
        let inner = "x".parse::<i32>().unwrap_err();
        let failure = Failure::from(Outer(inner.clone()));
        let error = TaskError::Failed(failure.into_cause());
        assert_eq!(error.to_string(), "cannot read settings");
        assert_eq!(error.source().expect("a source").to_string(), inner.to_string());
    }

    #[derive(Debug)]
    struct Endless;

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("endless")
        }
    }

    impl Error for Endless {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    #[test]
    fn an_error_that_is_its_own_source_is_cut_and_the_last_message_says_so() {
        let cause = Failure::from(Endless).into_cause();
        let mut messages = vec![cause.to_string()];
        let mut next = cause.source();
        while let Some(error) = next {
            messages.push(error.to_string());
            next = error.source();
        }
        assert_eq!(messages.len(), 65);
        assert!(messages[..64].iter().all(|message| message == "endless"));
        assert_eq!(messages[64], "the chain of causes was cut after 64 messages");
    }

    #[test]
    fn the_question_mark_takes_errors_boxes_and_texts() {
        fn tries(number: u32) -> Result<(), Failure> {
            match number {
                0 => Err("a text")?,
                1 => Err("a string".to_owned())?,
                2 => Err(Box::<dyn Error>::from("a box"))?,
                3 => Err(std::io::Error::other("an error"))?,
                // An error that is neither Send nor 'static.
                4 => drop(std::sync::Mutex::new(std::rc::Rc::new(1)).lock()?),
                _ => {}
            }
            Ok(())
        }
        let told = |number| tries(number).unwrap_err().to_string();
        assert_eq!([0, 1, 2, 3].map(told), ["a text", "a string", "a box", "an error"]);
        assert!(tries(4).is_ok());
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
    #[error("the ratio is {ratio}")]
    struct Ratio {
        ratio: f64,
    }

    #[test]
    fn an_error_that_can_be_sent_is_given_back_as_its_own_type_and_as_no_other() {
        let cause = Failure::typed(Ratio { ratio: f64::INFINITY }).into_cause();
        let text = serde_json::to_string(&cause).expect("JSON");
        let cause: Cause = serde_json::from_str(&text).expect("a cause");
        assert_eq!(cause.to_string(), "the ratio is inf");
        assert_eq!(cause.downcast(), Ok(Ratio { ratio: f64::INFINITY }));
        let other = cause.downcast::<String>().unwrap_err().to_string();
        assert!(other.starts_with("the error has type procession::"), "{other}");
        assert!(other.ends_with("::Ratio, not alloc::string::String"), "{other}");
        let plain = Failure::msg("x").into_cause();
        assert!(matches!(plain.downcast::<Ratio>(), Err(DowncastError::NoValue { .. })));
        let death = Death::new("scale", Exit::Signal(11));
        for error in [TaskError::Cancelled, TaskError::WorkerDied(Box::new(death))] {
            let told = error.downcast::<String>().unwrap_err().to_string();
            assert_eq!(told, format!("there is no alloc::string::String in the error: {error}"));
        }
        let mut broken = cause;
        broken.value.as_mut().expect("a value").hex.push('x');
        assert!(matches!(broken.downcast::<Ratio>(), Err(DowncastError::Undecodable { .. })));
    }
}
