//! Takes rights away from this process, for good: what it may open, call and allocate. Only on Linux, with
//! the feature `sandbox`.
//!
//! | layer | what it does |
//! |---|---|
//! | `limits` | resource limits: no core dump, memory; not traceable by other processes of the user |
//! | `capabilities` | a superuser keeps no special right; programs with special rights do not get them |
//! | `landlock` | files, TCP ports, signals and abstract sockets outside of the rules are refused |
//! | `seccomp` | system calls that are not needed end the process, or fail |
//!
//! The order is that of the table: each layer needs what the next one takes away. It is all done before
//! the process has other threads, which the rules of landlock would not cover.

use std::fmt;
use std::path::PathBuf;

#[cfg(all(target_os = "linux", feature = "sandbox", not(feature = "portable")))]
mod landlock;
mod seccomp;
pub mod syscalls;

/// What the process keeps.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Only system calls of a list are allowed; else only those of a list are not.
    pub is_strict: bool,
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
pub const LAYERS: [&str; 4] = ["limits", "capabilities", "landlock", "seccomp"];

/// Confines this process. Returns the layers that are missing, which is an error unless
/// `is_best_effort`.
pub fn confine(rules: &Rules) -> Result<Vec<Unavailable>, Unavailable> {
    let mut missing = Vec::new();
    for layer in LAYERS {
        let imposed = imp::impose(layer, rules, &missing);
        match imposed.map_err(|why| Unavailable { layer, why }) {
            Ok(()) => {}
            Err(unavailable) if rules.is_best_effort => missing.push(unavailable),
            Err(unavailable) => return Err(unavailable),
        }
    }
    Ok(missing)
}

#[cfg(all(target_os = "linux", feature = "sandbox", not(feature = "portable")))]
mod imp {
    use std::fs;

    use rustix::process::{
        DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
    };
    use rustix::thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    };

    use super::{Rules, Unavailable, landlock, seccomp};

    pub(super) fn impose(
        layer: &str,
        rules: &Rules,
        missing: &[Unavailable],
    ) -> Result<(), String> {
        match layer {
            "limits" => impose_limits(rules),
            "capabilities" => drop_capabilities(),
            "landlock" => landlock::impose(rules),
            _ => {
                let has_landlock = missing.iter().all(|missing| missing.layer != "landlock");
                seccomp::impose(rules, has_landlock)
            }
        }
    }

    fn impose_limits(rules: &Rules) -> Result<(), String> {
        lower(Resource::Core, 0)?;
        if let Some(memory) = rules.memory {
            lower(Resource::Data, memory)?;
            lower(Resource::Fsize, memory)?;
        }
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| error.to_string())
    }

    fn lower(resource: Resource, limit: u64) -> Result<(), String> {
        let Rlimit { maximum, .. } = getrlimit(resource);
        let limit = Some(maximum.map_or(limit, |maximum| maximum.min(limit)));
        setrlimit(resource, Rlimit { current: limit, maximum: limit })
            .map_err(|error| format!("cannot set a resource limit: {error}"))
    }

    fn drop_capabilities() -> Result<(), String> {
        let explain = |error: rustix::io::Errno| error.to_string();
        set_no_new_privs(true).map_err(explain)?;
        clear_ambient_capability_set().map_err(explain)?;
        for capability in CapabilitySet::all().iter() {
            // Only a process with the right to do so can, and only that has any; unknown ones are refused.
            let _ = remove_capability_from_bounding_set(capability);
        }
        let none = CapabilitySet::empty();
        set_capabilities(
            None,
            CapabilitySets { effective: none, permitted: none, inheritable: none },
        )
        .map_err(explain)
    }

    /// Whether this process has no other thread.
    pub(super) fn is_alone() -> Result<(), String> {
        let threads = fs::read_dir("/proc/self/task").map(Iterator::count);
        match threads.map_err(|error| format!("cannot count the threads: {error}"))? {
            1 => Ok(()),
            threads => Err(format!(
                "the program had {threads} threads before it served, and the rules cover only one"
            )),
        }
    }
}

#[cfg(not(all(target_os = "linux", feature = "sandbox", not(feature = "portable"))))]
mod imp {
    use super::{Rules, Unavailable};

    pub(super) fn impose(_: &str, _: &Rules, _: &[Unavailable]) -> Result<(), String> {
        Err(if cfg!(target_os = "linux") {
            "the library was built without the feature `sandbox`".to_owned()
        } else {
            "there is a sandbox on Linux only".to_owned()
        })
    }
}

/// Whether the layers can be put in place here, as far as that can be known without doing so.
pub fn check(rules: &Rules) -> Result<(), Unavailable> {
    if rules.is_best_effort {
        return Ok(());
    }
    #[cfg(all(target_os = "linux", feature = "sandbox", not(feature = "portable")))]
    {
        let unavailable = |layer| move |why| Unavailable { layer, why };
        landlock::check().map_err(unavailable("landlock"))?;
        seccomp::check().map_err(unavailable("seccomp"))
    }
    #[cfg(not(all(target_os = "linux", feature = "sandbox", not(feature = "portable"))))]
    imp::impose("", rules, &[]).map_err(|why| Unavailable { layer: LAYERS[0], why })
}
