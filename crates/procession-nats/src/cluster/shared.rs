//! What the program's threads and the driver share: counters, the table of hosts, events that were reported.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use procession::{
    PoolError, RemoteChunks, RemotePromise, RemoteTask, TaskError, TaskId, TaskOptions,
};

use tokio::sync::mpsc::error::SendError;

use super::chunk_sizes::RunTime;
use super::driver::ClusterNote;
use super::said::OnHostSaid;
use super::{Delivery, UnboundedSender};
use crate::host_lease::{HostLease, HostTable};

/// Something that happened, for [`ClusterBuilder::on_event`](super::ClusterBuilder::on_event).
/// See the example of [`ClusterBuilder`](super::ClusterBuilder).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// Tasks have waited for five seconds, or for the longest lease of an agent that was heard of, and no
    /// agent has this build. It comes again if an agent has had the build since then. It does not come while there is
    /// no connection to a server.
    NoHost {
        /// The build of this program.
        build: String,
        /// The builds of the agents that there are.
        others: Vec<String>,
    },
    /// A host gave no sign of life for one and a half times its lease. Its tasks are taken away.
    HostLost {
        /// Its name.
        host: String,
        /// The number of tasks that it had begun.
        tasks: usize,
    },
    /// A message that was to be in the queue was not, and was sent again.
    Requeued(TaskId),
    /// Lines or values that a task sent before its result were lost on their way.
    Missed {
        /// The task.
        task: TaskId,
        /// How many.
        number: u64,
    },
    /// Streams are gone. All futures have failed.
    Broken(PoolError),
}

/// Counters of a [`Cluster`](super::Cluster). See the example of [`Cluster::stats`](crate::Cluster::stats).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStats {
    /// Tasks that were submitted.
    pub submitted: u64,
    /// Tasks that have a result or an error.
    pub finished: u64,
    /// Tasks that run, as far as is known.
    pub running: u64,
    /// Tasks that were taken away from a host and queued again.
    pub retried: u64,
    /// Tasks that failed with their host.
    pub lost: u64,
    /// Messages that the queue had lost, and that were sent again.
    pub requeued: u64,
    /// How long tasks have waited without an agent of this build.
    pub without_host: Option<Duration>,
}

pub(super) type OnClusterEvent = dyn Fn(&ClusterEvent) + Send + Sync;

pub(crate) struct ClusterShared {
    pub(crate) job: String,
    pub(crate) build: String,
    pub(crate) options: TaskOptions,
    pub(crate) attempts: u32,
    pub(crate) notes: UnboundedSender<ClusterNote>,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) on_event: Option<Arc<OnClusterEvent>>,
    pub(super) on_say: Option<Arc<OnHostSaid>>,
    /// If a `map` puts several tasks into one message.
    pub(super) chunks: Option<RemoteChunks>,
    pub(super) run_time: Arc<RunTime>,
    live: Mutex<HashSet<TaskId>>,
    hosts: Mutex<HostTable>,
    stats: Mutex<ClusterStats>,
    end: OnceLock<PoolError>,
}

impl ClusterShared {
    pub(super) fn new(
        (job, build): (String, String),
        options: TaskOptions,
        attempts: u32,
        notes: UnboundedSender<ClusterNote>,
        delivery: Arc<Delivery>,
        (on_event, on_say): (Option<Arc<OnClusterEvent>>, Option<Arc<OnHostSaid>>),
        (chunks, run_time): (Option<RemoteChunks>, Arc<RunTime>),
    ) -> Self {
        let (live, hosts, stats) = (Mutex::default(), Mutex::default(), Mutex::default());
        let end = OnceLock::new();
        Self {
            job,
            build,
            options,
            attempts,
            notes,
            delivery,
            on_event,
            on_say,
            chunks,
            run_time,
            live,
            hosts,
            stats,
            end,
        }
    }

    /// Why no further task is taken.
    pub(super) fn refusal(&self) -> Option<PoolError> {
        self.end.get().cloned()
    }

    pub(super) fn close(&self) {
        let _ = self.end.set(PoolError::ShutDown);
    }

    pub(super) fn set_broken(&self, error: PoolError) {
        let _ = self.end.set(error);
    }

    /// A task was submitted, or a chunk with this number of tasks.
    pub(super) fn added(&self, id: TaskId, tasks: usize) {
        lock(&self.live).insert(id);
        self.count(|stats| stats.submitted += tasks as u64);
    }

    pub(super) fn finished(&self, id: TaskId, tasks: usize) {
        lock(&self.live).remove(&id);
        self.count(|stats| stats.finished += tasks as u64);
    }

    /// Hands a task or a chunk to the driver.
    pub(super) fn enqueue(
        &self,
        id: TaskId,
        task: RemoteTask,
        promise: RemotePromise,
        options: TaskOptions,
    ) {
        if let Some(error) = self.refusal() {
            return promise.fail(TaskError::PoolBroken(error));
        }
        self.added(id, task.tasks());
        let (tasks, note) = (task.tasks(), ClusterNote::Submitted { id, task, promise, options });
        // The driver has ended since the refusal was asked for.
        if let Err(SendError(ClusterNote::Submitted { promise, .. })) = self.notes.send(note) {
            self.finished(id, tasks);
            promise.fail(TaskError::PoolBroken(self.refusal().unwrap_or(PoolError::ShutDown)));
        }
    }

    pub(super) fn is_live(&self, id: TaskId) -> bool {
        lock(&self.live).contains(&id)
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut ClusterStats)) {
        change(&mut lock(&self.stats));
    }

    pub(super) fn stats(&self) -> ClusterStats {
        *lock(&self.stats)
    }

    pub(super) fn table(&self) -> MutexGuard<'_, HostTable> {
        lock(&self.hosts)
    }

    pub(super) fn hosts(&self) -> Vec<HostLease> {
        let mut hosts: Vec<_> = self.table().live(Instant::now()).cloned().collect();
        hosts.sort_by(|a, b| (&a.host, &a.instance).cmp(&(&b.host, &b.instance)));
        hosts
    }

    /// Tells the program, on a thread of the delivery.
    pub(super) fn tell(&self, event: ClusterEvent) {
        if let Some(on_event) = self.on_event.clone() {
            self.delivery.push(Box::new(move || on_event(&event)));
        }
    }
}

impl fmt::Debug for ClusterShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterShared").field("job", &self.job).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
