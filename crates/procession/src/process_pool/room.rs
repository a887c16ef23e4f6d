//! Room for pending tasks, where their number is limited (`max_pending`).
//!
//! A thread or a future that waits for room has a ticket, and gets room in the order of the tickets: so single
//! tasks cannot keep a chunk out, and chunks cannot keep a single task out.
//!
//! | | takes room |
//! |---|---|
//! | `try_submit` | if there is some now |
//! | a thread that submits a task, or a chunk of several | in its turn, if there is room for all of them |
//! | a future of `submit_async` | in its turn; it is woken then, and keeps its ticket until it has polled |
//! | a callback of the pool | at once, also where there is none: its thread may be needed to make room |

use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::inner::PoolInner;
use super::state::PoolState;
use crate::executor::callbacks;
use crate::panics;
use crate::waiting::{self, Need};

impl PoolInner {
    /// Number of tasks that may be pending in addition to those that are.
    fn room(&self, state: &PoolState) -> usize {
        let pending = || state.scheduler.waiting() + state.reserved;
        self.setup.max_pending.map_or(usize::MAX, |max| max.saturating_sub(pending()))
    }

    /// Whether the one with this ticket gets room for this number of tasks now. Without a ticket it comes after all
    /// that have one. More tasks than may ever be pending get room where none is pending.
    fn is_turn(&self, state: &PoolState, ticket: Option<u64>, tasks: usize) -> bool {
        let first = state.waiting_for_room.keys().next();
        let is_first = match (first, ticket) {
            (None, _) => true,
            (Some(first), Some(ticket)) => *first >= ticket,
            (Some(_), None) => false,
        };
        let most = self.setup.max_pending.unwrap_or(usize::MAX);
        is_first && self.room(state) >= tasks.min(most)
    }

    /// Whether requests for room do not wait: in a callback of the pool, and if the pool cannot go on.
    fn is_without_wait(&self) -> bool {
        callbacks::is_within(self) || self.collapsed.get().is_some()
    }

    /// Reserves room for one task, if there is any.
    pub(super) fn try_reserve(&self, state: &mut PoolState) -> bool {
        let has_room = self.room(state) > 0;
        state.reserved += usize::from(has_room && self.setup.max_pending.is_some());
        has_room
    }

    /// Waits for room for these tasks and reserves it.
    pub(super) fn reserve(&self, tasks: usize) {
        if self.setup.max_pending.is_none() || self.origin.is_forked() {
            return;
        }
        let _waiting = waiting::begin([], Need::Time);
        let mut state = self.lock_state();
        if self.is_turn(&state, None, tasks) || self.is_without_wait() {
            state.reserved += tasks;
            return;
        }
        let ticket = state.new_ticket();
        state.waiting_for_room.insert(ticket, None);
        while !self.is_turn(&state, Some(ticket), tasks) && !self.is_without_wait() {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting_for_room.remove(&ticket);
        state.reserved += tasks;
        // There may be room for the next one as well.
        let wakers = self.take_room_wakers(&mut state);
        drop(state);
        wake(wakers);
    }

    /// Reserves room for one task, or registers the waker. Where [`reserve`](Self::reserve) does not
    /// wait, this is ready as well.
    pub(super) fn poll_reserve(&self, ticket: &mut Option<u64>, context: &Context<'_>) -> Poll<()> {
        if self.setup.max_pending.is_none() || self.origin.is_forked() {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        let mut state = self.lock_state();
        let is_ready = self.is_turn(&state, *ticket, 1) || self.is_without_wait();
        let (before, wakers) = if is_ready {
            state.reserved += 1;
            let before = ticket.take().and_then(|ticket| state.waiting_for_room.remove(&ticket));
            (before, self.take_room_wakers(&mut state))
        } else {
            let ticket = *ticket.get_or_insert_with(|| state.new_ticket());
            (state.waiting_for_room.insert(ticket, Some(waker)), Vec::new())
        };
        drop(state);
        // The waker is the program's code: it is dropped without the lock.
        panics::discard(before);
        wake(wakers);
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn leave_queue_for_room(&self, ticket: u64) {
        if self.origin.is_forked() {
            return;
        }
        let waker = self.lock_state().waiting_for_room.remove(&ticket);
        panics::discard(waker);
        // It may have been woken: the room is for the next one.
        self.room_was_made();
    }

    /// Wakes those that wait for room, as many as there is room for.
    pub(super) fn room_was_made(&self) {
        let mut state = self.lock_state();
        let wakers = self.take_room_wakers(&mut state);
        drop(state);
        wake(wakers);
    }

    /// Notifies the threads that wait for room, and takes out the wakers of the futures whose turn it is,
    /// as many as there is room for. They are woken after the lock was released. A future that was woken
    /// and does not poll must not keep the others out, so it leaves the queue until it does.
    pub(super) fn take_room_wakers(&self, state: &mut PoolState) -> Vec<Waker> {
        if self.setup.max_pending.is_none() || state.waiting_for_room.is_empty() {
            return Vec::new();
        }
        let mut room = match self.collapsed.get() {
            None => self.room(state),
            Some(_) => usize::MAX,
        };
        let mut wakers = Vec::new();
        while room > 0
            && let Some(next) = state.waiting_for_room.first_entry()
        {
            if next.get().is_none() {
                self.room.notify_all();
                if self.collapsed.get().is_none() {
                    break;
                }
            }
            wakers.extend(next.remove());
            room -= 1;
        }
        wakers
    }
}

pub(super) fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        let _ = panics::catch(|| waker.wake());
    }
}
