//! [`Arrivals`]: a channel by which several futures or chunks tell a waiting thread, or async code, which of
//! them are done.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use crate::panics;

/// The sender of a channel, and the waker of async code that waits at its other end.
#[derive(Debug)]
pub(crate) struct Arrivals {
    sender: Sender<usize>,
    waker: Mutex<Option<Waker>>,
}

impl Arrivals {
    pub(crate) fn new() -> (Arc<Self>, Receiver<usize>) {
        let (sender, receiver) = mpsc::channel();
        (Arc::new(Self { sender, waker: Mutex::default() }), receiver)
    }

    /// Sends a message. Called without locks, because it calls a waker.
    pub(crate) fn send(&self, index: usize) {
        // An error if the wait has ended.
        let _ = self.sender.send(index);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            let _ = panics::catch(|| waker.wake());
        }
    }

    /// Wakes `waker` with the next message. A message that was sent before is in the channel.
    pub(crate) fn wake_by(&self, waker: Waker) {
        let before = self.waker.lock().unwrap_or_else(PoisonError::into_inner).replace(waker);
        drop(before);
    }
}
