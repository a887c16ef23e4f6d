//! What is too large for a record, and travels beside it over the channel.
//!
//! It is sent before the record that needs it, so nobody reads it yet, and whoever sends it must
//! not have to wait for that: what fills the channel would stay there for ever. So each message is
//! small, and what is large is in memory of its own, of which the message carries the descriptor.

use std::ops::Deref;

use ipc_channel::ipc::{IpcSender, IpcSharedMemory};
use serde::{Deserialize, Serialize};

use super::channel::{is_gone, send};
use crate::blob::Blob;
use crate::guard;

/// Bytes beside a record, a JSON text or a blob.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Bulk {
    Shared(IpcSharedMemory),
    /// A short one, where there is no descriptor left for memory.
    Inline(Vec<u8>),
}

impl Bulk {
    /// In memory that both sides see.
    ///
    /// # Panics
    ///
    /// Where no descriptor is left: the channel library does.
    pub(crate) fn share(bytes: &[u8]) -> Self {
        Self::Shared(IpcSharedMemory::from_bytes(bytes))
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

/// What a record lacks, or a part of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Enclosure {
    /// The text, if it is not in the record.
    text: Option<Bulk>,
    /// What the text mentions.
    blobs: Vec<Bulk>,
    /// What came before, if anything, was given up by whoever sent it.
    is_first: bool,
    /// A message carries only so much: the rest is in the next one.
    goes_on: bool,
}

/// What a record lacks could not be sent, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot send what is large: {0}")]
pub(crate) struct Stuck(String);

/// What is to be enclosed.
enum Item<'i> {
    Text(&'i [u8]),
    Blob(&'i Blob),
}

impl Enclosure {
    /// How many descriptors go with one message; the channel library panics above 64.
    const MOST: usize = 32;
    /// What may be sent without a descriptor, each and in all.
    const SHORT: usize = 1024;
    const MOST_SHORT: usize = 32;

    /// Sends what a record will lack, and says whether that is anything.
    pub(crate) fn send<M: Serialize>(
        text: Option<&[u8]>,
        blobs: &[Blob],
        to: &IpcSender<M>,
        wrap: fn(Self) -> M,
    ) -> Result<bool, Stuck> {
        if text.is_none() && blobs.is_empty() {
            return Ok(false);
        }
        let items = text.map(Item::Text).into_iter().chain(blobs.iter().map(Item::Blob));
        let items: Vec<_> = items.collect();
        let mut passing = Passing { to, wrap, is_first: true, inline: 0 };
        let mut chunks = items.chunks(Self::MOST).peekable();
        while let Some(chunk) = chunks.next() {
            passing.pass(chunk, chunks.peek().is_some())?;
        }
        Ok(true)
    }

    /// Puts together what came in several messages.
    pub(crate) fn receive<E>(mut next: impl FnMut() -> Result<Self, E>) -> Result<Self, E> {
        let mut whole = next()?;
        while whole.goes_on {
            let Self { text, blobs, is_first, goes_on } = next()?;
            if is_first {
                whole = Self { text, blobs, is_first, goes_on };
            } else {
                whole.blobs.extend(blobs);
                whole.goes_on = goes_on;
            }
        }
        Ok(whole)
    }

    /// The text, which may have come in the record.
    pub(crate) fn text<'t>(&'t self, record: &'t [u8]) -> &'t [u8] {
        self.text.as_deref().unwrap_or(record)
    }

    /// The blobs as they are for whoever has them now.
    pub(crate) fn take_blobs(&mut self) -> Vec<Blob> {
        std::mem::take(&mut self.blobs).into_iter().map(Blob::from).collect()
    }

    fn add(&mut self, item: &Item<'_>, bulk: Bulk) {
        match item {
            Item::Text(_) => self.text = Some(bulk),
            Item::Blob(_) => self.blobs.push(bulk),
        }
    }
}

impl Item<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            Self::Blob(blob) => blob,
        }
    }

    fn share(&self) -> Bulk {
        match self {
            Self::Text(text) => Bulk::share(text),
            Self::Blob(blob) => blob.share(),
        }
    }
}

/// An enclosure on its way.
struct Passing<'p, M> {
    to: &'p IpcSender<M>,
    wrap: fn(Enclosure) -> M,
    is_first: bool,
    /// How many items were sent without a descriptor.
    inline: usize,
}

impl<M: Serialize> Passing<'_, M> {
    /// Sends items together, or, where descriptors are short, fewer at a time: each takes two of
    /// them until its message was sent.
    fn pass(&mut self, items: &[Item<'_>], goes_on: bool) -> Result<(), Stuck> {
        let stuck = match self.try_to_pass(items, goes_on, |item| item.share()) {
            Ok(()) => return Ok(()),
            Err(stuck) => stuck,
        };
        match items {
            [item]
                if item.bytes().len() <= Enclosure::SHORT
                    && self.inline < Enclosure::MOST_SHORT =>
            {
                self.inline += 1;
                self.try_to_pass(items, goes_on, |item| Bulk::Inline(item.bytes().to_vec()))
            }
            [_] | [] => Err(stuck),
            _ => {
                let (some, others) = items.split_at(items.len() / 2);
                self.pass(some, true)?;
                self.pass(others, goes_on)
            }
        }
    }

    fn try_to_pass(
        &mut self,
        items: &[Item<'_>],
        goes_on: bool,
        bulk: fn(&Item<'_>) -> Bulk,
    ) -> Result<(), Stuck> {
        let is_first = self.is_first;
        let message = || {
            let mut enclosure = Enclosure { is_first, goes_on, ..Enclosure::default() };
            items.iter().for_each(|item| enclosure.add(item, bulk(item)));
            (self.wrap)(enclosure)
        };
        // The library panics where it finds no descriptor. What it had ready for the message then
        // goes along with the next one of this thread, where nobody looks for it.
        match guard::catch(|| send(self.to, message)) {
            Ok(Ok(())) => {}
            // Its end will be known soon.
            Ok(Err(error)) if is_gone(&error) => {}
            Ok(Err(error)) => return Err(Stuck(error.to_string())),
            Err(panic) => return Err(Stuck(panic.message)),
        }
        self.is_first = false;
        Ok(())
    }
}
