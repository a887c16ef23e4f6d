//! [`ControlGroups`]: the control group of each worker in a sandbox, where one was delegated to this program. All
//! processes of a worker are bounded and end together, also those that have left its process group.
//!
//! ```text
//!   delegated/procession-1000-x7Kq0aTzP4mD    of a pool; locked by its process (`locked_dir.rs`)
//!     worker-0, worker-1, …                   one for each process, from its first moment to its end
//! ```

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use procession_os::cgroup::{self, Group, GroupBounds};

use super::start_worker::is_shortage;
use crate::error::PoolError;
use crate::locked_dir::{self, LockedDir};
use crate::sandbox::{Layer, Sandbox};

/// What the names of the groups begin with.
const PURPOSE: &str = "procession";

/// The maximum number of threads and processes of a worker, if its control group has that bound.
const MOST_THREADS: u64 = 1_024;

/// The longest wait for the end of processes that a worker has left behind, after they were killed.
pub(super) const LONGEST_END: Duration = Duration::from_millis(500);

/// The layers `cgroup`, `cgroup.threads` and `cgroup.memory` of a sandbox.
#[derive(Debug, Default)]
pub(super) struct ControlGroups {
    /// `None`: workers have no groups.
    pool: Option<LockedDir>,
    bounds: GroupBounds,
    layers: Vec<Layer>,
    /// Workers do not start without a group.
    is_required: bool,
    made: AtomicU64,
    /// Why no group can be made any more, such as that this process has become another user.
    lost: OnceLock<String>,
}

impl ControlGroups {
    /// Makes the group of a pool.
    ///
    /// # Errors
    ///
    /// The sandbox needs a group that bounds the memory, and none can be made.
    pub(super) fn create(sandbox: &Sandbox) -> Result<Self, PoolError> {
        if !sandbox.is_on() {
            return Ok(Self::default());
        }
        let made = cgroup::delegated().and_then(|delegated| make(&delegated));
        let enable = |controller| {
            let pool = made.as_ref().map_err(Clone::clone)?.path();
            // First in the delegated one.
            let mut dirs = pool.parent().into_iter().chain([pool]);
            dirs.try_for_each(|dir| cgroup::enable(dir, controller))
        };
        let layer = |name: &str, missing, is_optional| Layer {
            layer: name.to_owned(),
            missing,
            is_optional,
        };
        let there = made.as_ref().err().cloned();
        let threads = enable("pids").err();
        let most_threads = threads.is_none().then_some(MOST_THREADS);
        let mut bounds = GroupBounds { threads: most_threads, memory: None };
        let mut layers = vec![layer("cgroup", there, true), layer("cgroup.threads", threads, true)];
        if let Some(bytes) = sandbox.total_memory_bytes() {
            let missing = enable("memory").err();
            if let Some(why) = missing.clone().filter(|_| !sandbox.is_best_effort()) {
                return Err(PoolError::SandboxUnavailable { layer: MEMORY.to_owned(), why });
            }
            bounds.memory = missing.is_none().then_some(bytes);
            layers.push(layer(MEMORY, missing, false));
        }
        let is_required = bounds.memory.is_some() && !sandbox.is_best_effort();
        Ok(Self { pool: made.ok(), bounds, layers, is_required, ..Self::default() })
    }

    /// Whether the pool has a group, in which those of its workers are.
    pub(super) fn are_there(&self) -> bool {
        self.pool.is_some()
    }

    /// The layers, and for each one that the workers do not have, why not.
    pub(super) fn layers(&self) -> Vec<Layer> {
        let mut layers = self.layers.clone();
        if let Some(why) = self.lost.get() {
            layers
                .iter_mut()
                .for_each(|layer| _ = layer.missing.get_or_insert_with(|| why.clone()));
        }
        layers
    }

    /// A group for a new process. Where none can be made any more and none is required, processes start without one.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn create_one(&self) -> io::Result<Option<Group>> {
        let Some(pool) = self.pool.as_ref().filter(|_| self.lost.get().is_none()) else {
            return Ok(None);
        };
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        match Group::create(pool.path().join(format!("worker-{number}")), self.bounds) {
            Err(error) if !self.is_required && !is_shortage(&error) => {
                let why = format!("the system refuses to make a control group: {error}");
                self.lost.get_or_init(|| why);
                Ok(None)
            }
            made => made.map(Some),
        }
    }

    /// Ends the processes of pools whose programs were killed, and removes their groups.
    pub(super) fn sweep(&self) {
        let delegated = self.pool.as_ref().and_then(|pool| pool.path().parent());
        delegated.map(|delegated| locked_dir::sweep_with(delegated, PURPOSE, cgroup::remove_all));
    }
}

const MEMORY: &str = "cgroup.memory";

fn make(delegated: &Path) -> Result<LockedDir, String> {
    let pool = LockedDir::create_with(delegated, PURPOSE, cgroup::remove_all)
        .map_err(|error| format!("the system refuses to make a control group: {error}"))?;
    cgroup::check(pool.path()).map(|()| pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of a pool whose own group is gone.
    fn lost(is_required: bool) -> ControlGroups {
        let base = tempfile::tempdir().unwrap();
        let pool = LockedDir::create_in(base.path(), PURPOSE).unwrap();
        let layer = Layer { layer: "cgroup".to_owned(), missing: None, is_optional: true };
        ControlGroups { pool: Some(pool), layers: vec![layer], is_required, ..Default::default() }
    }

    #[test]
    fn workers_start_without_groups_that_cannot_be_made_any_more_unless_they_are_required() {
        let groups = lost(false);
        assert_eq!(groups.layers()[0].missing, None);
        assert!(groups.create_one().unwrap().is_none());
        let missing = groups.layers().remove(0).missing.unwrap();
        assert!(missing.starts_with("the system refuses to make a control group: "), "{missing}");
        assert!(groups.create_one().unwrap().is_none());
        assert!(lost(true).create_one().is_err());
    }
}
