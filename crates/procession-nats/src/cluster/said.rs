//! Lines and values that tasks send before their results: lines for the program's function, values for futures. The
//! messages may be lost; they are numbered, and a result says how many there were.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Message;
use bytes::Bytes;
use procession::{RemoteProgress, TaskId};

use super::driven::DrivenMember;
use super::driver::ClusterDriver;
use super::shared::{ClusterEvent, ClusterShared};
use crate::delivery::Completion;
use crate::message::{Body, BodyHead, SaidHead, split};
use crate::names::job_and_id;

/// How long a result waits for the lines and values that its task sent before it.
pub(super) const LATE: Duration = Duration::from_secs(1);
/// The most lines of one task that wait for the program's function.
const MOST_LINES: usize = 10_000;
/// Losses that are reported one by one to the reader of the values.
const MOST_LOST: u64 = 1024;

/// A line that a task reported by [`Context::say`](procession::Context::say), for
/// [`ClusterBuilder::on_say`](crate::ClusterBuilder::on_say). See its example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostSaid<'l> {
    /// The id of the task: [`Future::id`](procession::Future::id).
    pub task: TaskId,
    /// The name of the host that runs the task.
    pub host: &'l str,
    /// Index of the worker in the process pool of that host, from 0.
    pub worker: usize,
    /// Id of the process on that host.
    pub pid: u32,
    /// The text as the task formatted it; line breaks in it are kept.
    pub line: &'l str,
}

pub(super) type OnHostSaid = dyn Fn(&HostSaid<'_>) + Send + Sync;

/// How far the lines and values of a task were heard.
#[derive(Debug, Default)]
pub(super) struct HeardTask {
    attempt: u32,
    next: u64,
    /// This coordinator has sent the task. If it has attached to it, it receives what is sent from then on, and
    /// misses nothing that was sent before.
    pub(super) is_whole: bool,
    lines: Option<Arc<LineQueue>>,
}

/// A task whose result has come before all of its lines and values.
pub(super) struct UnheardTask {
    task: DrivenMember,
    attempt: u32,
    head: BodyHead,
    inline: Bytes,
    until: Instant,
}

/// Calls of the program's function for one task, and then the completion of its future, one after the other.
#[derive(Default)]
pub(super) struct LineQueue(Mutex<LineQueueState>);

#[derive(Default)]
struct LineQueueState {
    queue: VecDeque<Completion>,
    is_running: bool,
}

impl HeardTask {
    /// Number of messages of this attempt up to the last one that was heard.
    fn heard(&self, attempt: u32) -> u64 {
        if self.attempt == attempt { self.next } else { 0 }
    }

    /// Takes the number of a message. `None`: it was heard before. Else how many are missing before it.
    fn hear(&mut self, attempt: u32, number: u64) -> Option<u64> {
        if attempt > self.attempt {
            (self.attempt, self.next) = (attempt, 0);
        }
        if attempt < self.attempt || number < self.next {
            return None;
        }
        let has_joined = self.is_whole || self.next > 0;
        let missing = if has_joined { number - self.next } else { 0 };
        self.next = number.saturating_add(1);
        Some(missing)
    }

    pub(super) fn into_lines(self) -> Option<Arc<LineQueue>> {
        self.lines
    }
}

impl LineQueue {
    fn lock(&self) -> MutexGuard<'_, LineQueueState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self) -> bool {
        self.lock().queue.len() < MOST_LINES
    }

    pub(super) fn push(self: &Arc<Self>, shared: &ClusterShared, call: Completion) {
        let mut state = self.lock();
        state.queue.push_back(call);
        if !std::mem::replace(&mut state.is_running, true) {
            let queue = Arc::clone(self);
            drop(state);
            shared.delivery.push(Box::new(move || queue.run()));
        }
    }

    fn run(&self) {
        loop {
            let mut state = self.lock();
            let Some(call) = state.queue.pop_front() else {
                state.is_running = false;
                return;
            };
            drop(state);
            // Panics of callbacks are caught where they are called; this catches the rest.
            let _ = catch_unwind(AssertUnwindSafe(call));
        }
    }
}

impl std::fmt::Debug for LineQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LineQueue").finish_non_exhaustive()
    }
}

impl ClusterDriver {
    pub(super) fn hear_said(&mut self, message: &Message) {
        let Some((_, id)) = job_and_id(&message.subject) else { return };
        let Some((head, inline)) = split::<SaidHead>(&message.payload) else { return };
        let place = (id, head.member);
        let unheard = self.unheard.get_mut(&place).map(|unheard| &mut unheard.task);
        let driven = self.tasks.get_mut(&id).and_then(|task| task.members.get_mut(head.member));
        let Some(task) = driven.and_then(Option::as_mut).or(unheard) else { return };
        let Some(missing) = task.heard.hear(head.attempt, head.number) else { return };
        miss(&self.shared, task, missing);
        match (Body { head: head.body, bytes: inline }).to_progress() {
            Some(progress) => pass(&self.shared, task, head.host, progress),
            None => miss(&self.shared, task, 1),
        }
        let unheard = self.unheard.get(&place);
        if unheard.is_some_and(|it| it.task.heard.heard(it.attempt) >= it.head.said) {
            self.heard_out(place);
        }
    }

    /// Whether a result has to wait for lines and values of its task. If so, it is kept here.
    pub(super) fn waits_for_said(
        &mut self,
        place: (u64, usize),
        attempt: u32,
        task: DrivenMember,
        head: BodyHead,
        inline: Bytes,
    ) -> Option<(DrivenMember, BodyHead, Bytes)> {
        let heard = task.heard.heard(attempt);
        if heard >= head.said || (heard == 0 && !task.heard.is_whole) {
            return Some((task, head, inline));
        }
        let until = Instant::now() + LATE;
        self.unheard.insert(place, UnheardTask { task, attempt, head, inline, until });
        None
    }

    /// Results that have waited for long enough.
    pub(super) fn give_up_unheard(&mut self, longest: Duration) {
        let now = Instant::now() + LATE.saturating_sub(longest);
        let late: Vec<_> = self
            .unheard
            .iter()
            .filter(|(_, it)| it.until <= now)
            .map(|(place, _)| *place)
            .collect();
        for place in late {
            self.heard_out(place);
        }
    }

    fn heard_out(&mut self, place: (u64, usize)) {
        let Some(unheard) = self.unheard.remove(&place) else { return };
        let UnheardTask { task, attempt, head, inline, .. } = unheard;
        let missing = head.said.saturating_sub(task.heard.heard(attempt));
        miss(&self.shared, &task, missing);
        self.complete_heard(task, head, inline);
    }
}

/// Tells the program that something of a task was lost.
fn miss(shared: &Arc<ClusterShared>, task: &DrivenMember, number: u64) {
    if number > 0 {
        (0..number.min(MOST_LOST)).for_each(|_| task.promise.progress(RemoteProgress::lost()));
        shared.tell(ClusterEvent::Missed { task: task.task_id, number });
    }
}

fn pass(
    shared: &Arc<ClusterShared>,
    task: &mut DrivenMember,
    host: String,
    progress: RemoteProgress,
) {
    let Some(line) = progress.line() else { return task.promise.progress(progress) };
    let id = TaskId::of_number(task.task_id.number().saturating_add(line.item));
    let queue = Arc::clone(task.heard.lines.get_or_insert_default());
    if !queue.has_room() {
        return miss(shared, task, 1);
    }
    let on_say = shared.on_say.clone();
    let call = move || {
        let Some(line) = progress.line() else { return };
        match &on_say {
            Some(on_say) => {
                let (worker, pid, line) = (line.worker, line.pid, line.text);
                on_say(&HostSaid { task: id, host: &host, worker, pid, line });
            }
            None => line.print(),
        }
    };
    queue.push(shared, Box::new(call));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_missing_are_counted_and_those_that_come_again_are_not_heard() {
        let mut heard = HeardTask { is_whole: true, ..HeardTask::default() };
        let numbers = [(1, 0), (1, 0), (1, 3), (1, 2), (1, 4), (2, 1), (1, 5), (2, 2)];
        let missing: Vec<_> = numbers.map(|(attempt, n)| heard.hear(attempt, n)).into();
        assert_eq!(missing, [Some(0), None, Some(2), None, Some(0), Some(1), None, Some(0)]);
        assert_eq!((heard.heard(1), heard.heard(2)), (0, 3));
        let mut joined = HeardTask::default();
        assert_eq!(
            [(1, 7), (1, 9)].map(|(attempt, n)| joined.hear(attempt, n)),
            [Some(0), Some(1)]
        );
    }
}
