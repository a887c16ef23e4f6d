//! Drives the `Scheduler` through random schedules in a simulated world, and checks its laws
//! after every step: workers start, fail to start, answer, crash, give calls back; callers submit,
//! cancel and shut down; news arrives late and in any order that the real world allows.
//!
//! A schedule follows from its seed alone, so a failure can be replayed: [`run`] it again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Range, RangeInclusive};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::retries::Fault;
use super::retries::Retries;
use super::scheduler::{
    Action, Again, Begun, Event, Scheduler, Settings, TaskTerms, Tenant, Verdict,
};
use crate::error::Exit;
use crate::executor::Shutdown;
use crate::task::TaskId;

/// What one schedule was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that the scheduler handled.
    pub steps: u64,
    /// Tasks that were submitted.
    pub tasks: u64,
    /// Tasks that were answered.
    pub answered: u64,
    /// Tasks that ended with their worker.
    pub died: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Tasks that were refused, or lost to a pool that could not work.
    pub broken: u64,
    /// Tasks that ran longer than they may.
    pub timed_out: u64,
    /// Calls that were given back, or taken from a worker that ended.
    pub taken_back: u64,
    /// Further attempts.
    pub retried: u64,
    /// Workers that took the seat of another while that was still there.
    pub succeeded: u64,
}

impl std::ops::Add for Summary {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            tasks: self.tasks + other.tasks,
            answered: self.answered + other.answered,
            died: self.died + other.died,
            timed_out: self.timed_out + other.timed_out,
            cancelled: self.cancelled + other.cancelled,
            broken: self.broken + other.broken,
            taken_back: self.taken_back + other.taken_back,
            retried: self.retried + other.retried,
            succeeded: self.succeeded + other.succeeded,
        }
    }
}

/// Runs the schedule of this seed; an error tells which law was broken, and when.
pub fn run(seed: u64) -> Result<Summary, String> {
    let mut world = World::new(seed);
    world
        .live()
        .map_err(|broken| format!("schedule {seed}, step {}: {broken}", world.summary.steps))?;
    Ok(world.summary)
}

/// How a simulated task ended, or that it has not.
type Fate = Option<Verdict>;

struct World {
    rng: Rng,
    now: Instant,
    scheduler: Scheduler<u64>,
    slots: Vec<usize>,
    /// Only then are tasks submitted together.
    has_one_slot_each: bool,
    max_tasks: Option<u64>,
    processes: BTreeMap<Tenant, Process>,
    tasks: BTreeMap<u64, SimTask>,
    is_shut_down: bool,
    /// A shutdown that waits is left to come to its end by itself: a stricter one would complete
    /// what was lost.
    is_patient: bool,
    /// How long tasks take at most, in microseconds: short ones travel together.
    pace: u64,
    /// From now on nothing that has not begun may begin.
    is_closing: bool,
    /// Tasks that were never handed over, best first: by priority, then in order.
    fresh: BTreeSet<(Reverse<i32>, u64)>,
    /// The process whose end is being reported was ended because of a call.
    one_was_ended: bool,
    /// The task that had run for too long in it.
    too_long: Option<u64>,
    /// News of processes that are gone.
    late_news: Vec<Event<u64>>,
    ended: bool,
    summary: Summary,
}

#[derive(Default)]
struct SimTask {
    fate: Fate,
    sent: u32,
    begun: u32,
    allowed: u32,
    /// Never ends by itself.
    hangs: bool,
    priority: i32,
    /// The first of those with which it was submitted.
    origin: u64,
}

/// A worker process, with what is on its way to it.
#[derive(Default)]
struct Process {
    is_ready: bool,
    is_killed: bool,
    is_dismissed: bool,
    /// It was ended because of a call that was to be ended.
    was_ended: bool,
    /// The task for which it was ended, as it had run for too long.
    too_long: Option<u64>,
    /// The scheduler knows that it has grown beyond what it may use.
    is_fat: bool,
    /// It ended; the scheduler does not know that yet, and may still send it calls.
    is_dead: bool,
    /// Calls that it was sent and has not returned.
    given: u64,
    /// Calls that it has not begun.
    calls: VecDeque<Call>,
    running: Vec<Call>,
    /// What the coordinator's threads are about to do.
    orders: Vec<Order>,
    /// What came of that, on its way to the scheduler.
    news: Vec<Event<u64>>,
    /// Replies that the coordinator has not read yet; they outlive the process.
    replies: VecDeque<Reply>,
}

/// A call, which may consist of several tasks.
struct Call {
    turn: u64,
    /// Those that have not ended, in order; of a running call the first one runs.
    tasks: VecDeque<u64>,
    /// How many were begun.
    begun: u32,
}

struct Reply {
    turn: u64,
    task: u64,
}

enum Order {
    Recall { from: u64, through: u64 },
    End { turn: u64, allowed: Option<Duration> },
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let workers = rng.usize(1..=4);
        let slots: Vec<_> = (0..workers).map(|_| rng.choice([1, 1, 1, 3]).unwrap_or(1)).collect();
        let settings = Settings {
            slots: slots.clone(),
            min_workers: rng.usize(0..=workers),
            idle_timeout: rng.bool().then(|| Duration::from_millis(rng.u64(0..100))),
            max_tasks: rng.bool().then(|| rng.u64(1..10)),
            start_timeout: Duration::from_secs(10),
            start_tries: rng.u32(1..6),
        };
        let max_tasks = settings.max_tasks;
        let is_patient = rng.bool();
        let pace = rng.choice([2, 50, 2_000]).unwrap_or(50);
        let now = Instant::now();
        let (scheduler, actions) = Scheduler::new(settings, now);
        let mut world = Self {
            rng,
            now,
            scheduler,
            has_one_slot_each: slots.iter().all(|slots| *slots == 1),
            slots,
            max_tasks,
            processes: BTreeMap::new(),
            tasks: BTreeMap::new(),
            is_shut_down: false,
            is_patient,
            pace,
            is_closing: false,
            fresh: BTreeSet::new(),
            one_was_ended: false,
            too_long: None,
            late_news: Vec::new(),
            ended: false,
            summary: Summary::default(),
        };
        world.perform(actions).expect("a pool may start its workers");
        world
    }

    fn live(&mut self) -> Result<(), String> {
        let length = self.rng.usize(1..400);
        let reliability = self.rng.u32(1..200);
        for _ in 0..length {
            self.step(reliability)?;
        }
        // Then the end: whatever happened, a shutdown completes every future.
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
            return Err("the shutdown never came to its end".to_owned());
        }
        match self.tasks.iter().find(|(_, task)| task.fate.is_none()) {
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
            0..25 if !self.is_shut_down => {
                for _ in 0..self.rng.u32(1..8) {
                    let items = if self.has_one_slot_each { self.rng.u8(0..4) } else { 0 };
                    let items = if items == 3 { self.rng.u64(2..40) } else { 1 };
                    self.submit(items)?;
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
            45 if !self.late_news.is_empty() => {
                let news = self.late_news.swap_remove(0);
                self.handle(news)
            }
            _ => {
                let tenants: Vec<_> = self.processes.keys().copied().collect();
                match self.rng.choice(&tenants) {
                    Some(&tenant) => self.live_process(tenant, reliability),
                    None => {
                        // Nobody is there: the world waits for the scheduler's own time.
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

    /// One task, or several together.
    fn submit(&mut self, items: u64) -> Result<(), String> {
        let first = self.summary.tasks;
        self.summary.tasks += items;
        let bytes = *self.rng.choice(&[2, 100, 5_000, 65_536]).expect("four");
        let times = *self.rng.choice(&[0, 0, 1, 3]).expect("four");
        let retries = Retries::times(times)
            .on_crash(self.rng.bool())
            .on_timeout(self.rng.bool())
            .on_failure(self.rng.bool());
        let timeout = (self.rng.u8(0..4) == 0).then(|| Duration::from_millis(self.rng.u64(0..50)));
        let priority = self.rng.i32(-1..=1);
        let terms = TaskTerms { timeout, priority, retries };
        for id in first..first + items {
            // What hangs without a timeout would keep a shutdown waiting, and rightly so.
            let hangs = timeout.is_some() && self.rng.u8(0..3) == 0;
            let (allowed, origin) = (times + 1, first);
            let task = SimTask { allowed, hangs, priority, origin, ..SimTask::default() };
            self.tasks.insert(id, task);
            self.fresh.insert((Reverse(priority), id));
        }
        let items = u32::try_from(items).expect("few");
        self.handle(Event::Submitted { id: TaskId(first), job: first, items, bytes, terms })
    }

    fn cancel(&mut self) -> Result<(), String> {
        if self.summary.tasks == 0 {
            return Ok(());
        }
        let id = self.rng.u64(0..self.summary.tasks);
        let origin = TaskId(self.tasks[&id].origin);
        let is_alone =
            id == origin.0 && self.tasks.get(&(id + 1)).is_none_or(|task| task.origin != id);
        match is_alone {
            true => self.handle(Event::Cancelled { id: origin }),
            false => self.handle(Event::Abandoned { id: origin }),
        }
    }

    fn shut_down(&mut self, how: Shutdown) -> Result<(), String> {
        self.is_shut_down = true;
        self.is_closing |= how != Shutdown::Wait;
        self.handle(Event::ShutDown(how))
    }

    /// Something happens to one process, or to what it sent.
    fn live_process(&mut self, tenant: Tenant, reliability: u32) -> Result<(), String> {
        let process = self.processes.get_mut(&tenant).expect("a process");
        let crashes = process.is_killed || self.rng.u32(0..reliability) == 0;
        if !process.is_ready {
            if crashes || self.rng.u8(0..20) == 0 {
                self.processes.remove(&tenant);
                let again = *self
                    .rng
                    .choice(&[Again::WithBackoff, Again::WithBackoff, Again::AtOnce])
                    .expect("three");
                let cause = "simulated".to_owned();
                return self.handle(Event::StartFailed { tenant, cause, again });
            }
            process.is_ready = true;
            return self.handle(Event::WorkerReady { tenant });
        }
        if !process.orders.is_empty() && self.rng.bool() {
            process.carry_out_one(tenant, &mut self.rng, &self.tasks);
            return Ok(());
        }
        if !process.news.is_empty() && self.rng.bool() {
            let news = process.news.swap_remove(self.rng.usize(0..process.news.len()));
            return self.handle(news);
        }
        if !process.replies.is_empty() {
            return self.read_replies(tenant);
        }
        // All that it sent has been read, so its end may be noticed now.
        let has_left =
            process.is_dismissed && process.calls.is_empty() && process.running.is_empty();
        if crashes && !process.is_dead && self.rng.bool() {
            process.is_dead = true;
            return Ok(());
        }
        if crashes || process.is_dead || has_left {
            let exit = if has_left { Exit::Code(0) } else { Exit::Signal(11) };
            let process = self.processes.remove(&tenant).expect("still there");
            self.one_was_ended = process.was_ended;
            self.too_long = process.too_long;
            self.late_news.extend(process.news);
            let ran_for = Duration::from_micros(self.rng.u64(0..50_000));
            let begun = |call: &Call| Begun { turn: call.turn, items: call.begun, ran_for };
            let begun = process.running.iter().map(begun).collect();
            self.handle(Event::WorkerExited { tenant, exit, begun })?;
            self.one_was_ended = false;
            self.too_long = None;
            return Ok(());
        }
        for _ in 0..self.rng.u32(1..5) {
            let process = self.processes.get_mut(&tenant).expect("still there");
            let begun = match self.rng.bool() {
                true => process.finish_one(&mut self.rng, &self.tasks),
                false => process.begin_one(self.slots[tenant.seat]),
            };
            if let Some(id) = begun {
                self.begun(id)?;
            }
        }
        Ok(())
    }

    /// The coordinator reads some of the replies, and decides upon them together.
    fn read_replies(&mut self, tenant: Tenant) -> Result<(), String> {
        let process = self.processes.get_mut(&tenant).expect("a process");
        let number = self.rng.usize(1..=process.replies.len());
        let (mut events, mut outputs) = (Vec::new(), Vec::new());
        for Reply { turn, task } in process.replies.drain(..number) {
            let ran_for = Duration::from_micros(self.rng.u64(0..self.pace));
            let has_failed = self.rng.u8(0..10) == 0;
            let is_fat = self.rng.u8(0..50) == 0;
            process.is_fat |= is_fat;
            let origin = self.tasks[&task].origin;
            let is_one_of_many = [task.wrapping_sub(1), task + 1]
                .iter()
                .any(|other| self.tasks.get(other).is_some_and(|other| other.origin == origin));
            if !has_failed && is_one_of_many && self.rng.u8(0..4) > 0 {
                // Passed on at once; the scheduler hears only how many there were.
                let task = self.tasks.get_mut(&task).expect("a task that was submitted");
                self.summary.answered += u64::from(task.fate.is_none());
                task.fate.get_or_insert(Verdict::Answered);
                events.push(Event::Progressed { tenant, turn, items: 1, ran_for, is_fat });
            } else {
                outputs.extend((!has_failed).then_some(task));
                events.push(Event::Replied { tenant, turn, ran_for, has_failed, is_fat });
            }
        }
        self.handle_all(events)?;
        match outputs.iter().find(|id| self.tasks[id].fate.is_none()) {
            Some(id) => Err(format!("task {id} gave an output and was not completed")),
            None => Ok(()),
        }
    }

    fn begun(&mut self, id: u64) -> Result<(), String> {
        let task = self.tasks.get_mut(&id).expect("a task that was submitted");
        task.begun += 1;
        if task.begun > task.allowed {
            return Err(format!("task {id} was begun {} times of {}", task.begun, task.allowed));
        }
        Ok(())
    }

    fn handle(&mut self, event: Event<u64>) -> Result<(), String> {
        self.handle_all(vec![event])
    }

    fn handle_all(&mut self, events: Vec<Event<u64>>) -> Result<(), String> {
        self.summary.steps += events.len() as u64;
        let actions = self.scheduler.handle(events, self.now);
        self.perform(actions)?;
        if self.ended && !self.processes.is_empty() {
            return Err("the end was declared with processes left".to_owned());
        }
        Ok(())
    }

    fn perform(&mut self, actions: Vec<Action<u64>>) -> Result<(), String> {
        for action in actions {
            match action {
                Action::Spawn { tenant } => {
                    if self.ended {
                        return Err(format!("{tenant:?} was started after the end"));
                    }
                    let others = self.processes.keys().filter(|other| other.seat == tenant.seat);
                    let others = others.count();
                    self.summary.succeeded += others as u64;
                    if others > 1 || self.processes.insert(tenant, Process::default()).is_some() {
                        return Err(format!("{tenant:?} was started beside {others} others"));
                    }
                }
                Action::Send { tenant, turn, job, attempt, first, items } => {
                    let tasks: VecDeque<_> =
                        (0..u64::from(items)).map(|item| job + u64::from(first) + item).collect();
                    for &id in &tasks {
                        self.sent(id, attempt)?;
                    }
                    let process = self.processes.get_mut(&tenant);
                    let Some(process) = process.filter(|process| process.is_ready) else {
                        return Err(format!(
                            "task {job} was sent to {tenant:?}, which is not ready"
                        ));
                    };
                    if process.is_fat {
                        return Err(format!("task {job} was sent to a worker that is too large"));
                    }
                    if process.is_dismissed {
                        return Err(format!("task {job} was sent to a worker that may leave"));
                    }
                    process.given += u64::from(items);
                    if self.max_tasks.is_some_and(|most| process.given > most) {
                        return Err(format!("{tenant:?} was given {} tasks", process.given));
                    }
                    process.calls.push_back(Call { turn, tasks, begun: 0 });
                    let at_work = |(other, process): &(&Tenant, &Process)| {
                        other.seat == tenant.seat
                            && !(process.calls.is_empty() && process.running.is_empty())
                    };
                    if self.processes.iter().filter(at_work).count() > 1 {
                        return Err(format!("seat {} has two processes at work", tenant.seat));
                    }
                }
                Action::Recall { tenant, from, through } => {
                    if from > through {
                        return Err(format!("an empty recall: {from} to {through}"));
                    }
                    if let Some(process) = self.processes.get_mut(&tenant) {
                        process.orders.push(Order::Recall { from, through });
                    }
                }
                Action::EndCall { tenant, turn, allowed } => {
                    let process = self.processes.get_mut(&tenant).ok_or("ended nobody")?;
                    process.orders.push(Order::End { turn, allowed });
                }
                Action::Dismiss { tenant } => {
                    self.processes.get_mut(&tenant).ok_or("dismissed nobody")?.is_dismissed = true;
                }
                Action::Kill { tenant, is_late: _ } => {
                    self.processes.get_mut(&tenant).ok_or("killed nobody")?.is_killed = true;
                }
                Action::TakenBack { job, first, items } => {
                    self.summary.taken_back += 1;
                    for id in range(job, first, items) {
                        let task = self.tasks.get_mut(&id).expect("a task that was submitted");
                        if task.begun >= task.sent {
                            return Err(format!("task {id} had begun when it was taken back"));
                        }
                        task.sent -= 1;
                    }
                }
                Action::Retry { job, first, attempt, fault, .. } => {
                    self.summary.retried += 1;
                    let id = job + u64::from(first);
                    if self.too_long == Some(id) && fault != Fault::Timeout {
                        return Err(format!("task {id} ran for too long, not as told: {fault:?}"));
                    }
                    let task = self.tasks.get_mut(&id).expect("a task that was submitted");
                    if attempt > task.allowed || self.is_closing {
                        return Err(format!("task {id} is to have attempt {attempt}"));
                    }
                    if task.begun != task.sent {
                        return Err(format!("task {id} had not begun when it was retried"));
                    }
                }
                Action::Complete { job, first, items, verdict } => {
                    for id in range(job, first, items) {
                        self.completed(id, &verdict)?;
                    }
                }
                Action::End => {
                    if std::mem::replace(&mut self.ended, true) {
                        return Err("the end came twice".to_owned());
                    }
                }
            }
        }
        Ok(())
    }
}

fn range(job: u64, first: u32, items: u32) -> Range<u64> {
    let first = job + u64::from(first);
    first..first + u64::from(items)
}

impl World {
    fn sent(&mut self, id: u64, attempt: u32) -> Result<(), String> {
        let task = self.tasks.get_mut(&id).expect("a task that was submitted");
        if task.fate.is_some() {
            return Err(format!("task {id} was sent after it ended: {:?}", task.fate));
        }
        if attempt > task.allowed || task.sent != task.begun || attempt != task.begun + 1 {
            return Err(format!("task {id} was sent as attempt {attempt}"));
        }
        task.sent += 1;
        if self.is_closing {
            return Err(format!("task {id} was sent though pending ones are cancelled"));
        }
        // Those that were handed over before go first among their equals.
        let is_fresh = self.fresh.contains(&(Reverse(task.priority), id));
        if let Some((Reverse(first), before)) = self.fresh.first()
            && (task.priority < *first || is_fresh && *before != id)
        {
            return Err(format!("task {id} was sent before task {before}"));
        }
        self.fresh.remove(&(Reverse(task.priority), id));
        Ok(())
    }

    fn completed(&mut self, id: u64, verdict: &Verdict) -> Result<(), String> {
        match verdict {
            Verdict::Answered => self.summary.answered += 1,
            Verdict::Died { .. } => self.summary.died += 1,
            Verdict::TimedOut { .. } => self.summary.timed_out += 1,
            Verdict::Cancelled => self.summary.cancelled += 1,
            Verdict::Broken(_) => self.summary.broken += 1,
        }
        if self.one_was_ended && matches!(verdict, Verdict::Died { is_collateral: false, .. }) {
            return Err(format!("task {id} was taken for the victim of a crash"));
        }
        if self.too_long == Some(id) && matches!(verdict, Verdict::Died { .. }) {
            return Err(format!("task {id} ran for too long and was told something else"));
        }
        let task = self.tasks.get_mut(&id).expect("a task that was submitted");
        if matches!(verdict, Verdict::Died { .. } | Verdict::TimedOut { .. })
            && task.begun != task.sent
        {
            return Err(format!("task {id} was blamed and had not begun"));
        }
        self.fresh.remove(&(Reverse(task.priority), id));
        match task.fate.replace(verdict.clone()) {
            Some(before) => Err(format!("task {id} was completed twice, before: {before:?}")),
            None => Ok(()),
        }
    }
}

impl Process {
    /// Begins a call; gives its first task.
    fn begin_one(&mut self, slots: usize) -> Option<u64> {
        if self.is_dead || self.running.len() >= slots {
            return None;
        }
        let mut call = self.calls.pop_front()?;
        call.begun = 1;
        let first = call.tasks.front().copied();
        self.running.push(call);
        first
    }

    /// Ends a running task; gives the next one of its call, which is begun.
    fn finish_one(&mut self, rng: &mut Rng, tasks: &BTreeMap<u64, SimTask>) -> Option<u64> {
        if self.is_dead || self.running.is_empty() {
            return None;
        }
        let index = rng.usize(0..self.running.len());
        let call = &mut self.running[index];
        if tasks[call.tasks.front()?].hangs {
            return None;
        }
        let task = call.tasks.pop_front()?;
        self.replies.push_back(Reply { turn: call.turn, task });
        let next = call.tasks.front().copied();
        match next {
            Some(_) => call.begun += 1,
            None => drop(self.running.swap_remove(index)),
        }
        next
    }

    /// The coordinator's threads do what the scheduler decided, in whatever order.
    fn carry_out_one(&mut self, tenant: Tenant, rng: &mut Rng, tasks: &BTreeMap<u64, SimTask>) {
        match self.orders.swap_remove(rng.usize(0..self.orders.len())) {
            Order::Recall { from, through } => self.take_back(tenant, from..=through),
            Order::End { turn, allowed } => {
                let index = self.running.iter().position(|running| running.turn == turn);
                let not_yet = |ran_for| Event::NotYet { tenant, turn, ran_for };
                match (index, allowed) {
                    // It may have begun later than the coordinator believes,
                    (Some(_), Some(allowed)) if rng.u8(0..3) == 0 => {
                        self.news.push(not_yet(Some(allowed / 2)));
                    }
                    // or end while the calls behind it are taken back.
                    (Some(index), _)
                        if !tasks[&self.running[index].tasks[0]].hangs
                            && !self.is_dead
                            && rng.u8(0..4) == 0 =>
                    {
                        self.take_back(tenant, 0..=u64::MAX);
                        let task = self.running.swap_remove(index).tasks[0];
                        self.replies.push_back(Reply { turn, task });
                        self.news.push(not_yet(Some(Duration::ZERO)));
                    }
                    (Some(index), allowed) => {
                        self.is_dead = true;
                        self.was_ended = true;
                        self.too_long = allowed.map(|_| self.running[index].tasks[0]);
                    }
                    (None, allowed) => {
                        if allowed.is_none() {
                            self.take_back(tenant, turn..=turn);
                        }
                        self.news.push(not_yet(None));
                    }
                }
            }
        }
    }

    fn take_back(&mut self, tenant: Tenant, turns: RangeInclusive<u64>) {
        let mut back = Vec::new();
        let mut taken = 0;
        self.calls.retain(|call| {
            let is_meant = turns.contains(&call.turn);
            if is_meant {
                taken += call.tasks.len();
                back.push(Begun { turn: call.turn, items: 0, ran_for: Duration::ZERO });
            }
            !is_meant
        });
        for call in self.running.iter_mut().filter(|call| turns.contains(&call.turn)) {
            // The first one runs, the others are behind it.
            if call.tasks.len() > 1 {
                taken += call.tasks.len() - 1;
                call.tasks.truncate(1);
                back.push(Begun { turn: call.turn, items: call.begun, ran_for: Duration::ZERO });
            }
        }
        // The scheduler may not count these before it has heard of them, but then sends less.
        self.given -= taken as u64;
        if !back.is_empty() {
            self.news.push(Event::Returned { tenant, calls: back });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_schedules_keep_the_laws() {
        let schedules: u64 = 10_000;
        let first = fastrand::u64(..u64::MAX - schedules);
        println!("schedules {first} to {}", first + schedules - 1);
        let mut total = Summary::default();
        for seed in first..first + schedules {
            total = total + run(seed).unwrap_or_else(|broken| panic!("{broken}"));
        }
        // A simulation in which nothing happens would prove nothing.
        for (what, count) in [
            ("answered", total.answered),
            ("died", total.died),
            ("cancelled", total.cancelled),
            ("broken", total.broken),
            ("timed out", total.timed_out),
            ("taken back", total.taken_back),
            ("retried", total.retried),
            ("run by a successor", total.succeeded),
        ] {
            assert!(count > schedules / 20, "only {count} {what}");
        }
    }
}
