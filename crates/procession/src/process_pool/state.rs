//! [`PoolState`]: the scheduler, and the data that must change together with it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::work_item::WorkItem;
use super::worker_handle::WorkerHandle;
use crate::scheduler::{Event, Scheduler, WorkerId, WorkerIndex};

/// The scheduler, and the data that must change together with it, under one lock.
pub(super) struct PoolState {
    pub(super) scheduler: Scheduler<Arc<WorkItem>>,
    /// The processes that the scheduler has ordered and whose end it does not know yet.
    pub(super) handles: FxHashMap<WorkerId, Arc<WorkerHandle>>,
    /// Workers whose last process ended without having been dismissed.
    pub(super) lost: HashSet<WorkerIndex>,
    /// Number of tasks for which there is room and that the scheduler does not have yet.
    pub(super) reserved: usize,
    /// Those that wait for room, by their tickets: in the order in which they came. A future has a waker;
    /// `None`: a thread, which is notified.
    pub(super) waiting_for_room: BTreeMap<u64, Option<Waker>>,
    /// The last ticket.
    pub(super) next_ticket: u64,
    /// When the supervisor sends the next `Tick`.
    pub(super) wakes_at: Option<Instant>,
}

impl PoolState {
    pub(super) fn new(scheduler: Scheduler<Arc<WorkItem>>) -> Self {
        Self {
            scheduler,
            handles: FxHashMap::default(),
            lost: HashSet::new(),
            reserved: 0,
            waiting_for_room: BTreeMap::new(),
            next_ticket: 0,
            wakes_at: None,
        }
    }

    /// A ticket for one that has to wait for room.
    pub(super) fn new_ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Follows an event that the scheduler is about to get.
    pub(super) fn track(&mut self, event: &Event<Arc<WorkItem>>) {
        match event {
            Event::Submitted { count, .. } => {
                self.reserved = self.reserved.saturating_sub(*count as usize);
            }
            Event::WorkerExited { worker_id, .. } | Event::StartFailed { worker_id, .. } => {
                let handle = self.handles.remove(worker_id);
                if handle.is_some_and(|handle| !handle.is_dismissed()) {
                    self.lost.insert(worker_id.worker_index);
                }
            }
            _ => {}
        }
    }

    /// Adds a process that the scheduler has ordered. Returns its handle, and whether it replaces
    /// one that was lost or is about to be recycled.
    pub(super) fn add_handle(&mut self, worker_id: WorkerId) -> (Arc<WorkerHandle>, bool) {
        let index = worker_id.worker_index;
        let is_successor = self.handles.keys().any(|other| other.worker_index == index);
        let is_replacement = self.lost.remove(&index) || is_successor;
        let handle = Arc::new(WorkerHandle::new(worker_id));
        self.handles.insert(worker_id, Arc::clone(&handle));
        (handle, is_replacement)
    }

    /// Whether the scheduler wants its next `Tick` earlier than the supervisor will send it. If so,
    /// the supervisor has to be woken.
    pub(super) fn note_earlier_wake_up(&mut self) -> bool {
        let wake_at = self.scheduler.wake_at();
        let is_earlier = match (wake_at, self.wakes_at) {
            (Some(at), Some(before)) => at < before,
            (at, None) => at.is_some(),
            (None, Some(_)) => false,
        };
        if is_earlier {
            self.wakes_at = wake_at;
        }
        is_earlier
    }

    /// The process id of a worker; 0 before its start and after its end.
    pub(super) fn pid(&self, worker_id: WorkerId) -> u32 {
        self.handles.get(&worker_id).map_or(0, |handle| handle.pid())
    }

    /// Process ids of the workers that live, in the order of their indices.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut handles: Vec<_> =
            self.handles.iter().filter(|(_, handle)| handle.is_there()).collect();
        handles.sort_unstable_by_key(|(worker_id, _)| **worker_id);
        handles.into_iter().map(|(_, handle)| handle.pid()).collect()
    }
}
