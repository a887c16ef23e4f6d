//! Runs one task, from its body to its result.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use procession::{Engine, RemoteResult, TaskError, TaskId};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::AgentShared;
use super::telling::{self, telling};
use crate::link::{NoAnswer, PutError};
use crate::message::{Body, QueuedMember};

/// How long the agent tries to fetch a large body, or to store one.
const MOVING: Duration = Duration::from_secs(120);

/// How a run has ended.
#[derive(Debug)]
pub(super) enum HeldEnd {
    /// With a result or an error of the task.
    Result(Body),
    /// The lease was over before it began.
    NotBegun,
    /// This host's process pool cannot run tasks any more. That is no result of the task.
    PoolBroken,
}

/// The stage of the run of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunStage {
    /// Its body is being fetched.
    Fetching,
    /// The pool has it: the id of the first task, and the number of tasks.
    InPool(TaskId, u64),
    /// It was ended. If it had not begun, it does not begin.
    Ended,
}

/// Where a task comes from.
#[derive(Debug, Clone)]
pub(super) struct RunPlace {
    pub(super) job: String,
    /// The instance of the agent that has the claim.
    pub(super) instance: String,
    pub(super) id: u64,
    pub(super) attempt: u32,
    /// Its index in its bundle, and the number of all members.
    pub(super) member: usize,
    pub(super) members: usize,
}

impl RunPlace {
    pub(super) fn body_of(&self, result: &RemoteResult) -> Body {
        let Self { job, id, attempt, member, members, .. } = self;
        Body::of_result(result, *members, || format!("{job}.{id}.{attempt}.{member}.result"))
    }
}

/// A task that this agent runs, or may run.
#[derive(Debug, Clone)]
pub(super) struct HeldRun {
    place: Arc<RunPlace>,
    head: Arc<QueuedMember>,
    inline: Bytes,
    stage: Arc<Mutex<RunStage>>,
}

impl HeldRun {
    pub(super) fn new(place: RunPlace, head: QueuedMember, inline: Bytes) -> Self {
        let stage = Arc::new(Mutex::new(RunStage::Fetching));
        Self { place: Arc::new(place), head: Arc::new(head), inline, stage }
    }

    pub(super) fn body_of(&self, result: &RemoteResult) -> Body {
        self.place.body_of(result)
    }

    pub(super) fn cancelled(&self) -> Body {
        self.body_of(&RemoteResult::of_error(TaskError::Cancelled))
    }

    /// Fetches the task, runs it in the pool, and stores a large result in the bucket.
    pub(super) async fn begin(self, shared: Arc<AgentShared>) -> HeldEnd {
        let Some((result, said)) = self.run(&shared).await else {
            return HeldEnd::NotBegun;
        };
        if let Some(TaskError::PoolBroken(error)) = result.error() {
            shared.set_broken(error.clone());
            return HeldEnd::PoolBroken;
        }
        let result = result.on_host(&shared.host, self.place.attempt.saturating_sub(1));
        let mut body = self.body_of(&result);
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
        HeldEnd::Result(self.body_of(&error))
    }

    /// Ends the run, or prevents its begin. Returns true if it had not begun: its result is then
    /// [`TaskError::Cancelled`]. With `is_fenced` the task has no grace period.
    pub(super) fn end(&self, shared: &AgentShared, is_fenced: bool) -> bool {
        let before = {
            let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *stage, RunStage::Ended)
        };
        match before {
            RunStage::InPool(id, tasks) if is_fenced => shared.pool.kill_remote(id, tasks),
            RunStage::InPool(id, tasks) => {
                if let Some(canceller) = shared.pool.canceller() {
                    let ids = (id.number()..id.number() + tasks).rev().map(TaskId::of_number);
                    for id in ids {
                        canceller.cancel(id);
                    }
                }
            }
            RunStage::Fetching => return true,
            RunStage::Ended => {}
        }
        false
    }

    /// The result, and the number of lines and values that the task sent before it. `None`: the lease was over when the
    /// task was to begin.
    async fn run(&self, shared: &AgentShared) -> Option<(RemoteResult, u64)> {
        let Self { place, head, inline, stage } = self;
        let of_error = |error| Some((RemoteResult::of_error(error), 0));
        let body =
            keep_trying(|| Body::arrived(head.body.clone(), inline.clone(), &shared.link)).await;
        let task = match body.map(|body| body.to_task()) {
            Ok(Ok(task)) => task,
            Ok(Err(error)) => return of_error(error),
            Err(NoAnswer(reason)) => return of_error(undelivered("task", reason)),
        };
        let task = task.begun_before(place.attempt.saturating_sub(1));
        let (done, mut result) = oneshot::channel();
        let (teller, mut told) = telling();
        {
            // Under the lock: a request to end the task finds it either not begun or in the pool.
            let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
            if *stage == RunStage::Ended {
                return of_error(TaskError::Cancelled);
            }
            // The fetch of its body may have taken long.
            if !shared.has_lease_now(&place.instance) {
                return None;
            }
            let done = move |result| drop(done.send(result));
            let tasks = task.tasks() as u64;
            let tell = move |progress| teller.tell(progress);
            let id = shared.pool.run_remote(&shared.registry, task, head.options, tell, done);
            *stage = RunStage::InPool(id, tasks);
        }
        let result = loop {
            tokio::select! {
                Some(next) = told.next() => telling::send(shared, place, next).await,
                result = &mut result => break result,
            }
        };
        // The task sends nothing after its result.
        while let Some(next) = told.next_now() {
            telling::send(shared, place, next).await;
        }
        let result = result.unwrap_or_else(|_| RemoteResult::of_error(TaskError::Cancelled));
        Some((result, told.count()))
    }
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

pub(super) fn undelivered(what: &str, reason: String) -> TaskError {
    TaskError::Undelivered { what: what.to_owned(), reason }
}
