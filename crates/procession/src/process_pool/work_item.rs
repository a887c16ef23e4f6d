//! [`WorkItem`]: what the scheduler schedules, one encoded task or a chunk of them, with their
//! promises.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::traces::SubmitterSpan;
use crate::blob::Blob;
use crate::codec::Encoding;
use crate::error::TaskError;
use crate::executor::chunk::{AnyChunkPromise, EncodedChunk};
use crate::executor::job::{AnyPromise, EncodedJob, EncodedText};
use crate::future::EncodedPartial;
use crate::long_buffers;
use crate::panics;
use crate::progress_lines::Said;
use crate::task::TaskId;
use crate::transport::{INLINE_LIMIT, Reply};

/// An encoded task, or a chunk of encoded tasks, with the promises of their outputs.
pub(crate) struct WorkItem {
    /// Id of the first task; those of the others follow.
    pub id: TaskId,
    pub name: &'static str,
    pub encoding: Encoding,
    pub submitted: Instant,
    /// The span in which it was submitted, if the pool traces its tasks.
    pub submitter: SubmitterSpan,
    /// How often it was begun before, on other hosts.
    pub earlier: u32,
    text: EncodedText,
    /// The blobs to which the text refers.
    blobs: Mutex<Vec<Blob>>,
    promises: Promises,
}

enum Promises {
    /// Taken by the thread that completes it.
    One(Mutex<Option<AnyPromise>>),
    /// `ends`: where the text of each task ends.
    Chunk { promise: Box<dyn AnyChunkPromise>, ends: Vec<usize> },
}

/// Empty work items whose allocation is used again. Otherwise the submitting thread allocates one for
/// each task and a handler thread frees it, and both contend for the allocator.
#[derive(Default)]
pub(crate) struct ItemPool(Mutex<Vec<Arc<WorkItem>>>);

impl ItemPool {
    /// Largest number of items that are kept.
    const MAX: usize = 1024;

    /// A work item of one task.
    pub(crate) fn work_item(&self, encoded: EncodedJob, submitter: SubmitterSpan) -> Arc<WorkItem> {
        let mut spare = lock(&self.0).pop();
        match spare.as_mut().and_then(Arc::get_mut) {
            Some(emptied) => {
                *emptied = WorkItem::new(encoded, submitter);
                spare.expect("just seen")
            }
            None => Arc::new(WorkItem::new(encoded, submitter)),
        }
    }

    /// Keeps work items that were [cleared](WorkItem::clear).
    pub(crate) fn put_back(&self, emptied: Vec<Arc<WorkItem>>) {
        let mut item_pool = lock(&self.0);
        let room = Self::MAX.saturating_sub(item_pool.len());
        item_pool.extend(emptied.into_iter().take(room));
    }
}

/// Number of bytes that an attachment counts in the scheduler's limit of bytes that are sent ahead. It bounds
/// the number of attachments that a worker has to as many as there are segments: another one would take a memory
/// file, which costs more than a worker gains by having it.
const ATTACHMENT_BYTES: usize = 4096;

/// Checks that each attachment of a task can be sent: it becomes a memory file, and RLIMIT_FSIZE of
/// this process (`ulimit -f`) limits the size of files. Returns the error of a task that cannot be
/// sent.
pub(crate) fn refusal(EncodedJob { text, blobs, .. }: &EncodedJob) -> Option<TaskError> {
    use rustix::process::{Resource, getrlimit};
    let largest = blobs.iter().filter(|blob| blob.file().is_none()).map(|blob| blob.len());
    let largest = largest.chain([text.len()]).max().filter(|largest| *largest > INLINE_LIMIT)?;
    let max = getrlimit(Resource::Fsize).current.filter(|max| *max < largest as u64)?;
    Some(TaskError::Undelivered {
        what: "task".to_owned(),
        reason: format!(
            "this process cannot send it: File too large: {largest} bytes, and no file may be larger \
             than {max} (ulimit -f)"
        ),
    })
}

impl WorkItem {
    #[inline]
    pub(crate) fn new(encoded: EncodedJob, submitter: SubmitterSpan) -> Self {
        let EncodedJob { id, name, encoding, text, blobs, earlier, promise } = encoded;
        let (promises, blobs) = (Promises::One(Mutex::new(Some(promise))), Mutex::new(blobs));
        let submitted = Instant::now();
        Self { id, name, encoding, submitted, submitter, earlier, text, blobs, promises }
    }

    /// Drops text, blobs and the submitter's span, so that the allocation can be used again. Returns false for a chunk, or
    /// if the promise was not complete.
    pub(crate) fn clear(&mut self) -> bool {
        let text = std::mem::take(&mut self.text);
        if text.spilled() {
            long_buffers::give(text.into_vec());
        }
        panics::discard(std::mem::take(&mut self.submitter));
        *self.blobs() = Vec::new();
        match &self.promises {
            Promises::One(promise) => lock(promise).take().is_none(),
            Promises::Chunk { .. } => false,
        }
    }

    pub(crate) fn from_chunk(encoded: EncodedChunk, submitter: SubmitterSpan) -> Self {
        let EncodedChunk { id, name, encoding, text, ends, earlier, promise } = encoded;
        let text = EncodedText::from_vec(text);
        let (promises, blobs) = (Promises::Chunk { promise, ends }, Mutex::default());
        let submitted = Instant::now();
        Self { id, name, encoding, submitted, submitter, earlier, text, blobs, promises }
    }

    /// The id of one of its tasks.
    pub(crate) fn id_of(&self, item: u32) -> TaskId {
        TaskId(self.id.0 + u64::from(item))
    }

    /// Number of tasks.
    pub(crate) fn items(&self) -> u32 {
        match &self.promises {
            Promises::One(_) => 1,
            Promises::Chunk { ends, .. } => {
                u32::try_from(ends.len()).expect("fewer tasks than 2^32")
            }
        }
    }

    /// Size, in bytes, for the scheduler's limit of bytes that are sent ahead.
    pub(crate) fn bytes(&self) -> usize {
        let blobs = self.blobs().len() * ATTACHMENT_BYTES;
        let is_attached = self.items() == 1 && self.text.len() > INLINE_LIMIT;
        blobs + if is_attached { ATTACHMENT_BYTES } else { self.text.len() }
    }

    /// The blobs to which the text refers.
    pub(crate) fn blobs(&self) -> MutexGuard<'_, Vec<Blob>> {
        lock(&self.blobs)
    }

    /// The texts of these tasks, one after the other.
    pub(crate) fn text(&self, items: &Range<u32>) -> &[u8] {
        match &self.promises {
            Promises::One(_) => &self.text,
            Promises::Chunk { ends, .. } => {
                let begin = items.start.checked_sub(1).map_or(0, |before| ends[before as usize]);
                &self.text[begin..ends[items.end as usize - 1]]
            }
        }
    }

    /// The lengths of these texts, each as four bytes in little-endian order; empty for one task.
    pub(crate) fn lengths(&self, items: &Range<u32>) -> Vec<u8> {
        let Promises::Chunk { ends, .. } = &self.promises else { return Vec::new() };
        if items.len() < 2 {
            return Vec::new();
        }
        let mut begin = items.start.checked_sub(1).map_or(0, |before| ends[before as usize]);
        let mut lengths = Vec::with_capacity(4 * items.len());
        for end in &ends[items.start as usize..items.end as usize] {
            let length = u32::try_from(end - begin).unwrap_or(u32::MAX);
            lengths.extend_from_slice(&length.to_le_bytes());
            begin = *end;
        }
        lengths
    }

    pub(crate) fn set_running(&self, running: bool) {
        if let Promises::One(promise) = &self.promises
            && let Some(promise) = &*lock(promise)
        {
            promise.set_running(running);
        }
    }

    /// Passes a value on that the task emitted. The tasks of a chunk have no futures that could be asked for it.
    pub(crate) fn put_partial(&self, partial: Option<EncodedPartial>) {
        if let Promises::One(promise) = &self.promises {
            // The lock is released before a waker is called.
            let sink = lock(promise).as_ref().and_then(AnyPromise::partial_sink);
            if let Some(put) = sink {
                put(partial);
            }
        }
    }

    /// Passes a line on that a task said. Returns false if it is for the pool's function.
    pub(crate) fn put_line(&self, said: &Said<'_>) -> bool {
        match &self.promises {
            Promises::One(promise) => {
                // The lock is released before anything is called.
                let sink = lock(promise).as_ref().and_then(AnyPromise::line_sink);
                sink.is_some_and(|put| put(said))
            }
            Promises::Chunk { promise, .. } => promise.put_line(said),
        }
    }

    /// Completes one task with a reply.
    pub(crate) fn complete_with(&self, item: u32, reply: &Reply<'_>) {
        match &self.promises {
            Promises::One(promise) => {
                // The lock is released before callbacks are called.
                let promise = lock(promise).take();
                if let Some(promise) = promise {
                    promise.complete_with(reply);
                }
            }
            Promises::Chunk { promise, .. } => promise.complete_with(item, reply),
        }
    }

    /// Whether it is a chunk, whose outputs arrive as separate records.
    pub(crate) fn is_chunk(&self) -> bool {
        matches!(self.promises, Promises::Chunk { .. })
    }

    /// Completes consecutive tasks of a chunk with their outputs. Returns the number of tasks that
    /// were not complete before: some may have been cancelled.
    pub(crate) fn complete(&self, first: u32, outputs: &[&[u8]]) -> usize {
        match &self.promises {
            Promises::One(_) => 0,
            Promises::Chunk { promise, .. } => promise.complete(first, outputs),
        }
    }

    /// Completes tasks with an error. Returns the number of tasks that were not complete before.
    pub(crate) fn fail(&self, items: Range<u32>, error: TaskError) -> usize {
        match &self.promises {
            Promises::One(promise) => {
                let promise = lock(promise).take();
                let was_pending = promise.is_some();
                if let Some(promise) = promise {
                    promise.fail(error);
                }
                usize::from(was_pending)
            }
            Promises::Chunk { promise, .. } => promise.fail(items, &error),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
