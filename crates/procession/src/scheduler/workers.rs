//! The workers of a pool, with an index that finds the one for the next call without a visit to
//! each.
//!
//! The index is a binary tree. A leaf holds what dispatch compares of one worker; an inner node
//! holds the minimum of its two children. A search skips each subtree that cannot hold a better
//! worker, so it visits about log2(n) nodes. Where workers are excluded for reasons that are not in
//! the index (too many bytes ahead, a call that takes long), it visits more of them.
//!
//! Mutable access to a worker notes that its leaf may be out of date. Each search updates the noted
//! leaves first. Pools of fewer than [`MIN_INDEXED`] workers have no index, since there a visit to
//! each is cheaper.

use std::ops::{Index, IndexMut};
use std::time::Instant;

use super::messages::{Settings, WorkerIndex};
use super::worker::{Stage, WorkerState};

/// The fewest workers with an index.
const MIN_INDEXED: usize = 8;

/// What the index holds of a worker, and of the workers of a subtree: the minimum of each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    /// Calls per slot, in units of 1/1024. `u64::MAX` if the worker takes no call.
    load: u64,
    /// The number of calls, if there is one; else `u64::MAX`.
    calls: u64,
}

impl Node {
    const NONE: Self = Self { load: u64::MAX, calls: u64::MAX };

    fn of(worker: &WorkerState, max_tasks: Option<u64>) -> Self {
        let is_ready = worker.stage == Stage::Ready && worker.ending.is_none();
        if !is_ready || worker.is_due_for_recycling(max_tasks) {
            return Self::NONE;
        }
        let load = per_slot(worker.calls.len(), worker.slots);
        let calls = if worker.calls.is_empty() { u64::MAX } else { worker.calls.len() as u64 };
        Self { load, calls }
    }

    fn min(self, other: Self) -> Self {
        Self { load: self.load.min(other.load), calls: self.calls.min(other.calls) }
    }
}

/// `calls` per slot, in units of 1/1024, rounded down.
fn per_slot(calls: usize, slots: usize) -> u64 {
    let calls = (calls as u64).saturating_mul(1024);
    // A division takes longer than the rest of an update, and most workers have one slot.
    if slots == 1 { calls } else { calls / slots as u64 }
}

#[derive(Debug)]
pub(super) struct Workers {
    workers: Vec<WorkerState>,
    max_tasks: Option<u64>,
    /// The fewest slots of a worker, so far.
    min_slots: usize,
    /// Node 1 is the root, and node `n` has the children `2 * n` and `2 * n + 1`. Empty without an
    /// index.
    nodes: Vec<Node>,
    /// Workers whose leaves may be out of date, each once.
    changed: Vec<WorkerIndex>,
    /// By worker index: whether the worker is in `changed`.
    is_changed: Vec<bool>,
}

impl Workers {
    pub(super) fn new(settings: &Settings, now: Instant) -> Self {
        let worker = |index| {
            let quota = settings.slots.get(index).copied();
            WorkerState::new(index, settings.threads(index), quota, now)
        };
        let workers: Vec<_> = (0..settings.indices()).map(worker).collect();
        let leaves = workers.len().next_power_of_two();
        let nodes = if workers.len() < MIN_INDEXED { 0 } else { 2 * leaves };
        let nodes = vec![Node::NONE; nodes];
        Self {
            max_tasks: settings.max_tasks,
            min_slots: usize::MAX,
            nodes,
            changed: (0..workers.len()).collect(),
            is_changed: vec![true; workers.len()],
            workers,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &WorkerState> {
        self.workers.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut WorkerState> {
        (0..self.workers.len()).for_each(|index| self.note_change(index));
        self.workers.iter_mut()
    }

    /// Lets a spare that stands by take the place of an active worker.
    pub(super) fn promote(&mut self, spare: WorkerIndex, active: WorkerIndex, now: Instant) {
        self.note_change(spare);
        self.note_change(active);
        if let Ok([spare, active]) = self.workers.get_disjoint_mut([spare, active]) {
            spare.promote_over(active, now);
        }
    }

    /// The worker with the lowest load that `has_room`; the first of several. Workers with room
    /// have at most `ahead` calls beyond their slots.
    pub(super) fn least_loaded(
        &mut self,
        ahead: usize,
        has_room: impl Fn(&WorkerState) -> bool,
    ) -> Option<WorkerIndex> {
        if self.nodes.is_empty() {
            let load = |worker: &&WorkerState| per_slot(worker.calls.len(), worker.slots);
            let least = self.workers.iter().filter(|worker| has_room(worker)).min_by_key(load);
            return least.map(|worker| worker.worker_id().worker_index);
        }
        self.update();
        // With fewer slots, the same number of calls ahead is a higher load. Plus 1, for the
        // rounding.
        let limit = per_slot(self.min_slots.saturating_add(ahead), self.min_slots);
        let limit = if self.min_slots == 1 { limit } else { limit + 1 };
        let mut best = None;
        self.search(1, &mut best, &|load| load < limit, &|node| node.load, &has_room);
        best.map(|(_, index)| index)
    }

    /// The first worker that has at least one call, fewer than `max_calls`, and `has_room`.
    pub(super) fn first_busy(
        &mut self,
        max_calls: usize,
        has_room: impl Fn(&WorkerState) -> bool,
    ) -> Option<WorkerIndex> {
        if self.nodes.is_empty() {
            let is_busy = |worker: &&WorkerState| (1..max_calls).contains(&worker.calls.len());
            let busy = self.workers.iter().filter(is_busy).find(|worker| has_room(worker));
            return busy.map(|worker| worker.worker_id().worker_index);
        }
        self.update();
        let is_below = |calls: u64| calls < max_calls as u64;
        // All workers below the limit are equal.
        let key = |node: Node| if is_below(node.calls) { 0 } else { u64::MAX };
        let mut best = None;
        self.search(1, &mut best, &|key| key == 0, &key, &has_room);
        best.map(|(_, index)| index)
    }

    /// Finds the worker with the lowest (key, index) in a subtree, and below `best`.
    fn search(
        &self,
        node: usize,
        best: &mut Option<(u64, WorkerIndex)>,
        is_eligible: &impl Fn(u64) -> bool,
        key: &impl Fn(Node) -> u64,
        has_room: &impl Fn(&WorkerState) -> bool,
    ) {
        let lowest = (key(self.nodes[node]), self.first_worker(node));
        if !is_eligible(lowest.0) || best.is_some_and(|best| best <= lowest) {
            return;
        }
        if node >= self.first_leaf() {
            if has_room(&self.workers[lowest.1]) {
                *best = Some(lowest);
            }
            return;
        }
        let (left, right) = (2 * node, 2 * node + 1);
        let is_left_better = key(self.nodes[left]) <= key(self.nodes[right]);
        let order = if is_left_better { [left, right] } else { [right, left] };
        for child in order {
            self.search(child, best, is_eligible, key, has_room);
        }
    }

    fn note_change(&mut self, index: WorkerIndex) {
        if !self.nodes.is_empty() && !std::mem::replace(&mut self.is_changed[index], true) {
            self.changed.push(index);
        }
    }

    fn first_leaf(&self) -> usize {
        self.nodes.len() / 2
    }

    /// The first worker of a subtree.
    fn first_worker(&self, node: usize) -> WorkerIndex {
        let height = self.first_leaf().ilog2() - node.ilog2();
        (node << height) - self.first_leaf()
    }

    fn update(&mut self) {
        while let Some(index) = self.changed.pop() {
            self.is_changed[index] = false;
            let worker = &self.workers[index];
            self.min_slots = self.min_slots.min(worker.slots);
            let mut node = self.first_leaf() + index;
            let mut value = Node::of(worker, self.max_tasks);
            while self.nodes[node] != value {
                self.nodes[node] = value;
                if node == 1 {
                    break;
                }
                value = value.min(self.nodes[node ^ 1]);
                node /= 2;
            }
        }
    }
}

impl Index<WorkerIndex> for Workers {
    type Output = WorkerState;

    fn index(&self, index: WorkerIndex) -> &WorkerState {
        &self.workers[index]
    }
}

impl IndexMut<WorkerIndex> for Workers {
    fn index_mut(&mut self, index: WorkerIndex) -> &mut WorkerState {
        self.note_change(index);
        &mut self.workers[index]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scheduler::chunks::ChunkId;
    use crate::task::TaskId;

    fn workers(slots: Vec<usize>) -> Workers {
        let settings = Settings {
            min_workers: slots.len(),
            slots,
            spares: 0,
            idle_timeout: None,
            max_tasks: None,
            max_age: None,
            start_timeout: Duration::from_secs(10),
            start_tries: 1,
        };
        Workers::new(&settings, Instant::now())
    }

    #[test]
    fn the_index_finds_the_worker_that_a_visit_to_all_workers_finds() {
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..300 {
            let count = rng.usize(1..40);
            let mut workers = workers((0..count).map(|_| rng.choice([1, 1, 3]).unwrap()).collect());
            for _ in 0..100 {
                let (index, now) = (rng.usize(0..count), Instant::now());
                let worker = &mut workers[index];
                match rng.u8(0..4) {
                    0 => worker.stage = Stage::Closed,
                    1 => drop(worker.calls.pop_front()),
                    _ => {
                        worker.stage = Stage::Ready;
                        worker.give(ChunkId::whole(TaskId(1)), 1, 4, None, now);
                    }
                }
                let (ahead, excluded) = (rng.usize(0..3), rng.usize(0..count));
                let has_room = |worker: &WorkerState| {
                    worker.worker_id().worker_index != excluded
                        && worker.stage == Stage::Ready
                        && worker.calls.len() < worker.slots + ahead
                };
                let index_of = |worker: &WorkerState| worker.worker_id().worker_index;
                let load = |worker: &&WorkerState| worker.calls.len() * 1024 / worker.slots;
                let least = workers.iter().filter(|worker| has_room(worker)).min_by_key(load);
                let least = least.map(index_of);
                assert_eq!(workers.least_loaded(ahead, has_room), least, "round {round}");
                let max_calls = rng.usize(1..4);
                let is_busy = |worker: &&WorkerState| (1..max_calls).contains(&worker.calls.len());
                let busy = workers.iter().filter(is_busy).find(|worker| has_room(worker));
                let busy = busy.map(index_of);
                assert_eq!(workers.first_busy(max_calls, has_room), busy, "round {round}");
            }
        }
    }
}
