//! Whoever sleeps or dozes is woken when something was published.

use std::sync::Arc;

use super::event_count::{AdaptiveSpin, EventCount};
use super::explore;
use super::sync::{AtomicU32, AtomicU64, Ordering, spawn};

#[derive(Default)]
struct Shared {
    count: AtomicU32,
    sleepers: AtomicU32,
    dozers: AtomicU32,
    /// What was published by each of those who ring.
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
type Ring = fn(&EventCount<'_>);

const SLEEP: Wait = |events, _, is_there| events.sleep_unless(is_there);
const DOZE: Wait = |events, _, is_there| events.doze_unless(is_there);
const WAIT: Wait = |events, patience, is_there| events.wait_unless(patience, is_there);

/// Each of so many threads publishes twice and rings; so many others wait until they have seen all.
fn all_is_seen(waiters: &'static [Wait], ringers: u64, ring: Ring) {
    explore(move || {
        let shared = Arc::new(Shared::default());
        let waits = waiters.iter().map(|wait| {
            let shared = Arc::clone(&shared);
            spawn(move || {
                let patience = AdaptiveSpin::default();
                let mut seen = shared.sum();
                while seen < 2 * ringers {
                    wait(&shared.events(), &patience, &|| shared.sum() != seen);
                    seen = shared.sum();
                }
            })
        });
        let rings = (0..ringers as usize).map(|ringer| {
            let shared = Arc::clone(&shared);
            spawn(move || {
                for number in 1..=2 {
                    shared.published[ringer].store(number, Ordering::SeqCst);
                    ring(&shared.events());
                }
            })
        });
        let threads: Vec<_> = waits.chain(rings).collect();
        threads.into_iter().for_each(|thread| thread.join());
    });
}

#[test]
fn whoever_sleeps_is_woken_by_a_ring() {
    all_is_seen(&[SLEEP], 1, |events| events.notify());
    all_is_seen(&[SLEEP, SLEEP, SLEEP], 2, |events| events.notify());
}

#[test]
fn whoever_sleeps_is_woken_by_a_soft_ring() {
    all_is_seen(&[SLEEP], 1, |events| events.notify_if_asleep());
    all_is_seen(&[SLEEP, SLEEP], 2, |events| events.notify_if_asleep());
}

#[test]
fn whoever_dozes_is_woken_by_a_ring_or_roused() {
    all_is_seen(&[DOZE], 1, |events| events.notify());
    all_is_seen(&[DOZE], 1, |events| events.notify_dozing());
    all_is_seen(&[DOZE, DOZE], 2, |events| events.notify_dozing());
}

#[test]
fn whoever_stays_awake_for_a_moment_and_then_sleeps_is_woken() {
    all_is_seen(&[WAIT], 1, |events| events.notify());
    all_is_seen(&[WAIT, WAIT], 2, |events| events.notify_if_asleep());
}

#[test]
fn those_who_sleep_and_those_who_doze_are_woken_by_one_ring() {
    all_is_seen(&[SLEEP, DOZE, WAIT], 1, |events| events.notify());
}
