//! A [`Registry`] is how a process that receives tasks by name finds the code for them.
//!
//! Tasks that are functions register themselves: `#[procession::task]` puts a static into a section of
//! the program, which the linker gathers from all crates of the program, and
//! [`Registry::collected`] reads. The crate `linkme` does that. The crate `inventory` was tried as
//! well; it needs code that runs before `main`, and this does not. Both found the same tasks:
//!
//! | tried with rustc 1.95 on Linux | tasks of the program | of a library that it uses |
//! |---|---|---|
//! | debug, release, release with `lto = "fat"` | all | all, also of modules that it never names |
//! | unit tests, integration tests, doc tests | all, and those of the test itself | all |
//! | shared library (`cdylib`) in a C program | all | all |
//! | static library (`staticlib`) in a C program, debug or LTO | all | all |
//! | the same in release without LTO | all | those whose object file is linked |
//!
//! The cause of the last row is the C linker: of an archive it links only the object files that the program
//! refers to. The code of a task refers to its registration. So each task that the program can submit is
//! registered, even if the compiler puts code and registration into different object files. A crate with
//! `forbid(unsafe_code)` may have tasks.

use std::any::{TypeId, type_name};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::codec::Encoding;
use crate::task::{Context, Task};
use crate::transport;
use crate::worker;

/// Every kind of task that a worker can run, by name.
///
/// ```
/// use procession::{Context, Failure, Registry, Task, worker};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Square(u64);
///
/// impl Task for Square {
///     const NAME: &'static str = "square";
///     type Output = u64;
///     fn run(self, _: &Context) -> Result<u64, Failure> {
///         Ok(self.0 * self.0)
///     }
/// }
///
/// fn main() {
///     worker::serve_if_asked(Registry::new().with::<Square>());
/// }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Registry {
    kinds: HashMap<&'static str, TaskKind>,
    build_id: String,
}

/// A kind of task.
#[derive(Debug, Clone)]
struct TaskKind {
    id: TypeId,
    type_name: &'static str,
    runner: Runner,
    encoding: Encoding,
    /// Another kind that was found under the same name, so that neither is run.
    rival: Option<&'static str>,
}

/// Decodes a task, runs it, and writes the encoded output or error into the buffer.
pub(crate) type Runner = fn(&[u8], &Context, &mut transport::ReplyBuffer) -> transport::Status;

impl TaskKind {
    fn of<T: Task>() -> Self {
        Self {
            id: TypeId::of::<T>(),
            type_name: type_name::<T>(),
            runner: worker::answer::<T>,
            encoding: T::ENCODING,
            rival: None,
        }
    }
}

/// Two kinds of task of the same name.
fn conflict(name: &str, one: &str, other: &str) -> String {
    format!(
        "two kinds of task are named {name:?}: {one} and {other}. Give one of them another name, \
         such as by #[procession::task(name = \"…\")]"
    )
}

impl Registry {
    /// A registry that knows no task yet. See the example of [`Registry`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the build of the program that has these tasks, such as its version or a hash of its
    /// sources. A pool refuses a worker with another name than [`Builder::build_id`]. Default: none.
    ///
    /// It is of use for a worker program of its own, which may have been built from older sources
    /// than the coordinator. A program that is its own worker needs none.
    ///
    /// [`Builder::build_id`]: crate::Builder::build_id
    ///
    /// ```
    /// # use procession::{ProcessPool, Registry, worker};
    /// // in the worker program:
    /// worker::serve_if_asked(Registry::new().build_id(env!("CARGO_PKG_VERSION")));
    /// // in the coordinator:
    /// let builder = ProcessPool::builder().worker_program("thumbs").build_id(env!("CARGO_PKG_VERSION"));
    /// ```
    pub fn build_id(mut self, id: impl Into<String>) -> Self {
        self.build_id = id.into();
        self
    }

    pub(crate) fn build(&self) -> String {
        transport::build_with(&self.build_id)
    }

    /// Adds a kind of task. One that is there already is left as it is. See the example of [`Registry`].
    ///
    /// # Panics
    ///
    /// If another kind of the same name was added before: tasks would reach the wrong code. The
    /// message names both types.
    pub fn with<T: Task>(mut self) -> Self {
        self.add(T::NAME, TaskKind::of::<T>()).unwrap_or_else(|conflict| panic!("{conflict}"));
        self
    }

    /// Adds all kinds of task that another registry has: those of a library, say, that were written
    /// by hand. The build id of this registry is kept.
    ///
    /// ```
    /// # mod imaging { pub fn tasks() -> procession::Registry { procession::Registry::new() } }
    /// # #[cfg(feature = "macros")]
    /// procession::worker::serve_if_asked(procession::Registry::collected().merge(imaging::tasks()));
    /// ```
    ///
    /// # Panics
    ///
    /// If both have a kind of the same name, and these are not the same type. The message names both
    /// types.
    pub fn merge(mut self, other: Self) -> Self {
        for (name, kind) in other.kinds {
            self.add(name, kind).unwrap_or_else(|conflict| panic!("{conflict}"));
        }
        self
    }

    /// All functions with the attribute [`task`](macro@crate::task) in this program and in the
    /// libraries that it uses.
    ///
    /// If two kinds of task have the same name, [`Builder::build`](crate::Builder::build) refuses to
    /// build a pool whose workers run this program, with both types named. A worker runs neither.
    ///
    /// ```standalone_crate
    /// #[procession::task(name = "resize")]
    /// fn to_width(width: u32) {}
    ///
    /// #[procession::task(name = "resize")]
    /// fn to_height(height: u32) {}
    ///
    /// #[procession::main]
    /// fn main() {
    ///     let refused = procession::ProcessPool::builder().build().unwrap_err().to_string();
    ///     assert!(refused.contains("two kinds of task are named \"resize\": "));
    ///     assert!(refused.contains("::to_width") && refused.contains("::to_height"));
    /// }
    /// ```
    #[cfg(feature = "macros")]
    pub fn collected() -> Self {
        let mut all = Self::new();
        for registered in crate::__private::TASKS {
            all.add_or_mark(registered.name(), registered.kind());
        }
        all
    }

    /// The first two kinds of the same name among those that [`collected`](Self::collected) finds.
    pub(crate) fn collected_conflict() -> Option<String> {
        #[cfg(feature = "macros")]
        {
            static CONFLICT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
            let find = || {
                let all = Self::collected();
                let conflicts = all
                    .kinds
                    .iter()
                    .filter_map(|(name, kind)| Some(conflict(name, kind.type_name, kind.rival?)));
                conflicts.min()
            };
            CONFLICT.get_or_init(find).clone()
        }
        #[cfg(not(feature = "macros"))]
        None
    }

    fn add(&mut self, name: &'static str, kind: TaskKind) -> Result<(), String> {
        match self.kinds.entry(name) {
            Entry::Occupied(there) if there.get().id != kind.id => {
                Err(conflict(name, there.get().type_name, kind.type_name))
            }
            Entry::Occupied(_) => Ok(()),
            Entry::Vacant(place) => {
                place.insert(kind);
                Ok(())
            }
        }
    }

    #[cfg(feature = "macros")]
    fn add_or_mark(&mut self, name: &'static str, kind: TaskKind) {
        match self.kinds.entry(name) {
            Entry::Occupied(mut there) if there.get().id != kind.id => {
                there.get_mut().rival = Some(kind.type_name);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(kind);
            }
        }
    }

    /// The encoding of the tasks of this name, or why there are none.
    pub(crate) fn encoding(&self, name: &str) -> Result<Encoding, String> {
        Ok(self.kind(name)?.encoding)
    }

    /// The name of this kind of task as it is known here, with its encoding, or why there is none.
    #[cfg(feature = "remote")]
    pub(crate) fn known(&self, name: &str) -> Result<(&'static str, Encoding), String> {
        let encoding = self.encoding(name)?;
        let known = self.kinds.get_key_value(name).map(|(name, _)| *name);
        Ok((known.expect("it has an encoding"), encoding))
    }

    /// What runs the tasks of this name, or why nothing does.
    pub(crate) fn runner(&self, name: &str) -> Result<Runner, String> {
        Ok(self.kind(name)?.runner)
    }

    /// The only kind of task of this name, or why there is none.
    fn kind(&self, name: &str) -> Result<&TaskKind, String> {
        match self.kinds.get(name) {
            Some(TaskKind { type_name, rival: Some(rival), .. }) => {
                Err(conflict(name, type_name, rival))
            }
            Some(kind) => Ok(kind),
            None => Err(format!("the worker knows no task named {name:?}: add it to its Registry")),
        }
    }
}

/// A kind of task that [`Registry::collected`] finds; a static of each task that is a function. See its example.
#[cfg(feature = "macros")]
#[derive(Debug)]
pub struct Registered {
    name: &'static str,
    /// Only functions can be in a constant.
    kind: fn() -> TaskKind,
}

#[cfg(feature = "macros")]
impl Registered {
    /// The registration of a kind of task. The attribute calls it: see the example of [`Registry::collected`].
    pub const fn of<T: Task>() -> Self {
        Self { name: T::NAME, kind: TaskKind::of::<T> }
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> TaskKind {
        (self.kind)()
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::error::Failure;

    #[derive(Serialize, Deserialize)]
    struct One;

    #[derive(Serialize, Deserialize)]
    struct Other;

    macro_rules! named_the_same {
        ($($task:ty),*) => {
            $(impl Task for $task {
                const NAME: &'static str = "same";
                type Output = ();
                fn run(self, _: &Context) -> Result<(), Failure> {
                    Ok(())
                }
            })*
        };
    }
    named_the_same!(One, Other);

    fn panic_of(registry: impl FnOnce() -> Registry + std::panic::UnwindSafe) -> String {
        let panic = std::panic::catch_unwind(registry).expect_err("a panic");
        *panic.downcast::<String>().expect("a text")
    }

    #[test]
    fn two_kinds_of_one_name_are_refused_with_both_types_named() {
        let by_hand = || Registry::new().with::<One>().with::<Other>();
        let merged = || Registry::new().with::<One>().merge(Registry::new().with::<Other>());
        for message in [panic_of(by_hand), panic_of(merged)] {
            assert!(message.contains("two kinds of task are named \"same\": "), "{message}");
            for name in [type_name::<One>(), type_name::<Other>()] {
                assert!(message.contains(name), "{message}");
            }
        }
    }

    #[test]
    fn the_same_kind_may_be_added_twice_and_registries_may_share_it() {
        let registry = Registry::new().with::<One>().with::<One>().build_id("a");
        let registry = registry.merge(Registry::new().with::<One>().build_id("b"));
        assert!(registry.runner("same").is_ok());
        assert_eq!(registry.build_id, "a");
        let unknown = registry.runner("other").unwrap_err();
        assert_eq!(unknown, "the worker knows no task named \"other\": add it to its Registry");
    }

    #[cfg(feature = "macros")]
    #[test]
    fn of_two_kinds_that_were_found_under_one_name_neither_is_run() {
        let mut registry = Registry::new();
        registry.add_or_mark("same", TaskKind::of::<One>());
        registry.add_or_mark("same", TaskKind::of::<One>());
        assert!(registry.runner("same").is_ok());
        registry.add_or_mark("same", TaskKind::of::<Other>());
        let reason = registry.runner("same").unwrap_err();
        assert!(reason.contains(type_name::<One>()) && reason.contains(type_name::<Other>()));
    }
}
