//! A [`Task`] is a value with a method `run`, and a [`Context`] is what that method may know about where
//! it runs. Nothing here depends on an executor.

mod context;
mod locals;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::Encoding;
use crate::error::Failure;

pub use self::context::Context;
pub(crate) use self::context::{LabelSink, SetLabel};
pub(crate) use self::locals::Locals;
#[cfg(test)]
pub(crate) use self::tests::Nothing;

/// A piece of work that can be sent to another process.
///
/// The value itself is the argument: it is encoded, sent, decoded by the worker and run there; its
/// output comes back in the same way. On a sequential or thread executor the task is run as it is.
///
/// What is decoded equals what was encoded. Every number is exact, down to the last bit of an
/// `f64`. A value that the encoding cannot hold is never changed: it is refused before it is sent,
/// with a [`TaskError::Unencodable`](crate::TaskError::Unencodable) that names the task and the
/// field, such as `.items[3].ratio`. JSON, which is the default, has no NaN and no infinities, no
/// `Some(None)` and no `Some(())`, and no map keys such as tuples. A task whose values may be like
/// that chooses the other encoding, which holds them all:
///
/// ```
/// # use procession::{Context, Encoding, Failure, Task};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// struct Mean(Vec<f64>);
///
/// impl Task for Mean {
///     const NAME: &'static str = "mean";
///     const ENCODING: Encoding = Encoding::Binary;
///     type Output = Option<f64>; // Some(NaN) is no None
///     fn run(self, _: &Context) -> Result<Option<f64>, Failure> {
///         let number = self.0.len();
///         Ok((number > 0).then(|| self.0.iter().sum::<f64>() / number as f64))
///     }
/// }
/// ```
///
/// Both encodings write what a type's `Serialize` says. They cannot know what it leaves out
/// (`#[serde(skip)]`), nor which of two variants of an `#[serde(untagged)]` enum was meant if both
/// look the same. `docs/encodings.md` in the repository has a table of what each of them holds.
///
/// ```
/// use procession::{Context, Failure, Task};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Parse(String);
///
/// impl Task for Parse {
///     const NAME: &'static str = "parse";
///     type Output = i64;
///     fn run(self, _: &Context) -> Result<i64, Failure> {
///         Ok(self.0.trim().parse()?)
///     }
/// }
/// ```
///
/// Most tasks are functions: the attribute [`task`](macro@crate::task) writes all of this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "not a task",
    note = "a task is what a function with `#[procession::task]` returns: call that function with its \
            arguments",
    note = "or implement `procession::Task` for a type of your own"
)]
pub trait Task: Serialize + DeserializeOwned + Send + 'static {
    /// The name under which a [`Registry`](crate::Registry) knows this kind of task.
    const NAME: &'static str;
    /// What the task gives back.
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// How the task and its output are encoded where they cross the border of a process.
    const ENCODING: Encoding = Encoding::Json;

    /// Does the work. `?` takes every [`std::error::Error`], boxes of them, `anyhow::Error` and texts:
    /// see [`Failure`]. See the example of [`Task`].
    fn run(self, context: &Context) -> Result<Self::Output, Failure>;
}

/// Identifies one submitted task within this process; never used twice.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// let pool = Sequential::new();
/// let (first, second) = (pool.submit(square(1)), pool.submit(square(2)));
/// assert!(first.id() < second.id(), "in the order of submission");
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(crate) u64);

impl TaskId {
    pub(crate) fn next() -> Self {
        Self::next_many(1)
    }

    /// Reserves `number` consecutive ids and returns the first.
    pub(crate) fn next_many(number: usize) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(number as u64, Ordering::Relaxed))
    }
}

#[cfg(feature = "remote")]
impl TaskId {
    /// Its number, to be sent.
    ///
    /// ```
    /// # use procession::TaskId;
    /// let id = TaskId::of_number(17);
    /// assert_eq!((id.number(), id.to_string()), (17, "17".to_owned()));
    /// ```
    pub fn number(self) -> u64 {
        self.0
    }

    /// The id with a number that [`number`](Self::number) has given. See the example of [`number`](Self::number).
    pub fn of_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Nothing;

    impl Task for Nothing {
        const NAME: &'static str = "nothing";
        type Output = ();
        fn run(self, _: &Context) -> Result<(), Failure> {
            Ok(())
        }
    }
}
