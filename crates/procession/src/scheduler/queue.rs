//! The tasks that wait for a worker, best first: by priority, then in order of submission; and
//! those that wait for their next attempt.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use crate::task::TaskId;

/// This many ids of tasks that ceased to wait are not worth a search.
const SPARE: usize = 1024;

/// Ids of waiting tasks. One that ceased to wait is not looked for: whoever takes ids out skips
/// those that are no longer pending, and [`tidy`](Queue::tidy) removes them when they are many.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// How many ids there are, with those of tasks that ceased to wait.
    len: usize,
    lanes: BTreeMap<Reverse<i32>, VecDeque<TaskId>>,
    paused: BTreeSet<(Instant, TaskId)>,
}

impl Queue {
    pub(crate) fn push_back(&mut self, priority: i32, id: TaskId) {
        self.len += 1;
        self.lane(priority).push_back(id);
    }

    /// Ahead of all others of its priority: for what had its turn before.
    pub(crate) fn push_front(&mut self, priority: i32, id: TaskId) {
        self.len += 1;
        self.lane(priority).push_front(id);
    }

    fn lane(&mut self, priority: i32) -> &mut VecDeque<TaskId> {
        // No lane may be empty beside others: see `pop`.
        if self.lanes.len() == 1 && !self.lanes.contains_key(&Reverse(priority)) {
            self.lanes.retain(|_, lane| !lane.is_empty());
        }
        self.lanes.entry(Reverse(priority)).or_default()
    }

    /// The next in line.
    pub(crate) fn front(&self) -> Option<TaskId> {
        self.lanes.first_key_value().and_then(|(_, lane)| lane.front()).copied()
    }

    pub(crate) fn pop(&mut self) {
        let is_only_lane = self.lanes.len() == 1;
        if let Some(mut lane) = self.lanes.first_entry() {
            self.len -= usize::from(lane.get_mut().pop_front().is_some());
            // The only lane stays, for the next task is most likely of the same priority.
            if lane.get().is_empty() && !is_only_lane {
                lane.remove();
            }
        }
    }

    /// Keeps a task until its time comes.
    pub(crate) fn pause(&mut self, until: Instant, id: TaskId) {
        self.len += usize::from(self.paused.insert((until, id)));
    }

    /// When the next paused task is due.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.paused.first().map(|(until, _)| *until)
    }

    /// Takes out a paused task that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<TaskId> {
        let is_due = self.due_at().is_some_and(|at| at <= now);
        let (_, id) = is_due.then(|| self.paused.pop_first())??;
        self.len -= 1;
        Some(id)
    }

    pub(crate) fn clear(&mut self) {
        self.lanes.clear();
        self.paused.clear();
        self.len = 0;
    }

    /// Removes the ids of tasks that ceased to wait if they are more than those that still do, of
    /// which there are this many. The cost of a call is constant on average.
    pub(crate) fn tidy(&mut self, waiting: usize, is_waiting: impl Fn(TaskId) -> bool) {
        if self.len <= 2 * waiting + SPARE {
            return;
        }
        for lane in self.lanes.values_mut() {
            lane.retain(|id| is_waiting(*id));
            lane.shrink_to(SPARE);
        }
        self.paused.retain(|(_, id)| is_waiting(*id));
        self.lanes.retain(|_, lane| !lane.is_empty());
        self.len = self.lanes.values().map(VecDeque::len).sum::<usize>() + self.paused.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_priority_goes_first_then_the_order_of_submission() {
        let mut queue = Queue::default();
        for (priority, id) in [(0, 1), (5, 2), (0, 3), (-1, 4), (5, 5)] {
            queue.push_back(priority, TaskId(id));
        }
        queue.push_front(0, TaskId(6));
        let order = std::iter::from_fn(|| {
            let id = queue.front()?;
            queue.pop();
            Some(id.0)
        });
        assert_eq!(order.collect::<Vec<_>>(), [2, 5, 6, 1, 3, 4]);
    }

    #[test]
    fn ids_of_tasks_that_were_cancelled_do_not_pile_up() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.push_back(0, TaskId(0));
        queue.pause(now, TaskId(1));
        for id in 2..1_000_000 {
            match id % 3 {
                0 => queue.pause(now, TaskId(id)),
                n => queue.push_back(n as i32, TaskId(id)),
            }
            queue.tidy(2, |id| id.0 < 2);
            assert!(queue.len <= SPARE + 5, "{} ids", queue.len);
        }
        queue.push_front(0, TaskId(7));
        let left = std::iter::from_fn(|| {
            let id = queue.front()?;
            queue.pop();
            Some(id.0)
        });
        let waiting: Vec<_> = left.filter(|id| [0, 7].contains(id)).collect();
        assert_eq!(waiting, [7, 0]);
        assert_eq!(queue.pop_due(now), Some(TaskId(1)));
    }

    #[test]
    fn a_million_tasks_that_are_submitted_and_cancelled_leave_nothing() {
        use super::super::{Event, ResolvedOptions, Scheduler, Settings};
        let settings = Settings {
            slots: vec![1],
            min_workers: 1,
            idle_timeout: None,
            max_tasks: None,
            start_timeout: std::time::Duration::from_secs(10),
            start_tries: 1,
        };
        let now = Instant::now();
        let (mut scheduler, _) = Scheduler::new(settings, now);
        for id in 0..1_000_000 {
            let options = ResolvedOptions { priority: id as i32 % 5, ..ResolvedOptions::default() };
            let task = Event::Submitted { id: TaskId(id), job: id, items: 1, bytes: 4, options };
            let actions = scheduler.handle([task, Event::Cancelled { id: TaskId(id) }], now);
            assert_eq!(actions.len(), 1);
            assert!(scheduler.queue.len <= SPARE + 1, "{} ids", scheduler.queue.len);
        }
        assert_eq!(scheduler.waiting(), 0);
    }
}
