//! Holds one task, or a bundle: drives a [`TaskHolder`] from the delivery of its message to its results.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Message, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use procession::RemoteResult;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use super::AgentShared;
use super::run::{HeldEnd, HeldRun, RunPlace, undelivered};
use crate::cas_write::WriteReply;
use crate::holder::{HolderAction, HolderEvent, TaskHolder};
use crate::link::{Answer, RecordMessage};
use crate::members::Members;
use crate::message::{Body, QueuedHead, join};
use crate::names::job_and_id;
use crate::task_record::{HostClaim, RecordedState, TaskRecord};

/// After this number of refusals in a row, errors are written in place of the results.
const MOST_FAULTS: u32 = 5;

type Op<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The head of a message of the queue, and the bytes behind it that belong to each member.
pub(super) type Delivered = (QueuedHead, Vec<Bytes>);

/// A task or a bundle that this agent has, or tries to get.
struct HeldTask {
    shared: Arc<AgentShared>,
    job: String,
    id: u64,
    members: Vec<HeldMember>,
    ack: Option<Subject>,
    holder: TaskHolder,
    /// The write or read whose answer is awaited: its nonce, and whether the server refused.
    write: Option<Op<(u64, WriteReply, bool)>>,
    runs: FuturesUnordered<Op<(usize, HeldEnd)>>,
    faults: u32,
    /// A coordinator may give it to another host.
    is_fenced: bool,
}

struct HeldMember {
    run: HeldRun,
    result: Option<Body>,
}

/// Counts tasks as held until it is dropped.
pub(super) struct HeldCount {
    shared: Arc<AgentShared>,
    permit: OwnedSemaphorePermit,
}

impl HeldCount {
    pub(super) fn new(shared: &Arc<AgentShared>, permit: OwnedSemaphorePermit) -> Self {
        shared.held.fetch_add(permit.num_permits(), Ordering::SeqCst);
        Self { shared: Arc::clone(shared), permit }
    }
}

impl Drop for HeldCount {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(self.permit.num_permits(), Ordering::SeqCst);
    }
}

/// `delivered` is the content of the message; `None` if it is not a task.
pub(super) async fn hold(message: Message, delivered: Option<Delivered>, count: HeldCount) {
    hold_counted(&count.shared, message, delivered).await;
}

async fn hold_counted(shared: &Arc<AgentShared>, message: Message, delivered: Option<Delivered>) {
    let (mut instance, mut kills) = (shared.instance.subscribe(), shared.kills.subscribe());
    let own = instance.borrow_and_update().clone();
    // The lease may have ended by the clock before the lease task has noted it.
    if !own.has_lease || !shared.has_lease_now(&own.id) {
        return; // It is delivered again.
    }
    let reply = message.reply.clone();
    let held = delivered.and_then(|it| HeldTask::delivered(shared, &own.id, message, it));
    let Some((mut task, first)) = held else {
        // Nobody can run it.
        return acknowledge(shared, reply.as_ref()).await;
    };
    let mut actions = VecDeque::from([first]);
    loop {
        while let Some(action) = actions.pop_front() {
            // This process may have been stopped since the message came, or since it asked for the claim.
            let begins = matches!(action, HolderAction::Run(_)) || task.is_claim(&action);
            if begins && !shared.has_lease_now(&own.id) {
                actions.extend(task.holder.handle(HolderEvent::Fenced));
            } else {
                task.act(action).await;
            }
        }
        if task.holder.is_over() {
            return;
        }
        let event = tokio::select! {
            (nonce, reply, is_fault) = ready(&mut task.write) => {
                task.write = None;
                task.count_fault(is_fault);
                HolderEvent::Replied { nonce, reply }
            }
            Some(end) = task.runs.next() => task.ran(end),
            kill = kills.recv() => match kill {
                Ok(kill) if kill.job == task.job && kill.id == task.id => {
                    HolderEvent::Kill(kill.members)
                }
                // One that was missed is sent again.
                Ok(_) | Err(RecvError::Lagged(_)) => continue,
                // The sender is as long there as `shared`.
                Err(RecvError::Closed) => HolderEvent::Fenced,
            },
            Ok(_) = instance.wait_for(|now| now.id != own.id) => HolderEvent::Fenced,
        };
        task.is_fenced |= matches!(event, HolderEvent::Fenced);
        actions.extend(task.holder.handle(event));
    }
}

/// The output of a future that may not be there.
async fn ready<T>(op: &mut Option<Op<T>>) -> T {
    match op {
        Some(op) => op.await,
        None => std::future::pending().await,
    }
}

/// A lost acknowledgement means another delivery, whose claim is refused.
async fn acknowledge(shared: &AgentShared, reply: Option<&Subject>) {
    if let Some(reply) = reply {
        let _ = shared.link.client.publish(reply.clone(), "+ACK".into()).await;
    }
}

impl HeldTask {
    /// With its first action. `None`: the message is none of a task.
    fn delivered(
        shared: &Arc<AgentShared>,
        instance: &str,
        message: Message,
        (head, inline): Delivered,
    ) -> Option<(Self, HolderAction)> {
        let (job, id) = job_and_id(&message.subject)?;
        let (job, shared) = (job.to_owned(), Arc::clone(shared));
        let QueuedHead { attempt, seq, input, members } = head;
        let lease_ms = u64::try_from(shared.lease.as_millis()).unwrap_or(u64::MAX);
        let (instance, host) = (instance.to_owned(), shared.host.clone());
        let claim = HostClaim { instance: instance.clone(), host, lease_ms };
        let (seed, number) = (fastrand::u64(..), members.len());
        let all = Members::first(number);
        let (holder, first) = TaskHolder::new(attempt, seq, all, input, claim, seed);
        let member = |(index, (head, inline))| {
            let (job, instance, member, members) = (job.clone(), instance.clone(), index, number);
            let place = RunPlace { job, instance, id, attempt, member, members };
            HeldMember { run: HeldRun::new(place, head, inline), result: None }
        };
        let members = members.into_iter().zip(inline).enumerate().map(member).collect();
        let task = Self {
            shared,
            job: job.clone(),
            id,
            members,
            ack: message.reply,
            holder,
            write: None,
            runs: FuturesUnordered::new(),
            faults: 0,
            is_fenced: false,
        };
        Some((task, first))
    }

    /// Whether a run would follow from this.
    fn is_claim(&self, action: &HolderAction) -> bool {
        let HolderAction::Write { record, .. } = action else { return false };
        matches!(record.state, RecordedState::Claimed(_)) && record.reported.is_empty()
    }

    async fn act(&mut self, action: HolderAction) {
        match action {
            HolderAction::Write { record, expect } => self.write(record, expect),
            HolderAction::Read { nonce } => self.read(nonce),
            HolderAction::Ack => acknowledge(&self.shared, self.ack.as_ref()).await,
            HolderAction::Run(members) => {
                for member in members.iter() {
                    let begun = self.members[member].run.clone().begin(Arc::clone(&self.shared));
                    self.runs.push(Box::pin(begun.map(move |end| (member, end))));
                }
            }
            HolderAction::Refuse(members) => members.iter().for_each(|it| self.refuse(it)),
            HolderAction::End(members) => {
                for member in members.iter() {
                    if self.members[member].run.end(&self.shared, self.is_fenced) {
                        self.refuse(member);
                    }
                }
            }
            HolderAction::Forget => {}
        }
    }

    fn refuse(&mut self, member: usize) {
        let end = HeldEnd::Result(self.members[member].run.cancelled());
        self.runs.push(Box::pin(std::future::ready((member, end))));
    }

    /// Takes the end of a run, and of all other runs that have ended by now.
    fn ran(&mut self, first: (usize, HeldEnd)) -> HolderEvent {
        let (mut next, mut ran) = (Some(first), Members::default());
        while let Some((member, end)) = next {
            match end {
                HeldEnd::Result(body) => {
                    // The first result of a member counts: a write of it may be on its way.
                    self.members[member].result.get_or_insert(body);
                    ran = ran.or(Members::one(member));
                }
                // If the pool is broken, the claim stays. After the end of the lease another host gets the task.
                HeldEnd::NotBegun | HeldEnd::PoolBroken => return HolderEvent::Fenced,
            }
            next = self.runs.next().now_or_never().flatten();
        }
        HolderEvent::Ran(ran)
    }

    fn write(&mut self, record: TaskRecord, expect: u64) {
        let (shared, job, id) = (Arc::clone(&self.shared), self.job.clone(), self.id);
        let results = record.reported.iter().filter_map(|it| self.members.get(it)?.result.as_ref());
        let results: Vec<_> = results.collect();
        let body = match results.is_empty() {
            true => Vec::new(),
            false => {
                let heads: Vec<_> = results.iter().map(|body| &body.head).collect();
                join(&heads, results.iter().map(|body| body.inline()))
            }
        };
        self.write = Some(Box::pin(async move {
            let nonce = record.nonce;
            match shared.link.write(&job, id, &record, &body, expect).await {
                Answer::Reply(reply) => (nonce, reply, false),
                Answer::Fault(_) => {
                    sleep(Duration::from_millis(500)).await;
                    (nonce, WriteReply::Unknown, true)
                }
            }
        }));
    }

    /// Replaces results that the server refuses by errors, which it may accept.
    fn count_fault(&mut self, is_fault: bool) {
        self.faults = if is_fault { self.faults + 1 } else { 0 };
        if self.faults == MOST_FAULTS {
            for HeldMember { run, result } in &mut self.members {
                let reason = "the NATS server does not take it: too large, or its storage is full";
                let error = undelivered("output", reason.to_owned());
                if let Some(result) = result {
                    *result = run.body_of(&RemoteResult::of_error(error));
                }
            }
        }
    }

    fn read(&mut self, nonce: u64) {
        let (shared, job, id) = (Arc::clone(&self.shared), self.job.clone(), self.id);
        self.write = Some(Box::pin(async move {
            let reply = match shared.link.latest(&job, id).await {
                Ok(Some(RecordMessage { stored, .. })) => WriteReply::Latest(Some(stored)),
                Ok(None) => WriteReply::Latest(None),
                Err(_) => {
                    sleep(Duration::from_millis(100)).await;
                    WriteReply::Unknown
                }
            };
            (nonce, reply, false)
        }));
    }
}
