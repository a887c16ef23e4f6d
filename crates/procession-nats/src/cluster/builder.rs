//! [`ClusterBuilder`]: the settings of a cluster.

use std::fmt;
use std::sync::{Arc, Weak};

use procession::{Job, PoolError, RemoteChunks, RemotePromise, TaskError, TaskOptions};
use procession_os::threads;
use tokio::sync::mpsc;

use super::chunk_sizes::{ChunkSizes, RunTime};
use super::driver::ClusterDriver;
use super::said::{HostSaid, OnHostSaid};
use super::shared::{ClusterEvent, ClusterShared, OnClusterEvent};
use super::{Cluster, Delivery, named};
use crate::apart::apart;
use crate::link::Link;
use crate::names::is_token;
use crate::settings::{ConnectSettings, own_build};

/// The settings of a [`Cluster`].
///
/// ```no_run
/// # fn main() -> Result<(), procession::PoolError> {
/// use std::time::Duration;
///
/// use procession::TaskOptions;
/// use procession_nats::{Cluster, ClusterEvent, ConnectSettings};
///
/// let cluster = Cluster::builder(ConnectSettings::new("nats://localhost"))
///     .options(TaskOptions::new().timeout(Duration::from_secs(30))) // of each task
///     .attempts(3) // if its host is lost
///     .build_id("thumbs-7") // in place of a hash of this program's file
///     .map_chunks(100) // short tasks in a message
///     .on_event(|event| {
///         if let ClusterEvent::HostLost { host, tasks } = event {
///             eprintln!("{host} is lost, with {tasks} tasks");
///         }
///     })
///     .build()?;
/// println!("{} hosts", cluster.hosts().len());
/// # Ok(()) }
/// ```
#[must_use]
pub struct ClusterBuilder {
    settings: ConnectSettings,
    options: TaskOptions,
    attempts: u32,
    build: Option<String>,
    map_chunks: usize,
    job: Option<String>,
    on_event: Option<Arc<OnClusterEvent>>,
    on_say: Option<Arc<OnHostSaid>>,
}

impl ClusterBuilder {
    pub(super) fn new(settings: ConnectSettings) -> Self {
        Self {
            settings,
            options: TaskOptions::new(),
            attempts: 1,
            build: None,
            map_chunks: 1,
            job: None,
            on_event: None,
            on_say: None,
        }
    }

    /// The options of each task, as the process pools on the hosts understand them: timeout, grace period,
    /// retries after a crash. An option that is not set has the value of the agent's pool.
    pub fn options(mut self, options: TaskOptions) -> Self {
        self.options = options;
        self
    }

    /// How often a task may be begun if the hosts that run it are lost. With 1, a task is begun at most
    /// once, and its future fails with [`TaskError::HostLost`](procession::TaskError::HostLost). Default: 1.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The build that an agent must have to run these tasks: 1 to 64 letters, digits, `_` and `-`. Default:
    /// a hash of the program's file.
    pub fn build_id(mut self, build: impl Into<String>) -> Self {
        self.build = Some(build.into());
        self
    }

    /// The maximum number of tasks that a `map` puts into one message, a chunk. With chunks, many short tasks
    /// are some hundred times faster. A chunk has as many tasks as run in about 10 ms, by the run times that the
    /// hosts report. So tasks that run longer than 5 ms are sent one by one, and so are the first ones, whose run
    /// time is not known. In a [job that has a name](Self::job) each chunk of a `map` has exactly this number of
    /// tasks; only the last chunk may have fewer.
    ///
    /// The tasks of a chunk run on one host, and have one claim: if that host is lost, all of them are lost, also
    /// those that had not begun; if one is cancelled, the others are cancelled with it. Tasks with blobs are not
    /// put into chunks. Default: 1.
    pub fn map_chunks(mut self, tasks: usize) -> Self {
        self.map_chunks = tasks;
        self
    }

    /// Gives the job a name, 1 to 64 letters, digits, `_` and `-`, by which a program that was killed is followed
    /// by the next one.
    ///
    /// That program builds a cluster with the same name, and submits the same tasks in the same order. Tasks
    /// that are done have their results at once; those that are queued or run are waited for; none of them is
    /// begun again. A task that is another one in its place, by a hash of its kind, input and blobs, fails with
    /// [`TaskError::OtherTask`](procession::TaskError::OtherTask). (Maps that are not sorted have another order in
    /// each process, so they are no such input.) Tasks that were cancelled, or lost with their hosts, still are.
    ///
    /// One coordinator at a time has the job, by a lease of 3 s: [`build`](Self::build) waits for 4.5 s to see
    /// whether that of another one is renewed. A coordinator that was stopped for so long has lost the job, and
    /// its futures fail with [`PoolError::JobHeld`].
    ///
    /// The records and results of the job stay on the servers until its end, or for
    /// [`ConnectSettings::keep_records`]. At a shutdown, and on drop, they are removed; after
    /// [`Cluster::leave`] they stay. [`forget`](crate::forget) removes those of a job that nobody works on.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), procession::PoolError> {
    /// use procession_nats::{Cluster, ConnectSettings};
    ///
    /// let cluster = Cluster::builder(ConnectSettings::new("nats://localhost")).job("nightly").build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn job(mut self, name: impl Into<String>) -> Self {
        self.job = Some(name.into());
        self
    }

    /// Sets the function that is called with what happens to the cluster.
    pub fn on_event(mut self, call: impl Fn(&ClusterEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(call));
        self
    }

    /// Sets the function that is called with each line that a task reports by
    /// [`Context::say`](procession::Context::say), in their order and before the result, on a thread of the
    /// cluster's. Default: the line is written to standard output, with control characters escaped.
    ///
    /// Lines, and values of [`Context::emit`](procession::Context::emit), come in messages that may be lost, for
    /// example while a server restarts, if the task sends more than 16 MiB that cannot be sent yet, or if one
    /// of them has more than 256 KiB. Each loss is reported as [`ClusterEvent::Missed`].
    ///
    /// ```
    /// # use procession_nats::{Cluster, ConnectSettings};
    /// let builder = Cluster::builder(ConnectSettings::new("nats://localhost"))
    ///     .on_say(|said| eprintln!("{} says on {}: {}", said.task, said.host, said.line));
    /// ```
    pub fn on_say(mut self, call: impl Fn(&HostSaid<'_>) + Send + Sync + 'static) -> Self {
        self.on_say = Some(Arc::new(call));
        self
    }

    /// Connects to the servers, and makes the streams if they are not there.
    ///
    /// # Errors
    ///
    /// [`PoolError::Broker`] if no server answers within ten seconds, or refuses; [`PoolError::Setting`] for
    /// a setting that makes no sense, or a job that another build has begun; [`PoolError::JobHeld`] if another
    /// coordinator works on the job of this name.
    pub fn build(self) -> Result<Cluster, PoolError> {
        let Self { settings, options, attempts, build, map_chunks, job: name, on_event, on_say } =
            self;
        if attempts == 0 {
            return Err(PoolError::Setting("a task needs at least one attempt".to_owned()));
        }
        let build = match build {
            Some(build) => build,
            None => own_build().map_err(|error| {
                PoolError::System(format!("cannot read the program's file: {error}"))
            })?,
        };
        if !is_token(&build) {
            let why = format!("the build id {build:?} is not 1 to 64 of a-z, A-Z, 0-9, _, -");
            return Err(PoolError::Setting(why));
        }
        name.as_deref().map_or(Ok(()), named::check_name)?;
        let system = |error: std::io::Error| PoolError::System(threads::refusal(&error));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("cluster")
            .enable_all()
            .build()
            .map_err(system)?;
        let delivery = Delivery::start().map_err(system)?;
        let (notes, received) = mpsc::unbounded_channel();
        let job = name.clone().unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        let shared = Arc::new_cyclic(|shared: &Weak<ClusterShared>| {
            let run_time = Arc::new(RunTime::default());
            // A coordinator that attaches to a job must form the same chunks.
            let sizes = ChunkSizes { most: map_chunks, by_run_time: name.is_none() };
            let chunks = (map_chunks > 1).then(|| chunks(sizes, &run_time, shared));
            let (names, listeners) = ((job, build), (on_event, on_say));
            let chunks = (chunks, run_time);
            ClusterShared::new(names, options, attempts, notes, delivery, listeners, chunks)
        });
        let connect = async {
            let link = Link::connect(&settings).await?;
            let held = match &name {
                Some(name) => Some(named::take(&link, name, Some(&shared.build)).await?),
                None => None,
            };
            let driver = ClusterDriver::new(link, Arc::clone(&shared), received, held).await;
            driver.map_err(PoolError::from)
        };
        let connected = apart(|| runtime.block_on(connect)).map_err(system)?;
        let driver = connected.inspect_err(|_| shared.delivery.end())?;
        runtime.spawn(driver.run());
        Ok(Cluster { shared, runtime: Some(runtime) })
    }
}

/// How a `map` hands its tasks over.
fn chunks(
    sizes: ChunkSizes,
    run_time: &Arc<RunTime>,
    shared: &Weak<ClusterShared>,
) -> RemoteChunks {
    /// Chunks that are handed over ahead of the consumer.
    const AHEAD: usize = 512;
    let (for_chunks, for_jobs) = (Weak::clone(shared), Weak::clone(shared));
    let enqueue = move |id, task, promise: RemotePromise, options| match for_chunks.upgrade() {
        Some(shared) => shared.enqueue(id, task, promise, options),
        None => promise.fail(TaskError::PoolBroken(PoolError::ShutDown)),
    };
    let enqueue_job = move |job: Job, options| {
        let id = job.id();
        if let Some(shared) = for_jobs.upgrade()
            && let Some((task, promise)) = job.into_remote()
        {
            shared.enqueue(id, task, promise, options);
        }
    };
    let run_time = Arc::clone(run_time);
    RemoteChunks::new(move || sizes.next(&run_time), AHEAD, enqueue, enqueue_job)
}

impl fmt::Debug for ClusterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterBuilder")
            .field("settings", &self.settings)
            .field("attempts", &self.attempts)
            .field("build", &self.build)
            .finish_non_exhaustive()
    }
}
