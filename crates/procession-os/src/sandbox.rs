//! Takes rights away from this process, for good: what it may open, call and allocate. Only on Linux, with
//! the feature `sandbox`.
//!
//! | layer | what it does |
//! |---|---|
//! | `namespaces` | at the strict level: the number of threads and processes is bounded; optional |
//! | `limits` | resource limits: no core dump, memory; not traceable by other processes of the user |
//! | `capabilities` | a superuser keeps no special right; programs with special rights do not get them |
//! | `landlock` | files, TCP ports, signals and abstract sockets outside of the rules are refused |
//! | `seccomp` | system calls that are not needed end the process, or fail |
//!
//! The order is that of the table: each layer needs what the next ones take away. It is all done before
//! the process has other threads, which would keep their capabilities, and which the rules of landlock would
//! not cover.

use std::fmt;
use std::path::PathBuf;

pub mod syscalls;

/// What the process keeps.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Only system calls of a list are allowed; else only those of a list are not.
    pub is_strict: bool,
    /// The layer `namespaces` is not optional.
    pub needs_namespaces: bool,
    /// Goes on if the system lacks a layer.
    pub is_best_effort: bool,
    /// Files and directories, with all in them, that it may read.
    pub read: Vec<PathBuf>,
    /// The same for reading and writing.
    pub write: Vec<PathBuf>,
    /// The most writable memory, in bytes, and the longest file.
    pub memory: Option<u64>,
    /// It may make sockets.
    pub network: bool,
    /// It may start processes and other programs.
    pub processes: bool,
    /// It may map memory that can be executed.
    pub new_code: bool,
}

/// A layer that could not be put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// Its name in the table above.
    pub layer: &'static str,
    /// The cause.
    pub why: String,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.layer, self.why)
    }
}

/// The layers, in their order.
const LAYERS: [&str; 5] = ["namespaces", "limits", "capabilities", "landlock", "seccomp"];

/// The layers of these rules, in their order.
pub fn layers(rules: &Rules) -> &'static [&'static str] {
    if rules.is_strict { &LAYERS } else { &LAYERS[1..] }
}

/// Whether a process goes on without this layer where the system does not have it.
pub fn is_optional(layer: &str, rules: &Rules) -> bool {
    layer == LAYERS[0] && !rules.needs_namespaces
}

/// Confines this process. Returns the layers that are missing, which is an error unless `is_best_effort` or
/// [`is_optional`].
pub fn confine(rules: &Rules) -> Result<Vec<Unavailable>, Unavailable> {
    let mut missing = Vec::new();
    for layer in layers(rules) {
        let imposed = imp::impose(layer, rules, &missing);
        match imposed.map_err(|why| Unavailable { layer, why }) {
            Ok(()) => {}
            Err(unavailable) if rules.is_best_effort || is_optional(layer, rules) => {
                missing.push(unavailable);
            }
            Err(unavailable) => return Err(unavailable),
        }
    }
    Ok(missing)
}

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    feature = "sandbox",
    not(feature = "portable")
))]
#[path = "sandbox/linux.rs"]
mod imp;

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    feature = "sandbox",
    not(feature = "portable")
)))]
pub(crate) mod imp {
    use super::{Rules, Unavailable};

    pub(super) fn impose(_: &str, _: &Rules, _: &[Unavailable]) -> Result<(), String> {
        Err(why_none())
    }

    pub(super) fn check(_: &Rules) -> Result<(), Unavailable> {
        Err(Unavailable { layer: "limits", why: why_none() })
    }

    /// Why there is no sandbox, in words.
    pub(crate) fn why_none() -> String {
        let why = if !cfg!(target_os = "linux") {
            "there is a sandbox on Linux only"
        } else if cfg!(feature = "portable") {
            "the library was built with the feature `portable`"
        } else if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            "the library was built without the feature `sandbox`"
        } else {
            "there is no list of system calls for this processor"
        };
        why.to_owned()
    }
}

/// Whether the layers can be put in place here, as far as that can be known without doing so.
pub fn check(rules: &Rules) -> Result<(), Unavailable> {
    if rules.is_best_effort { Ok(()) } else { imp::check(rules) }
}
