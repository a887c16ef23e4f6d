//! [`telling`]: the lines and values that a task sends before its result, numbered in their order. One that does not
//! fit is dropped. Its number is then missing, by which the coordinator notices the loss.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procession::RemoteProgress;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::AgentShared;
use super::run::RunPlace;
use crate::message::{Body, LARGEST_INLINE, SaidHead, join};

/// The most bytes that wait to be sent, of one task.
const MOST_WAITING: usize = 16 << 20;
/// The number of bytes that are counted for each line or value, in addition to its own.
const OVERHEAD: usize = 128;

#[derive(Default)]
struct ToldCounts {
    /// Several workers may send lines and values of one chunk: the one that has the next number sends next.
    told: Mutex<u64>,
    waiting: AtomicUsize,
}

impl ToldCounts {
    fn told(&self) -> MutexGuard<'_, u64> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the lines and values of the task go in.
pub(super) struct Teller {
    sender: UnboundedSender<(u64, RemoteProgress)>,
    counts: Arc<ToldCounts>,
}

/// What is to be sent.
pub(super) struct Told {
    receiver: UnboundedReceiver<(u64, RemoteProgress)>,
    counts: Arc<ToldCounts>,
}

pub(super) fn telling() -> (Teller, Told) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let counts = Arc::new(ToldCounts::default());
    (Teller { sender, counts: Arc::clone(&counts) }, Told { receiver, counts })
}

impl Teller {
    /// Does not wait for what is sent.
    pub(super) fn tell(&self, progress: RemoteProgress) {
        let mut told = self.counts.told();
        let number = *told;
        *told += 1;
        let bytes = progress.size() + OVERHEAD;
        let waiting = self.counts.waiting.fetch_add(bytes, Ordering::SeqCst);
        if waiting + bytes > MOST_WAITING || self.sender.send((number, progress)).is_err() {
            self.counts.waiting.fetch_sub(bytes, Ordering::SeqCst);
        }
    }
}

impl Told {
    pub(super) async fn next(&mut self) -> Option<(u64, RemoteProgress)> {
        let next = self.receiver.recv().await?;
        Some(self.taken(next))
    }

    /// What is there already.
    pub(super) fn next_now(&mut self) -> Option<(u64, RemoteProgress)> {
        let next = self.receiver.try_recv().ok()?;
        Some(self.taken(next))
    }

    fn taken(&self, next: (u64, RemoteProgress)) -> (u64, RemoteProgress) {
        self.counts.waiting.fetch_sub(next.1.size() + OVERHEAD, Ordering::SeqCst);
        next
    }

    /// The number of lines and values of the task, those that were dropped included.
    pub(super) fn count(&self) -> u64 {
        *self.counts.told()
    }
}

/// Sends it to the coordinator of the job, in a message that may be lost.
pub(super) async fn send(
    shared: &AgentShared,
    place: &RunPlace,
    (number, progress): (u64, RemoteProgress),
) {
    let body = Body::of_progress(&progress);
    if body.bytes.len() > LARGEST_INLINE {
        return;
    }
    let RunPlace { job, id, attempt, member, .. } = place;
    let (attempt, member, host) = (*attempt, *member, shared.host.clone());
    let head = SaidHead { attempt, member, number, host, body: body.head };
    let subject = shared.link.names.said(job, *id);
    let message = join(&head, [&body.bytes[..]]);
    let _ = shared.link.client.publish(subject, message.into()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_leaves_a_gap_in_the_numbers() {
        let line = |len: usize| {
            let head = br#"{"line":{"item":0,"worker":0,"pid":1}}"#;
            let bytes = [&head[..], b"\n", &vec![b'x'; len]].concat();
            RemoteProgress::from_bytes(&bytes, Vec::new()).expect("a line")
        };
        let (teller, mut told) = telling();
        for len in [1, MOST_WAITING, 2] {
            teller.tell(line(len));
        }
        let numbers: Vec<_> =
            std::iter::from_fn(|| told.next_now().map(|(number, _)| number)).collect();
        assert_eq!((numbers, told.count()), (vec![0, 2], 3));
        teller.tell(line(MOST_WAITING - OVERHEAD));
        assert!(told.next_now().is_some());
    }
}
