//! Functions for the code that the attributes generate. Not for other code: they may change with any version.

pub mod failing;

pub use linkme;
pub use serde;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::registry::Registered;
use crate::registry::Registry;
use crate::worker;

/// The tasks of this program.
#[linkme::distributed_slice]
pub static TASKS: [Registered];

/// The paths of the tests by which a worker can be started.
#[linkme::distributed_slice]
pub static TESTS: [&'static str];

/// Serves, if this test was started as a worker, or runs the task that the environment names.
pub fn serve_test() {
    let registry = Registry::collected();
    worker::serve_if_invited(&registry);
    worker::replay_if_asked(&registry);
}

/// An argument of a task.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a task",
    label = "cannot be sent to another process",
    note = "a task is encoded and sent to a worker process: its arguments implement `Serialize`, \
            `Deserialize` and `Send`, and own what they have",
    note = "for a type of your own: `#[derive(serde::Serialize, serde::Deserialize)]`"
)]
pub trait Argument: Serialize + DeserializeOwned + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Argument for T {}

/// How an argument is encoded: as its type does.
pub mod argument {
    use serde::{Deserializer, Serializer};

    use super::Argument;

    /// Encodes.
    #[inline]
    pub fn serialize<T: Argument, S: Serializer>(value: &T, into: S) -> Result<S::Ok, S::Error> {
        value.serialize(into)
    }

    /// Decodes.
    #[inline]
    pub fn deserialize<'de, T: Argument, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        T::deserialize(from)
    }
}

/// What a task that may fail returns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is named `Result` and is not `std::result::Result`",
    note = "a task returns a `std::result::Result`, or an alias of it that is named `Result`, or a value"
)]
pub trait Fallible {
    /// What the task gives back.
    type Output;
    /// The error of the task.
    type Error;
    /// The result itself.
    fn into_result(self) -> Result<Self::Output, Self::Error>;
}

/// Whether a type is a `Result`, also by another name: the inherent constant hides that of the trait.
///
/// The errors of such a task would be outputs, so it does not compile:
///
/// ```compile_fail,E0080
/// type Outcome<T> = Result<T, String>;
///
/// #[procession::task]
/// fn half(n: u32) -> Outcome<u32> {
///     n.is_multiple_of(2).then_some(n / 2).ok_or("odd".to_owned())
/// }
/// # fn main() {}
/// ```
///
/// ```
/// #[procession::task]
/// fn half(n: u32) -> Result<u32, String> {
///     n.is_multiple_of(2).then_some(n / 2).ok_or("odd".to_owned())
/// }
/// # fn main() {}
/// ```
pub struct Probe<T>(std::marker::PhantomData<T>);

impl<T, E> Probe<Result<T, E>> {
    /// It is.
    pub const IS_RESULT: bool = true;
}

/// For all other types.
pub trait IsNoResult {
    /// It is not.
    const IS_RESULT: bool = false;
}

impl<T> IsNoResult for Probe<T> {}

impl<T, E> Fallible for Result<T, E> {
    type Output = T;
    type Error = E;
    fn into_result(self) -> Self {
        self
    }
}
