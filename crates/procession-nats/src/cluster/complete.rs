//! The ends of tasks: results are fetched and decoded, and futures completed, by others than the driver.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use procession::{PoolError, RemotePromise, RemoteResult, TaskError, TaskId};
use tokio::time::{sleep, timeout};

use super::driven::{DrivenMember, DrivenTask};
use super::driver::ClusterDriver;
use super::said::LineQueue;
use super::shared::ClusterShared;
use crate::link::{Link, NoAnswer};
use crate::members::Members;
use crate::message::{Body, BodyHead, split_results};
use crate::owner::{MemberFate, OwnedEnd};

/// How long a large result is asked for.
const FETCHING: Duration = Duration::from_secs(120);
/// How long the removal of a body may take. A body that is not removed stays in the bucket.
const REMOVING: Duration = Duration::from_secs(10);

/// A task, or a chunk with this number of tasks, whose future is to be completed.
pub(super) struct EndedTask {
    /// Of the first one.
    pub(super) id: TaskId,
    pub(super) tasks: usize,
    pub(super) lines: Option<Arc<LineQueue>>,
    pub(super) promise: RemotePromise,
}

impl ClusterDriver {
    /// Takes the results of the members `all`, which follow a record. Those of the members `new` have come for the
    /// first time.
    pub(super) fn results(&mut self, id: u64, new: Members, all: Members, body: Option<&Bytes>) {
        let bodies = body.and_then(split_results).unwrap_or_default();
        let attempt = self.tasks.get(&id).map_or(0, |task| task.owner.attempt());
        for (member, body) in all.iter().zip(bodies) {
            if new.has(member)
                && let Some(task) = self.remove_member(id, member)
            {
                self.complete_with_result((id, member), attempt, task, body);
            }
        }
        // The members without a result in the message.
        for member in new.iter() {
            if let Some(task) = self.remove_member(id, member) {
                self.complete_without_result(id, task, OwnedEnd::Done);
            }
        }
    }

    /// Ends the members that have no result, or queues them again.
    pub(super) fn ended(&mut self, id: u64, end: &OwnedEnd) {
        let Some(DrivenTask { owner, members, .. }) = self.remove_task(id) else { return };
        for (index, member) in members.into_iter().enumerate() {
            let Some(member) = member else { continue };
            match owner.fate(index, end, self.shared.attempts) {
                MemberFate::Ended(end) => self.complete_without_result(id, member, end),
                MemberFate::Again { attempt } => self.again(member, attempt, owner.attempt()),
            }
        }
    }

    fn complete_without_result(&mut self, id: u64, task: DrivenMember, end: OwnedEnd) {
        if end != OwnedEnd::OtherTask {
            self.remove_body(&task.body.head);
        }
        let (tasks, name) = (task.tasks, task.name.clone());
        let error = match end {
            OwnedEnd::Done => crate::message::undecodable("output", &"its record has no body"),
            OwnedEnd::Cancelled => TaskError::Cancelled,
            OwnedEnd::HostLost { host, attempts } => {
                self.shared.count(|stats| stats.lost += tasks as u64);
                TaskError::HostLost { task: name, host, attempts }
            }
            OwnedEnd::OtherTask => {
                let job = self.shared.job.clone();
                TaskError::OtherTask { task: name, job, index: id }
            }
            OwnedEnd::RecordLost => {
                let why = "the server has lost the record of the task, which may have begun or not";
                TaskError::PoolBroken(PoolError::Broker(why.to_owned()))
            }
        };
        self.complete_with_error(task.into(), error);
    }

    pub(super) fn complete_with_error(&self, ended: EndedTask, error: TaskError) {
        ended.deliver(&self.shared, move |promise| promise.fail(error));
    }

    fn complete_with_result(
        &mut self,
        place: (u64, usize),
        attempt: u32,
        task: DrivenMember,
        (head, inline): (BodyHead, Bytes),
    ) {
        self.remove_body(&task.body.head);
        if let Some(time) = head.typical_ns.map(Duration::from_nanos) {
            self.shared.run_time.note(time);
            let bytes = head.len().unwrap_or(usize::MAX).div_ceil(task.tasks.max(1));
            self.costs.note(&task.name, time, bytes);
        }
        if let Some((task, head, inline)) = self.waits_for_said(place, attempt, task, head, inline)
        {
            self.complete_heard(task, head, inline);
        }
    }

    /// All lines and values of the task have come, or do not come any more.
    pub(super) fn complete_heard(&mut self, task: DrivenMember, head: BodyHead, inline: Bytes) {
        let ended = EndedTask::from(task);
        if head.object.is_none() {
            return ended.deliver(&self.shared, move |promise| {
                promise.complete(match head.len() == Some(inline.len()) {
                    true => Body { head, bytes: inline }.to_result(),
                    false => RemoteResult::of_error(crate::message::undecodable(
                        "output",
                        &"its record is cut",
                    )),
                });
            });
        }
        let (link, shared) = (self.link.clone(), Arc::clone(&self.shared));
        // Those of a job that has a name are removed with the job.
        let is_kept = self.named.is_some();
        self.errands.spawn(async move {
            let result = fetch(&link, &head, inline).await;
            ended.deliver(&shared, move |promise| promise.complete(result));
            if !is_kept {
                remove(&link, &head).await;
            }
        });
    }

    fn remove_body(&mut self, head: &BodyHead) {
        if head.object.is_some() {
            let (link, head) = (self.link.clone(), head.clone());
            self.errands.spawn(async move { remove(&link, &head).await });
        }
    }

    /// Lets a future fail whose task is not known to have ended.
    pub(super) fn give_up(&mut self, id: u64, error: TaskError) {
        let task = self.remove_task(id);
        for member in task.into_iter().flat_map(|task| task.members).flatten() {
            // Another coordinator may need the body.
            if self.named.is_none() {
                self.remove_body(&member.body.head);
            }
            self.complete_with_error(member.into(), error.clone());
        }
    }

    /// Removes the record and the message of a task, so that no agent begins it: a claim expects its record.
    /// Also a server whose storage is full removes.
    pub(super) fn forget_on_server(&mut self, id: u64) {
        let Some((lane, tasks)) = self.tasks.get(&id).map(|task| (task.lane, task.tasks)) else {
            return;
        };
        let (link, shared) = (self.link.clone(), Arc::clone(&self.shared));
        self.errands.spawn(async move {
            let names = &link.names;
            let removed = async {
                let (record, task) = (
                    names.record(&shared.job, id),
                    names.task(&shared.build, lane, &shared.job, (id, tasks)),
                );
                for (stream, subject) in [(names.records(), record), (names.tasks(), task)] {
                    while link.purge(&stream, &subject).await.is_err() {
                        sleep(Duration::from_secs(1)).await;
                    }
                }
            };
            let _ = timeout(REMOVING, removed).await;
        });
    }

    /// Lets all futures fail, also those of tasks that have not entered the window.
    pub(super) fn give_up_all(&mut self, error: &TaskError) {
        self.entering.clear();
        self.give_up_unheard(Duration::ZERO);
        let ids: Vec<_> = self.tasks.keys().copied().collect();
        for id in ids {
            self.give_up(id, error.clone());
        }
    }

    /// Lets all futures fail, and refuses what comes.
    pub(super) fn break_all(&mut self, error: PoolError) {
        self.shared.set_broken(error.clone());
        self.upkeep.broken = Some(error.clone());
        self.give_up_all(&TaskError::PoolBroken(error.clone()));
        self.shared.tell(super::ClusterEvent::Broken(error));
    }

    /// Removes what the job has left on the servers, if they answer soon.
    pub(super) async fn clean_up(&self) {
        if !self.link.is_connected() || self.upkeep.broken.is_some() {
            return;
        }
        let job = &self.shared.job;
        match &self.named {
            Some(named) => named.end(&self.link, job).await,
            None => drop(self.link.remove_job(job).await),
        }
    }
}

impl From<DrivenMember> for EndedTask {
    fn from(task: DrivenMember) -> Self {
        let DrivenMember { task_id, tasks, promise, heard, .. } = task;
        Self { id: task_id, tasks, lines: heard.into_lines(), promise }
    }
}

impl EndedTask {
    /// After the lines of the task.
    fn deliver(
        self,
        shared: &Arc<ClusterShared>,
        complete: impl FnOnce(RemotePromise) + Send + 'static,
    ) {
        let Self { id, tasks, lines, promise } = self;
        let known = Arc::clone(shared);
        let completion = Box::new(move || {
            known.finished(id, tasks);
            complete(promise);
        });
        match lines {
            Some(lines) => lines.push(shared, completion),
            None => shared.delivery.push(completion),
        }
    }
}

async fn fetch(link: &Link, head: &BodyHead, inline: Bytes) -> RemoteResult {
    let deadline = Instant::now() + FETCHING;
    loop {
        // Each attempt waits for the connection.
        let left = deadline.saturating_duration_since(Instant::now());
        let arrived = timeout(left, Body::arrived(head.clone(), inline.clone(), link)).await;
        let late = |_| Err(NoAnswer("it did not arrive in time".to_owned()));
        match arrived.unwrap_or_else(late) {
            Ok(body) => return body.to_result(),
            Err(NoAnswer(reason)) if Instant::now() >= deadline => {
                let what = "output".to_owned();
                return RemoteResult::of_error(TaskError::Undelivered { what, reason });
            }
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Removes a body. If no server answers, it stays in the bucket.
async fn remove(link: &Link, head: &BodyHead) {
    let Some(name) = &head.object else { return };
    let removed = async {
        while link.remove_body(name).await.is_err() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    let _ = timeout(REMOVING, removed).await;
}
