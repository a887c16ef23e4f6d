//! [`Initializer`]: a task that each worker runs before all others. A preload is one, which a template runs if there
//! are templates.

use std::fmt;
use std::sync::Arc;

use super::traces::SubmitterSpan;
use super::work_item::WorkItem;
use crate::codec::{self, Encoding, IgnoredValue, with_encoding};
use crate::error::PoolError;
use crate::executor::job::{AnyPromise, EncodedJob, EncodedText};
use crate::future::{self, Future};
use crate::task::{Task, TaskId};

/// Preload or initializer. A worker runs them in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitializerKind {
    Preload,
    Initializer,
}

impl fmt::Display for InitializerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preload => "preload",
            Self::Initializer => "initializer",
        })
    }
}

/// An encoded task, of which each worker gets a copy.
pub(super) struct Initializer {
    name: &'static str,
    encoding: Encoding,
    text: EncodedText,
}

impl Initializer {
    pub(super) fn new<T: Task>(kind: InitializerKind, task: &T) -> Result<Self, PoolError> {
        let mut text = Vec::new();
        // Without attachments: each worker would need descriptors of its own for them.
        let encoded =
            with_encoding!(T::ENCODING, F => codec::encode_without_blobs::<F, T>(task, &mut text));
        encoded.map_err(|refusal| {
            let error = refusal.into_error("task", T::NAME);
            PoolError::Setting(format!("the {kind} cannot be sent: {error}"))
        })?;
        Ok(Self { name: T::NAME, encoding: T::ENCODING, text: EncodedText::from_vec(text) })
    }

    /// Its name and its text.
    pub(super) fn parts(&self) -> (&'static str, &[u8]) {
        (self.name, &self.text)
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// A copy for one worker, and the future of its output.
    pub(super) fn work_item(&self) -> (Arc<WorkItem>, Future<IgnoredValue>) {
        let id = TaskId(0);
        let (promise, future) = future::promise_of_sent(id, None, codec::decode_in);
        let promise = AnyPromise::new(promise);
        let Self { name, encoding, text } = self;
        let (name, encoding, text) = (*name, *encoding, text.clone());
        let (blobs, earlier) = (Vec::new(), 0);
        let encoded = EncodedJob { id, name, encoding, text, blobs, earlier, promise };
        (Arc::new(WorkItem::new(encoded, SubmitterSpan::here(None))), future)
    }
}
