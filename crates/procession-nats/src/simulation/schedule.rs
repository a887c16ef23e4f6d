//! What happens, at random: first chaos, then calm, in which every task must end.

use super::{HostsWorld, Packet, ScheduleCounts, SimAgent};
use crate::cas_write::WriteReply;
use crate::holder::HolderEvent;
use crate::members::Members;
use crate::owner::OwnerEvent;

/// Runs one schedule to its end.
///
/// # Panics
///
/// If a law is broken; the message has the seed.
pub fn run(seed: u64) -> ScheduleCounts {
    let mut world = HostsWorld::new(seed);
    for task in 0..world.owners.len() {
        world.tell_owner(task, OwnerEvent::Submitted);
    }
    let chaos = world.rng.u64(0..400);
    for _ in 0..chaos {
        world.chaotic_step();
        world.check();
    }
    world.calm_down();
    for _ in 0..20_000 {
        if world.tasks.iter().all(|task| task.end.is_some()) {
            world.holders_end();
            world.afterwards();
            return world.counts;
        }
        world.calm_step();
        world.check();
    }
    panic!("schedule {seed}: tasks never end: {world:#?}");
}

impl HostsWorld {
    fn check(&mut self) {
        self.counts.steps += 1;
        self.check_records();
        self.check_runs();
        self.check_claims();
    }

    fn chaotic_step(&mut self) {
        match self.rng.u8(0..100) {
            0..40 => self.deliver_packet(),
            40..45 => self.lose_packet(),
            45..48 => self.double_packet(),
            48..55 => self.time_out(),
            55..68 => self.deliver_copy(),
            68..78 => self.finish_run(),
            78..81 => self.crash_or_fence(),
            81..84 => self.stop_or_continue(),
            84..87 => self.start_again(),
            87..91 => self.declare_lost(),
            91..94 => self.cancel(),
            94..96 => self.spoil_queue(),
            96..98 => self.restart_server(),
            98 if self.has_name => self.follow(),
            98 => self.read_late(),
            _ => self.reconcile(),
        }
    }

    fn calm_step(&mut self) {
        match self.rng.u8(0..100) {
            0..60 => self.deliver_packet(),
            60..75 => self.deliver_copy(),
            75..85 => self.finish_run(),
            85..90 => self.time_out(),
            90..95 => self.declare_lost(),
            _ => self.reconcile(),
        }
    }

    /// All agents live, and those that had lost their leases start again.
    fn calm_down(&mut self) {
        for at in 0..self.agents.len() {
            self.agents[at].is_stopped = false;
            if self.agents[at].is_dead {
                self.agents[at] = SimAgent::new(&mut self.rng);
            } else if self.server.without_lease.contains(&self.agents[at].instance) {
                self.fence(at);
            }
        }
    }

    /// No agent holds a task for ever that nobody waits for.
    fn holders_end(&mut self) {
        for _ in 0..20_000 {
            if self.agents.iter().all(|agent| agent.held.is_empty()) {
                return;
            }
            match self.rng.u8(0..4) {
                0 => self.finish_run(),
                1 => self.time_out(),
                _ => self.deliver_packet(),
            }
            self.check();
        }
        panic!("holders never end: {self:#?}");
    }

    /// Records are removed, and whatever is still on its way arrives: nothing may begin.
    fn afterwards(&mut self) {
        self.server.removed = (0..self.owners.len()).collect();
        // A coordinator that does not have its job any more sends nothing.
        self.owners.iter_mut().for_each(|owned| owned.stale = None);
        let begun = self.counts.begun;
        let back = std::mem::take(&mut self.server.acked);
        self.server.queue.extend(back);
        for copy in self.server.queue.clone() {
            let at = self.rng.usize(0..self.agents.len());
            self.deliver(at, &copy);
        }
        for _ in 0..2_000 {
            self.deliver_packet();
        }
        assert_eq!(self.counts.begun, begun, "a task began after its records were removed");
    }

    fn any_packet(&mut self) -> Option<usize> {
        (!self.packets.is_empty()).then(|| self.rng.usize(0..self.packets.len()))
    }

    fn deliver_packet(&mut self) {
        if let Some(at) = self.any_packet() {
            let packet = self.packets.swap_remove(at);
            self.arrive(packet);
        }
    }

    fn lose_packet(&mut self) {
        if let Some(at) = self.any_packet()
            && !is_within_an_agent(&self.packets[at])
        {
            self.packets.swap_remove(at);
        }
    }

    /// Requests too: one that was sent again is the same as a doubled one.
    fn double_packet(&mut self) {
        if let Some(at) = self.any_packet() {
            let packet = self.packets[at].clone();
            self.packets.push(packet);
        }
    }

    /// Somebody who waits for an answer gives up; the answer may still come.
    fn time_out(&mut self) {
        let task = self.rng.usize(0..self.owners.len());
        let owner = &self.owners[task].owner;
        let event = match (owner.writes(), owner.publishes()) {
            (Some(nonce), _) => Some(OwnerEvent::Replied { nonce, reply: WriteReply::Unknown }),
            (_, Some(seq)) => Some(OwnerEvent::Published { seq, is_known: false }),
            _ => None,
        };
        if let Some(event) = event {
            self.tell_owner(task, event);
        }
        let at = self.rng.usize(0..self.agents.len());
        let agent = &self.agents[at];
        let waiting = agent.held.iter().filter_map(|held| Some((held.copy, held.holder.writes()?)));
        let waiting: Vec<_> = waiting.collect();
        if !waiting.is_empty() {
            let (copy, nonce) = waiting[self.rng.usize(0..waiting.len())];
            let instance = self.agents[at].instance.clone();
            let reply = WriteReply::Unknown;
            self.tell_holder(&instance, copy, HolderEvent::Replied { nonce, reply });
        }
    }

    fn deliver_copy(&mut self) {
        if self.server.queue.is_empty() {
            return;
        }
        let queued = self.server.queue[self.rng.usize(0..self.server.queue.len())].clone();
        let at = self.rng.usize(0..self.agents.len());
        self.deliver(at, &queued);
    }

    fn finish_run(&mut self) {
        let at = self.rng.usize(0..self.agents.len());
        let agent = &mut self.agents[at];
        if agent.is_dead || agent.held.is_empty() {
            return;
        }
        let held = self.rng.usize(0..agent.held.len());
        let held = &mut agent.held[held];
        let runs: Vec<_> = held.runs.iter().collect();
        if !runs.is_empty() {
            // The workers of an agent that is stopped run on.
            let (copy, instance) = (held.copy, agent.instance.clone());
            let ended = Members::one(runs[self.rng.usize(0..runs.len())]);
            held.runs = held.runs.without(ended);
            self.packets.push(Packet::ToHolder { instance, copy, event: HolderEvent::Ran(ended) });
        }
    }

    fn fence(&mut self, at: usize) {
        let copies: Vec<_> = self.agents[at].held.iter().map(|held| held.copy).collect();
        let instance = self.agents[at].instance.clone();
        for copy in copies {
            self.tell_holder(&instance, copy, HolderEvent::Fenced);
        }
        self.server.without_lease.push(instance);
        self.agents[at] = SimAgent::new(&mut self.rng);
    }

    fn crash_or_fence(&mut self) {
        let at = self.rng.usize(0..self.agents.len());
        if self.agents[at].is_dead || self.agents[at].is_stopped {
            return;
        }
        if self.rng.bool() {
            return self.fence(at);
        }
        self.server.without_lease.push(self.agents[at].instance.clone());
        self.agents[at].is_dead = true;
        self.agents[at].held.clear();
    }

    /// An agent that is stopped does not renew its lease. When it goes on, it looks at the clock before it
    /// does anything else.
    fn stop_or_continue(&mut self) {
        let at = self.rng.usize(0..self.agents.len());
        let agent = &mut self.agents[at];
        if agent.is_dead {
            return;
        }
        agent.is_stopped = !agent.is_stopped;
        if agent.is_stopped {
            self.server.without_lease.push(agent.instance.clone());
        } else {
            self.fence(at);
        }
    }

    fn start_again(&mut self) {
        let at = self.rng.usize(0..self.agents.len());
        if self.agents[at].is_dead {
            self.agents[at] = SimAgent::new(&mut self.rng);
        }
    }

    fn declare_lost(&mut self) {
        let task = self.rng.usize(0..self.owners.len());
        let owned = &self.owners[task];
        let stale = owned.stale.as_ref().map(|(coordinator, owner)| (*coordinator, owner));
        let owners: Vec<_> = stale.into_iter().chain([(self.coordinators, &owned.owner)]).collect();
        let (coordinator, owner) = owners[self.rng.usize(0..owners.len())];
        let Some(claim) = owner.claim() else { return };
        let instance = claim.instance.clone();
        if self.server.without_lease.contains(&instance) {
            self.tell_owner_of(coordinator, task, OwnerEvent::InstanceLost(instance));
        }
    }

    fn cancel(&mut self) {
        let task = self.rng.usize(0..self.tasks.len());
        let task = &mut self.tasks[task];
        if task.wants_cancel {
            task.was_cancelled = true;
            let (owner, member) = task.place;
            self.tell_owner(owner, OwnerEvent::Cancelled(Members::one(member)));
        }
    }

    /// A server that does not lead any more answers with an earlier record, as if the later ones were lost.
    fn read_late(&mut self) {
        let task = self.rng.usize(0..self.owners.len());
        let owner = &self.owners[task].owner;
        let Some(records) = self.server.history.get(&task).filter(|_| owner.claim().is_some())
        else {
            return;
        };
        let (known, at) = (owner.seq(), self.rng.usize(0..records.len()));
        let event = OwnerEvent::read(known, records[at].clone());
        self.tell_owner(task, event);
    }

    fn follow(&mut self) {
        let is_killed = self.rng.bool();
        self.attach(is_killed);
    }

    fn spoil_queue(&mut self) {
        if self.server.queue.is_empty() {
            return;
        }
        let at = self.rng.usize(0..self.server.queue.len());
        if self.rng.bool() {
            self.server.queue.swap_remove(at);
        } else {
            let mut again = self.server.queue[at].clone();
            self.server.copies += 1;
            again.copy = self.server.copies;
            self.server.queue.push(again);
        }
    }

    /// What was on its way is lost, and acknowledged messages come back.
    fn restart_server(&mut self) {
        self.packets.retain(is_within_an_agent);
        let back = std::mem::take(&mut self.server.acked);
        self.server.queue.extend(back);
    }

    /// What a coordinator does from time to time: it reads the latest record, and looks for the message.
    fn reconcile(&mut self) {
        let task = self.rng.usize(0..self.owners.len());
        if let Some(stored) = self.server.latest(task).cloned() {
            self.tell_owner(task, OwnerEvent::Observed(stored));
        }
        let owner = &self.owners[task].owner;
        let Some(seq) = owner.queued() else { return };
        let is_there = self.server.queue.iter().any(|it| it.task == task && it.seq == seq);
        if !is_there {
            self.tell_owner(task, OwnerEvent::MessageGone);
        }
        // A request to end a task may be lost, so it is repeated.
        let owner = &self.owners[task].owner;
        if owner.claim().is_some() {
            self.tell_owner(task, OwnerEvent::Cancelled(owner.cancelled()));
        }
    }
}

fn is_within_an_agent(packet: &Packet) -> bool {
    matches!(packet, Packet::ToHolder { event: HolderEvent::Ran(_), .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_random_schedules_no_task_is_lost_or_begun_too_often_and_no_late_result_counts() {
        let mut all = ScheduleCounts::default();
        for seed in 0..1_000 {
            let counts = std::panic::catch_unwind(|| run(seed));
            let counts = counts.unwrap_or_else(|_| panic!("in schedule {seed}"));
            all.steps += counts.steps;
            all.begun += counts.begun;
            all.done += counts.done;
            all.lost += counts.lost;
            all.cancelled += counts.cancelled;
            all.refused += counts.refused;
            all.attached += counts.attached;
            all.early += counts.early;
            all.again += counts.again;
        }
        let happened =
            [all.done, all.lost, all.cancelled, all.refused, all.attached, all.early, all.again];
        assert!(happened.iter().all(|number| *number > 50), "{all:?}");
    }
}
