//! [`AgentBuilder`]: the settings of an agent.

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use procession::{PoolError, ProcessPool, Registry};
use tokio::sync::{Semaphore, broadcast, watch};

use super::{Agent, AgentShared, new_instance};
use crate::apart::apart;
use crate::host_lease::LONGEST_LEASE;
use crate::link::Link;
use crate::names::is_token;
use crate::settings::{ConnectSettings, own_build, own_name};

/// The settings of an [`Agent`].
///
/// ```no_run
/// # fn main() -> Result<(), procession::PoolError> {
/// use std::time::Duration;
///
/// use procession::{ProcessPool, Registry};
/// use procession_nats::{Agent, ConnectSettings};
///
/// let pool = ProcessPool::builder().workers(8).build()?;
/// let settings = ConnectSettings::new("nats://localhost");
/// let agent = Agent::builder(settings, Registry::collected())
///     .slots(16) // the next task is here when one ends
///     .lease(Duration::from_secs(5))
///     .host_name("rack 7")
///     .build_id("thumbs-7")
///     .start(pool)?;
/// println!("{} workers of {}", agent.pool().workers(), agent.lease().host);
/// agent.drain(); // takes no further tasks
/// agent.wait()?; // until those that it has are done
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct AgentBuilder {
    settings: ConnectSettings,
    registry: Registry,
    slots: Option<usize>,
    lease: Duration,
    host: Option<String>,
    build: Option<String>,
    logs: Option<PathBuf>,
}

impl AgentBuilder {
    pub(super) fn new(settings: ConnectSettings, registry: Registry) -> Self {
        let lease = Duration::from_secs(10);
        Self { settings, registry, slots: None, lease, host: None, build: None, logs: None }
    }

    /// The number of tasks that the agent holds at most. More than the pool has workers hide the time that
    /// messages take, which pays for short tasks; but a task that waits here is not run by another host.
    /// Default: the number of workers.
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = Some(slots);
        self
    }

    /// How long the agent goes on without having renewed its lease; then it ends its tasks. After one and a
    /// half times this, coordinators take them away. 200 ms to 10 minutes. Default: 10 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// The name of the host, for people. Default: that of the system.
    pub fn host_name(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// The build whose tasks it runs: see [`ClusterBuilder::build_id`](crate::ClusterBuilder::build_id).
    pub fn build_id(mut self, build: impl Into<String>) -> Self {
        self.build = Some(build.into());
        self
    }

    /// The directory of log files that [`fetch_logs`](crate::fetch_logs) may have: those in it, and in its
    /// directories, as a pool with [`journal`](procession::Builder::journal) writes them. Names are of letters,
    /// digits, `.`, `_` and `-`, and do not begin with a dot. Default: none.
    ///
    /// ```no_run
    /// # use procession::{ProcessPool, Registry};
    /// # use procession_nats::{Agent, ConnectSettings};
    /// # fn main() -> Result<(), procession::PoolError> {
    /// let pool = ProcessPool::builder() // .journal("logs"), with the feature `journal`
    ///     .build()?;
    /// let settings = ConnectSettings::new("nats://localhost");
    /// let agent = Agent::builder(settings, Registry::collected()).logs("logs").start(pool)?;
    /// # drop(agent);
    /// # Ok(()) }
    /// ```
    pub fn logs(mut self, dir: impl Into<PathBuf>) -> Self {
        self.logs = Some(dir.into());
        self
    }

    /// Connects to the servers, and begins to take tasks for this pool.
    ///
    /// # Errors
    ///
    /// As [`ClusterBuilder::build`](crate::ClusterBuilder::build).
    pub fn start(self, pool: ProcessPool) -> Result<Agent, PoolError> {
        let Self { settings, registry, slots, lease, host, build, logs } = self;
        let slots = slots.unwrap_or_else(|| pool.workers());
        let setting = |why: &str| Err(PoolError::Setting(why.to_owned()));
        if !(1..=100_000).contains(&slots) {
            return setting("an agent has 1 to 100,000 slots");
        }
        if !(Duration::from_millis(200)..=LONGEST_LEASE).contains(&lease) {
            return setting("a lease is 200 ms to 10 minutes long");
        }
        let system = |error: std::io::Error| PoolError::System(error.to_string());
        let build = build.map_or_else(own_build, Ok).map_err(system)?;
        if !is_token(&build) {
            return setting("a build id is 1 to 64 of a-z, A-Z, 0-9, _, -");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("agent")
            .enable_all()
            .build()
            .map_err(system)?;
        let connect = async {
            let link = Link::connect(&settings).await?;
            link.make_consumers(&build).await?;
            Ok::<_, PoolError>(link)
        };
        let link = apart(|| runtime.block_on(connect)).map_err(system)??;
        let shared = AgentShared {
            link,
            pool,
            registry,
            host: host.unwrap_or_else(own_name),
            build,
            slots,
            lease,
            instance: watch::channel(new_instance()).0,
            lease_end: Default::default(),
            free: Arc::new(Semaphore::new(slots)),
            in_message: AtomicUsize::new(1),
            shortage: Default::default(),
            held: Default::default(),
            kills: broadcast::channel(1024).0,
            is_draining: watch::channel(false).0,
            has_ended: watch::channel(false).0,
            broken: OnceLock::new(),
            logs,
            answers: Arc::new(Semaphore::new(1)),
        };
        Ok(Agent::new(shared, runtime))
    }
}
