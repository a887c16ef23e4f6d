//! Chunks: short tasks of a [`map`](crate::Executor::map) that travel together, each with its own result.

use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::{
    Content, NotEncoded, OnDone, OnProgress, RemoteProgress, RemotePromise, RemoteResult,
    RemoteTask,
};
use crate::error::TaskError;
use crate::executor::Job;
use crate::executor::chunk::{AnyChunkPromise, ChunkExecutor, EncodedChunk};
use crate::progress_lines::Said;
use crate::task::TaskId;
use crate::task_options::TaskOptions;
use crate::transport::Reply;

type EnqueueChunk = dyn Fn(TaskId, RemoteTask, RemotePromise, TaskOptions) + Send + Sync;
type EnqueueJob = dyn Fn(Job, TaskOptions) + Send + Sync;

/// How an executor of other hosts takes the tasks of a [`map`](crate::Executor::map): several in one
/// [`RemoteTask`]. The executor returns it from [`Cancel::remote_chunks`](crate::Cancel::remote_chunks).
///
/// ```
/// use std::sync::mpsc::Sender;
///
/// use procession::{Cancel, RemoteChunks, RemotePromise, RemoteTask, TaskId};
///
/// /// What futures use of an executor whose thread sends what comes from a channel.
/// struct Link(RemoteChunks);
///
/// impl Link {
///     fn new(outgoing: Sender<(RemoteTask, RemotePromise)>) -> Self {
///         let single = outgoing.clone();
///         Self(RemoteChunks::new(
///             || 100, // tasks
///             4,      // chunks ahead
///             move |_first, chunk, promise, _options| drop(outgoing.send((chunk, promise))),
///             move |job, _options| {
///                 if let Some(pair) = job.into_remote() {
///                     drop(single.send(pair));
///                 }
///             },
///         ))
///     }
/// }
///
/// impl Cancel for Link {
///     fn cancel(&self, _: TaskId) -> bool {
///         false
///     }
///
///     fn can_wait_for(&self, _: TaskId) -> bool {
///         true
///     }
///
///     fn remote_chunks(&self) -> Option<&RemoteChunks> {
///         Some(&self.0)
///     }
/// }
/// ```
pub struct RemoteChunks {
    size: Box<dyn Fn() -> usize + Send + Sync>,
    ahead: usize,
    enqueue: Box<EnqueueChunk>,
    enqueue_job: Box<EnqueueJob>,
}

impl RemoteChunks {
    /// Chunks of up to `size` tasks, of which `ahead` are handed over ahead of the consumer of a `map`. `size`
    /// is called before each chunk; if it returns 1, the next task is sent alone. `enqueue` takes a chunk: the
    /// ids of its tasks follow that of the first. `enqueue_job` takes a single task with options of its own. See
    /// the example of [`RemoteChunks`].
    pub fn new(
        size: impl Fn() -> usize + Send + Sync + 'static,
        ahead: usize,
        enqueue: impl Fn(TaskId, RemoteTask, RemotePromise, TaskOptions) + Send + Sync + 'static,
        enqueue_job: impl Fn(Job, TaskOptions) + Send + Sync + 'static,
    ) -> Self {
        let (enqueue, enqueue_job) = (Box::new(enqueue), Box::new(enqueue_job));
        let size = Box::new(size);
        Self { size, ahead, enqueue, enqueue_job }
    }
}

impl ChunkExecutor for RemoteChunks {
    fn chunk_size(&self) -> usize {
        (self.size)()
    }

    fn chunks_ahead(&self) -> usize {
        self.ahead
    }

    fn enqueue_chunk(&self, chunk: EncodedChunk, options: TaskOptions) {
        let EncodedChunk { id, name, encoding, text, ends, earlier, promise } = chunk;
        let promise = RemotePromise::of_chunk(promise, ends.len());
        let (name, blobs) = (name.to_owned(), Vec::new());
        let task = RemoteTask { name, encoding, text, ends, blobs, earlier };
        (self.enqueue)(id, task, promise, options);
    }

    fn enqueue_with(&self, job: Job, options: TaskOptions) {
        (self.enqueue_job)(job, options);
    }
}

impl fmt::Debug for RemoteChunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteChunks").field("size", &(self.size)()).finish_non_exhaustive()
    }
}

/// The result of one task of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ItemResult {
    /// Its encoded output. A short one needs no allocation.
    Output(SmallVec<[u8; 16]>),
    /// What the worker has replied in another case.
    Reply(Vec<u8>),
    Error(TaskError),
}

/// The same results, from workers of the host `name`: see [`TaskError::on_host`].
pub(super) fn on_host(items: Vec<ItemResult>, name: &str, earlier: u32) -> Vec<ItemResult> {
    let of_item = |item| match item {
        ItemResult::Error(error) => ItemResult::Error(error.on_host(name, earlier)),
        item => item,
    };
    items.into_iter().map(of_item).collect()
}

/// Gathers the results of a chunk, and passes them on when there are all.
pub(super) struct RemoteChunkCore {
    first: TaskId,
    on_progress: OnProgress,
    state: Mutex<GatheredResults>,
}

struct GatheredResults {
    items: Vec<Option<ItemResult>>,
    missing: usize,
    on_done: Option<OnDone>,
}

impl RemoteChunkCore {
    pub(super) fn new(first: TaskId, len: usize, on_progress: OnProgress, on_done: OnDone) -> Self {
        let items = (0..len).map(|_| None).collect();
        let state = GatheredResults { items, missing: len, on_done: Some(on_done) };
        Self { first, on_progress, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, GatheredResults> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, first: u32, results: impl Iterator<Item = ItemResult>) -> usize {
        let mut state = self.lock();
        let mut put = 0;
        // None are left after the last one.
        for (place, result) in state.items.iter_mut().skip(first as usize).zip(results) {
            put += usize::from(place.is_none());
            place.get_or_insert(result);
        }
        state.missing -= put;
        if state.missing > 0 {
            return put;
        }
        let items = std::mem::take(&mut state.items).into_iter().flatten().collect();
        let on_done = state.on_done.take();
        drop(state);
        if let Some(on_done) = on_done {
            on_done(RemoteResult(Content::Chunk(items)));
        }
        put
    }
}

impl AnyChunkPromise for RemoteChunkCore {
    fn complete_with(&self, item: u32, reply: &Reply<'_>) {
        // The output of a task without blobs may have some. They are not sent from a chunk.
        let result = match reply.blobs.take().is_empty() {
            true => ItemResult::Reply(reply.to_text()),
            false => ItemResult::Error(TaskError::Undelivered {
                what: "output".to_owned(),
                reason: "a blob cannot be sent from a chunk of tasks".to_owned(),
            }),
        };
        self.put(item, std::iter::once(result));
    }

    fn complete(&self, first: u32, outputs: &[&[u8]]) -> usize {
        self.put(first, outputs.iter().map(|output| ItemResult::Output((*output).into())))
    }

    fn put_line(&self, said: &Said<'_>) -> bool {
        (self.on_progress)(RemoteProgress::of_line(self.first, said));
        true
    }

    fn fail(&self, items: Range<u32>, error: &TaskError) -> usize {
        self.put(items.start, items.map(|_| ItemResult::Error(error.clone())))
    }
}

impl Drop for RemoteChunkCore {
    fn drop(&mut self) {
        let missing = self.lock().missing;
        if missing > 0 {
            self.put(0, std::iter::repeat(ItemResult::Error(TaskError::Cancelled)));
        }
    }
}

/// Number of bytes of a length: 64 bits in little-endian order.
pub(super) const LENGTH: usize = 8;

/// Writes the lengths of parts that have these ends.
pub(super) fn write_lengths(ends: &[usize], bytes: &mut Vec<u8>) {
    let mut begin = 0;
    for end in ends {
        write_length(end - begin, bytes);
        begin = *end;
    }
}

fn write_length(length: usize, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
}

/// The ends of this number of parts, and the bytes behind their lengths.
pub(super) fn read_lengths(parts: usize, bytes: &[u8]) -> Result<(Vec<usize>, &[u8]), NotEncoded> {
    let cut = || NotEncoded { what: "task", reason: "it is cut".to_owned() };
    let len = parts.checked_mul(LENGTH).ok_or_else(cut)?;
    let (lengths, rest) = bytes.split_at_checked(len).ok_or_else(cut)?;
    let mut end = 0_usize;
    let mut ends = Vec::with_capacity(parts);
    for length in lengths.as_chunks().0 {
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
        end = end.checked_add(length).ok_or_else(cut)?;
        ends.push(end);
    }
    Ok((ends, rest))
}

/// Each result after its kind and its length.
pub(super) fn to_bytes(items: &[ItemResult]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(items.len() * (1 + LENGTH + 16));
    for item in items {
        let error;
        let (kind, item) = match item {
            ItemResult::Output(output) => (b'o', &output[..]),
            ItemResult::Reply(reply) => (b'r', &reply[..]),
            ItemResult::Error(it) => {
                error = serde_json::to_vec(it).expect("errors are texts and numbers");
                (b'e', &error[..])
            }
        };
        bytes.push(kind);
        write_length(item.len(), &mut bytes);
        bytes.extend_from_slice(item);
    }
    bytes
}

pub(super) fn from_bytes(bytes: &[u8]) -> Result<Vec<ItemResult>, NotEncoded> {
    let wrong = |reason: &str| NotEncoded { what: "result", reason: reason.to_owned() };
    let (mut items, mut rest) = (Vec::new(), bytes);
    while let Some((kind, after)) = rest.split_first() {
        let (length, after) = after.split_first_chunk().ok_or_else(|| wrong("it is cut"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok();
        let split = length.and_then(|length| after.split_at_checked(length));
        let (item, after) = split.ok_or_else(|| wrong("it is cut"))?;
        rest = after;
        items.push(match kind {
            b'o' => ItemResult::Output(item.into()),
            b'r' => ItemResult::Reply(item.to_vec()),
            b'e' => ItemResult::Error(super::parse(item, "result")?),
            _ => return Err(wrong("the kind of an item is unknown")),
        });
    }
    Ok(items)
}

/// Completes the tasks of a chunk with their results. Those that have none fail.
pub(super) fn complete(promise: &dyn AnyChunkPromise, len: u32, items: Vec<ItemResult>) {
    let mut next = 0;
    let mut items = items.into_iter().take(len as usize).peekable();
    while let Some(item) = items.next() {
        let first = next;
        next += 1;
        match item {
            ItemResult::Output(output) => {
                let mut outputs = vec![output];
                while let Some(ItemResult::Output(output)) =
                    items.next_if(|item| matches!(item, ItemResult::Output(_)))
                {
                    outputs.push(output);
                    next += 1;
                }
                let outputs: Vec<_> = outputs.iter().map(|output| &output[..]).collect();
                promise.complete(first, &outputs);
            }
            ItemResult::Reply(text) => match Reply::parse(&text) {
                Ok(reply) => promise.complete_with(first, &reply),
                Err(_) => drop(promise.fail(first..next, &super::malformed())),
            },
            ItemResult::Error(error) => drop(promise.fail(first..next, &error)),
        }
    }
    if next < len {
        promise.fail(next..len, &super::malformed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn lengths_above_four_gibibytes_are_exact() {
        let ends = [7, 7 + (5 << 32), (5 << 32) + 8];
        let mut bytes = Vec::new();
        write_lengths(&ends, &mut bytes);
        bytes.push(9);
        assert_eq!(read_lengths(3, &bytes).expect("lengths"), (ends.to_vec(), &[9][..]));
        assert!(read_lengths(4, &bytes).is_err());
        let too_long = [&bytes[..LENGTH], &u64::MAX.to_le_bytes()].concat();
        assert!(read_lengths(2, &too_long).is_err(), "more than there can be");
    }

    #[test]
    fn results_that_come_after_the_last_one_are_dropped() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let on_done = Box::new(move |result| drop(sender.send(result)));
        let core = RemoteChunkCore::new(TaskId::of_number(1), 2, Box::new(drop), on_done);
        assert_eq!(core.complete(0, &[b"1", b"2"]), 2);
        let items = [b"1", b"2"].map(|output| ItemResult::Output(output[..].into()));
        assert_eq!(receiver.recv(), Ok(RemoteResult(Content::Chunk(items.into()))));
        assert_eq!(core.complete(1, &[b"3"]), 0);
        assert_eq!(core.fail(7..8, &TaskError::Cancelled), 0);
        assert!(receiver.recv().is_err(), "one result");
    }
}
