//! Random schedules of callers, workers and time.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use super::workers::SimulatedProcess;
use super::world::{Place, SimTask, World};
use crate::error::Exit;
use crate::executor::Shutdown;
use crate::retries::Retries;
use crate::scheduler::{Event, NextStart, ResolvedOptions, Verdict, WorkerId};
use crate::task::TaskId;

impl World {
    pub(super) fn run_schedule(&mut self) -> Result<(), String> {
        let length = self.rng.usize(1..400);
        let reliability = self.rng.u32(1..200);
        for _ in 0..length {
            self.step(reliability)?;
        }
        // Whatever happened, a shutdown completes all tasks.
        let how = *self
            .rng
            .choice(&[Shutdown::Wait, Shutdown::CancelPending, Shutdown::Kill])
            .expect("three");
        self.shut_down(how)?;
        for _ in 0..100_000 {
            if self.ended {
                break;
            }
            self.step(200)?;
        }
        if !self.ended {
            return Err("the shutdown did not end".to_owned());
        }
        match self.tasks.iter().find(|(_, task)| task.verdict.is_none()) {
            Some((id, _)) => Err(format!("task {id} was pending after the end")),
            None => Ok(()),
        }
    }

    fn step(&mut self, reliability: u32) -> Result<(), String> {
        self.now += Duration::from_micros(match self.rng.u32(0..20) {
            0 => 200_000,
            1..4 => 6_000,
            _ => self.rng.u64(0..300),
        });
        match self.rng.u32(0..100) {
            0..8 if !self.is_shut_down => {
                for _ in 0..self.rng.u32(1..5) {
                    let is_chunk = self.rng.u8(0..6) == 0;
                    let count = if is_chunk { self.rng.u64(2..20) } else { 1 };
                    self.submit(count)?;
                }
                Ok(())
            }
            25..29 => self.cancel(),
            29 if self.is_shut_down && !self.is_patient
                || !self.is_shut_down && self.rng.u8(0..100) == 0 =>
            {
                let how = *self.rng.choice(&[Shutdown::Wait, Shutdown::Kill]).expect("two");
                self.shut_down(how)
            }
            30..45 if self.scheduler.wake_at().is_some_and(|at| at <= self.now) => self.tick(),
            45 if !self.late_events.is_empty() => {
                let event = self.late_events.swap_remove(0);
                self.handle(event)
            }
            _ => {
                let workers: Vec<_> = self.processes.keys().copied().collect();
                match self.rng.choice(&workers) {
                    Some(&worker_id) => self.run_process(worker_id, reliability),
                    None => {
                        // Without a process, only the scheduler's own time can come.
                        if let Some(at) = self.scheduler.wake_at() {
                            self.now = self.now.max(at);
                            self.tick()?;
                        }
                        Ok(())
                    }
                }
            }
        }
    }

    fn tick(&mut self) -> Result<(), String> {
        self.handle(Event::Tick)
    }

    /// Submits a job of `count` tasks.
    fn submit(&mut self, count: u64) -> Result<(), String> {
        let first = self.summary.tasks;
        self.summary.tasks += count;
        let bytes = *self.rng.choice(&[2, 100, 5_000, 65_536]).expect("four");
        let times = *self.rng.choice(&[0, 0, 1, 3]).expect("four");
        let retries = Retries::times(times)
            .on_crash(self.rng.bool())
            .on_timeout(self.rng.bool())
            .on_failure(self.rng.bool());
        let timeout = (self.rng.u8(0..4) == 0).then(|| Duration::from_millis(self.rng.u64(0..50)));
        let priority = self.rng.i32(-1..=1);
        let grace = (self.rng.u8(0..3) == 0).then(|| Duration::from_millis(self.rng.u64(1..50)));
        let options = ResolvedOptions { timeout, grace, priority, retries };
        let (_, timeout) = options.soft_and_hard_timeout();
        for id in first..first + count {
            // A task that hangs without a timeout would block the shutdown.
            let hangs = timeout.is_some() && self.rng.u8(0..3) == 0;
            let hides = self.is_hostile && self.rng.u8(0..30) == 0;
            let (allowed, origin) = (times + 1, first);
            let task = SimTask {
                allowed,
                timeout,
                grace,
                hangs,
                hides,
                priority,
                origin,
                ..SimTask::default()
            };
            self.tasks.insert(id, task);
            self.places.insert(id, Place::Pending);
            self.pending.insert(id);
            self.fresh.insert((Reverse(priority), id));
        }
        let count = u32::try_from(count).expect("few");
        self.handle(Event::Submitted { id: TaskId(first), job: first, count, bytes, options })
    }

    fn cancel(&mut self) -> Result<(), String> {
        if self.summary.tasks == 0 {
            return Ok(());
        }
        let id = self.rng.u64(0..self.summary.tasks);
        let origin = TaskId(self.tasks[&id].origin);
        match self.is_one_of_many(id) {
            true => self.handle(Event::Abandoned { id: origin }),
            false => self.handle(Event::Cancelled { id: origin }),
        }
    }

    fn is_one_of_many(&self, id: u64) -> bool {
        let origin = self.tasks[&id].origin;
        let others = [id.wrapping_sub(1), id + 1];
        others.iter().any(|id| self.tasks.get(id).is_some_and(|task| task.origin == origin))
    }

    fn shut_down(&mut self, how: Shutdown) -> Result<(), String> {
        self.is_shut_down = true;
        self.is_closing |= how != Shutdown::Wait;
        self.handle(Event::ShutDown(how))
    }

    /// One step of a process, or of the coordinator's threads for it.
    fn run_process(&mut self, worker_id: WorkerId, reliability: u32) -> Result<(), String> {
        let process = self.processes.get_mut(&worker_id).expect("a process");
        let crashes = process.is_killed || self.rng.u32(0..reliability) == 0;
        if !process.is_ready {
            return self.start(worker_id, crashes);
        }
        if self.rng.bool() {
            self.summary.blocked += u64::from(!process.write());
        }
        if !process.orders.is_empty() && self.rng.bool() {
            let lies = &mut self.summary.lies;
            process.carry_out_one(worker_id, &mut self.rng, &self.tasks, lies);
            return Ok(());
        }
        if !process.reports.is_empty() && self.rng.bool() {
            let event = process.reports.swap_remove(self.rng.usize(0..process.reports.len()));
            return self.handle(event);
        }
        if !process.replies.is_empty() {
            return self.read_replies(worker_id);
        }
        // All its replies were read, so its exit may be reported now.
        let has_left = process.is_dismissed
            && process.outbox.is_empty()
            && process.calls.is_empty()
            && process.running.is_empty();
        if crashes && !process.is_dead && self.rng.bool() {
            process.is_dead = true;
            return Ok(());
        }
        if crashes || process.is_dead || has_left {
            let exit = if has_left { Exit::Code(0) } else { Exit::Signal(11) };
            return self.exit(worker_id, exit);
        }
        process.is_stopped = self.rng.u8(0..30) < if process.is_stopped { 25 } else { 1 };
        for _ in 0..self.rng.u32(1..5) {
            let process = self.processes.get_mut(&worker_id).expect("still there");
            let begun = match self.rng.bool() {
                true => process.finish_one(&mut self.rng, &self.tasks),
                false => process.begin_one(),
            };
            if let Some(id) = begun {
                self.begun(id)?;
            }
        }
        Ok(())
    }

    /// A process becomes ready, or its start fails.
    fn start(&mut self, worker_id: WorkerId, crashes: bool) -> Result<(), String> {
        if crashes || self.rng.u8(0..20) == 0 {
            self.processes.remove(&worker_id);
            let next_start = match self.rng.u8(0..30) {
                0 => NextStart::Never,
                1..10 => NextStart::AtOnce,
                _ => NextStart::WithBackoff,
            };
            let cause = "simulated".to_owned();
            return self.handle(Event::StartFailed { worker_id, cause, next_start });
        }
        let process = self.processes.get_mut(&worker_id).expect("a process");
        if process.slots > 1 && self.rng.u8(0..3) == 0 {
            process.slots = self.rng.usize(1..process.slots);
            let slots = process.slots;
            self.summary.narrowed += 1;
            self.handle(Event::Narrowed { worker_id, slots })?;
        }
        self.processes.get_mut(&worker_id).expect("still there").is_ready = true;
        self.handle(Event::WorkerReady { worker_id })
    }

    /// The exit of a process is reported.
    fn exit(&mut self, worker_id: WorkerId, exit: Exit) -> Result<(), String> {
        let process = self.processes.remove(&worker_id).expect("still there");
        self.one_was_ended = process.was_ended;
        self.too_long = process.too_long;
        let begun = process.begun(&mut self.rng, &self.tasks, &mut self.summary.lies);
        self.note_end(&process, &begun)?;
        self.note_tasks_in_time(&process, &begun);
        let SimulatedProcess { reports, .. } = process;
        self.late_events.extend(reports);
        self.handle(Event::WorkerExited { worker_id, exit, begun })?;
        self.one_was_ended = false;
        self.too_long = None;
        self.in_time.clear();
        Ok(())
    }

    /// The coordinator reads some replies and handles them together.
    fn read_replies(&mut self, worker_id: WorkerId) -> Result<(), String> {
        let process = self.processes.get_mut(&worker_id).expect("a process");
        let number = self.rng.usize(1..=process.replies.len());
        let mut replies: VecDeque<_> = process.replies.drain(..number).collect();
        let (mut events, mut outputs) = (Vec::new(), Vec::new());
        while let Some(reply) = replies.pop_front() {
            let process = self.processes.get_mut(&worker_id).expect("a process");
            let Some(task) = process.answered(&reply) else {
                if !(process.is_liar || self.tasks[&reply.task].is_doubtful) {
                    return Err(format!("the reply to task {} does not fit its call", reply.task));
                }
                // The coordinator gives such a worker up.
                process.is_dead = true;
                process.lost.extend(replies);
                process.lost.extend(std::mem::take(&mut process.replies));
                break;
            };
            if self.rng.u8(0..100) == 0 {
                process.is_over_memory_limit = true;
                events.push(Event::Unfit { worker_id, seq: None, reason: String::new() });
            }
            let seq = reply.seq;
            let ran_for = Duration::from_micros(self.rng.u64(0..self.pace));
            let has_failed = self.rng.u8(0..10) == 0;
            let is_over_memory_limit = self.rng.u8(0..50) == 0;
            process.is_over_memory_limit |= is_over_memory_limit;
            if !has_failed && self.is_one_of_many(task) && self.rng.u8(0..4) > 0 {
                // Delivered at once; the scheduler gets their number only.
                self.put(task, Place::Done);
                let task = self.tasks.get_mut(&task).expect("a task that was submitted");
                self.summary.answered += u64::from(task.verdict.is_none());
                task.verdict.get_or_insert(Verdict::Answered);
                events.push(Event::Progressed {
                    worker_id,
                    seq,
                    count: 1,
                    ran_for,
                    is_over_memory_limit,
                });
            } else {
                outputs.extend((!has_failed).then_some(task));
                events.push(Event::Replied {
                    worker_id,
                    seq,
                    ran_for,
                    has_failed,
                    is_over_memory_limit,
                });
            }
        }
        self.handle_all(events)?;
        match outputs.iter().find(|id| self.tasks[id].verdict.is_none()) {
            Some(id) => Err(format!("task {id} gave an output and was not completed")),
            None => Ok(()),
        }
    }
}
