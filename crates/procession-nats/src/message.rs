//! What travels: a task in the queue, and a result behind its record. Both are a head of one line of JSON,
//! and a body, which is in the bucket instead if it is large.

use bytes::Bytes;
use procession::{Blob, RemoteProgress, RemoteResult, RemoteTask, TaskError, TaskOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::link::{Link, NoAnswer, PutError};

/// Larger bodies are put into the bucket. The server takes messages of up to 1 MiB by default.
pub(crate) const LARGEST_INLINE: usize = 256 * 1024;

/// The head of a task in the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct QueuedHead {
    /// The number of the attempt.
    pub(crate) attempt: u32,
    /// The sequence number of the `Queued` record, which the claim expects.
    pub(crate) seq: u64,
    /// In a job that has a name: the hash of the task, for the records that the agent writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<u64>,
    pub(crate) options: TaskOptions,
    pub(crate) body: BodyHead,
}

/// Where a body is, and its parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BodyHead {
    /// The name in the bucket. `None`: the body follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// The lengths of its parts, in bytes: the task or result, then its blobs.
    pub(crate) parts: Vec<usize>,
    /// Of a result: how often its task told something before it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) said: u64,
    /// In a result: how long tasks ran lately on its host, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) typical_ns: Option<u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The head of a line or a value that a task told before its result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SaidHead {
    pub(crate) attempt: u32,
    /// Counted from 0 in each attempt.
    pub(crate) number: u64,
    /// The name of the host.
    pub(crate) host: String,
    pub(crate) body: BodyHead,
}

/// A body before it is sent, or after it has arrived.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) head: BodyHead,
    pub(crate) bytes: Bytes,
}

impl Body {
    fn new(first: Vec<u8>, blobs: &[Blob], object: impl FnOnce() -> String) -> Self {
        let mut parts = vec![first.len()];
        parts.extend(blobs.iter().map(|blob| blob.len()));
        let mut bytes = first;
        blobs.iter().for_each(|blob| bytes.extend_from_slice(blob));
        let object = (bytes.len() > LARGEST_INLINE).then(object);
        Self { head: BodyHead { object, parts, said: 0, typical_ns: None }, bytes: bytes.into() }
    }

    pub(crate) fn of_task(task: &RemoteTask, object: impl FnOnce() -> String) -> Self {
        Self::new(task.to_bytes(), task.blobs(), object)
    }

    /// It is never put into the bucket.
    pub(crate) fn of_progress(progress: &RemoteProgress) -> Self {
        let body = Self::new(progress.to_bytes(), progress.blobs(), String::new);
        Self { head: BodyHead { object: None, ..body.head }, ..body }
    }

    /// `None`: it is none.
    pub(crate) fn to_progress(&self) -> Option<RemoteProgress> {
        let mut parts = self.head.parts.iter();
        let len = parts.try_fold(0_usize, |sum, part| sum.checked_add(*part))?;
        if len != self.bytes.len() {
            return None;
        }
        let (bytes, blobs) = self.split();
        RemoteProgress::from_bytes(bytes, blobs).ok()
    }

    pub(crate) fn of_result(result: &RemoteResult, object: impl FnOnce() -> String) -> Self {
        Self::new(result.to_bytes(), result.blobs(), object)
    }

    /// A hash of what the body is: its kind, input and blobs.
    pub(crate) fn hash(&self) -> u64 {
        let mut hasher = Sha256::new();
        for part in &self.head.parts {
            hasher.update((*part as u64).to_le_bytes());
        }
        hasher.update(&self.bytes);
        let hash = hasher.finalize();
        hash.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// Puts a large body where it can be got.
    pub(crate) async fn store(&self, link: &Link) -> Result<(), PutError> {
        match &self.head.object {
            Some(name) => link.put_body(name, &self.bytes).await,
            None => Ok(()),
        }
    }

    /// What follows the head in its message.
    pub(crate) fn inline(&self) -> &[u8] {
        if self.head.object.is_some() { &[] } else { &self.bytes }
    }

    /// The body of a message that has arrived.
    pub(crate) async fn arrived(
        head: BodyHead,
        inline: Bytes,
        link: &Link,
    ) -> Result<Self, NoAnswer> {
        let sum = head.parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(*part));
        let len = sum.ok_or_else(|| NoAnswer("the parts of a body are too long".to_owned()))?;
        let bytes = match &head.object {
            Some(name) => link.get_body(name, len).await?.into(),
            None => inline,
        };
        if bytes.len() == len {
            Ok(Self { head, bytes })
        } else {
            Err(NoAnswer("a body has another length than its parts".to_owned()))
        }
    }

    /// The first part, and the others as blobs.
    fn split(&self) -> (&[u8], Vec<Blob>) {
        let mut rest = &self.bytes[..];
        let mut parts = self.head.parts.iter().map(|len| {
            let (part, after) = rest.split_at(*len);
            rest = after;
            part
        });
        let first = parts.next().unwrap_or_default();
        let blobs = parts.map(Blob::from).collect();
        (first, blobs)
    }

    pub(crate) fn to_task(&self) -> Result<RemoteTask, TaskError> {
        let (bytes, blobs) = self.split();
        RemoteTask::from_bytes(bytes, blobs).map_err(|error| undecodable("task", &error))
    }

    pub(crate) fn to_result(&self) -> RemoteResult {
        let (bytes, blobs) = self.split();
        RemoteResult::from_bytes(bytes, blobs)
            .unwrap_or_else(|error| RemoteResult::of_error(undecodable("output", &error)))
    }
}

pub(crate) fn undecodable(what: &str, reason: &dyn std::fmt::Display) -> TaskError {
    let [what, task, field, reason] = [what, "", "", &reason.to_string()].map(str::to_owned);
    TaskError::Undecodable { what, task, field, reason }
}

/// A head with what follows it.
pub(crate) fn join(head: &impl Serialize, inline: &[u8]) -> Vec<u8> {
    let mut message = serde_json::to_vec(head).expect("text and numbers are always encodable");
    message.push(b'\n');
    message.extend_from_slice(inline);
    message
}

/// Splits what [`join`] has joined.
pub(crate) fn split<H: for<'de> Deserialize<'de>>(message: &Bytes) -> Option<(H, Bytes)> {
    let end = message.iter().position(|byte| *byte == b'\n')?;
    Some((serde_json::from_slice(&message[..end]).ok()?, message.slice(end + 1..)))
}
