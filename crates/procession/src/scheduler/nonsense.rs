//! A test with events that are impossible in a real pool, in any order. The scheduler may take any decision. It
//! must not panic, and after a shutdown it must have completed each task once.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{
    Action, Begun, Claimed, Event, NextStart, ResolvedOptions, Scheduler, Settings, WorkerId,
};
use crate::error::Exit;
use crate::executor::Shutdown;
use crate::retries::Retries;
use crate::task::TaskId;

const WORKERS: usize = 3;

struct Nonsense {
    rng: Rng,
    spares: usize,
    submitted: u64,
}

impl Nonsense {
    fn number(&mut self) -> u64 {
        match self.rng.u8(0..8) {
            0 => u64::MAX,
            1 => self.rng.u64(..),
            _ => self.rng.u64(0..6),
        }
    }

    fn count(&mut self) -> u32 {
        u32::try_from(self.number()).unwrap_or(u32::MAX)
    }

    fn duration(&mut self) -> Duration {
        match self.rng.u8(0..4) {
            0 => Duration::MAX,
            1 => Duration::ZERO,
            2 => Duration::from_micros(self.rng.u64(..)),
            _ => Duration::from_millis(self.rng.u64(0..50)),
        }
    }

    fn settings(&mut self) -> Settings {
        Settings {
            slots: (0..WORKERS)
                .map(|_| self.rng.choice([1, 1, 3, usize::MAX]).unwrap_or(1))
                .collect(),
            spares: self.spares,
            min_workers: self.rng.usize(0..=WORKERS),
            idle_timeout: self.rng.bool().then(|| self.duration()),
            max_tasks: self.rng.bool().then(|| self.number().max(1)),
            max_age: self.rng.bool().then(|| self.duration()),
            start_timeout: self.duration(),
            start_tries: self.rng.u32(1..50),
        }
    }

    fn options(&mut self) -> ResolvedOptions {
        let retries = Retries::times(self.count()).backoff(self.duration(), self.duration());
        ResolvedOptions {
            timeout: self.rng.bool().then(|| self.duration()),
            grace: self.rng.bool().then(|| self.duration()),
            priority: self.rng.choice([i32::MIN, 0, 0, i32::MAX]).unwrap_or(0),
            retries: retries.on_failure(self.rng.bool()),
        }
    }

    fn begun(&mut self) -> Vec<Begun> {
        let number = self.rng.usize(0..4);
        let mut one =
            || Begun { seq: self.number(), count: self.count(), ran_for: self.duration() };
        (0..number).map(|_| one()).collect()
    }

    fn event(&mut self) -> Event<u64> {
        let (worker_index, generation) =
            (self.rng.usize(0..WORKERS + self.spares), self.rng.u64(0..8));
        let worker_id = WorkerId { worker_index, generation };
        let (seq, count, ran_for) = (self.number(), self.count(), self.duration());
        let (has_failed, is_over_memory_limit) = (self.rng.bool(), self.rng.u8(0..20) == 0);
        match self.rng.u8(0..13) {
            0..3 => {
                let (id, count) = (self.submitted, self.rng.u32(1..6));
                self.submitted += 1;
                let bytes = self.rng.choice([4, 70_000, usize::MAX]).unwrap_or(4);
                let options = self.options();
                Event::Submitted { id: TaskId(id), job: id, count, bytes, options }
            }
            3 => Event::Cancelled { id: TaskId(self.rng.u64(0..=self.submitted)) },
            4 => Event::Abandoned { id: TaskId(self.rng.u64(0..=self.submitted)) },
            5 if self.rng.u8(0..4) == 0 => Event::Narrowed { worker_id, slots: self.rng.usize(..) },
            5 | 6 => Event::WorkerReady { worker_id },
            7 => Event::Replied { worker_id, seq, ran_for, has_failed, is_over_memory_limit },
            8 => Event::Progressed { worker_id, seq, count, ran_for, is_over_memory_limit },
            9 if self.rng.u8(0..4) == 0 => {
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
                let claimed = match self.rng.u8(0..3) {
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

#[test]
fn impossible_events_do_not_panic_and_a_shutdown_completes_each_task_once() {
    for seed in 0..2_000 {
        let mut rng = Rng::with_seed(seed);
        let spares = rng.usize(0..3);
        let mut nonsense = Nonsense { rng, spares, submitted: 0 };
        let mut now = Instant::now();
        let (mut scheduler, _) = Scheduler::new(nonsense.settings(), now);
        let (mut left, mut steps) = (std::collections::HashMap::new(), 0);
        let mut events: Vec<_> = (0..200).map(|_| nonsense.event()).collect();
        events.push(Event::ShutDown(Shutdown::Kill));
        for event in events {
            if let Event::Submitted { job, count, .. } = event {
                left.insert(job, u64::from(count));
            }
            // `Progressed` completes tasks without an action.
            let is_progress = matches!(event, Event::Progressed { .. });
            now += Duration::from_millis(nonsense.rng.u64(0..100));
            let waiting = scheduler.chunks.values().map(|chunk| u64::from(chunk.count));
            let before: u64 = waiting.sum();
            let actions = scheduler.handle([event], now);
            let after: u64 = scheduler.chunks.values().map(|chunk| u64::from(chunk.count)).sum();
            for action in &actions {
                if let Action::Complete { job, count, .. } = action {
                    let left = left.get_mut(job).expect("a job that was submitted");
                    *left = left.checked_sub(u64::from(*count)).expect("completed once");
                }
            }
            assert!(!is_progress || after <= before, "seed {seed}, step {steps}");
            let _ = scheduler.wake_at();
            steps += 1;
        }
        assert!(scheduler.chunks.is_empty() && scheduler.pending == 0, "seed {seed}");
    }
}
