//! Bundles: short tasks that are submitted quickly one after another travel in one message, and have one claim. Each
//! of them has its own result, can be cancelled alone, and is begun again alone.
//!
//! A single task does not wait: tasks are gathered only while others are on their way into the queue.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::driven::{DrivenMember, DrivenTask};
use super::driver::{ClusterDriver, WINDOW};
use crate::members::Members;
use crate::owner::{OwnerEvent, TaskOwner};

/// The maximum run time of a bundle: the sum of the run times that are expected of its tasks.
const WORK: Duration = Duration::from_millis(5);
/// A task or chunk that has more bytes, or whose results have more, is not put into a bundle.
const MOST_BYTES: usize = 8192;
/// While this number of messages is on the way into the queue, further short tasks wait to be gathered.
const ON_THE_WAY: usize = 4;
/// A bundle takes at most one slot out of this number of slots of a host.
const PART_OF_SLOTS: usize = 8;

/// The run time and the size of the result that are expected of tasks, by their names.
#[derive(Debug, Default)]
pub(super) struct TaskCosts(HashMap<String, TaskCost>);

#[derive(Debug, Clone, Copy)]
struct TaskCost {
    run_time: Duration,
    /// The size of the result.
    bytes: usize,
}

/// The slots of the hosts that take tasks of this build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HostSlots {
    /// The slots of the host that has the fewest.
    pub(super) least: usize,
    pub(super) all: usize,
}

impl TaskCosts {
    /// Records the cost of a task, or of each task of a chunk.
    pub(super) fn note(&mut self, name: &str, run_time: Duration, bytes: usize) {
        match self.0.get_mut(name) {
            Some(cost) => {
                // One run may have waited for a processor.
                let more = run_time.saturating_sub(cost.run_time) / 8;
                cost.run_time = run_time.min(cost.run_time) + more;
                // A single large result counts for a while.
                cost.bytes = bytes.max(cost.bytes / 8 * 7);
            }
            None => drop(self.0.insert(name.to_owned(), TaskCost { run_time, bytes })),
        }
    }

    /// The expected run time of a task or chunk. `None`: it must not be in a bundle.
    fn short(&self, member: &DrivenMember) -> Option<Duration> {
        let cost = self.0.get(&member.name)?;
        let result = cost.bytes.saturating_mul(member.tasks);
        let bytes = member.body.bytes.len().max(result);
        let is_small = bytes <= MOST_BYTES && member.body.head.parts.len() == 1;
        is_small
            .then(|| cost.run_time.saturating_mul(u32::try_from(member.tasks).unwrap_or(u32::MAX)))
    }
}

impl HostSlots {
    /// The maximum number of tasks in a message, so that each slot gets a message.
    fn most_members(self, waiting: usize) -> usize {
        let of_host = self.least / PART_OF_SLOTS;
        let of_all = waiting / self.all.max(1);
        of_host.min(of_all).clamp(1, Members::MOST)
    }
}

impl ClusterDriver {
    pub(super) fn look_at_slots(&mut self) {
        let mut slots = HostSlots::default();
        let table = self.shared.table();
        let ours = table.live(Instant::now());
        for lease in ours.filter(|it| it.build == self.shared.build && !it.is_draining) {
            slots.least = if slots.all == 0 { lease.slots } else { slots.least.min(lease.slots) };
            // Any client that may write leases chooses these numbers, so their sum may be too large.
            slots.all = slots.all.saturating_add(lease.slots);
        }
        drop(table);
        self.upkeep.slots = slots;
    }

    /// Sends tasks on their way into the queue.
    pub(super) fn fill_window(&mut self) {
        self.enter(true);
    }

    /// Is called ten times a second: sends the tasks that wait to be gathered. The messages on the way may stay there
    /// for long, if a body is large or the server refuses it.
    pub(super) fn let_gathered_go(&mut self) {
        self.enter(false);
    }

    fn enter(&mut self, gathers: bool) {
        while self.in_window < WINDOW
            && let Some(first) = self.entering.front().copied()
        {
            let most = self.most_members(first);
            let is_short = self.entering.len() < most;
            if gathers && is_short && most > 1 && self.in_window >= ON_THE_WAY {
                // These tasks are sent when a message has entered the queue, or at the next tick.
                return;
            }
            self.entering.pop_front();
            self.gather(first, most);
            // It may have been cancelled.
            if let Some(task) = self.tasks.get_mut(&first) {
                task.is_entering = true;
                self.in_window += 1;
                self.apply(first, OwnerEvent::Submitted, None);
            }
        }
    }

    /// How many tasks may travel with this one, itself included.
    fn most_members(&self, id: u64) -> usize {
        if self.named.is_some() || self.short(id).is_none_or(|time| time > WORK) {
            return 1;
        }
        let unclaimed = self.waiting_members + self.in_window + self.entering.len();
        self.upkeep.slots.most_members(unclaimed)
    }

    /// The expected run time of a task. `None`: it must not be in a bundle.
    fn short(&self, id: u64) -> Option<Duration> {
        let task = self.tasks.get(&id).filter(|task| !task.is_alone)?;
        self.costs.short(task.members.first()?.as_ref()?)
    }

    /// Makes a bundle of a task and those that follow it.
    fn gather(&mut self, first: u64, most: usize) {
        let (Some(mut time), Some(lane)) = (self.short(first), self.lane(first)) else { return };
        let mut members = Vec::new();
        while members.len() + 1 < most
            && let Some(next) = self.entering.front().copied()
        {
            // It was cancelled.
            if !self.tasks.contains_key(&next) {
                self.entering.pop_front();
                continue;
            }
            let Some(more) = self.short(next).filter(|_| self.lane(next) == Some(lane)) else {
                break;
            };
            time += more;
            if time > WORK {
                break;
            }
            self.entering.pop_front();
            members.extend(self.tasks.remove(&next).into_iter().flat_map(|task| task.members));
        }
        let ids = members.iter().flatten().map(|member: &DrivenMember| (member.task_id, first));
        self.places.extend(ids);
        if let Some(task) = self.tasks.get_mut(&first).filter(|_| !members.is_empty()) {
            task.tasks += members.iter().flatten().map(|member| member.tasks).sum::<usize>();
            task.members.append(&mut members);
            task.owner = TaskOwner::of_bundle(task.members.len(), fastrand::u64(..));
        }
    }

    fn lane(&self, id: u64) -> Option<crate::names::QueueLane> {
        Some(self.tasks.get(&id)?.lane)
    }

    /// Queues a task of a bundle that was revoked, alone.
    pub(super) fn again(&mut self, member: DrivenMember, attempt: u32, before: u32) {
        if attempt > before {
            self.shared.count(|stats| stats.retried += 1);
        }
        let owner = TaskOwner::new(self.shared.attempts, None, fastrand::u64(..));
        let task = DrivenTask::new(owner.begins_with(attempt), member);
        let id = self.add(DrivenTask { is_alone: true, ..task });
        self.entering.push_front(id);
        self.fill_window();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_time_that_is_heard_once_changes_what_is_expected_by_an_eighth_of_it() {
        let mut costs = TaskCosts::default();
        let mut after = |ms, bytes| {
            costs.note("t", Duration::from_millis(ms), bytes);
            let cost = costs.0["t"];
            (cost.run_time.as_millis(), cost.bytes)
        };
        assert_eq!(after(8, 10), (8, 10));
        assert_eq!(after(16, 800), (9, 800));
        assert_eq!(after(1, 10), (1, 700));
    }

    #[test]
    fn a_bundle_leaves_work_for_each_slot_and_slots_for_others() {
        let slots = |least, all| HostSlots { least, all };
        assert_eq!(slots(64, 128).most_members(100), 1, "each slot takes one");
        assert_eq!(slots(64, 128).most_members(400), 3);
        assert_eq!(slots(64, 128).most_members(20_000), 8);
        assert_eq!(slots(1, 1000).most_members(20_000), 1, "one host has one slot");
        assert_eq!(slots(10_000, 20_000).most_members(1 << 20), Members::MOST);
        assert_eq!(HostSlots::default().most_members(20_000), 1, "no host is known");
    }
}
