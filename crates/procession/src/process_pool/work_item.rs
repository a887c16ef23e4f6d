//! Encoded tasks with their promises: one task, or several that may be sent in one call.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::blob::Blob;
use crate::error::TaskError;
use crate::executor::batch::{AnyBatchPromise, Batch};
use crate::executor::job::{AnyPromise, Encoded, Text};
use crate::task::TaskId;
use crate::transport::{INLINE_LIMIT, Reply};

/// Tasks, and who is owed their outputs.
pub(crate) struct WorkItem {
    /// Of the first task; the others follow.
    pub id: TaskId,
    pub name: &'static str,
    pub submitted: Instant,
    text: Text,
    /// What the text mentions.
    blobs: Mutex<Vec<Blob>>,
    owed: Owing,
}

enum Owing {
    /// A promise, for whoever may keep it.
    One(Mutex<Option<AnyPromise>>),
    /// Where the text of each task ends.
    Many { shares: Box<dyn AnyBatchPromise>, ends: Vec<usize> },
}

/// Parcels that were delivered, whose memory serves for the next ones. They are made by whoever
/// submits and delivered by the handlers, and memory that one thread allocates for each task and
/// another one frees is what they would get into each other's way for.
#[derive(Default)]
pub(crate) struct ItemPool(Mutex<Vec<Arc<WorkItem>>>);

impl ItemPool {
    /// More than these are not kept.
    const MOST: usize = 1024;

    /// A new parcel.
    pub(crate) fn pack(&self, encoded: Encoded) -> Arc<WorkItem> {
        let work_item = WorkItem::new(encoded);
        let mut spare = lock(&self.0).pop();
        match spare.as_mut().and_then(Arc::get_mut) {
            Some(place) => {
                *place = work_item;
                spare.expect("just seen")
            }
            None => Arc::new(work_item),
        }
    }

    /// Keeps the memory of those that are empty.
    pub(crate) fn keep(&self, delivered: Vec<Arc<WorkItem>>) {
        let mut item_pool = lock(&self.0);
        let room = Self::MOST.saturating_sub(item_pool.len());
        item_pool.extend(delivered.into_iter().take(room));
    }
}

/// As how many bytes a text counts that travels beside its call: so few of them lie ahead that
/// the channel never is full.
const ENCLOSED_COUNTS_AS: usize = 2048;

/// Why a task can never be sent: what is large travels in memory files, and a limit of this process
/// forbids them to be as large as that (`ulimit -f`).
pub(crate) fn refusal(Encoded { text, blobs, .. }: &Encoded) -> Option<TaskError> {
    use rustix::process::{Resource, getrlimit};
    let largest = blobs.iter().filter(|blob| blob.file().is_none()).map(|blob| blob.len());
    let largest = largest.chain([text.len()]).max().filter(|largest| *largest > INLINE_LIMIT)?;
    let most = getrlimit(Resource::Fsize).current.filter(|most| *most < largest as u64)?;
    Some(TaskError::Undelivered {
        what: "task".to_owned(),
        reason: format!(
            "this process cannot send it: File too large: {largest} bytes, and no file may be larger \
             than {most} (ulimit -f)"
        ),
    })
}

impl WorkItem {
    pub(crate) fn new(Encoded { id, name, text, blobs, owed }: Encoded) -> Self {
        let (owed, blobs) = (Owing::One(Mutex::new(Some(owed))), Mutex::new(blobs));
        Self { id, name, submitted: Instant::now(), text, blobs, owed }
    }

    /// Lets go of all that it holds; false if it is of another kind than what is packed anew.
    pub(crate) fn empty(&mut self) -> bool {
        self.text = Text::new();
        *self.blobs() = Vec::new();
        match &self.owed {
            Owing::One(owed) => lock(owed).take().is_none(),
            Owing::Many { .. } => false,
        }
    }

    pub(crate) fn of_many(Batch { id, name, text, ends, shares }: Batch) -> Self {
        let text = Text::from_vec(text);
        let (owed, blobs) = (Owing::Many { shares, ends }, Mutex::default());
        Self { id, name, submitted: Instant::now(), text, blobs, owed }
    }

    /// How many tasks there are.
    pub(crate) fn items(&self) -> u32 {
        match &self.owed {
            Owing::One(_) => 1,
            Owing::Many { ends, .. } => u32::try_from(ends.len()).expect("not that many"),
        }
    }

    /// How much room the tasks take on the way.
    pub(crate) fn bytes(&self) -> usize {
        let blobs = self.blobs().len() * ENCLOSED_COUNTS_AS;
        let travels_beside = self.items() == 1 && self.text.len() > INLINE_LIMIT;
        blobs + if travels_beside { ENCLOSED_COUNTS_AS } else { self.text.len() }
    }

    /// What the text mentions.
    pub(crate) fn blobs(&self) -> MutexGuard<'_, Vec<Blob>> {
        lock(&self.blobs)
    }

    /// Encoded tasks, one after the other.
    pub(crate) fn text(&self, items: &Range<u32>) -> &[u8] {
        match &self.owed {
            Owing::One(_) => &self.text,
            Owing::Many { ends, .. } => {
                let begin = items.start.checked_sub(1).map_or(0, |before| ends[before as usize]);
                &self.text[begin..ends[items.end as usize - 1]]
            }
        }
    }

    /// The lengths of their texts, where there are several.
    pub(crate) fn lengths(&self, items: &Range<u32>) -> Vec<u8> {
        let Owing::Many { ends, .. } = &self.owed else { return Vec::new() };
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
        if let Owing::One(owed) = &self.owed
            && let Some(owed) = &*lock(owed)
        {
            owed.set_running(running);
        }
    }

    /// Passes on what came of one of the tasks.
    pub(crate) fn answer(&self, item: u32, reply: &Reply<'_>) {
        match &self.owed {
            // Bound first: the promise's callbacks must not meet our lock.
            Owing::One(owed) => {
                let owed = lock(owed).take();
                if let Some(owed) = owed {
                    owed.answer(reply);
                }
            }
            Owing::Many { shares, .. } => shares.answer(item, reply),
        }
    }

    /// Whether tasks may travel together, so that their outputs come one by one.
    pub(crate) fn is_of_many(&self) -> bool {
        matches!(self.owed, Owing::Many { .. })
    }

    /// Passes on the outputs of tasks that follow each other. Gives the number of those that were
    /// still owed: some may have been cancelled meanwhile.
    pub(crate) fn deliver(&self, first: u32, outputs: &[&[u8]]) -> usize {
        match &self.owed {
            Owing::One(_) => 0,
            Owing::Many { shares, .. } => shares.deliver(first, outputs),
        }
    }

    /// Ends tasks without an output. Gives the number of those that were still owed: outputs may
    /// have been passed on that the scheduler had not heard of when it decided so.
    pub(crate) fn fail(&self, items: Range<u32>, error: TaskError) -> usize {
        match &self.owed {
            Owing::One(owed) => {
                let owed = lock(owed).take();
                let is_owed = owed.is_some();
                if let Some(owed) = owed {
                    owed.fail(error);
                }
                usize::from(is_owed)
            }
            Owing::Many { shares, .. } => shares.fail(items, &error),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
