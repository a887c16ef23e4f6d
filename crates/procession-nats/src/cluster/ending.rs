//! The end of a cluster: what a shutdown waits for, and for how long.

use std::sync::mpsc as std_mpsc;
use std::time::Instant;

use procession::{PoolError, Shutdown, TaskError};
use tokio::time::timeout;

use super::driver::{ClusterDriver, ClusterNote};
use crate::members::Members;
use crate::owner::OwnerEvent;

/// A shutdown that was asked for.
pub(super) struct ClusterEnding {
    done: Vec<std_mpsc::Sender<()>>,
    deadline: Option<Instant>,
    /// Tasks are not waited for while no server is there.
    cancels: bool,
    cut_off_since: Option<Instant>,
}

impl ClusterDriver {
    pub(super) fn begin_to_end(&mut self, how: Shutdown, done: std_mpsc::Sender<()>) {
        let deadline = match how {
            Shutdown::Kill => Some(Instant::now() + super::CANCELLING),
            _ => None,
        };
        let new = ClusterEnding { done: Vec::new(), deadline, cancels: false, cut_off_since: None };
        let ending = self.ending.get_or_insert(new);
        ending.done.push(done);
        ending.cancels |= how != Shutdown::Wait;
        ending.deadline = ending.deadline.or(deadline);
        if how == Shutdown::Wait {
            return;
        }
        let ids: Vec<_> = self.tasks.keys().copied().collect();
        for id in ids {
            let is_running = self.running.contains_key(&id);
            if how == Shutdown::Kill || !is_running {
                self.apply(id, OwnerEvent::Cancelled(Members::first(Members::MOST)), None);
            }
        }
    }

    /// Of a job that has a name; any other one ends.
    pub(super) fn begin_to_leave(&mut self, done: std_mpsc::Sender<()>) {
        match &mut self.named {
            Some(named) => {
                named.is_left = true;
                self.begin_to_end(Shutdown::Wait, done);
            }
            None => self.begin_to_end(Shutdown::Kill, done),
        }
    }

    pub(super) fn has_ended(&mut self) -> bool {
        let is_connected = self.link.is_connected();
        let Some(ending) = &mut self.ending else { return false };
        let now = Instant::now();
        ending.cut_off_since = match is_connected {
            true => None,
            false => ending.cut_off_since.or(Some(now)),
        };
        let cut_off = ending.cut_off_since.filter(|_| ending.cancels);
        let is_cut_off = cut_off.is_some_and(|since| now >= since + super::CANCELLING);
        let is_late = is_cut_off || ending.deadline.is_some_and(|deadline| now >= deadline);
        let is_idle = self.tasks.is_empty() && self.unheard.is_empty() && self.errands.is_empty();
        let is_left = self.named.as_ref().is_some_and(|named| named.is_left);
        is_idle || is_late || is_left
    }

    /// Nothing is left to be done, or there is no more time for it.
    pub(super) async fn finish(mut self) {
        let is_left = self.named.as_ref().is_some_and(|named| named.is_left);
        self.give_up_all(&match is_left {
            true => TaskError::PoolBroken(PoolError::ShutDown),
            false => TaskError::Cancelled,
        });
        // Those that are left when there is no more time; also removals that have just begun.
        let errands = async { while self.errands.join_next().await.is_some() {} };
        let _ = timeout(super::LAST_ERRANDS, errands).await;
        self.clean_up().await;
        self.notes.close();
        while let Ok(note) = self.notes.try_recv() {
            match note {
                ClusterNote::Submitted { promise, .. } => {
                    promise.fail(TaskError::PoolBroken(PoolError::ShutDown));
                }
                ClusterNote::ShutDown { done, .. } | ClusterNote::Leave(done) => {
                    let _ = done.send(());
                }
                _ => {}
            }
        }
        for done in self.ending.into_iter().flat_map(|ending| ending.done) {
            let _ = done.send(());
        }
    }
}
