//! The layers, where there is a sandbox.

mod landlock;
mod namespaces;
mod seccomp;

use std::fs;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::{Rules, Unavailable};

pub(super) fn impose(layer: &str, rules: &Rules, missing: &[Unavailable]) -> Result<(), String> {
    match layer {
        "namespaces" => namespaces::impose(),
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
    if rules.is_strict && !rules.processes {
        // It has no children that its handler would have to end. The filter lets nothing change this.
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
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
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(explain)?;
    is_alone()
}

/// Whether this process has no other thread: each has capabilities and rules of its own.
fn is_alone() -> Result<(), String> {
    let threads = fs::read_dir("/proc/self/task").map(Iterator::count);
    match threads.map_err(|error| format!("cannot count the threads: {error}"))? {
        1 => Ok(()),
        threads => Err(format!(
            "the program had {threads} threads before it served, and the rules cover only one"
        )),
    }
}

/// Whether the kernel has the layers.
pub(super) fn check(_: &Rules) -> Result<(), Unavailable> {
    let unavailable = |layer| move |why| Unavailable { layer, why };
    landlock::check().map_err(unavailable("landlock"))?;
    seccomp::check().map_err(unavailable("seccomp"))
}
