//! [`PoolDashboard`]: a live page of a pool, and its metrics for Prometheus.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use procession_dashboard::{Dashboard, DurationGauge, Gauges, WorkerGauge};

use super::ProcessPool;
use super::inner::PoolInner;
use super::stats::Times;
use crate::limits;

/// A page that shows a pool, from [`ProcessPool::dashboard`]. It is served until this is closed or
/// dropped, also after the pool has ended.
///
/// ```
/// # #[cfg(feature = "macros")] mod example {
/// use procession::ProcessPool;
///
/// #[procession::main]
/// # pub
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     # let dir = tempfile::tempdir()?;
///     # let file = dir.path().join("run.html");
///     let pool = ProcessPool::builder().workers(1).build()?;
///     let dashboard = pool.dashboard("127.0.0.1:0".parse()?)?;
///     assert!(dashboard.url().contains(&dashboard.addr().port().to_string()));
///     dashboard.save(&file)?; // the page as it is now
///     dashboard.close();
///     assert!(file.exists());
///     Ok(())
/// }
/// # }
/// # #[cfg(not(feature = "macros"))] mod example { pub fn main() -> Result<(), ()> { Ok(()) } }
/// # fn main() { example::main().unwrap() }
/// ```
#[derive(Debug)]
#[must_use = "the page is served until this is dropped"]
pub struct PoolDashboard(Dashboard);

impl ProcessPool {
    /// Serves a live page of this pool on this address; with port 0, on a free one. Threads of its own
    /// serve it. `GET /metrics` returns the numbers of the pool in the text format of Prometheus.
    ///
    /// The page shows the queue, throughput, utilisation, and the CPU time and memory of each worker. Of
    /// a pool with a [`journal`](super::Builder::journal) it shows the timeline as it grows, deaths,
    /// retries, and the slowest and the failed tasks, too.
    ///
    /// On a loopback address, requests for other host names are refused. On any other address, all
    /// machines that reach it can read the page.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use procession::ProcessPool;
    /// let pool = ProcessPool::builder().journal("logs").build()?;
    /// let dashboard = pool.dashboard("127.0.0.1:0".parse()?)?;
    /// println!("{}", dashboard.url());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the system: the address is in use, say.
    pub fn dashboard(&self, addr: SocketAddr) -> io::Result<PoolDashboard> {
        let pool = Arc::downgrade(&self.inner);
        let last = std::sync::Mutex::new(Gauges::default());
        let sample = move || {
            let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match gauges(&pool) {
                Some(gauges) => *last = gauges,
                // The pool was dropped: its workers have ended, its counts remain.
                None => {
                    *last = Gauges {
                        workers: Vec::new(),
                        running: 0,
                        pending: 0,
                        spares: 0,
                        ..last.clone()
                    }
                }
            }
            last.clone()
        };
        let journal = self.journal_dir();
        let name = match journal.and_then(Path::file_name) {
            Some(run) => run.to_string_lossy().into_owned(),
            None => format!("pool of process {}", std::process::id()),
        };
        let dashboard = Dashboard::open_for_pool(addr, &name, sample)?;
        if let Some(dir) = journal {
            dashboard.watch(&name, dir)?;
        }
        Ok(PoolDashboard(dashboard))
    }
}

impl PoolDashboard {
    /// The address of the server. See the example of [`PoolDashboard`].
    pub fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// The URL of the page. See the example of [`PoolDashboard`].
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Writes the page as it is now into a file, which a browser shows without this program.
    /// See the example of [`PoolDashboard`].
    ///
    /// # Errors
    ///
    /// Those of the system: the disk is full, say.
    pub fn save(&self, file: impl AsRef<Path>) -> io::Result<()> {
        std::fs::write(file, self.0.still().map_err(io::Error::other)?)
    }

    /// Waits until connected pages show the present state, at most for a second, and stops the server.
    /// Pages that are open remain as they are. See the example of [`PoolDashboard`].
    pub fn close(self) {
        self.0.end();
    }
}

/// `None` if the pool was dropped.
fn gauges(pool: &Weak<PoolInner>) -> Option<Gauges> {
    let pool = pool.upgrade()?;
    let stats = pool.stats();
    let workers = stats.pids.iter().map(|&pid| WorkerGauge {
        pid,
        memory: limits::resident_memory(pid),
        cpu_s: limits::cpu_time(pid).map(|cpu| cpu.as_secs_f64()),
    });
    Some(Gauges {
        slots: pool.setup.scheduling.slots.iter().sum(),
        pending: stats.pending,
        running: stats.running,
        done: stats.done,
        failed: stats.failed,
        cancelled: stats.cancelled,
        retried: stats.retried,
        respawned: stats.respawned,
        spares: stats.spares,
        promoted: stats.promoted,
        wait: durations(&stats.wait),
        run: durations(&stats.run),
        workers: workers.collect(),
    })
}

fn durations(times: &Times) -> DurationGauge {
    let quantile = |share| Duration::as_secs_f64(&times.quantile(share));
    DurationGauge {
        count: times.count(),
        sum: times.mean().as_secs_f64() * times.count() as f64,
        median: quantile(0.5),
        p95: quantile(0.95),
        p99: quantile(0.99),
    }
}
