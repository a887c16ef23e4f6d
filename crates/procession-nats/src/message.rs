//! What travels: a task or a bundle in the queue, and results behind their record. Both are a head of one line of JSON,
//! and bodies, each of which is in the bucket instead if it is large.

use bytes::Bytes;
use procession::{Blob, RemoteProgress, RemoteResult, RemoteTask, TaskError, TaskOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::link::{Link, NoAnswer, PutError};
use crate::members::Members;

/// Larger bodies are put into the bucket. The server takes messages of up to 1 MiB by default.
pub(crate) const LARGEST_INLINE: usize = 256 * 1024;
/// The same bound for each member of a bundle, so that the results of all of them fit into a message.
const LARGEST_IN_BUNDLE: usize = 16 * 1024;

/// The head of a task, or of a bundle, in the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct QueuedHead {
    /// The number of the attempt.
    pub(crate) attempt: u32,
    /// The sequence number of the `Queued` record, which the claim expects.
    pub(crate) seq: u64,
    /// In a job that has a name: the hash of the task, for the records that the agent writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<u64>,
    /// One task, or the tasks of a bundle.
    pub(crate) members: Vec<QueuedMember>,
}

/// A task in the head of its message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct QueuedMember {
    pub(crate) options: TaskOptions,
    pub(crate) body: BodyHead,
}

impl QueuedHead {
    /// The head of a message, and the bytes behind it that belong to each member. `None`: the message is not a task.
    pub(crate) fn split(message: &Bytes) -> Option<(Self, Vec<Bytes>)> {
        let (head, inline) = split::<Self>(message)?;
        if !(1..=Members::MOST).contains(&head.members.len()) {
            return None;
        }
        let bodies = cut(head.members.iter().map(|member| &member.body), &inline)?;
        Some((head, bodies))
    }
}

/// The heads of results, each with the bytes that belong to it, in the order of the members. `None`: the message has no
/// results.
pub(crate) fn split_results(message: &Bytes) -> Option<Vec<(BodyHead, Bytes)>> {
    let (heads, inline) = split::<Vec<BodyHead>>(message)?;
    let bodies = cut(heads.iter(), &inline)?;
    Some(heads.into_iter().zip(bodies).collect())
}

/// Divides the bytes that follow the heads of several bodies. `None`: the lengths in the heads do not fit.
fn cut<'h>(heads: impl Iterator<Item = &'h BodyHead>, inline: &Bytes) -> Option<Vec<Bytes>> {
    let (mut bodies, mut rest) = (Vec::new(), inline.clone());
    for head in heads {
        let len = if head.object.is_some() { 0 } else { head.len()? };
        if len > rest.len() {
            return None;
        }
        bodies.push(rest.split_to(len));
    }
    rest.is_empty().then_some(bodies)
}

/// Where a body is, and its parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BodyHead {
    /// The name in the bucket. `None`: the body follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// The lengths of its parts, in bytes: the task or result, then its blobs.
    pub(crate) parts: Vec<usize>,
    /// In a result: the number of lines and values that its task sent before it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) said: u64,
    /// In a result: the typical run time of the last tasks on its host, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) typical_ns: Option<u64>,
}

impl BodyHead {
    /// The length of the body in bytes. `None`: the sum of its parts overflows.
    pub(crate) fn len(&self) -> Option<usize> {
        self.parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(*part))
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_first(member: &usize) -> bool {
    *member == 0
}

/// The head of a line or a value that a task sent before its result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SaidHead {
    pub(crate) attempt: u32,
    /// Its index in its bundle.
    #[serde(default, skip_serializing_if = "is_first")]
    pub(crate) member: usize,
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
    fn new(first: Vec<u8>, blobs: &[Blob], most: usize, object: impl FnOnce() -> String) -> Self {
        let mut parts = vec![first.len()];
        parts.extend(blobs.iter().map(|blob| blob.len()));
        let mut bytes = first;
        blobs.iter().for_each(|blob| bytes.extend_from_slice(blob));
        let object = (bytes.len() > most).then(object);
        Self { head: BodyHead { object, parts, said: 0, typical_ns: None }, bytes: bytes.into() }
    }

    pub(crate) fn of_task(task: &RemoteTask, object: impl FnOnce() -> String) -> Self {
        Self::new(task.to_bytes(), task.blobs(), LARGEST_INLINE, object)
    }

    /// It is never put into the bucket.
    pub(crate) fn of_progress(progress: &RemoteProgress) -> Self {
        Self::new(progress.to_bytes(), progress.blobs(), usize::MAX, String::new)
    }

    /// `None`: it is none.
    pub(crate) fn to_progress(&self) -> Option<RemoteProgress> {
        if self.head.len()? != self.bytes.len() {
            return None;
        }
        let (bytes, blobs) = self.split();
        RemoteProgress::from_bytes(bytes, blobs).ok()
    }

    /// The result of a task. `members` is the number of members of its bundle, or 1.
    pub(crate) fn of_result(
        result: &RemoteResult,
        members: usize,
        object: impl FnOnce() -> String,
    ) -> Self {
        let most = if members > 1 { LARGEST_IN_BUNDLE } else { LARGEST_INLINE };
        Self::new(result.to_bytes(), result.blobs(), most, object)
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
        let len =
            head.len().ok_or_else(|| NoAnswer("the parts of a body are too long".to_owned()))?;
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
pub(crate) fn join<'b>(
    head: &impl Serialize,
    inline: impl IntoIterator<Item = &'b [u8]>,
) -> Vec<u8> {
    let mut message = serde_json::to_vec(head).expect("text and numbers are always encodable");
    message.push(b'\n');
    inline.into_iter().for_each(|bytes| message.extend_from_slice(bytes));
    message
}

/// Splits what [`join`] has joined.
pub(crate) fn split<H: for<'de> Deserialize<'de>>(message: &Bytes) -> Option<(H, Bytes)> {
    let end = message.iter().position(|byte| *byte == b'\n')?;
    Some((serde_json::from_slice(&message[..end]).ok()?, message.slice(end + 1..)))
}
