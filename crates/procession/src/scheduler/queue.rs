//! The ids of chunks that wait: pending ones by priority and then in order, and paused ones by the
//! end of their pause.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::chunks::ChunkId;

/// The number of stale ids that are kept without a search.
const MAX_STALE: usize = 1024;

/// Ids of waiting chunks. The id of a chunk that does not wait any more is stale: `dispatch` and
/// `tick` skip it, and [`tidy`](Queue::tidy) removes stale ids when there are many.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The number of ids, with stale ones.
    len: usize,
    lanes: BTreeMap<Reverse<i32>, VecDeque<ChunkId>>,
    paused: BTreeSet<(Instant, ChunkId)>,
}

impl Queue {
    pub(crate) fn push_back(&mut self, priority: i32, id: ChunkId) {
        self.len += 1;
        self.lane(priority).push_back(id);
    }

    /// Puts a chunk ahead of all others of its priority. It was in flight or paused before.
    pub(crate) fn push_front(&mut self, priority: i32, id: ChunkId) {
        self.len += 1;
        self.lane(priority).push_front(id);
    }

    fn lane(&mut self, priority: i32) -> &mut VecDeque<ChunkId> {
        // `pop` leaves an empty lane only where it is the only one.
        if self.lanes.len() == 1 && !self.lanes.contains_key(&Reverse(priority)) {
            self.lanes.retain(|_, lane| !lane.is_empty());
        }
        self.lanes.entry(Reverse(priority)).or_default()
    }

    /// The first id of the highest priority.
    pub(crate) fn front(&self) -> Option<ChunkId> {
        self.lanes.first_key_value().and_then(|(_, lane)| lane.front()).copied()
    }

    pub(crate) fn pop(&mut self) {
        let is_only_lane = self.lanes.len() == 1;
        if let Some(mut lane) = self.lanes.first_entry() {
            self.len -= usize::from(lane.get_mut().pop_front().is_some());
            // The next chunk most likely has the same priority, so the only lane stays.
            if lane.get().is_empty() && !is_only_lane {
                lane.remove();
            }
        }
    }

    /// Keeps a chunk until the end of its pause.
    pub(crate) fn pause(&mut self, until: Instant, id: ChunkId) {
        self.len += usize::from(self.paused.insert((until, id)));
    }

    /// The end of the first pause.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.paused.first().map(|(until, _)| *until)
    }

    /// Removes a chunk whose pause is over.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<ChunkId> {
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

    /// Removes stale ids if there are more of them than of `waiting` chunks. The cost of a call is
    /// constant on average.
    pub(crate) fn tidy(&mut self, waiting: usize, is_waiting: impl Fn(ChunkId) -> bool) {
        if self.len <= 2 * waiting + MAX_STALE {
            return;
        }
        for lane in self.lanes.values_mut() {
            lane.retain(|id| is_waiting(*id));
            lane.shrink_to(MAX_STALE);
        }
        self.paused.retain(|(_, id)| is_waiting(*id));
        self.lanes.retain(|_, lane| !lane.is_empty());
        self.len = self.lanes.values().map(VecDeque::len).sum::<usize>() + self.paused.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskId;

    const fn id(n: u64) -> ChunkId {
        ChunkId::whole(TaskId(n))
    }

    #[test]
    fn higher_priority_goes_first_then_the_order_of_submission() {
        let mut queue = Queue::default();
        for (priority, n) in [(0, 1), (5, 2), (0, 3), (-1, 4), (5, 5)] {
            queue.push_back(priority, id(n));
        }
        queue.push_front(0, id(6));
        let order = std::iter::from_fn(|| {
            let id = queue.front()?;
            queue.pop();
            Some(id.task.0)
        });
        assert_eq!(order.collect::<Vec<_>>(), [2, 5, 6, 1, 3, 4]);
    }

    #[test]
    fn stale_ids_of_cancelled_tasks_do_not_pile_up() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.push_back(0, id(0));
        queue.pause(now, id(1));
        for n in 2..1_000_000 {
            match n % 3 {
                0 => queue.pause(now, id(n)),
                priority => queue.push_back(priority as i32, id(n)),
            }
            queue.tidy(2, |id| id.task.0 < 2);
            assert!(queue.len <= MAX_STALE + 5, "{} ids", queue.len);
        }
        queue.push_front(0, id(7));
        let left = std::iter::from_fn(|| {
            let id = queue.front()?;
            queue.pop();
            Some(id.task.0)
        });
        let waiting: Vec<_> = left.filter(|id| [0, 7].contains(id)).collect();
        assert_eq!(waiting, [7, 0]);
        assert_eq!(queue.pop_due(now), Some(id(1)));
    }

    #[test]
    fn a_million_tasks_that_are_submitted_and_cancelled_leave_nothing() {
        use super::super::{Event, ResolvedOptions, Scheduler, Settings};
        let settings = Settings {
            slots: vec![1],
            spares: 0,
            min_workers: 1,
            idle_timeout: None,
            max_tasks: None,
            max_age: None,
            start_timeout: std::time::Duration::from_secs(10),
            start_tries: 1,
        };
        let now = Instant::now();
        let (mut scheduler, _) = Scheduler::new(settings, now);
        for id in 0..1_000_000 {
            let options = ResolvedOptions { priority: id as i32 % 5, ..ResolvedOptions::default() };
            let task = Event::Submitted { id: TaskId(id), job: id, count: 1, bytes: 4, options };
            let actions = scheduler.handle([task, Event::Cancelled { id: TaskId(id) }], now);
            assert_eq!(actions.len(), 1);
            assert!(scheduler.queue.len <= MAX_STALE + 1, "{} ids", scheduler.queue.len);
        }
        assert_eq!(scheduler.waiting(), 0);
    }
}
