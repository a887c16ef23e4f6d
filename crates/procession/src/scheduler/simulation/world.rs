//! The simulated coordinator: passes events to the scheduler, carries out its actions, and keeps
//! its own record of the state that the scheduler should have.

mod processes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::Summary;
use super::workers::{Order, SimulatedCall, SimulatedProcess, Viewed};
use crate::limits::RecyclingReason;
use crate::scheduler::{Action, Claimed, Event, Scheduler, Settings, Verdict, WorkerId};

pub(super) struct World {
    pub rng: Rng,
    pub now: Instant,
    pub scheduler: Scheduler<u64>,
    pub slots: Vec<usize>,
    pub spares: usize,
    /// The worker indices that may get calls.
    pub active: BTreeSet<usize>,
    pub max_tasks: Option<u64>,
    pub max_age: Option<Duration>,
    pub processes: BTreeMap<WorkerId, SimulatedProcess>,
    pub tasks: BTreeMap<u64, SimTask>,
    /// The place of each task, and the pending tasks.
    pub places: BTreeMap<u64, Place>,
    pub pending: BTreeSet<u64>,
    /// The pending tasks that had been sent before, best first.
    pub returned: BTreeSet<(Reverse<i32>, u64)>,
    /// The paused tasks by the end of their pause.
    pub paused: BTreeSet<(Instant, u64)>,
    /// Some workers make false claims, and some tasks overwrite their claims and end their workers.
    pub is_hostile: bool,
    pub is_shut_down: bool,
    /// No second, stricter shutdown follows. It would complete tasks that the scheduler had lost.
    pub is_patient: bool,
    /// The longest run time of tasks, in microseconds. Short tasks are sent in chunks.
    pub pace: u64,
    /// No task may begin any more.
    pub is_closing: bool,
    /// Tasks that were never sent, best first: by priority, then in order.
    pub fresh: BTreeSet<(Reverse<i32>, u64)>,
    /// The process whose exit is being reported was ended because of a call.
    pub one_was_ended: bool,
    /// The task in it that had run for too long.
    pub too_long: Option<u64>,
    /// Events of processes that have exited.
    pub late_events: Vec<Event<u64>>,
    /// Processes that the scheduler must kill in the current step, and why.
    pub must_be_killed: Vec<(WorkerId, String)>,
    /// Processes that it must not kill in the current step, and why.
    pub must_stay: Vec<(WorkerId, String)>,
    /// Tasks of the process whose exit is being reported that had time left.
    pub in_time: BTreeSet<u64>,
    /// The current step has a `Tick`.
    pub was_ticked: bool,
    pub ended: bool,
    pub summary: Summary,
}

#[derive(Default)]
pub(super) struct SimTask {
    /// How it ended, if it has.
    pub verdict: Option<Verdict>,
    pub sent: u32,
    pub begun: u32,
    pub allowed: u32,
    /// The longest run time, with the grace period.
    pub timeout: Option<Duration>,
    pub grace: Option<Duration>,
    /// It was asked to stop.
    pub is_stopping: bool,
    /// It never ends by itself.
    pub hangs: bool,
    /// It overwrites its claim and ends its worker.
    pub hides: bool,
    /// A claim about it may be false.
    pub is_doubtful: bool,
    pub met_liar: bool,
    /// The number of workers that ended without its claim when it was the next task to run.
    pub unclaimed: u32,
    /// The number of workers that ended when it was the first task to run, and were not ended by
    /// the pool.
    pub ends: u32,
    /// The sum of the weights of these ends. A sum of 8 counts as an attempt.
    pub weight: u32,
    pub priority: i32,
    /// The first task of its job.
    pub origin: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Pending,
    Paused(Instant),
    Sent(WorkerId),
    Done,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let workers = rng.usize(1..=4);
        let spares = if rng.bool() { 0 } else { rng.usize(1..=3) };
        let mut slots: Vec<_> =
            (0..workers).map(|_| rng.choice([1, 1, 1, 3]).unwrap_or(1)).collect();
        if spares > 0 {
            // The simulation does not follow the quotas of indices.
            let first = slots[0];
            slots.fill(first);
        }
        let settings = Settings {
            slots: slots.clone(),
            spares,
            min_workers: rng.usize(0..=workers),
            idle_timeout: rng.bool().then(|| Duration::from_millis(rng.u64(0..100))),
            max_tasks: rng.bool().then(|| rng.u64(1..10)),
            max_age: (rng.u8(0..4) == 0).then(|| Duration::from_micros(rng.u64(1..200_000))),
            start_timeout: Duration::from_secs(10),
            start_tries: rng.u32(1..6),
        };
        let (max_tasks, max_age) = (settings.max_tasks, settings.max_age);
        let now = Instant::now();
        let (scheduler, actions) = Scheduler::new(settings, now);
        let mut world = Self {
            is_hostile: rng.u8(0..3) == 0,
            is_patient: rng.bool(),
            pace: rng.choice([2, 50, 2_000]).unwrap_or(50),
            rng,
            now,
            scheduler,
            active: (0..slots.len()).collect(),
            slots,
            spares,
            max_tasks,
            max_age,
            processes: BTreeMap::new(),
            tasks: BTreeMap::new(),
            places: BTreeMap::new(),
            pending: BTreeSet::new(),
            returned: BTreeSet::new(),
            paused: BTreeSet::new(),
            is_shut_down: false,
            is_closing: false,
            fresh: BTreeSet::new(),
            one_was_ended: false,
            too_long: None,
            late_events: Vec::new(),
            must_be_killed: Vec::new(),
            must_stay: Vec::new(),
            in_time: BTreeSet::new(),
            was_ticked: false,
            ended: false,
            summary: Summary::default(),
        };
        world.perform(actions).expect("a pool may start its workers");
        world
    }

    /// Moves a task, and returns its place before.
    pub(super) fn put(&mut self, id: u64, place: Place) -> Place {
        let rank = (Reverse(self.tasks[&id].priority), id);
        let before = self.places.insert(id, place).expect("a task that was submitted");
        match before {
            Place::Pending => {
                self.pending.remove(&id);
                self.returned.remove(&rank);
            }
            Place::Paused(until) => drop(self.paused.remove(&(until, id))),
            Place::Sent(_) | Place::Done => {}
        }
        match place {
            Place::Pending => {
                self.pending.insert(id);
                self.returned.insert(rank);
            }
            Place::Paused(until) => drop(self.paused.insert((until, id))),
            Place::Sent(_) | Place::Done => {}
        }
        before
    }

    pub(super) fn handle(&mut self, event: Event<u64>) -> Result<(), String> {
        self.handle_all(vec![event])
    }

    pub(super) fn handle_all(&mut self, events: Vec<Event<u64>>) -> Result<(), String> {
        self.summary.steps += events.len() as u64;
        for event in &events {
            self.note(event);
        }
        let actions = self.scheduler.handle(events, self.now);
        self.perform(actions)?;
        self.check()
    }

    /// Notes what the scheduler knows after an event.
    fn note(&mut self, event: &Event<u64>) {
        let (worker_id, now) = match event {
            Event::Tick => {
                while let Some((until, id)) = self.paused.first().copied()
                    && until <= self.now
                {
                    self.put(id, Place::Pending);
                }
                self.was_ticked = true;
                return;
            }
            Event::NotEnded { worker_id, seq, claimed } => {
                return self.note_not_ended(*worker_id, *seq, *claimed);
            }
            Event::Replied { worker_id, .. }
            | Event::Progressed { worker_id, .. }
            | Event::Returned { worker_id, .. } => (worker_id, self.now),
            _ => return,
        };
        let Some(process) = self.processes.get_mut(worker_id) else { return };
        let slots = process.slots;
        match event {
            Event::Replied { seq, .. } => process.note_answers(*seq, 1, slots, now),
            Event::Progressed { seq, count, .. } => {
                process.note_answers(*seq, *count, slots, now);
            }
            Event::Returned { calls, .. } => {
                for call in calls {
                    process.note_returned(call.seq, call.count, slots, now);
                }
            }
            _ => {}
        }
    }

    fn note_not_ended(&mut self, worker_id: WorkerId, seq: u64, claimed: Claimed) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&worker_id) else { return };
        process.ending.take_if(|ending| *ending == seq);
        let Some(call) = process.view.iter_mut().find(|call| call.seq == seq) else { return };
        let is_cancelled = |id| self.tasks[id].verdict.is_some();
        if call.timeout.is_none() && call.tasks.iter().all(is_cancelled) {
            call.timeout = Some(Duration::from_millis(5));
        }
        if claimed == (Claimed::Ended { is_being_read: true }) {
            call.could_run_since = Some(now);
        }
        if let Some(reason) = call.must_end(claimed, now) {
            self.summary.overdue += u64::from(claimed != Claimed::NotBegun);
            self.must_be_killed.push((worker_id, reason));
        } else if !process.is_killed {
            self.must_stay.extend(call.must_stay(claimed, now).map(|why| (worker_id, why)));
        }
    }

    #[expect(clippy::too_many_lines, reason = "a list of actions")]
    pub(super) fn perform(&mut self, actions: Vec<Action<u64>>) -> Result<(), String> {
        for action in actions {
            match action {
                Action::Spawn { worker_id } => self.spawned(worker_id)?,
                Action::Send { worker_id, seq, job, attempt, first, count, stop_after: _ } => {
                    let tasks = range(job, first, count).collect();
                    self.sent_call(worker_id, seq, attempt, tasks)?;
                }
                Action::Recall { worker_id, from, through } => {
                    if from > through {
                        return Err(format!("an empty recall: {from} to {through}"));
                    }
                    if let Some(process) = self.processes.get_mut(&worker_id) {
                        process.recalled_through = process.recalled_through.max(through);
                        process.orders.push(Order::Recall { from, through });
                    }
                }
                Action::EndCall { worker_id, seq, allowed } => {
                    self.may_be_ended(worker_id, seq, allowed)?;
                    let process =
                        self.processes.get_mut(&worker_id).ok_or("`EndCall` for no process")?;
                    process.order_end(seq, allowed);
                }
                Action::AskToStop { worker_id, seq, will_end } => {
                    self.asked_to_stop(worker_id, seq, will_end)?;
                }
                Action::Promote { worker_id, replaces } => self.promoted(worker_id, replaces)?,
                Action::Dismiss { worker_id, recycled } => {
                    self.summary.aged += u64::from(recycled == Some(RecyclingReason::Age));
                    self.processes
                        .get_mut(&worker_id)
                        .ok_or("`Dismiss` for no process")?
                        .is_dismissed = true;
                }
                Action::Kill { worker_id, is_late: _ } => {
                    self.processes.get_mut(&worker_id).ok_or("`Kill` for no process")?.is_killed =
                        true;
                }
                Action::TakenBack { job, first, count } => {
                    self.summary.taken_back += 1;
                    for id in range(job, first, count) {
                        self.taken_back(id)?;
                    }
                }
                Action::Retry { job, first, attempt, fault, pause, ended } => {
                    if ended.is_none() != (fault == crate::retries::Fault::Failure) {
                        return Err(format!("after {fault:?} the attempt ended so: {ended:?}"));
                    }
                    self.summary.retried += 1;
                    let until = self.now + pause;
                    self.retried(job + u64::from(first), attempt, fault, until)?;
                }
                Action::Complete { job, first, count, verdict } => {
                    for id in range(job, first, count) {
                        self.completed(id, &verdict)?;
                    }
                }
                Action::End => {
                    if std::mem::replace(&mut self.ended, true) {
                        return Err("the scheduler returned `End` twice".to_owned());
                    }
                }
            }
        }
        Ok(())
    }

    fn spawned(&mut self, worker_id: WorkerId) -> Result<(), String> {
        if self.ended {
            return Err(format!("{worker_id:?} was started after the end"));
        }
        let others = self
            .processes
            .keys()
            .filter(|other| other.worker_index == worker_id.worker_index)
            .count();
        self.summary.succeeded += others as u64;
        let process = SimulatedProcess {
            is_liar: self.is_hostile && self.rng.u8(0..4) == 0,
            room: self.rng.choice([1, 2, 8, 1_000]).unwrap_or(1),
            slots: self.slots[worker_id.worker_index % self.slots.len()],
            ..SimulatedProcess::default()
        };
        let most = if self.spares > 0 { 0 } else { 1 };
        if others > most || self.processes.insert(worker_id, process).is_some() {
            return Err(format!("{worker_id:?} was started beside {others} others"));
        }
        Ok(())
    }

    fn asked_to_stop(
        &mut self,
        worker_id: WorkerId,
        seq: u64,
        will_end: bool,
    ) -> Result<(), String> {
        self.summary.asked_to_stop += 1;
        let process = self.processes.get_mut(&worker_id).ok_or("`AskToStop` for no process")?;
        process.orders.push(Order::Stop { seq });
        let call = process.view.iter_mut().find(|call| call.seq == seq);
        let call = call.ok_or("`AskToStop` for no call")?;
        for id in &call.tasks {
            let task = self.tasks.get_mut(id).expect("a task that was submitted");
            task.is_stopping = true;
            if will_end != (task.grace.is_some() && process.slots == 1) {
                return Err(format!("task {id} is to stop, and its end is {will_end}"));
            }
            call.stop_by =
                call.stop_by.or(task.grace.filter(|_| will_end).map(|grace| self.now + grace));
        }
        Ok(())
    }

    /// A spare becomes active in place of a worker that has no task.
    fn promoted(&mut self, worker_id: WorkerId, replaces: usize) -> Result<(), String> {
        self.summary.promoted += 1;
        if !self.processes.get(&worker_id).is_some_and(SimulatedProcess::may_stay) {
            return Err(format!("{worker_id:?} was promoted and is not ready"));
        }
        if self.goes_on(replaces) || !self.active.remove(&replaces) {
            return Err(format!(
                "{worker_id:?} was promoted over worker {replaces}, which goes on"
            ));
        }
        match self.active.insert(worker_id.worker_index) {
            true => Ok(()),
            false => Err(format!("{worker_id:?} was promoted and was active before")),
        }
    }

    /// Whether the worker index has a process that is ready or has calls.
    pub(super) fn goes_on(&self, index: usize) -> bool {
        let of_index =
            |(worker_id, _): &(&WorkerId, &SimulatedProcess)| worker_id.worker_index == index;
        let goes_on = |process: &SimulatedProcess| process.may_stay() || !process.view.is_empty();
        self.processes.iter().filter(of_index).any(|(_, process)| goes_on(process))
    }

    fn sent_call(
        &mut self,
        worker_id: WorkerId,
        seq: u64,
        attempt: u32,
        tasks: VecDeque<u64>,
    ) -> Result<(), String> {
        let has_a_hider = tasks.iter().any(|id| self.tasks[id].hides);
        for &id in &tasks {
            self.sent(id, worker_id, attempt)?;
            self.tasks.get_mut(&id).expect("just sent").is_doubtful |= has_a_hider;
        }
        self.may_be_sent(worker_id)?;
        let process = self.processes.get_mut(&worker_id).expect("just looked at");
        let slots = process.slots;
        self.summary.chunks_ahead += u64::from(tasks.len() > 1 && slots > 1);
        process.given += tasks.len() as u64;
        if self.max_tasks.is_some_and(|most| process.given > most) {
            return Err(format!("{worker_id:?} was given {} tasks", process.given));
        }
        process.view.push_back(Viewed {
            seq,
            tasks: tasks.clone(),
            answered: 0,
            timeout: tasks.front().and_then(|id| self.tasks[id].timeout),
            stop_by: None,
            could_run_since: (process.view.len() < slots).then_some(self.now),
        });
        process.outbox.push_back(SimulatedCall { seq, tasks, begun: 0 });
        let at_work = |(other, process): &(&WorkerId, &SimulatedProcess)| {
            let has_calls = !(process.outbox.is_empty() && process.calls.is_empty());
            other.worker_index == worker_id.worker_index
                && (has_calls || !process.running.is_empty())
        };
        match self.processes.iter().filter(at_work).count() {
            0 | 1 => Ok(()),
            _ => {
                Err(format!("worker index {} has two processes with calls", worker_id.worker_index))
            }
        }
    }
}

fn range(job: u64, first: u32, count: u32) -> Range<u64> {
    let first = job + u64::from(first);
    first..first + u64::from(count)
}
