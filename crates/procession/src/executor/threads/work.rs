//! What a thread of a thread pool does: it takes tasks and chunks, runs them, and waits for more.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use super::ThreadPoolInner;
use super::queue::{Entry, JobQueue};
use crate::executor::callbacks;
use crate::executor::chunk::LocalChunk;
use crate::panics;
use crate::task::{Context, TaskId};
use crate::waiting::{HandOver, Obligation, RoleGuard};

impl ThreadPoolInner {
    /// The body of a thread: runs tasks until the shutdown, or with `only_awaited` until there is no
    /// awaited task.
    pub(super) fn work(self: &Arc<Self>, worker: usize, only_awaited: bool) {
        let role = RoleGuard::serves(
            callbacks::address(&**self),
            Some(Arc::clone(self) as Arc<dyn HandOver>),
        );
        let mut queue = self.lock();
        queue.starting -= usize::from(!only_awaited);
        let mut context = queue.runner.context(TaskId(0), worker);
        loop {
            let next = queue.pop(only_awaited);
            self.note_awaited(&queue);
            if next.is_some() {
                queue = self.pass_on(queue);
            }
            queue = match next {
                Some(Entry::Job(job)) => {
                    let lines = queue.runner.refresh(&mut context);
                    let is_measured = queue.measures_next();
                    drop(queue);
                    if let Some(before) = lines {
                        panics::discard(before);
                    }
                    let obligation = Obligation::to_end(job.id());
                    let begun = is_measured.then(Instant::now);
                    job.run(&mut context);
                    let took = begun.map(|begun| begun.elapsed());
                    drop(obligation);
                    role.take_back();
                    let mut queue = self.lock();
                    if let Some(took) = took {
                        queue.note_run_time(1, took);
                    }
                    queue
                }
                Some(Entry::Chunk(chunk)) => {
                    self.run_chunk(queue, chunk, &mut context, &role);
                    self.lock()
                }
                None if only_awaited || queue.is_shut_down => {
                    self.end_thread(queue);
                    return panics::discard(context);
                }
                None => self.wait_for_tasks(queue),
            };
        }
    }

    pub(super) fn note_awaited(&self, queue: &JobQueue) {
        let first = queue.awaited.first().map_or(0, |id| id.0);
        self.awaited.store(first, Ordering::Relaxed);
    }

    /// Runs the tasks of a chunk until none is left, or a task is awaited.
    fn run_chunk(
        self: &Arc<Self>,
        mut queue: MutexGuard<'_, JobQueue>,
        chunk: Arc<dyn LocalChunk>,
        context: &mut Context,
        role: &RoleGuard,
    ) {
        queue.begin(&chunk);
        let lines = queue.runner.refresh(context);
        if chunk.left() > 1 {
            self.call_for_help(queue);
        } else {
            drop(queue);
        }
        if let Some(before) = lines {
            panics::discard(before);
        }
        // A caller that waits for the chunk waits for all of its tasks.
        let obligation = Obligation::to_end(chunk.id());
        let (begun, id) = (Instant::now(), chunk.id().0);
        let count = chunk.run(context, &mut || {
            role.take_back();
            let awaited = self.awaited.load(Ordering::Relaxed);
            awaited == 0 || awaited == id
        });
        let took = begun.elapsed();
        drop(obligation);
        let mut queue = self.lock();
        if queue.end(&chunk) {
            self.note_awaited(&queue);
            // Another thread is to run the rest: this one may end before.
            self.wake_one_more(&mut queue);
        }
        if count > 0 {
            queue.note_run_time(count, took);
        }
        let ended = queue.take_ended();
        drop(queue);
        // Results whose consumer is gone are dropped with their chunk, which calls the program's code.
        drop((chunk, ended));
        role.take_back();
    }

    /// Wakes or starts another thread, which takes part of this thread's chunk. Without it, the other tasks of
    /// the chunk would wait for the first one, which may take long.
    fn call_for_help<'q>(self: &'q Arc<Self>, mut queue: MutexGuard<'q, JobQueue>) {
        if queue.idle.number > 0 {
            self.tell_spinning(&queue);
            let must_wake = queue.idle.must_wake_one_more();
            drop(queue);
            if must_wake {
                self.changed.notify_one();
            }
        } else if queue.started < self.size && !queue.is_shut_down {
            match self.start_one_more(queue) {
                Ok(queue) => drop(queue),
                Err(no_thread) => self.fail_without_thread(no_thread),
            }
        }
    }

    /// Called when a thread has taken something: what it came for may be left, a pending task if it took part of a
    /// chunk, or part of a chunk if it took a pending task. Another thread is woken or started for that.
    fn pass_on<'q>(
        self: &'q Arc<Self>,
        mut queue: MutexGuard<'q, JobQueue>,
    ) -> MutexGuard<'q, JobQueue> {
        if queue.must_wake_for_rest() {
            self.changed.notify_one();
        }
        let may_start = queue.refused.is_none() && !queue.is_shut_down;
        if !may_start || !queue.is_short_of_threads(self.size) {
            return queue;
        }
        self.start_one_more(queue).unwrap_or_else(|no_thread| {
            self.fail_without_thread(no_thread);
            self.lock()
        })
    }

    /// Lets the thread that spins look for tasks, if there is one.
    pub(super) fn tell_spinning(&self, queue: &JobQueue) {
        if queue.idle.is_spinning {
            self.added.fetch_add(1, Ordering::Release);
        }
    }

    /// Wakes a thread if fewer threads come than tasks are pending.
    pub(super) fn wake_for_pending(&self, mut queue: MutexGuard<'_, JobQueue>) {
        let must_wake = queue.must_wake();
        drop(queue);
        if must_wake {
            self.changed.notify_one();
        }
    }

    /// Lets one more idle thread look for tasks.
    pub(super) fn wake_one_more(&self, queue: &mut JobQueue) {
        self.tell_spinning(queue);
        if queue.idle.must_wake_one_more() {
            self.changed.notify_one();
        }
    }

    /// Ensures that a thread runs the awaited tasks. Returns false if none can be started.
    pub(super) fn ensure_awaited_run(self: &Arc<Self>, queue: &mut JobQueue) -> bool {
        if queue.awaited.is_empty() {
            return true;
        }
        if queue.idle.number > 0 {
            self.wake_one_more(queue);
        }
        // Each idle thread takes one of them.
        if queue.awaited.len() <= queue.idle.number {
            return true;
        }
        let active = queue.alive.saturating_sub(queue.waiting);
        // An active thread takes them after its task, or calls this function before it waits.
        active >= self.size
            || self.start(queue, queue.alive % self.size, true).is_ok()
            || active > 0
    }

    /// Waits until there may be a task. One thread spins before it sleeps.
    fn wait_for_tasks<'q>(
        &'q self,
        mut queue: MutexGuard<'q, JobQueue>,
    ) -> MutexGuard<'q, JobQueue> {
        let sleep = |queue: MutexGuard<'q, JobQueue>| {
            let mut queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle.is_back();
            queue
        };
        queue.idle.number += 1;
        if queue.idle.is_spinning {
            queue = sleep(queue);
        } else {
            queue.idle.is_spinning = true;
            let added = self.added.load(Ordering::Acquire);
            drop(queue);
            let mut slept = None;
            self.spin.wait(
                || self.added.load(Ordering::Acquire) != added,
                || {
                    let mut queue = self.lock();
                    queue.idle.is_spinning = false;
                    // No other thread was woken for a task that was added during the spin.
                    let has_more = self.added.load(Ordering::Acquire) != added;
                    slept = Some(if has_more { queue } else { sleep(queue) });
                },
            );
            queue = slept.unwrap_or_else(|| {
                let mut queue = self.lock();
                queue.idle.is_spinning = false;
                queue
            });
        }
        queue.idle.number -= 1;
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::super::ThreadPool;
    use super::*;
    use crate::executor::{Engine, Job};
    use crate::task::Nothing;

    fn job(queue: &mut JobQueue) -> TaskId {
        let job = Job::new(Nothing, None).0;
        let id = job.id();
        queue.pending.insert(id, Entry::Job(job));
        id
    }

    #[test]
    fn a_thread_is_started_for_an_awaited_task_that_no_idle_thread_takes() {
        let pool = ThreadPool::new(3);
        let mut queue = pool.inner.lock();
        // Of three threads two wait, each for a task, and the third one has none.
        (queue.started, queue.alive, queue.waiting, queue.idle.number) = (3, 3, 2, 1);
        for alive in [3, 4] {
            let id = job(&mut queue);
            queue.awaited.insert(id);
            assert!(pool.inner.ensure_awaited_run(&mut queue));
            assert_eq!(queue.alive, alive);
        }
        (queue.alive, queue.waiting, queue.idle.number) = (1, 0, 0);
        drop(queue);
        pool.shut_down(crate::Shutdown::Wait);
    }

    #[test]
    fn a_thread_is_started_for_a_pending_task_whose_thread_has_taken_another_one() {
        let pool = ThreadPool::new(3);
        let mut queue = pool.inner.lock();
        (queue.started, queue.alive) = (1, 1);
        job(&mut queue);
        for _ in 0..2 {
            queue = pool.inner.pass_on(queue);
            assert_eq!(
                (queue.started, queue.starting),
                (2, 1),
                "one that is being started takes it"
            );
        }
        queue.alive -= 1;
        drop(queue);
        pool.shut_down(crate::Shutdown::Wait);
        assert_eq!(pool.inner.lock().pending.len(), 0);
    }
}
