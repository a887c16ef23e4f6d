//! Holds one task: drives a [`TaskHolder`] from the delivery of its message to its result.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Message, Subject};
use bytes::Bytes;
use procession::{Engine, RemoteResult, TaskError, TaskId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::sleep;

use super::AgentShared;
use super::telling::{self, telling};
use crate::cas_write::WriteReply;
use crate::holder::{HolderAction, HolderEvent, TaskHolder};
use crate::link::{Answer, NoAnswer, PutError, RecordMessage};
use crate::message::{Body, QueuedHead, join, split};
use crate::names::job_and_id;
use crate::task_record::{HostClaim, RecordedState, TaskRecord};

/// How long a large body is asked for, or offered.
const MOVING: Duration = Duration::from_secs(120);
/// How often the server refuses a result, before an error is written in its place.
const MOST_FAULTS: u32 = 5;

type Op<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// A task that this agent has, or tries to get.
struct HeldTask {
    shared: Arc<AgentShared>,
    job: String,
    id: u64,
    head: QueuedHead,
    inline: Bytes,
    ack: Option<Subject>,
    holder: TaskHolder,
    /// The write or read whose answer is awaited: its nonce, and whether the server refused.
    write: Op<(u64, WriteReply, bool)>,
    run: Op<HeldEnd>,
    stage: Arc<Mutex<RunStage>>,
    result: Option<Body>,
    faults: u32,
    /// A coordinator may give it to another host.
    is_fenced: bool,
}

/// How a run has ended.
#[derive(Debug)]
enum HeldEnd {
    /// With a result or an error of the task.
    Result(Body),
    /// The lease was over before it began.
    NotBegun,
    /// This host's process pool cannot run tasks any more. That is no result of the task.
    PoolBroken,
}

/// How far the run of a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunStage {
    /// Its body is on its way.
    Fetching,
    /// The pool has it: the id of the first task, and the number of tasks.
    InPool(TaskId, u64),
    /// It is not to begin.
    Ended,
}

/// A task counts as held as long as this is there.
pub(super) struct HeldCount {
    shared: Arc<AgentShared>,
    _permit: OwnedSemaphorePermit,
}

impl HeldCount {
    pub(super) fn new(shared: &Arc<AgentShared>, permit: OwnedSemaphorePermit) -> Self {
        shared.held.fetch_add(1, Ordering::SeqCst);
        Self { shared: Arc::clone(shared), _permit: permit }
    }
}

impl Drop for HeldCount {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) async fn hold(message: Message, count: HeldCount) {
    hold_counted(&count.shared, message).await;
}

async fn hold_counted(shared: &Arc<AgentShared>, message: Message) {
    let (mut instance, mut kills) = (shared.instance.subscribe(), shared.kills.subscribe());
    let own = instance.borrow_and_update().clone();
    // The lease may have ended by the clock before the lease task has noted it.
    if !own.has_lease || !shared.has_lease_now() {
        return; // It is delivered again.
    }
    let reply = message.reply.clone();
    let Some((mut task, first)) = HeldTask::delivered(shared, &own.id, message) else {
        // Nobody can run it.
        return acknowledge(shared, reply.as_ref()).await;
    };
    let mut actions = VecDeque::from([first]);
    loop {
        while let Some(action) = actions.pop_front() {
            // This process may have been stopped since the message came, or since it asked for the claim.
            let begins = action == HolderAction::Run || task.is_claim(&action);
            if begins && !shared.has_lease_now() {
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
            end = ready(&mut task.run) => {
                task.run = None;
                match end {
                    HeldEnd::Result(body) => {
                        task.result = Some(body);
                        HolderEvent::Ran
                    }
                    HeldEnd::NotBegun => HolderEvent::Fenced,
                    // Its claim is left as it is: when the lease is over, the task is another host's.
                    HeldEnd::PoolBroken => HolderEvent::Fenced,
                }
            }
            kill = kills.recv() => match kill {
                Ok(kill) if kill.job == task.job && kill.id == task.id => HolderEvent::Kill,
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
async fn ready<T>(op: &mut Op<T>) -> T {
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
    ) -> Option<(Self, HolderAction)> {
        let (job, id) = job_and_id(&message.subject)?;
        let (job, shared) = (job.to_owned(), Arc::clone(shared));
        let (head, inline) = split::<QueuedHead>(&message.payload)?;
        let lease_ms = u64::try_from(shared.lease.as_millis()).unwrap_or(u64::MAX);
        let (instance, host) = (instance.to_owned(), shared.host.clone());
        let claim = HostClaim { instance, host, lease_ms };
        let seed = fastrand::u64(..);
        let (holder, first) = TaskHolder::new(head.attempt, head.seq, head.input, claim, seed);
        let task = Self {
            shared,
            job,
            id,
            head,
            inline,
            ack: message.reply,
            holder,
            write: None,
            run: None,
            stage: Arc::new(Mutex::new(RunStage::Fetching)),
            result: None,
            faults: 0,
            is_fenced: false,
        };
        Some((task, first))
    }

    /// Whether a run would follow from this.
    fn is_claim(&self, action: &HolderAction) -> bool {
        let HolderAction::Write { record, .. } = action else { return false };
        matches!(record.state, RecordedState::Claimed(_))
    }

    async fn act(&mut self, action: HolderAction) {
        match action {
            HolderAction::Write { record, expect } => self.write(record, expect),
            HolderAction::Read { nonce } => self.read(nonce),
            HolderAction::Ack => acknowledge(&self.shared, self.ack.as_ref()).await,
            HolderAction::Run => self.run = Some(Box::pin(self.begin())),
            HolderAction::Refuse => self.run = Some(Box::pin(ready_end(self.cancelled()))),
            HolderAction::End => self.end(),
            HolderAction::Forget => {}
        }
    }

    fn write(&mut self, record: TaskRecord, expect: u64) {
        let (shared, job, id) = (Arc::clone(&self.shared), self.job.clone(), self.id);
        let body = match (&record.state, &self.result) {
            (RecordedState::Done, Some(body)) => join(&body.head, body.inline()),
            _ => Vec::new(),
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

    /// A result that the server will not take is replaced by an error that it may.
    fn count_fault(&mut self, is_fault: bool) {
        self.faults = if is_fault { self.faults + 1 } else { 0 };
        if self.faults == MOST_FAULTS && self.result.is_some() {
            let reason = "the NATS server does not take it: too large, or its storage is full";
            let error = undelivered("output", reason.to_owned());
            self.result = Some(self.body_of(&RemoteResult::of_error(error)));
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

    fn body_of(&self, result: &RemoteResult) -> Body {
        let (job, id, attempt) = (&self.job, self.id, self.head.attempt);
        Body::of_result(result, || format!("{job}.{id}.{attempt}.result"))
    }

    fn cancelled(&self) -> Body {
        self.body_of(&RemoteResult::of_error(TaskError::Cancelled))
    }

    /// Fetches the task, runs it in the pool, and puts a large result where it can be got.
    fn begin(&self) -> impl Future<Output = HeldEnd> + Send + 'static {
        let (shared, stage) = (Arc::clone(&self.shared), Arc::clone(&self.stage));
        let (head, inline) = (self.head.clone(), self.inline.clone());
        let (job, id) = (self.job.clone(), self.id);
        async move {
            let object = format!("{job}.{id}.{}.result", head.attempt);
            let Some((result, said)) = run(&shared, &stage, (&job, id), head, inline).await else {
                return HeldEnd::NotBegun;
            };
            if let Some(TaskError::PoolBroken(error)) = result.error() {
                shared.set_broken(error.clone());
                return HeldEnd::PoolBroken;
            }
            let mut body = Body::of_result(&result, || object);
            body.head.said = said;
            let typical = shared.pool.typical_run_time();
            body.head.typical_ns = typical.and_then(|time| time.as_nanos().try_into().ok());
            let store = async || {
                let stored = body.store(&shared.link).await;
                stored.map_err(|(PutError::Refused(why) | PutError::NoAnswer(why))| why)
            };
            let Err(NoAnswer(reason)) = keep_trying(store).await else {
                return HeldEnd::Result(body);
            };
            let error = RemoteResult::of_error(undelivered("output", reason));
            HeldEnd::Result(Body::of_result(&error, String::new))
        }
    }

    /// Ends the run, or sees to it that it does not begin.
    fn end(&mut self) {
        let before = {
            let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *stage, RunStage::Ended)
        };
        match before {
            // There is no time for a grace period.
            RunStage::InPool(id, tasks) if self.is_fenced => {
                self.shared.pool.kill_remote(id, tasks)
            }
            RunStage::InPool(id, tasks) => {
                if let Some(canceller) = self.shared.pool.canceller() {
                    let ids = (id.number()..id.number() + tasks).rev().map(TaskId::of_number);
                    for id in ids {
                        canceller.cancel(id);
                    }
                }
            }
            RunStage::Fetching => {
                self.run = Some(Box::pin(ready_end(self.cancelled())));
            }
            RunStage::Ended => {}
        }
    }
}

fn ready_end(body: Body) -> std::future::Ready<HeldEnd> {
    std::future::ready(HeldEnd::Result(body))
}

/// The result, and how often the task told something before it. `None`: the lease was over when the task was to
/// begin.
async fn run(
    shared: &AgentShared,
    stage: &Mutex<RunStage>,
    (job, id): (&str, u64),
    head: QueuedHead,
    inline: Bytes,
) -> Option<(RemoteResult, u64)> {
    let of_error = |error| Some((RemoteResult::of_error(error), 0));
    let body = keep_trying(|| Body::arrived(head.body.clone(), inline.clone(), &shared.link)).await;
    let task = match body.map(|body| body.to_task()) {
        Ok(Ok(task)) => task,
        Ok(Err(error)) => return of_error(error),
        Err(NoAnswer(reason)) => return of_error(undelivered("task", reason)),
    };
    let (done, mut result) = oneshot::channel();
    let (teller, mut told) = telling();
    {
        // Under the lock, so that a request to end the task finds it here or there.
        let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
        if *stage == RunStage::Ended {
            return of_error(TaskError::Cancelled);
        }
        // Its body may have been on its way for long.
        if !shared.has_lease_now() {
            return None;
        }
        let done = move |result| drop(done.send(result));
        let tasks = task.tasks() as u64;
        let tell = move |progress| teller.tell(progress);
        let id = shared.pool.run_remote(&shared.registry, task, head.options, tell, done);
        *stage = RunStage::InPool(id, tasks);
    }
    let from = (job, id, head.attempt);
    let result = loop {
        tokio::select! {
            Some(next) = told.next() => telling::send(shared, from, next).await,
            result = &mut result => break result,
        }
    };
    // The task tells nothing after its result.
    while let Some(next) = told.next_now() {
        telling::send(shared, from, next).await;
    }
    let result = result.unwrap_or_else(|_| RemoteResult::of_error(TaskError::Cancelled));
    Some((result, told.count()))
}

async fn keep_trying<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, NoAnswer>
where
    F: Future<Output = Result<T, NoAnswer>>,
{
    let deadline = Instant::now() + MOVING;
    loop {
        match attempt().await {
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(200)).await,
            end => return end,
        }
    }
}

fn undelivered(what: &str, reason: String) -> TaskError {
    TaskError::Undelivered { what: what.to_owned(), reason }
}
