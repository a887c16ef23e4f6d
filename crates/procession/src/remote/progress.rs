//! [`RemoteProgress`]: a line or value that a task sends before its result, on its way to the executor on another host.

use serde::{Deserialize, Serialize};

use super::{NotEncoded, PromiseKind, RemotePromise, check_number, parse, split};
use crate::blob::Blob;
use crate::future::EncodedPartial;
use crate::progress_lines::{self, Said};
use crate::task::TaskId;

/// A line of [`Context::say`](crate::Context::say), or a value of [`Context::emit`](crate::Context::emit).
///
/// ```
/// # use procession::RemoteProgress;
/// fn show(progress: &RemoteProgress) {
///     if let Some(line) = progress.line() {
///         println!("process {}: {}", line.pid, line.text);
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteProgress {
    head: ProgressHead,
    text: Vec<u8>,
    blobs: Vec<Blob>,
}

/// The first line of its bytes, as JSON, which the text follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum ProgressHead {
    #[serde(rename = "line")]
    Line { item: u64, worker: usize, pid: u32 },
    #[serde(rename = "partial")]
    Partial { attempt: u32 },
    /// A value that did not arrive.
    #[serde(rename = "lost")]
    Lost,
}

/// A line that a task on another host has said. See the example of [`RemoteProgress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteLine<'p> {
    /// Which task of a chunk, from 0.
    pub item: u64,
    /// Index of the worker in the pool of its host, from 0.
    pub worker: usize,
    /// Id of the process on its host.
    pub pid: u32,
    /// The text as the task formatted it.
    pub text: &'p str,
}

impl RemoteLine<'_> {
    /// Writes the line to standard output, with control characters escaped: what executors do by default with
    /// what tasks [say](crate::Context::say).
    ///
    /// ```
    /// # use procession::RemoteProgress;
    /// fn show(progress: &RemoteProgress) {
    ///     if let Some(line) = progress.line() {
    ///         line.print();
    ///     }
    /// }
    /// ```
    pub fn print(&self) {
        progress_lines::print(self.text);
    }
}

impl RemoteProgress {
    pub(super) fn of_line(first: TaskId, said: &Said<'_>) -> Self {
        let item = said.task.number().saturating_sub(first.number());
        let head = ProgressHead::Line { item, worker: said.worker, pid: said.pid };
        Self { head, text: said.line.as_bytes().to_vec(), blobs: Vec::new() }
    }

    pub(super) fn of_partial(partial: Option<EncodedPartial>) -> Self {
        match partial {
            Some(EncodedPartial { attempt, text, blobs }) => {
                Self { head: ProgressHead::Partial { attempt }, text, blobs }
            }
            None => Self::lost(),
        }
    }

    /// Takes the place of a line or value that a task has sent and that did not arrive. Readers of
    /// [`Future::partials`](crate::Future::partials) get an error for it.
    ///
    /// ```
    /// # use procession::RemoteProgress;
    /// let lost = RemoteProgress::lost();
    /// let read = RemoteProgress::from_bytes(&lost.to_bytes(), lost.blobs().to_vec())?;
    /// assert_eq!((read.size(), read.line()), (0, None));
    /// # Ok::<(), procession::NotEncoded>(())
    /// ```
    pub fn lost() -> Self {
        Self { head: ProgressHead::Lost, text: Vec::new(), blobs: Vec::new() }
    }

    /// The line, if it is one. See the example of [`RemoteProgress`].
    pub fn line(&self) -> Option<RemoteLine<'_>> {
        match self.head {
            ProgressHead::Line { item, worker, pid } => {
                let text = std::str::from_utf8(&self.text).ok()?;
                Some(RemoteLine { item, worker, pid, text })
            }
            _ => None,
        }
    }

    /// The number of its bytes, with those of blobs. See the example of [`lost`](Self::lost).
    pub fn size(&self) -> usize {
        self.text.len() + self.blobs.iter().map(|blob| blob.len()).sum::<usize>()
    }

    /// The [blobs](Blob) of the value, which are not in [`to_bytes`](Self::to_bytes).
    /// See the example of [`lost`](Self::lost).
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// It without its blobs. See the example of [`lost`](Self::lost).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(&self.head).expect("numbers are always encodable");
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.text);
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) has written, and adds the blobs.
    /// See the example of [`lost`](Self::lost).
    ///
    /// # Errors
    ///
    /// The bytes have no such form.
    pub fn from_bytes(bytes: &[u8], blobs: Vec<Blob>) -> Result<Self, NotEncoded> {
        let (head, text) = split(bytes, "progress")?;
        check_number(&blobs, "progress")?;
        Ok(Self { head: parse(head, "progress")?, text: text.to_vec(), blobs })
    }
}

impl RemotePromise {
    /// Passes on what the task has sent, if that is a value, or one that was lost. Lines are for the program's
    /// function, which the executor calls.
    /// See the example of [`ProcessPool::run_remote`](crate::ProcessPool::run_remote).
    pub fn progress(&self, progress: RemoteProgress) {
        let PromiseKind::One(promise, _) = &self.0 else { return };
        let RemoteProgress { head, text, blobs } = progress;
        let partial = match head {
            ProgressHead::Line { .. } => return,
            ProgressHead::Partial { attempt } => Some(EncodedPartial { attempt, text, blobs }),
            ProgressHead::Lost => None,
        };
        if let Some(put) = promise.partial_sink() {
            put(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_task_tells_is_read_as_it_was_written() {
        let said = Said { task: TaskId::of_number(9), worker: 2, pid: 77, line: "a\nb" };
        let line = RemoteProgress::of_line(TaskId::of_number(7), &said);
        let partial = EncodedPartial { attempt: 3, text: b"x\n".to_vec(), blobs: Vec::new() };
        let partial = RemoteProgress::of_partial(Some(partial));
        for progress in [line.clone(), partial, RemoteProgress::of_partial(None)] {
            let bytes = progress.to_bytes();
            assert_eq!(RemoteProgress::from_bytes(&bytes, Vec::new()), Ok(progress));
        }
        let expected = RemoteLine { item: 2, worker: 2, pid: 77, text: "a\nb" };
        assert_eq!((line.line(), line.size()), (Some(expected), 3));
        assert!(RemoteProgress::from_bytes(b"{}\n", Vec::new()).is_err());
    }
}
