//! A task begins in the worker or is taken back by the coordinator. No task is run twice, and none
//! is lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Plain, Ordering::SeqCst};

use super::claim::Claim;
use super::explore;
use super::sync::{AtomicU32, AtomicU64, Lock, chance, spawn, yield_now};

#[derive(Default)]
struct Words {
    state: AtomicU64,
    ended: AtomicU32,
    begun_at: AtomicU64,
    stop: AtomicU32,
}

impl Words {
    fn claim(&self) -> Claim<'_> {
        let Self { state, ended, begun_at, stop } = self;
        Claim { state, ended, begun_at, stop }
    }
}

struct Call {
    claim: usize,
    seq: u32,
    first: usize,
    count: usize,
}

#[derive(Default)]
struct Shared {
    claims: [Words; 2],
    calls: Lock<(VecDeque<Call>, bool)>,
    /// The number of runs of each task.
    runs: [Plain; 8],
    clock: Plain,
}

impl Shared {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst) + 1
    }

    fn send(&self, call: Call) {
        self.claims[call.claim].claim().publish(call.seq);
        self.calls.with(|(calls, _)| calls.push_back(call));
    }

    /// Like a worker's thread.
    fn work(&self) {
        loop {
            let (call, is_closed) =
                self.calls.with(|(calls, is_closed)| (calls.pop_front(), *is_closed));
            let Some(call) = call else {
                if is_closed {
                    return;
                }
                yield_now();
                continue;
            };
            let claim = self.claims[call.claim].claim();
            for index in 0..call.count {
                if !claim.begin(call.seq, self.now()) {
                    break;
                }
                self.runs[call.first + index].fetch_add(1, SeqCst);
                claim.end();
            }
        }
    }

    fn runs(&self, first: usize, count: usize) -> u64 {
        self.runs[first..first + count].iter().map(|runs| runs.load(SeqCst)).sum()
    }
}

/// The coordinator takes calls back from a worker with `threads` threads, and uses the claim for
/// another call while the first may still be in the ring.
fn each_task_has_one_owner(threads: usize) {
    explore(move || {
        let shared = Arc::new(Shared::default());
        let work = |_| {
            let shared = Arc::clone(&shared);
            spawn(move || shared.work())
        };
        let workers: Vec<_> = (0..threads).map(work).collect();
        shared.send(Call { claim: 0, seq: 1, first: 0, count: 2 });
        shared.send(Call { claim: 1, seq: 1, first: 2, count: 1 });
        for _ in 0..chance(12) {
            yield_now();
        }
        let mut begun = [(0, 2, 0), (2, 1, 0), (3, 2, 0)];
        begun[0].2 = shared.claims[0].claim().revoke();
        let is_free = begun[0].2 == 0;
        if is_free {
            shared.send(Call { claim: 0, seq: 2, first: 3, count: 2 });
        }
        begun[1].2 = shared.claims[1].claim().revoke();
        if is_free {
            for _ in 0..chance(6) {
                yield_now();
            }
            begun[2].2 = shared.claims[0].claim().revoke();
        }
        shared.calls.with(|(_, is_closed)| *is_closed = true);
        workers.into_iter().for_each(|worker| worker.join());
        for (first, count, begun) in begun {
            // The tasks that have begun were run once each, and the others were not run.
            assert_eq!(shared.runs(first, count), u64::from(begun), "tasks from {first}");
        }
        assert!(shared.runs.iter().all(|runs| runs.load(SeqCst) <= 1));
    });
}

#[test]
fn a_task_is_run_once_or_taken_back_whatever_the_order() {
    for threads in 1..=3 {
        each_task_has_one_owner(threads);
    }
}

#[test]
fn a_reader_that_sees_a_task_run_sees_since_when() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let works = Arc::clone(&shared);
        let worker = spawn(move || works.work());
        let claim = shared.claims[0].claim();
        let mut ended = false;
        for (seq, first) in [(1, 0), (2, 2)] {
            let sent_at = shared.now();
            shared.send(Call { claim: 0, seq, first, count: 2 });
            while !ended {
                let at = shared.now();
                let progress = claim.progress(at);
                if let Some(ran_for) = progress.runs_for {
                    let since = at - ran_for.as_nanos() as u64;
                    assert!(since >= sent_at, "it runs since {since}, sent at {sent_at}");
                }
                assert!(progress.begun <= 2);
                ended = shared.runs(first, 2) == 2 && progress.runs_for.is_none();
                yield_now();
            }
            ended = false;
        }
        shared.calls.with(|(_, is_closed)| *is_closed = true);
        worker.join();
        assert_eq!(claim.progress(shared.now()).runs_for, None);
    });
}
