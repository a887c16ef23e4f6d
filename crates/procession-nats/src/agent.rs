//! [`Agent`]: runs the tasks of clusters on this host, in a local process pool.
//!
//! | module | what it does |
//! |---|---|
//! | `lease.rs` | renews the lease; when that fails for its length, all tasks are ended |
//! | `pull.rs`, `lanes.rs` | asks the queue for as many messages as there are free slots, urgent ones first |
//! | `hold.rs` | claims one task, or a bundle of them, and writes the results |
//! | `run.rs` | runs one task |
//! | `telling.rs` | sends the lines and values of a task before its result |
//! | `logs.rs` | sends the log files of the host on request |

mod builder;
mod hold;
mod lanes;
mod lease;
mod logs;
mod pull;
mod run;
mod telling;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use procession::{PoolError, ProcessPool, Registry};
use procession_os::signals;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub use builder::AgentBuilder;

use crate::apart::apart;
use crate::host_lease::HostLease;
use crate::host_logs::LogsRequest;
use crate::link::Link;
use crate::members::Members;
use crate::settings::ConnectSettings;

/// Runs the tasks of [`Cluster`](crate::Cluster)s on this host, in a local [`ProcessPool`].
///
/// ```no_run
/// use procession::{ProcessPool, Registry};
/// use procession_nats::{Agent, ConnectSettings};
///
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// #[procession::main] // its workers run this same program
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let pool = ProcessPool::builder().workers(8).build()?;
///     let settings = ConnectSettings::new("nats://localhost:4222");
///     let agent = Agent::builder(settings, Registry::collected()).start(pool)?;
///     agent.drain_on_signals();
///     agent.wait()?; // until SIGTERM, and until its tasks are done
///     Ok(())
/// }
/// ```
///
/// It claims a task before it runs it, and holds a lease that it renews. If it cannot renew it for as long
/// as the lease is, it ends all tasks that it runs, because a coordinator may give them to others; then it
/// begins anew. On drop, its tasks are ended.
pub struct Agent {
    shared: Arc<AgentShared>,
    runtime: Option<Runtime>,
}

/// What a coordinator asks of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum AgentRequest {
    Kill(KillRequest),
    Logs(LogsRequest),
}

/// Asks an agent to end a task, or some tasks of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KillRequest {
    pub(crate) job: String,
    pub(crate) id: u64,
    pub(crate) members: Members,
}

/// What the agent is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AgentInstance {
    /// Changes when the lease was lost.
    id: String,
    /// The lease was renewed at least once, so tasks may be claimed.
    has_lease: bool,
}

struct AgentShared {
    link: Link,
    pool: ProcessPool,
    registry: Registry,
    host: String,
    build: String,
    slots: usize,
    lease: Duration,
    instance: watch::Sender<AgentInstance>,
    /// When the lease ends that was last renewed.
    lease_end: lease::AgentLeaseEnd,
    free: Arc<Semaphore>,
    /// The number of tasks in the last message.
    in_message: AtomicUsize,
    shortage: pull::SlotShortage,
    held: AtomicUsize,
    kills: broadcast::Sender<KillRequest>,
    is_draining: watch::Sender<bool>,
    has_ended: watch::Sender<bool>,
    broken: OnceLock<PoolError>,
    /// The directory of the logs, if there are any.
    logs: Option<PathBuf>,
    /// The request that is answered at present holds the permit.
    answers: Arc<Semaphore>,
}

impl Agent {
    /// A builder with the default settings. The registry is that of the pool's workers.
    /// See the example of [`AgentBuilder`].
    pub fn builder(settings: ConnectSettings, registry: Registry) -> AgentBuilder {
        AgentBuilder::new(settings, registry)
    }

    /// Takes no further tasks. The agent ends when those that it has are done. Returns at once.
    /// See the example of [`AgentBuilder`].
    pub fn drain(&self) {
        self.shared.is_draining.send_replace(true);
    }

    /// Drains at SIGTERM and SIGINT. At the second of them, [`wait`](Self::wait) returns although tasks run;
    /// they are ended when the agent is dropped. What comes within 0.2 s after the first one counts as the same
    /// request: `timeout` signals a program, then its group. See the example of [`Agent`].
    pub fn drain_on_signals(&self) {
        use tokio::signal::unix::{SignalKind, signal};
        let Some(runtime) = &self.runtime else { return };
        let first = Arc::new(OnceLock::new());
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            signals::note_from_now(kind.as_raw_value());
            let (shared, first) = (Arc::clone(&self.shared), Arc::clone(&first));
            runtime.spawn(async move {
                let Ok(mut signals) = signal(kind) else { return };
                // A signal that came before this handler was there.
                if signals::was_noted(kind.as_raw_value()) {
                    shared.end_by_signal(&first);
                }
                while signals.recv().await.is_some() {
                    shared.end_by_signal(&first);
                }
            });
        }
    }

    /// Waits until the agent was drained and its tasks are done. Its lease is removed then.
    /// See the example of [`AgentBuilder`].
    ///
    /// # Errors
    ///
    /// That of the process pool, if that cannot run tasks any more.
    pub fn wait(&self) -> Result<(), PoolError> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let mut ended = self.shared.has_ended.subscribe();
        let waiting = async { drop(ended.wait_for(|has_ended| *has_ended).await) };
        let waited = apart(|| runtime.block_on(waiting));
        waited.map_err(|error| PoolError::System(error.to_string()))?;
        self.shared.broken.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// What the agent writes into its lease. See the example of [`AgentBuilder`].
    pub fn lease(&self) -> HostLease {
        self.shared.lease_record(0)
    }

    /// The process pool that runs the tasks. See the example of [`AgentBuilder`].
    pub fn pool(&self) -> &ProcessPool {
        &self.shared.pool
    }

    fn new(shared: AgentShared, runtime: Runtime) -> Self {
        let shared = Arc::new(shared);
        runtime.spawn(lease::hold(Arc::clone(&shared)));
        let pulling = runtime.spawn(pull::pull(Arc::clone(&shared)));
        runtime.spawn(end_when_drained(Arc::clone(&shared), pulling));
        Self { shared, runtime: Some(runtime) }
    }
}

async fn end_when_drained(shared: Arc<AgentShared>, pulling: JoinHandle<()>) {
    // It ends when the agent is drained. After that, no further task is held.
    let _ = pulling.await;
    while shared.held.load(Ordering::SeqCst) > 0 {
        sleep(Duration::from_millis(20)).await;
    }
    let instance = shared.instance.borrow().id.clone();
    shared.has_ended.send_replace(true);
    if shared.link.is_connected() {
        let _ = shared.link.remove_lease(&instance).await;
    }
}

/// Signals within this time after the first one are the same request.
const BURST: Duration = Duration::from_millis(200);

impl AgentShared {
    /// The first signal drains, a later one ends the agent. `first` has the time of the first one.
    fn end_by_signal(&self, first: &OnceLock<Instant>) {
        let now = Instant::now();
        let is_later = now.duration_since(*first.get_or_init(|| now)) >= BURST;
        self.is_draining.send_replace(true);
        if is_later {
            self.has_ended.send_replace(true);
        }
    }

    fn lease_record(&self, renewals: u64) -> HostLease {
        HostLease {
            host: self.host.clone(),
            instance: self.instance.borrow().id.clone(),
            build: self.build.clone(),
            pid: std::process::id(),
            workers: self.pool.workers(),
            slots: self.slots,
            busy: self.held.load(Ordering::SeqCst),
            lease_ms: u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX),
            is_draining: *self.is_draining.borrow(),
            renewals,
        }
    }

    /// Whether tasks of this instance may begin. It reads the clock, so it also notices an end of the lease that no
    /// other part of the agent has noticed yet.
    fn has_lease_now(&self, instance: &str) -> bool {
        // In this order: if the end is that of a later instance, the second check finds that instance.
        self.lease_end.is_ahead() && self.instance.borrow().id == instance
    }

    /// The process pool cannot run tasks any more.
    fn set_broken(&self, error: PoolError) {
        let _ = self.broken.set(error);
        self.is_draining.send_replace(true);
    }
}

fn new_instance() -> AgentInstance {
    AgentInstance { id: uuid::Uuid::new_v4().simple().to_string(), has_lease: false }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Without a thread, the runtime ends when it is dropped.
            let _ = apart(|| runtime.shutdown_timeout(Duration::from_secs(1)));
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("lease", &self.lease()).finish_non_exhaustive()
    }
}
