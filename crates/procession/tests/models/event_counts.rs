//! Threads that sleep or doze are woken after something is published.

use std::sync::Arc;

use super::event_count::{AdaptiveSpin, EventCount};
use super::explore;
use super::sync::{AtomicU32, AtomicU64, Ordering, spawn};

#[derive(Default)]
struct Shared {
    count: AtomicU32,
    sleepers: AtomicU32,
    dozers: AtomicU32,
    /// The value published by each notifier.
    published: [AtomicU64; 2],
}

impl Shared {
    fn events(&self) -> EventCount<'_> {
        let Self { count, sleepers, dozers, .. } = self;
        EventCount { count, sleepers, dozers, longest: None }
    }

    fn sum(&self) -> u64 {
        self.published.iter().map(|word| word.load(Ordering::SeqCst)).sum()
    }
}

type Wait = fn(&EventCount<'_>, &AdaptiveSpin, &dyn Fn() -> bool);
type Notify = fn(&EventCount<'_>);

const SLEEP: Wait = |events, _, is_there| events.sleep_unless(is_there);
const DOZE: Wait = |events, _, is_there| events.doze_unless(is_there);
const WAIT: Wait = |events, spin, is_there| events.wait_unless(spin, is_there);

/// Each notifier publishes twice and notifies; each waiter waits until it has seen all.
fn all_is_seen(waiters: &'static [Wait], notifiers: u64, notify: Notify) {
    explore(move || {
        let shared = Arc::new(Shared::default());
        let waits = waiters.iter().map(|wait| {
            let shared = Arc::clone(&shared);
            spawn(move || {
                let spin = AdaptiveSpin::default();
                let mut seen = shared.sum();
                while seen < 2 * notifiers {
                    wait(&shared.events(), &spin, &|| shared.sum() != seen);
                    seen = shared.sum();
                }
            })
        });
        let notifies = (0..notifiers as usize).map(|notifier| {
            let shared = Arc::clone(&shared);
            spawn(move || {
                for number in 1..=2 {
                    shared.published[notifier].store(number, Ordering::SeqCst);
                    notify(&shared.events());
                }
            })
        });
        let threads: Vec<_> = waits.chain(notifies).collect();
        threads.into_iter().for_each(|thread| thread.join());
    });
}

#[test]
fn sleeping_threads_are_woken_by_notify() {
    all_is_seen(&[SLEEP], 1, |events| events.notify());
    all_is_seen(&[SLEEP, SLEEP, SLEEP], 2, |events| events.notify());
}

#[test]
fn sleeping_threads_are_woken_by_notify_if_asleep() {
    all_is_seen(&[SLEEP], 1, |events| events.notify_if_asleep());
    all_is_seen(&[SLEEP, SLEEP], 2, |events| events.notify_if_asleep());
}

#[test]
fn dozing_threads_are_woken_by_notify_and_notify_dozing() {
    all_is_seen(&[DOZE], 1, |events| events.notify());
    all_is_seen(&[DOZE], 1, |events| events.notify_dozing());
    all_is_seen(&[DOZE, DOZE], 2, |events| events.notify_dozing());
}

#[test]
fn threads_that_spin_and_then_sleep_are_woken() {
    all_is_seen(&[WAIT], 1, |events| events.notify());
    all_is_seen(&[WAIT, WAIT], 2, |events| events.notify_if_asleep());
}

#[test]
fn sleeping_and_dozing_threads_are_woken_by_one_notify() {
    all_is_seen(&[SLEEP, DOZE, WAIT], 1, |events| events.notify());
}
