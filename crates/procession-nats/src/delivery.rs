//! [`Delivery`]: the threads that complete futures, and so call the program's callbacks. If one of them is
//! held up, because a callback waits, another one goes on.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Completes a future, or calls a listener.
pub(crate) type Completion = Box<dyn FnOnce() + Send>;

/// The most threads.
const MOST_THREADS: usize = 64;

#[derive(Default)]
pub(crate) struct Delivery {
    state: Mutex<DeliveryState>,
    changed: Condvar,
}

#[derive(Default)]
struct DeliveryState {
    queue: VecDeque<Completion>,
    threads: usize,
    /// Threads that are completing something.
    busy: usize,
    completed: u64,
    /// `completed`, when it was last looked at.
    seen: u64,
    has_ended: bool,
}

thread_local! {
    static DELIVERS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether this thread is one of a delivery.
pub(crate) fn is_delivering() -> bool {
    DELIVERS.get()
}

impl Delivery {
    /// With its first thread.
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let delivery = Arc::new(Self::default());
        delivery.start_thread(&mut delivery.lock())?;
        Ok(delivery)
    }

    fn lock(&self) -> MutexGuard<'_, DeliveryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_thread(self: &Arc<Self>, state: &mut DeliveryState) -> std::io::Result<()> {
        let delivery = Arc::clone(self);
        let thread = thread::Builder::new().name("delivery".to_owned());
        thread.spawn(move || delivery.complete_all())?;
        state.threads += 1;
        Ok(())
    }

    /// If the threads have ended, the caller's completes it.
    pub(crate) fn push(&self, completion: Completion) {
        let mut state = self.lock();
        if state.has_ended && state.threads == 0 {
            drop(state);
            let before = DELIVERS.replace(true);
            complete(completion);
            DELIVERS.set(before);
            return;
        }
        state.queue.push_back(completion);
        drop(state);
        self.changed.notify_all();
    }

    /// Starts another thread if nothing was completed since the last call although something waits.
    pub(crate) fn help(self: &Arc<Self>) {
        let mut state = self.lock();
        let is_stuck = !state.queue.is_empty() && state.completed == state.seen;
        state.seen = state.completed;
        if is_stuck && state.busy == state.threads && state.threads < MOST_THREADS {
            // If the system has no thread to give, the next call tries again.
            let _ = self.start_thread(&mut state);
        }
    }

    /// Whether something is completed while one more of its threads waits.
    pub(crate) fn has_thread_to_spare(&self) -> bool {
        let state = self.lock();
        state.busy < state.threads || state.threads < MOST_THREADS
    }

    /// Waits until everything is completed, or for this time. A thread of the delivery does not wait.
    pub(crate) fn drain(&self, longest: Duration) {
        let deadline = Instant::now() + longest;
        let mut state = self.lock();
        while !is_delivering() && (!state.queue.is_empty() || state.busy > 0) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the threads when nothing is left.
    pub(crate) fn end(&self) {
        self.lock().has_ended = true;
        self.changed.notify_all();
    }

    fn complete_all(&self) {
        DELIVERS.set(true);
        let mut state = self.lock();
        loop {
            if let Some(completion) = state.queue.pop_front() {
                state.busy += 1;
                drop(state);
                complete(completion);
                state = self.lock();
                state.busy -= 1;
                state.completed += 1;
                if state.queue.is_empty() {
                    self.changed.notify_all();
                }
            } else if state.has_ended {
                state.threads -= 1;
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Panics of callbacks are caught where they are called; this catches the rest.
fn complete(completion: Completion) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(completion));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_completion_that_waits_for_another_one_does_not_hold_it_up() {
        let delivery = Delivery::start().expect("a thread");
        let (sender, receiver) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        delivery.push(Box::new(move || {
            done.send(receiver.recv_timeout(Duration::from_secs(60))).expect("a listener");
        }));
        delivery.push(Box::new(move || sender.send(7).expect("a waiting completion")));
        let deadline = Instant::now() + Duration::from_secs(60);
        let got = loop {
            delivery.help();
            match is_done.recv_timeout(Duration::from_millis(10)) {
                Ok(got) => break got,
                Err(_) => assert!(Instant::now() < deadline),
            }
        };
        assert_eq!(got, Ok(7));
        assert!(delivery.has_thread_to_spare());
        // As if each thread called a callback that waits.
        (delivery.lock().threads, delivery.lock().busy) = (MOST_THREADS, MOST_THREADS);
        assert!(!delivery.has_thread_to_spare());
        (delivery.lock().threads, delivery.lock().busy) = (2, 0);
        delivery.drain(Duration::from_secs(60));
        delivery.end();
    }

    #[test]
    fn what_is_pushed_after_the_end_is_completed_by_whoever_pushes_it() {
        let delivery = Delivery::start().expect("a thread");
        delivery.end();
        let deadline = Instant::now() + Duration::from_secs(60);
        while delivery.lock().threads > 0 {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        let (sender, receiver) = mpsc::channel();
        delivery.push(Box::new(move || {
            sender.send(is_delivering()).expect("a listener");
            panic!("on purpose");
        }));
        assert_eq!(receiver.try_recv(), Ok(true));
        assert!(!is_delivering());
    }
}
