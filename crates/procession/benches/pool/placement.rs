//! [`Placement`]: on which CPUs the two sides of a round trip run. The choice of the system changes from run
//! to run. A round trip between two CPUs takes ten times as long as on one, because it wakes a sleeping CPU
//! twice.

use std::fmt;

/// Tells a process to which CPU it is to keep.
pub(crate) const VARIABLE: &str = "PROCESSION_BENCH_CPU";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Wherever the system puts them.
    Free,
    /// Both on the first CPU.
    OneCpu,
    /// This process on the first CPU, the other one on the second.
    TwoCpus,
}

pub(crate) const PLACEMENTS: [Placement; 3] =
    [Placement::Free, Placement::OneCpu, Placement::TwoCpus];

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "free",
            Self::OneCpu => "one_cpu",
            Self::TwoCpus => "two_cpus",
        })
    }
}

impl Placement {
    /// Keeps this thread, and what it starts from now on, to its CPU, until dropped.
    pub(crate) fn take(self) -> Placed {
        let before = cpus::allowed();
        let numbers = cpus::numbers(&before);
        let (first, last) = (numbers.first().copied(), numbers.get(1).or(numbers.first()).copied());
        let (own, others) = match self {
            Self::Free => (None, None),
            Self::OneCpu => (first, first),
            Self::TwoCpus => (first, last),
        };
        if let Some(cpu) = own {
            cpus::keep_to(cpu);
        }
        Placed { before, others }
    }
}

/// Gives the thread its CPUs back when dropped.
pub(crate) struct Placed {
    before: cpus::Set,
    others: Option<usize>,
}

impl Placed {
    /// The value of [`VARIABLE`] for the other process; empty if it may be anywhere.
    pub(crate) fn for_the_other(&self) -> String {
        self.others.map(|cpu| cpu.to_string()).unwrap_or_default()
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        cpus::set(&self.before);
    }
}

/// If this process is to keep to a CPU: does so.
pub(crate) fn keep_if_asked() {
    if let Some(cpu) = std::env::var(VARIABLE).ok().and_then(|cpu| cpu.parse().ok()) {
        cpus::keep_to(cpu);
    }
}

#[cfg(target_os = "linux")]
mod cpus {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub(super) type Set = CpuSet;

    pub(super) fn allowed() -> Set {
        sched_getaffinity(None).expect("the CPUs of this thread")
    }

    pub(super) fn numbers(cpus: &Set) -> Vec<usize> {
        (0..CpuSet::MAX_CPU).filter(|&cpu| cpus.is_set(cpu)).collect()
    }

    pub(super) fn set(cpus: &Set) {
        sched_setaffinity(None, cpus).expect("CPUs that it may use");
    }

    pub(super) fn keep_to(cpu: usize) {
        let mut only = CpuSet::new();
        only.set(cpu);
        set(&only);
    }
}

/// Elsewhere there is no such thing, and all placements are the system's own.
#[cfg(not(target_os = "linux"))]
mod cpus {
    pub(super) struct Set;

    pub(super) fn allowed() -> Set {
        Set
    }

    pub(super) fn numbers(_: &Set) -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn set(_: &Set) {}

    pub(super) fn keep_to(_: usize) {}
}
