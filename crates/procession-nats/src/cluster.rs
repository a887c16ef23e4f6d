//! [`Cluster`]: the executor whose workers are on other hosts. The program's threads hand tasks over; the
//! driver, a task of an async runtime with threads of its own, does everything else.

mod builder;
mod bundles;
mod chunk_sizes;
mod complete;
mod driven;
mod driver;
mod ending;
mod named;
mod requests;
mod said;
mod shared;
mod upkeep;

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use procession::{
    Cancel, Canceller, Engine, Executor, Future, Job, PoolError, RemoteChunks, Shutdown, Task,
    TaskError, TaskId, TaskOptions,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedSender;

pub use builder::ClusterBuilder;
use driver::ClusterNote;
pub use named::forget;
pub use said::HostSaid;
use shared::ClusterShared;
pub use shared::{ClusterEvent, ClusterStats};

use crate::delivery::{self, Delivery};
use crate::host_lease::HostLease;
use crate::settings::ConnectSettings;

/// An executor that runs tasks on other hosts, by agents that are connected to the same NATS servers.
///
/// ```no_run
/// use procession::Executor;
/// use procession_nats::Cluster;
///
/// #[procession::task]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let cluster = Cluster::connect("nats://localhost:4222")?;
///     let sum: u64 = cluster.map((1..=10).map(square)).sum::<Result<_, _>>()?;
///     println!("{sum}");
///     Ok(())
/// }
/// ```
///
/// A task is begun at most once, unless [`ClusterBuilder::attempts`] allows more; see `docs/hosts.md` in
/// the repository for what happens when a host, a server or this program is killed.
///
/// On drop, all tasks that are not finished are cancelled. To finish them, call
/// [`shutdown`](Executor::shutdown) with [`Shutdown::Wait`] before.
pub struct Cluster {
    shared: Arc<ClusterShared>,
    runtime: Option<Runtime>,
}

/// How long a shutdown waits for hosts to confirm that tasks were cancelled.
pub(crate) const CANCELLING: Duration = Duration::from_secs(10);
/// How long the end of the driver then waits for bodies to be removed.
pub(crate) const LAST_ERRANDS: Duration = Duration::from_secs(2);

impl Cluster {
    /// A cluster with the default settings. The agents run this same program file. See the example of [`Cluster`].
    ///
    /// # Errors
    ///
    /// As [`ClusterBuilder::build`].
    pub fn connect(url: impl Into<String>) -> Result<Self, PoolError> {
        Self::builder(ConnectSettings::new(url)).build()
    }

    /// A builder with the default settings. See the example of [`ClusterBuilder`].
    pub fn builder(settings: ConnectSettings) -> ClusterBuilder {
        ClusterBuilder::new(settings)
    }

    /// Like [`submit`](Executor::submit), with options for this task. The retries, the timeout and the grace
    /// period are those of the process pool on the host that runs it. The sign of the priority chooses one of
    /// three lanes of the queue: hosts take tasks of positive priority before those without one, and these before
    /// those of negative priority. The number orders the tasks that a host has.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use procession::TaskOptions;
    /// # use procession_nats::Cluster;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// let cluster = Cluster::connect("nats://localhost")?;
    /// let urgent = cluster.submit_with(TaskOptions::new().priority(1), square(7));
    /// assert_eq!(urgent.result()?, 49);
    /// # Ok(()) }
    /// ```
    pub fn submit_with<T: Task>(&self, options: TaskOptions, task: T) -> Future<T::Output> {
        Executor::submit(&WithOptions { cluster: self, options }, task)
    }

    /// The agents that renew their leases, in the order of their names. See the example of [`stats`](Self::stats).
    pub fn hosts(&self) -> Vec<HostLease> {
        self.shared.hosts()
    }

    /// Counters of this cluster up to now.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), procession::PoolError> {
    /// # use procession_nats::Cluster;
    /// let cluster = Cluster::connect("nats://localhost")?;
    /// println!("job {} of build {}", cluster.job(), cluster.build_id());
    /// for host in cluster.hosts() {
    ///     println!("{}: {} of {} slots", host.host, host.busy, host.slots);
    /// }
    /// let stats = cluster.stats();
    /// println!("{} of {} tasks are done", stats.finished, stats.submitted);
    /// # Ok(()) }
    /// ```
    pub fn stats(&self) -> ClusterStats {
        self.shared.stats()
    }

    /// The name of this job: a part of the subjects of its tasks. See the example of [`stats`](Self::stats).
    pub fn job(&self) -> &str {
        &self.shared.job
    }

    /// The build that agents must have to run the tasks of this cluster. See the example of [`stats`](Self::stats).
    pub fn build_id(&self) -> &str {
        &self.shared.build
    }

    /// Leaves a [job that has a name](ClusterBuilder::job) to a program that attaches to it later: its tasks go
    /// on, and their results are kept. The futures fail with [`PoolError::ShutDown`]. A job without a name is
    /// cancelled, as on drop.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), procession::PoolError> {
    /// use procession_nats::{Cluster, ConnectSettings};
    ///
    /// let cluster = Cluster::builder(ConnectSettings::new("nats://localhost")).job("nightly").build()?;
    /// // ... submit tasks ...
    /// cluster.leave();
    /// # Ok(())
    /// # }
    /// ```
    pub fn leave(self) {
        self.shared.close();
        let (done, is_done) = std_mpsc::channel();
        if self.shared.notes.send(ClusterNote::Leave(done)).is_ok() {
            let _ = is_done.recv();
        }
    }

    fn take(&self, job: Job, options: TaskOptions) {
        // Before anything is encoded.
        if let Some(error) = self.shared.refusal() {
            return job.fail(TaskError::PoolBroken(error));
        }
        let id = job.id();
        if let Some((task, promise)) = job.into_remote() {
            self.shared.enqueue(id, task, promise, options);
        }
    }
}

/// A cluster with other options than its own.
struct WithOptions<'c> {
    cluster: &'c Cluster,
    options: TaskOptions,
}

impl Engine for WithOptions<'_> {
    fn enqueue(&self, job: Job) {
        self.cluster.take(job, self.options);
    }

    fn ahead(&self) -> usize {
        self.cluster.ahead()
    }

    fn canceller(&self) -> Option<Canceller> {
        self.cluster.canceller()
    }

    fn shut_down(&self, how: Shutdown) {
        self.cluster.shut_down(how);
    }
}

impl Engine for Cluster {
    fn enqueue(&self, job: Job) {
        self.take(job, self.shared.options);
    }

    fn ahead(&self) -> usize {
        /// As many as are on their way to the queue at the same time.
        const AHEAD: usize = driver::WINDOW;
        AHEAD
    }

    fn abandon(&self, id: TaskId) {
        let _ = self.shared.notes.send(ClusterNote::Abandoned(id));
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(Canceller::new(&self.shared))
    }

    fn shut_down(&self, how: Shutdown) {
        self.shared.close();
        let (done, is_done) = std_mpsc::channel();
        let sent = self.shared.notes.send(ClusterNote::ShutDown { how, done });
        if sent.is_ok() && !delivery::is_delivering() {
            // The driver bounds every shutdown but one that waits for tasks.
            let _ = is_done.recv();
            self.shared.delivery.drain(Duration::from_secs(60));
        }
    }
}

impl Cancel for ClusterShared {
    /// Asks for it: the future is done when a record says so. A task that has a result by then keeps it.
    fn cancel(&self, id: TaskId) -> bool {
        self.is_live(id) && self.notes.send(ClusterNote::Cancelled(id)).is_ok()
    }

    fn can_wait_for(&self, _: TaskId) -> bool {
        // Otherwise another thread delivers.
        !delivery::is_delivering() || self.delivery.has_thread_to_spare()
    }

    fn remote_chunks(&self) -> Option<&RemoteChunks> {
        self.chunks.as_ref()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shut_down(Shutdown::Kill);
        self.shared.delivery.end();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("job", &self.job()).finish_non_exhaustive()
    }
}
