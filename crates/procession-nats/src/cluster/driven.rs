//! [`DrivenTask`]: what the driver knows of a task that has not ended, or of a bundle.

use std::sync::Arc;
use std::time::Instant;

use procession::{RemotePromise, TaskId, TaskOptions};

use super::said::HeardTask;
use crate::members::Members;
use crate::message::Body;
use crate::names::QueueLane;
use crate::owner::TaskOwner;

/// One task, or the tasks of a bundle, with one owner.
pub(super) struct DrivenTask {
    pub(super) owner: TaskOwner,
    /// `None`: the member has ended.
    pub(super) members: Vec<Option<DrivenMember>>,
    pub(super) lane: QueueLane,
    /// The number of tasks in its message; each task of a chunk counts.
    pub(super) tasks: usize,
    /// The hash of its body, if the job has a name.
    pub(super) input: Option<u64>,
    pub(super) is_entering: bool,
    /// It was in a bundle before, and must not be in another one.
    pub(super) is_alone: bool,
    /// The server has refused all writes since then.
    pub(super) refused_since: Option<Instant>,
    /// How often the queue has lost its message.
    pub(super) requeued: u32,
}

/// A task that has not ended.
pub(super) struct DrivenMember {
    pub(super) task_id: TaskId,
    pub(super) name: String,
    pub(super) body: Arc<Body>,
    pub(super) options: TaskOptions,
    pub(super) promise: RemotePromise,
    /// The number of tasks: more than one for a chunk.
    pub(super) tasks: usize,
    /// The lines and values that the task has sent up to now.
    pub(super) heard: HeardTask,
}

/// A message that is in the queue.
#[derive(Debug)]
pub(super) struct WaitingMessage {
    pub(super) since: Instant,
    /// The number of tasks and chunks in it.
    pub(super) members: usize,
}

impl DrivenTask {
    pub(super) fn new(owner: TaskOwner, member: DrivenMember) -> Self {
        let lane = QueueLane::of_priority(member.options.priority_or_default());
        Self {
            owner,
            tasks: member.tasks,
            members: vec![Some(member)],
            lane,
            input: None,
            is_entering: false,
            is_alone: false,
            refused_since: None,
            requeued: 0,
        }
    }

    /// The member that is this task.
    pub(super) fn member(&self, id: TaskId) -> Option<Members> {
        let is_it = |member: &Option<DrivenMember>| {
            member.as_ref().is_some_and(|member| member.task_id == id)
        };
        self.members.iter().position(is_it).map(Members::one)
    }
}
