//! What is too large for a record, and travels beside it over the channel.

use std::ops::Deref;

use ipc_channel::ipc::IpcSharedMemory;
use serde::{Deserialize, Serialize};

use crate::blob::Blob;
use crate::guard;

/// Bytes beside a record, a JSON text or a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Bulk {
    Shared(IpcSharedMemory),
    /// Where there is no descriptor left for memory: slower, but not lost.
    Inline(Vec<u8>),
}

impl Bulk {
    /// In memory that both sides see, if that can be had: the channel library panics where no
    /// descriptor is left.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        guard::catch(|| IpcSharedMemory::from_bytes(bytes))
            .map_or_else(|_| Self::Inline(bytes.to_vec()), Self::Shared)
    }

    /// The same memory once more, which takes a descriptor, too.
    pub(crate) fn again(memory: &IpcSharedMemory) -> Self {
        guard::catch(|| memory.clone()).map_or_else(|_| Self::Inline(memory.to_vec()), Self::Shared)
    }
}

impl Deref for Bulk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(memory) => memory,
            Self::Inline(bytes) => bytes,
        }
    }
}

/// What is too large for a record.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Enclosure {
    /// The text, if it is not in the record.
    text: Option<Bulk>,
    /// What the text mentions.
    blobs: Vec<Bulk>,
    /// A message carries only so many blobs: the others are in the next one.
    goes_on: bool,
}

impl Enclosure {
    /// How many descriptors go with one message; the channel library panics above 64.
    const MOST_BLOBS: usize = 32;

    /// Sends what a record will lack, and says whether that is anything.
    pub(crate) fn send(text: Option<&str>, blobs: &[Blob], mut send: impl FnMut(Self)) -> bool {
        let mut text = text.map(|text| Bulk::new(text.as_bytes()));
        let mut rest = blobs.chunks(Self::MOST_BLOBS).peekable();
        let has_any = text.is_some() || rest.peek().is_some();
        while text.is_some() || rest.peek().is_some() {
            let blobs = rest.next().unwrap_or_default().iter().map(Blob::to_bulk).collect();
            let goes_on = rest.peek().is_some();
            send(Self { text: text.take(), blobs, goes_on });
        }
        has_any
    }

    /// Puts together what came in several messages.
    pub(crate) fn receive<E>(mut next: impl FnMut() -> Result<Self, E>) -> Result<Self, E> {
        let mut whole = next()?;
        while whole.goes_on {
            let Self { text: _, blobs, goes_on } = next()?;
            whole.blobs.extend(blobs);
            whole.goes_on = goes_on;
        }
        Ok(whole)
    }

    /// The text, if it is here and not in the record.
    pub(crate) fn text<'t>(
        &'t self,
        in_the_record: &'t str,
    ) -> Result<&'t str, std::str::Utf8Error> {
        self.text.as_deref().map_or(Ok(in_the_record), std::str::from_utf8)
    }

    /// The blobs as they are for whoever has them now.
    pub(crate) fn take_blobs(&mut self) -> Vec<Blob> {
        std::mem::take(&mut self.blobs).into_iter().map(Blob::from).collect()
    }
}
