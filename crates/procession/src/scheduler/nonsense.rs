//! Events that are impossible in a real pool, in any order, from arbitrary bytes: also claims of any kind. The
//! scheduler may take any decision. It must not panic, and after a shutdown it must have completed each task
//! once. A target of `fuzz/`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{
    Action, Begun, Claimed, Event, NextStart, ResolvedOptions, Scheduler, Settings, WorkerId,
};
use crate::error::Exit;
use crate::executor::Shutdown;
use crate::retries::Retries;
use crate::task::TaskId;

const WORKERS: usize = 3;

/// The most events of one input.
const EVENTS: usize = 200;

/// Chooses by the next bytes of an input. After the last one all choices are the first.
struct Choices<'i>(&'i [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn bool(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn one_of<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        all[usize::from(self.byte()) % N]
    }
}

struct Nonsense<'i> {
    rng: Choices<'i>,
    spares: usize,
    submitted: u64,
}

impl Nonsense<'_> {
    fn number(&mut self) -> u64 {
        match self.rng.below(8) {
            0 => u64::MAX,
            1 => self.rng.word(),
            _ => self.rng.below(6).into(),
        }
    }

    fn count(&mut self) -> u32 {
        u32::try_from(self.number()).unwrap_or(u32::MAX)
    }

    fn duration(&mut self) -> Duration {
        match self.rng.below(4) {
            0 => Duration::MAX,
            1 => Duration::ZERO,
            2 => Duration::from_micros(self.rng.word()),
            _ => Duration::from_millis(self.rng.below(50).into()),
        }
    }

    fn settings(&mut self) -> Settings {
        Settings {
            slots: (0..WORKERS).map(|_| self.rng.one_of([1, 1, 3, usize::MAX])).collect(),
            spares: self.spares,
            min_workers: usize::from(self.rng.below(4)).min(WORKERS),
            idle_timeout: self.rng.bool().then(|| self.duration()),
            max_tasks: self.rng.bool().then(|| self.number().max(1)),
            max_age: self.rng.bool().then(|| self.duration()),
            start_timeout: self.duration(),
            start_tries: self.rng.below(49) as u32 + 1,
        }
    }

    fn options(&mut self) -> ResolvedOptions {
        let retries = Retries::times(self.count()).backoff(self.duration(), self.duration());
        ResolvedOptions {
            timeout: self.rng.bool().then(|| self.duration()),
            grace: self.rng.bool().then(|| self.duration()),
            priority: self.rng.one_of([i32::MIN, 0, 0, i32::MAX]),
            retries: retries.on_failure(self.rng.bool()),
        }
    }

    fn begun(&mut self) -> Vec<Begun> {
        let number = self.rng.below(4);
        let mut one =
            || Begun { seq: self.number(), count: self.count(), ran_for: self.duration() };
        (0..number).map(|_| one()).collect()
    }

    /// One that was submitted, or the next one.
    fn task(&mut self) -> TaskId {
        TaskId(u64::from(self.rng.byte()) % (self.submitted + 1))
    }

    fn event(&mut self) -> Event<u64> {
        let indices = u8::try_from(WORKERS + self.spares).expect("a few");
        let worker_index = self.rng.below(indices).into();
        let generation = self.rng.below(8).into();
        let worker_id = WorkerId { worker_index, generation };
        let (seq, count, ran_for) = (self.number(), self.count(), self.duration());
        let (has_failed, is_over_memory_limit) = (self.rng.bool(), self.rng.below(20) == 0);
        match self.rng.below(13) {
            0..3 => {
                let (id, count) = (self.submitted, u32::from(self.rng.below(5)) + 1);
                self.submitted += 1;
                let bytes = self.rng.one_of([4, 70_000, usize::MAX]);
                let options = self.options();
                Event::Submitted { id: TaskId(id), job: id, count, bytes, options }
            }
            3 => Event::Cancelled { id: self.task() },
            4 => Event::Abandoned { id: self.task() },
            5 if self.rng.below(4) == 0 => {
                Event::Narrowed { worker_id, slots: self.rng.word() as usize }
            }
            5 | 6 => Event::WorkerReady { worker_id },
            7 => Event::Replied { worker_id, seq, ran_for, has_failed, is_over_memory_limit },
            8 => Event::Progressed { worker_id, seq, count, ran_for, is_over_memory_limit },
            9 if self.rng.below(4) == 0 => {
                let seq = self.rng.bool().then_some(seq);
                Event::Unfit { worker_id, seq, reason: String::new() }
            }
            9 => Event::Returned { worker_id, calls: self.begun() },
            10 if self.rng.bool() => {
                Event::WorkerExited { worker_id, exit: Exit::Signal(11), begun: self.begun() }
            }
            10 => {
                let next_start =
                    if self.rng.bool() { NextStart::AtOnce } else { NextStart::WithBackoff };
                Event::StartFailed { worker_id, cause: String::new(), next_start }
            }
            11 => {
                let is_being_read = self.rng.bool();
                let claimed = match self.rng.below(3) {
                    0 => Claimed::NotBegun,
                    1 => Claimed::RunsFor(ran_for),
                    _ => Claimed::Ended { is_being_read },
                };
                Event::NotEnded { worker_id, seq, claimed }
            }
            _ => Event::Tick,
        }
    }
}

/// Runs a scheduler with what the input chooses, and shuts it down.
pub(crate) fn run(input: &[u8]) {
    let mut rng = Choices(input);
    let spares = rng.below(3).into();
    let mut nonsense = Nonsense { rng, spares, submitted: 0 };
    let mut now = Instant::now();
    let (mut scheduler, _) = Scheduler::new(nonsense.settings(), now);
    let (mut left, mut events) = (HashMap::new(), 0);
    let mut is_over = false;
    while !is_over {
        is_over = events == EVENTS || nonsense.rng.0.is_empty();
        let event = if is_over { Event::ShutDown(Shutdown::Kill) } else { nonsense.event() };
        if let Event::Submitted { job, count, .. } = event {
            left.insert(job, u64::from(count));
        }
        // `Progressed` completes tasks without an action.
        let is_progress = matches!(event, Event::Progressed { .. });
        now += Duration::from_millis(nonsense.rng.below(100).into());
        let waiting = scheduler.chunks.values().map(|chunk| u64::from(chunk.count));
        let before: u64 = waiting.sum();
        let actions = scheduler.handle([event], now);
        let after: u64 = scheduler.chunks.values().map(|chunk| u64::from(chunk.count)).sum();
        for action in &actions {
            if let Action::Complete { job, count, .. } = action {
                let left = left.get_mut(job).expect("a job that was submitted");
                *left = u64::checked_sub(*left, u64::from(*count)).expect("completed once");
            }
        }
        assert!(!is_progress || after <= before, "after {events} events");
        let _ = scheduler.wake_at();
        events += 1;
    }
    assert!(scheduler.chunks.is_empty() && scheduler.pending == 0);
}

#[cfg(test)]
#[test]
fn impossible_events_do_not_panic_and_a_shutdown_completes_each_task_once() {
    for seed in 0..2_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let input: Vec<u8> = (0..4_096).map(|_| rng.u8(..)).collect();
        let ran = std::panic::catch_unwind(|| run(&input));
        assert!(ran.is_ok(), "seed {seed}");
    }
}
