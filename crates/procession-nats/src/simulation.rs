//! Drives [`TaskOwner`] and [`TaskHolder`] through random schedules: messages that are lost, late and
//! doubled, agents that crash, stop, are fenced and start again, servers that forget acknowledgements and
//! messages, coordinators that are killed, or stopped, and followed by others; and checks after each step what
//! must hold. Tasks are alone, or in bundles. The example `simulate_hosts` runs many of them.

mod laws;
mod schedule;
mod server;

use std::collections::BTreeMap;

use crate::cas_write::WriteReply;
use crate::holder::{HolderAction, HolderEvent, TaskHolder};
use crate::members::Members;
use crate::owner::{MemberFate, OwnedEnd, OwnerAction, OwnerEvent, TaskOwner};
use crate::task_record::{HostClaim, TaskRecord};

use laws::check_attempt;
pub use schedule::run;
use server::{QueuedCopy, SimServer};

/// What a schedule has done, for those who run it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScheduleCounts {
    /// Steps.
    pub steps: u64,
    /// Runs of tasks that began.
    pub begun: u64,
    /// Tasks that ended with a result.
    pub done: u64,
    /// Tasks whose host was lost.
    pub lost: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Results that came too late, and were refused.
    pub refused: u64,
    /// Coordinators that took over the tasks of an earlier one.
    pub attached: u64,
    /// Results of members that came before other results of the same bundle.
    pub early: u64,
    /// Tasks of a bundle that were queued anew when it was revoked.
    pub again: u64,
}

/// One coordinator, several agents and a server.
#[derive(Debug)]
struct HostsWorld {
    rng: fastrand::Rng,
    attempts: u32,
    tasks: Vec<WorldTask>,
    /// Each is the owner of a task, or of a bundle.
    owners: Vec<OwnedTask>,
    agents: Vec<SimAgent>,
    server: SimServer,
    /// On the way, in no order.
    packets: Vec<Packet>,
    counts: ScheduleCounts,
    /// The coordinators up to now.
    coordinators: u32,
    /// The job has a name, so that a coordinator may follow another one.
    has_name: bool,
}

#[derive(Debug)]
struct OwnedTask {
    owner: TaskOwner,
    /// The owner in a coordinator that was stopped, has lost the job, and goes on.
    stale: Option<(u32, TaskOwner)>,
    /// The tasks that it owns, by their numbers.
    members: Vec<usize>,
}

#[derive(Debug)]
struct WorldTask {
    /// Its owner, and its index there.
    place: (usize, usize),
    end: Option<OwnedEnd>,
    wants_cancel: bool,
    /// Of one coordinator or another.
    was_cancelled: bool,
    /// Runs that began, by attempt.
    begun: BTreeMap<u32, u32>,
}

#[derive(Debug)]
struct SimAgent {
    instance: String,
    is_stopped: bool,
    is_dead: bool,
    held: Vec<HeldDelivery>,
}

#[derive(Debug)]
struct HeldDelivery {
    /// The number of its owner.
    task: usize,
    attempt: u32,
    /// The number of this delivery.
    copy: u64,
    /// The message that it delivered.
    acks: u64,
    holder: TaskHolder,
    runs: Members,
    /// The coordinator has asked to end these members.
    killed: Members,
}

/// A message on its way.
#[derive(Debug, Clone)]
enum Packet {
    Write { from: Peer, task: usize, record: TaskRecord, expect: u64 },
    Read { from: Peer, task: usize, nonce: u64 },
    Publish { coordinator: u32, task: usize, attempt: u32, seq: u64 },
    Ack { copy: u64 },
    ToOwner { coordinator: u32, task: usize, event: OwnerEvent },
    ToHolder { instance: String, copy: u64, event: HolderEvent },
    Kill { instance: String, task: usize, members: Members },
}

/// Who asked the server.
#[derive(Debug, Clone)]
enum Peer {
    Owner(u32),
    Holder { instance: String, copy: u64 },
}

impl HostsWorld {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let attempts = rng.u32(1..4);
        let has_name = rng.bool();
        let number = rng.usize(1..6);
        let task = |rng: &mut fastrand::Rng| WorldTask {
            place: (0, 0),
            end: None,
            wants_cancel: rng.u8(..) < 40,
            was_cancelled: false,
            begun: BTreeMap::new(),
        };
        let tasks = (0..number).map(|_| task(&mut rng)).collect();
        let agents = (0..rng.usize(1..4)).map(|_| SimAgent::new(&mut rng)).collect();
        let (server, packets, owners) = (SimServer::default(), Vec::new(), Vec::new());
        let (counts, coordinators) = (ScheduleCounts::default(), 0);
        let mut world = Self {
            rng,
            attempts,
            tasks,
            owners,
            agents,
            server,
            packets,
            counts,
            coordinators,
            has_name,
        };
        while let first = world.owned_tasks()
            && first < number
        {
            // The tasks of a job that has a name are alone.
            let most = if has_name { 1 } else { number - first };
            let members: Vec<_> = (first..first + world.rng.usize(1..=most)).collect();
            let (input, seed) = (has_name.then_some(first as u64), world.rng.u64(..));
            let owner = match members.len() {
                1 => TaskOwner::new(attempts, input, seed),
                len => TaskOwner::of_bundle(len, seed),
            };
            world.own(owner, members);
        }
        world
    }

    fn owned_tasks(&self) -> usize {
        self.owners.iter().map(|owned| owned.members.len()).sum()
    }

    /// Returns the number of the owner.
    fn own(&mut self, owner: TaskOwner, members: Vec<usize>) -> usize {
        let number = self.owners.len();
        for (index, task) in members.iter().enumerate() {
            self.tasks[*task].place = (number, index);
        }
        self.owners.push(OwnedTask { owner, stale: None, members });
        number
    }

    /// A message arrives where it was sent to.
    fn arrive(&mut self, packet: Packet) {
        match packet {
            Packet::Write { from, task, record, expect } => {
                let nonce = record.nonce;
                let is_done = record.state == crate::task_record::RecordedState::Done;
                let reply = self.server.write(task, record, expect);
                match &reply {
                    WriteReply::Taken(_) => self.publish_again(task),
                    _ => self.counts.refused += u64::from(is_done),
                }
                self.answer(from, task, nonce, reply);
            }
            Packet::Read { from, task, nonce } => {
                let reply = WriteReply::Latest(self.server.latest(task).cloned());
                self.answer(from, task, nonce, reply);
            }
            Packet::Publish { coordinator, task, attempt, seq } => {
                self.server.enqueue(task, attempt, seq);
                let event = OwnerEvent::Published { seq, is_known: true };
                self.packets.push(Packet::ToOwner { coordinator, task, event });
            }
            Packet::Ack { copy } => self.server.ack(copy),
            Packet::ToOwner { coordinator, task, event } => {
                self.tell_owner_of(coordinator, task, event);
            }
            Packet::ToHolder { instance, copy, event } => self.tell_holder(&instance, copy, event),
            Packet::Kill { instance, task, members } => {
                let agent = self.agents.iter().find(|agent| agent.instance == instance);
                let held = agent.map(|agent| agent.held.iter()).into_iter().flatten();
                let copies: Vec<_> =
                    held.filter(|held| held.task == task).map(|held| held.copy).collect();
                for copy in copies {
                    self.tell_holder(&instance, copy, HolderEvent::Kill(members));
                }
            }
        }
    }

    /// What the server sends to those who listen for records.
    fn publish_again(&mut self, task: usize) {
        if let Some(stored) = self.server.latest(task).cloned() {
            let event = OwnerEvent::Observed(stored);
            let stale = self.owners[task].stale.as_ref().map(|(coordinator, _)| *coordinator);
            for coordinator in stale.into_iter().chain([self.coordinators]) {
                let event = event.clone();
                self.packets.push(Packet::ToOwner { coordinator, task, event });
            }
        }
    }

    fn answer(&mut self, to: Peer, task: usize, nonce: u64, reply: WriteReply) {
        self.packets.push(match to {
            Peer::Owner(coordinator) => {
                let event = OwnerEvent::Replied { nonce, reply };
                Packet::ToOwner { coordinator, task, event }
            }
            Peer::Holder { instance, copy } => {
                Packet::ToHolder { instance, copy, event: HolderEvent::Replied { nonce, reply } }
            }
        });
    }

    fn tell_owner(&mut self, task: usize, event: OwnerEvent) {
        self.tell_owner_of(self.coordinators, task, event);
    }

    /// The owner of a task in this coordinator, which may not exist any more.
    fn tell_owner_of(&mut self, coordinator: u32, task: usize, event: OwnerEvent) {
        let is_latest = coordinator == self.coordinators;
        let owned = &mut self.owners[task];
        let owner = match &mut owned.stale {
            _ if is_latest => &mut owned.owner,
            Some((stale, owner)) if *stale == coordinator => owner,
            _ => return,
        };
        let (was_cancelled, attempt) = (!owner.cancelled().is_empty(), owner.attempt());
        let actions = owner.handle(event);
        for action in actions {
            check_attempt(task, was_cancelled, attempt, &action);
            let from = Peer::Owner(coordinator);
            match action {
                OwnerAction::Write { record, expect } => {
                    self.packets.push(Packet::Write { from, task, record, expect });
                }
                OwnerAction::Read { nonce } => {
                    self.packets.push(Packet::Read { from, task, nonce });
                }
                OwnerAction::Publish { attempt, seq } => {
                    self.packets.push(Packet::Publish { coordinator, task, attempt, seq });
                }
                OwnerAction::Began => {}
                OwnerAction::Kill { instance, members } => {
                    self.packets.push(Packet::Kill { instance, task, members });
                }
                OwnerAction::Results { new, .. } => {
                    for member in new.iter() {
                        self.ended(is_latest, (task, member), OwnedEnd::Done);
                    }
                }
                OwnerAction::End(end) => self.owner_ended(coordinator, task, &end),
            }
        }
    }

    /// An owner has ended. Tasks of its bundle may go on without it.
    fn owner_ended(&mut self, coordinator: u32, task: usize, end: &OwnedEnd) {
        let is_latest = coordinator == self.coordinators;
        let owned = &self.owners[task];
        let owner = match &owned.stale {
            Some((_, owner)) if !is_latest => owner,
            _ => &owned.owner,
        };
        let open = owner.open();
        let fates: Vec<_> =
            open.iter().map(|member| (member, owner.fate(member, end, self.attempts))).collect();
        assert!(*end != OwnedEnd::Done || fates.is_empty(), "task {task} is done without a result");
        for (member, fate) in fates {
            match fate {
                MemberFate::Ended(end) => self.ended(is_latest, (task, member), end),
                MemberFate::Again { attempt } => {
                    self.counts.again += 1;
                    let owner = TaskOwner::new(self.attempts, None, self.rng.u64(..));
                    let members = vec![self.owners[task].members[member]];
                    let was_cancelled = self.tasks[members[0]].was_cancelled;
                    assert!(!was_cancelled, "task {members:?} was cancelled, and is queued anew");
                    let next = self.own(owner.begins_with(attempt), members);
                    self.tell_owner(next, OwnerEvent::Submitted);
                }
            }
        }
    }

    /// Another coordinator takes over the job. The one before was killed, or was stopped and goes on.
    fn attach(&mut self, is_killed: bool) {
        let (before, next) = (self.coordinators, self.coordinators + 1);
        self.coordinators = next;
        self.counts.attached += 1;
        for task in 0..self.owners.len() {
            let owner = TaskOwner::new(self.attempts, Some(task as u64), self.rng.u64(..));
            let owned = &mut self.owners[task];
            let owner = std::mem::replace(&mut owned.owner, owner);
            owned.stale = (!is_killed).then_some((before, owner));
            self.tasks[task].end = None;
            self.tell_owner(task, OwnerEvent::Submitted);
        }
    }

    fn tell_holder(&mut self, instance: &str, copy: u64, event: HolderEvent) {
        let Some(at) = self.agents.iter().position(|agent| agent.instance == instance) else {
            return;
        };
        let agent = &mut self.agents[at];
        if agent.is_stopped || agent.is_dead {
            // It is read when the agent goes on.
            if agent.is_stopped && !agent.is_dead {
                let instance = instance.to_owned();
                self.packets.push(Packet::ToHolder { instance, copy, event });
            }
            return;
        }
        let Some(held) = agent.held.iter_mut().find(|held| held.copy == copy) else { return };
        if let HolderEvent::Kill(members) = event {
            held.killed = held.killed.or(members);
        }
        let actions = held.holder.handle(event);
        self.act_for_holder(at, copy, actions);
        self.check_kill(at, copy);
    }

    fn act_for_holder(&mut self, at: usize, copy: u64, actions: Vec<HolderAction>) {
        for action in actions {
            let agent = &mut self.agents[at];
            let instance = agent.instance.clone();
            let from = Peer::Holder { instance: instance.clone(), copy };
            let Some(held) = agent.held.iter_mut().find(|held| held.copy == copy) else { return };
            let (task, attempt) = (held.task, held.attempt);
            match action {
                HolderAction::Write { record, expect } => {
                    self.packets.push(Packet::Write { from, task, record, expect });
                }
                HolderAction::Read { nonce } => {
                    self.packets.push(Packet::Read { from, task, nonce });
                }
                HolderAction::Ack => self.packets.push(Packet::Ack { copy: held.acks }),
                HolderAction::Run(members) => {
                    let killed = held.killed.and(members);
                    assert!(killed.is_empty(), "task {task} begins after it was killed");
                    held.runs = members;
                    members.iter().for_each(|member| self.began((task, member), attempt));
                }
                HolderAction::Refuse(members) => {
                    let event = HolderEvent::Ran(members);
                    self.packets.push(Packet::ToHolder { instance, copy, event });
                }
                HolderAction::End(members) => {
                    held.runs = held.runs.without(members);
                    let event = HolderEvent::Ran(members);
                    self.packets.push(Packet::ToHolder { instance, copy, event });
                }
                HolderAction::Forget => {
                    assert!(held.runs.is_empty(), "task {task} is forgotten and runs on");
                    agent.held.retain(|held| held.copy != copy);
                }
            }
        }
    }

    /// An agent gets a copy of a message.
    fn deliver(&mut self, at: usize, queued: &QueuedCopy) {
        let (claim, seed) = (self.agents[at].claim(), self.rng.u64(..));
        let input = self.has_name.then_some(queued.task as u64);
        let agent = &mut self.agents[at];
        if agent.is_stopped || agent.is_dead {
            return;
        }
        let members = Members::first(self.owners[queued.task].members.len());
        let (holder, action) =
            TaskHolder::new(queued.attempt, queued.seq, members, input, claim, seed);
        // The same message may be delivered several times.
        self.server.copies += 1;
        let (task, attempt, copy, acks) =
            (queued.task, queued.attempt, self.server.copies, queued.copy);
        agent.held.push(HeldDelivery {
            task,
            attempt,
            copy,
            acks,
            holder,
            runs: Members::default(),
            killed: Members::default(),
        });
        self.act_for_holder(at, copy, vec![action]);
    }
}

impl SimAgent {
    fn new(rng: &mut fastrand::Rng) -> Self {
        let instance = format!("{:016x}", rng.u64(..));
        Self { instance, is_stopped: false, is_dead: false, held: Vec::new() }
    }

    fn claim(&self) -> HostClaim {
        let instance = self.instance.clone();
        HostClaim { instance, host: "host".to_owned(), lease_ms: 1000 }
    }
}
