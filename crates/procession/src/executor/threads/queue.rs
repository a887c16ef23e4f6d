//! The queue of a thread pool: tasks and chunks that have not begun, and chunks that threads run.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::idle::IdleThreads;
use super::pending::PendingEntries;
use crate::error::{PoolError, TaskError};
use crate::executor::chunk::LocalChunk;
use crate::executor::{Job, JobRunner};
use crate::task::TaskId;

#[derive(Debug, Default)]
pub(super) struct JobQueue {
    /// Set when a thread of the pool has panicked outside of a task.
    pub(super) broken: Option<PoolError>,
    pub(super) pending: PendingEntries,
    /// Chunks of which a thread runs tasks.
    pub(super) begun: Vec<BegunChunk>,
    /// Moving average of run times. `None`: no task has ended.
    pub(super) typical_run_time: Option<Duration>,
    /// Number of short tasks that were begun since the last one whose run time was measured.
    unmeasured: u32,
    /// Tasks that a task or a callback waits for. Some of them may have begun.
    pub(super) awaited: BTreeSet<TaskId>,
    /// Number of threads that wait for tasks, in a task or a callback.
    pub(super) waiting: usize,
    pub(super) runner: JobRunner,
    /// Stack size of each thread, in bytes. `None`: the default of the standard library.
    pub(super) stack: Option<usize>,
    /// The error of the last failed start of a thread.
    pub(super) refused: Option<io::Error>,
    /// The threads that wait for `changed`, and one that may spin.
    pub(super) idle: IdleThreads,
    pub(super) is_shut_down: bool,
    pub(super) threads: Vec<JoinHandle<()>>,
    /// Number of threads that were started for the size of the pool. Those that run awaited tasks alone are
    /// not counted.
    pub(super) started: usize,
    /// Number of these threads that have not begun to look for tasks.
    pub(super) starting: usize,
    /// Number of threads that run tasks or wait for one. A thread that finds no task and ends is subtracted
    /// before it releases the lock: a task that is added later starts another one.
    pub(super) alive: usize,
}

/// What threads take from the queue.
pub(super) enum Entry {
    Job(Job),
    Chunk(Arc<dyn LocalChunk>),
}

impl Entry {
    /// Completes the tasks with an error.
    pub(super) fn fail(self, error: &TaskError) {
        match self {
            Self::Job(job) => job.fail(error.clone()),
            Self::Chunk(chunk) => drop(chunk.fail(error)),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(job) => job.fmt(f),
            Self::Chunk(chunk) => write!(f, "chunk {}", chunk.id()),
        }
    }
}

/// A chunk, or a part of one, that a thread runs. Others may split it.
pub(super) struct BegunChunk {
    pub(super) chunk: Arc<dyn LocalChunk>,
    /// The number of tasks that had not begun when a thread last looked.
    seen: usize,
}

impl fmt::Debug for BegunChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tasks of chunk {}", self.chunk.left(), self.chunk.id())
    }
}

/// The run time of the tasks of one chunk, about.
const CHUNK_TIME: Duration = Duration::from_millis(1);
/// Run time below which not each task is measured.
const SHORT: Duration = Duration::from_micros(10);
/// The most tasks in one chunk.
const MAX_CHUNK: u128 = 1024;

impl JobQueue {
    /// The next tasks for a thread. In this order:
    ///
    /// 1. tasks that another task or a callback waits for,
    /// 2. half of what is left of a chunk of which no task has begun since the last call of `pop`,
    /// 3. the first of the queue,
    /// 4. half of what is left of any other chunk.
    pub(super) fn pop(&mut self, only_awaited: bool) -> Option<Entry> {
        let next = self.pop_awaited();
        if next.is_some() || only_awaited {
            return next;
        }
        let stuck = self.split_begun(true);
        let next = stuck.or_else(|| self.pending.pop_first());
        next.or_else(|| self.split_begun(false))
    }

    fn pop_awaited(&mut self) -> Option<Entry> {
        while let Some(&id) = self.awaited.first() {
            let entry = self.pending.remove(id).or_else(|| {
                let of_id = self.begun.iter().filter(|begun| begun.chunk.id() == id);
                of_id.filter_map(|begun| begun.chunk.split()).next().map(Entry::Chunk)
            });
            // The id of a chunk stays until all of its tasks have begun: the thread that runs them
            // may wait in one of them.
            if !matches!(entry, Some(Entry::Chunk(_))) {
                self.awaited.remove(&id);
            }
            if entry.is_some() {
                return entry;
            }
        }
        None
    }

    /// Half of what is left of a chunk that another thread runs. `only_stuck`: of a chunk of which no task has
    /// begun since the last call.
    fn split_begun(&mut self, only_stuck: bool) -> Option<Entry> {
        for begun in &mut self.begun {
            let left = begun.chunk.left();
            let is_stuck = begun.seen == left;
            begun.seen = left;
            if (is_stuck || !only_stuck)
                && let Some(part) = begun.chunk.split()
            {
                return Some(Entry::Chunk(part));
            }
        }
        None
    }

    /// A thread runs this chunk.
    pub(super) fn begin(&mut self, chunk: &Arc<dyn LocalChunk>) {
        let chunk = Arc::clone(chunk);
        self.begun.push(BegunChunk { chunk, seen: usize::MAX });
    }

    /// The thread that ran this chunk leaves it. Returns whether tasks are left. These count as awaited from
    /// now on, so the next free thread takes them: the thread that leaves may end.
    pub(super) fn end(&mut self, chunk: &Arc<dyn LocalChunk>) -> bool {
        let has_left = chunk.left() > 0;
        if has_left {
            self.awaited.insert(chunk.id());
        }
        has_left
    }

    /// Takes out the chunks of which all tasks have begun. The caller drops them without the lock: they may have the
    /// last reference to results, and `Drop` of these may use the pool.
    #[must_use]
    pub(super) fn take_ended(&mut self) -> Vec<BegunChunk> {
        self.begun.extract_if(.., |begun| begun.chunk.left() == 0).collect()
    }

    /// Whether a task of this id has not begun, or one of a chunk of this id.
    pub(super) fn has_not_begun(&self, id: TaskId) -> bool {
        let is_of = |begun: &BegunChunk| begun.chunk.id() == id && begun.chunk.left() > 0;
        self.pending.contains(id) || self.begun.iter().any(is_of)
    }

    /// Takes out what has not begun of a task or a chunk: no thread begins it after this.
    pub(super) fn take(&mut self, id: TaskId) -> Vec<Entry> {
        let of_id = self.begun.iter().filter(|begun| begun.chunk.id() == id);
        let parts = of_id.filter_map(|begun| begun.chunk.take_rest()).map(Entry::Chunk);
        self.pending.remove(id).into_iter().chain(parts).collect()
    }

    /// Takes out all that has not begun.
    pub(super) fn take_all(&mut self) -> Vec<Entry> {
        let parts = self.begun.iter().filter_map(|begun| begun.chunk.take_rest());
        let pending = self.pending.take_all();
        pending.chain(parts.map(Entry::Chunk)).collect()
    }

    /// Whether the caller, which has just taken something, has to wake another thread for what is left.
    pub(super) fn must_wake_for_rest(&mut self) -> bool {
        if !self.idle.has_asleep() {
            return false;
        }
        let parts = usize::from(self.has_parts());
        self.idle.must_wake_for(self.pending.len() + parts)
    }

    /// Whether there are more tasks than threads without a task, and the pool may have one more thread.
    pub(super) fn is_short_of_threads(&self, size: usize) -> bool {
        // All pending tasks count, because a thread that was woken and has not taken its task still counts as idle.
        let threads = self.idle.number + self.starting;
        self.started < size
            && (self.pending.len() > threads || self.pending.len() == threads && self.has_parts())
    }

    /// Whether a thread can take part of a chunk that another one runs.
    fn has_parts(&self) -> bool {
        self.begun.iter().any(|begun| begun.chunk.left() > 0)
    }

    /// Whether the caller has to wake a thread for the pending tasks.
    pub(super) fn must_wake(&mut self) -> bool {
        self.idle.must_wake_for(self.pending.len())
    }

    /// Whether the run time of the next task is to be measured: of short ones every eighth, since to read the
    /// clock twice takes longer than a task that does nothing.
    pub(super) fn measures_next(&mut self) -> bool {
        let is_short = self.typical_run_time.is_some_and(|run_time| run_time < SHORT);
        self.unmeasured = if is_short { (self.unmeasured + 1) % 8 } else { 0 };
        self.unmeasured == 0
    }

    /// Notes how long `count` tasks took together. Several tasks have more weight in the average than one.
    pub(super) fn note_run_time(&mut self, count: u32, took: Duration) {
        let run_time = took / count.max(1);
        self.typical_run_time = Some(match self.typical_run_time {
            None => run_time,
            Some(typical) if count > 1 => (typical + run_time) / 2,
            Some(typical) => (typical * 7 + run_time) / 8,
        });
    }

    /// The number of tasks to put into one chunk: about [`CHUNK_TIME`] of work.
    pub(super) fn chunk_size(&self) -> usize {
        let Some(run_time) = self.typical_run_time else { return 1 };
        let count = CHUNK_TIME.as_nanos() / run_time.as_nanos().max(1);
        count.clamp(1, MAX_CHUNK) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::chunk;
    use crate::task::Nothing;

    /// A queue with a chunk of which a thread has run the first of ten tasks.
    fn with_begun_chunk() -> (JobQueue, Arc<dyn LocalChunk>, chunk::Results<()>) {
        let (collected, _) = chunk::collect(&mut std::iter::repeat_with(|| Nothing), 10);
        let (chunk, results) = collected.expect("ten tasks");
        let mut queue = JobQueue::default();
        queue.begin(&chunk);
        assert_eq!(chunk.run(&mut queue.runner.context(chunk.id(), 0), &mut || false), 1);
        (queue, chunk, results)
    }

    #[test]
    fn a_thread_begins_no_task_of_a_chunk_that_was_taken() {
        type Take = fn(&mut JobQueue, TaskId) -> Vec<Entry>;
        let all: Take = |queue, _| queue.take_all();
        for take in [JobQueue::take, all] {
            let (mut queue, chunk, results) = with_begun_chunk();
            let taken = take(&mut queue, chunk.id());
            // Before these are completed, for which the queue is not locked.
            assert_eq!(chunk.run(&mut queue.runner.context(chunk.id(), 0), &mut || true), 0);
            assert!(!queue.has_not_begun(chunk.id()) && take(&mut queue, chunk.id()).is_empty());
            assert!(!queue.end(&chunk), "nothing is left");
            assert_eq!(queue.take_ended().len(), 1);
            assert!(queue.begun.is_empty());
            for entry in taken {
                entry.fail(&TaskError::Cancelled);
            }
            drop(chunk);
            assert_eq!(results.len(), 10);
        }
    }

    #[test]
    fn of_short_tasks_every_eighth_is_measured_and_of_others_each() {
        let measured = |queue: &mut JobQueue| (0..80).filter(|_| queue.measures_next()).count();
        let mut queue = JobQueue::default();
        assert_eq!(measured(&mut queue), 80, "no run time is known");
        queue.note_run_time(1, Duration::from_micros(1));
        assert_eq!(measured(&mut queue), 10);
        queue.note_run_time(1, Duration::from_secs(1));
        assert_eq!(measured(&mut queue), 80);
    }

    #[test]
    fn chunks_are_about_a_millisecond_of_work() {
        let mut queue = JobQueue::default();
        assert_eq!(queue.chunk_size(), 1);
        for (micros, size) in [(0, 1024), (1, 1000), (300, 3), (1_000, 1), (3_000, 1), (9_000, 1)] {
            queue.typical_run_time = Some(Duration::from_micros(micros));
            assert_eq!(queue.chunk_size(), size, "{micros} µs");
        }
    }
}
