//! What a thread of a thread pool does: it takes tasks and chunks, runs them, and waits for more.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use super::ThreadPoolInner;
use super::queue::{Entry, JobQueue};
use crate::executor::callbacks;
use crate::executor::chunk::LocalChunk;
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
        loop {
            let next = queue.pop(only_awaited);
            self.note_awaited(&queue);
            queue = match next {
                Some(Entry::Job(job)) => {
                    let runner = queue.runner.clone();
                    drop(queue);
                    let obligation = Obligation::to_end(job.id());
                    let begun = Instant::now();
                    runner.run_in_role(job, worker);
                    let took = begun.elapsed();
                    drop(obligation);
                    role.take_back();
                    let mut queue = self.lock();
                    queue.note_run_time(1, took);
                    queue
                }
                Some(Entry::Chunk(chunk)) => self.run_chunk(queue, &chunk, worker, &role),
                None if only_awaited || queue.is_shut_down => return self.end_thread(queue),
                None => self.wait_for_tasks(queue),
            };
        }
    }

    pub(super) fn note_awaited(&self, queue: &JobQueue) {
        let first = queue.awaited.first().map_or(0, |id| id.0);
        self.awaited.store(first, Ordering::Relaxed);
    }

    /// Runs the tasks of a chunk until none is left, or a task is awaited.
    fn run_chunk<'q>(
        self: &'q Arc<Self>,
        mut queue: MutexGuard<'q, JobQueue>,
        chunk: &Arc<dyn LocalChunk>,
        worker: usize,
        role: &RoleGuard,
    ) -> MutexGuard<'q, JobQueue> {
        queue.begin(chunk);
        let mut context = queue.runner.context(chunk.id(), worker);
        if chunk.left() > 1 {
            self.call_for_help(queue);
        } else {
            drop(queue);
        }
        // A caller that waits for the chunk waits for all of its tasks.
        let obligation = Obligation::to_end(chunk.id());
        let (begun, id) = (Instant::now(), chunk.id().0);
        let count = chunk.run(&mut context, &mut || {
            role.take_back();
            let awaited = self.awaited.load(Ordering::Relaxed);
            awaited == 0 || awaited == id
        });
        let took = begun.elapsed();
        drop(obligation);
        let mut queue = self.lock();
        if queue.end(chunk) {
            self.note_awaited(&queue);
            // Another thread is to run the rest: this one may end before.
            self.added.fetch_add(1, Ordering::Release);
            self.changed.notify_one();
        }
        if count > 0 {
            queue.note_run_time(count, took);
        }
        queue
    }

    /// Wakes or starts another thread, which takes part of this thread's chunk. Without it, the other tasks of
    /// the chunk would wait for the first one, which may take long.
    fn call_for_help<'q>(self: &'q Arc<Self>, queue: MutexGuard<'q, JobQueue>) {
        if queue.idle > 0 {
            self.added.fetch_add(1, Ordering::Release);
            let must_wake = queue.idle > usize::from(queue.is_spinning);
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

    /// Waits until there may be a task. One thread spins before it sleeps.
    fn wait_for_tasks<'q>(
        &'q self,
        mut queue: MutexGuard<'q, JobQueue>,
    ) -> MutexGuard<'q, JobQueue> {
        let sleep = |queue| self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        queue.idle += 1;
        if queue.is_spinning {
            queue = sleep(queue);
        } else {
            queue.is_spinning = true;
            let added = self.added.load(Ordering::Acquire);
            drop(queue);
            let mut slept = None;
            self.spin.wait(
                || self.added.load(Ordering::Acquire) != added,
                || {
                    let mut queue = self.lock();
                    queue.is_spinning = false;
                    // No other thread was woken for a task that was added during the spin.
                    let has_more = self.added.load(Ordering::Acquire) != added;
                    slept = Some(if has_more { queue } else { sleep(queue) });
                },
            );
            queue = slept.unwrap_or_else(|| {
                let mut queue = self.lock();
                queue.is_spinning = false;
                queue
            });
        }
        queue.idle -= 1;
        queue
    }
}
