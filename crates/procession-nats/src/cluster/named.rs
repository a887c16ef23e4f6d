//! Jobs that have a name: how a coordinator gets one, keeps it, and leaves it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use procession::PoolError;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::driver::ClusterNote;
use super::shared::ClusterShared;
use crate::apart::ask;
use crate::cas_write::WriteReply;
use crate::job_lease::{JOB_LEASE, JobLease, JobVerdict, JobWatch};
use crate::link::{Answer, Link, NoAnswer};
use crate::names::is_token;
use crate::settings::{ConnectSettings, own_name};

/// How long servers may give no answer that helps.
const LONGEST: Duration = Duration::from_secs(30);
/// How long the end of a job may take.
const ENDING: Duration = Duration::from_secs(10);

/// The lease of a job that this coordinator has, and the number of its latest renewal.
#[derive(Debug)]
pub(crate) struct HeldJob {
    lease: JobLease,
    seq: u64,
    ends: Instant,
}

/// When the lease of a job ends by the clock, if it is not renewed. A coordinator that was stopped looks at it
/// before it writes: the job may have been taken over, and may have ended.
#[derive(Debug, Clone)]
pub(super) struct JobLeaseEnd(Arc<Mutex<Instant>>);

impl JobLeaseEnd {
    /// Waits for a lease, for a while. False: there is none.
    pub(super) async fn has_lease(&self) -> bool {
        if self.is_over() {
            sleep(Duration::from_millis(200)).await;
        }
        !self.is_over()
    }

    fn is_over(&self) -> bool {
        Instant::now() >= *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, end: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }
}

/// The job of a cluster, if it has a name.
pub(super) struct NamedJob {
    keeper: JoinHandle<()>,
    lease: JobLease,
    ends: JobLeaseEnd,
    /// The job is left to another coordinator, with its tasks.
    pub(super) is_left: bool,
}

/// Takes a job, if no coordinator that lives has it. `build`: that of the tasks; `None`: of any.
pub(super) async fn take(
    link: &Link,
    job: &str,
    build: Option<&str>,
) -> Result<HeldJob, PoolError> {
    let mut lease = JobLease {
        coordinator: uuid::Uuid::new_v4().simple().to_string(),
        host: own_name(),
        pid: std::process::id(),
        build: build.unwrap_or_default().to_owned(),
        lease_ms: u64::try_from(JOB_LEASE.as_millis()).unwrap_or(u64::MAX),
        renewals: 0,
        is_released: false,
    };
    let (mut watch, mut deadline) = (JobWatch::default(), Instant::now() + LONGEST);
    loop {
        let (asked, answer) = (Instant::now(), until(deadline, link.job_lease(job)).await?);
        let latest = match answer {
            Ok(latest) => latest,
            Err(NoAnswer(reason)) if Instant::now() >= deadline => {
                return Err(PoolError::Broker(reason));
            }
            Err(_) => {
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        if let Some((seq, mine)) = &latest
            && mine.coordinator == lease.coordinator
        {
            return Ok(HeldJob { lease, seq: *seq, ends: asked });
        }
        let other = latest.as_ref().map(|(_, other)| other);
        match watch.judge(latest.as_ref(), Instant::now()) {
            JobVerdict::Held => {
                let other = other.expect("a lease that was judged");
                return Err(other.refusal(job));
            }
            JobVerdict::Wait => {
                sleep(Duration::from_millis(100)).await;
                deadline = Instant::now() + LONGEST;
            }
            JobVerdict::Take(expect) => {
                if let (Some(build), Some(other)) = (build, other) {
                    check_build(job, build, other)?;
                }
                lease.renewals += 1;
                let ends = Instant::now() + JOB_LEASE;
                match until(deadline, link.write_job_lease(job, &lease, expect)).await? {
                    Answer::Reply(WriteReply::Taken(seq)) => {
                        return Ok(HeldJob { lease, seq, ends });
                    }
                    Answer::Fault(reason) => return Err(PoolError::Broker(reason)),
                    // The next answer says who has the job.
                    Answer::Reply(_) => {}
                }
            }
        }
    }
}

/// Also a request that waits for the connection has a deadline.
async fn until<T>(deadline: Instant, request: impl Future<Output = T>) -> Result<T, PoolError> {
    let left = deadline.saturating_duration_since(Instant::now());
    timeout(left, request).await.map_err(|_| NoAnswer::in_time().into())
}

/// A job is continued only by the build that has begun it.
fn check_build(job: &str, build: &str, other: &JobLease) -> Result<(), PoolError> {
    if build == other.build {
        return Ok(());
    }
    let why = format!(
        "job {job} was begun by build {}, and this is build {build}: forget the job, or set the build id",
        other.build
    );
    Err(PoolError::Setting(why))
}

/// Renews the lease of a job until another coordinator has it.
async fn keep(link: Link, shared: Arc<ClusterShared>, held: HeldJob, ends: JobLeaseEnd) {
    let HeldJob { mut lease, mut seq, .. } = held;
    let mut pause = Duration::ZERO;
    loop {
        sleep(pause).await;
        lease.renewals += 1;
        pause = JOB_LEASE / 4;
        let end = Instant::now() + JOB_LEASE;
        match link.write_job_lease(&shared.job, &lease, seq).await {
            Answer::Reply(WriteReply::Taken(taken)) => {
                seq = taken;
                ends.set(end);
            }
            Answer::Reply(_) | Answer::Fault(_) => match link.job_lease(&shared.job).await {
                Ok(Some((taken, latest))) if latest.coordinator == lease.coordinator => {
                    (seq, pause) = (taken, Duration::ZERO);
                }
                Ok(Some((_, other))) => {
                    let _ = shared.notes.send(ClusterNote::JobLost(other.refusal(&shared.job)));
                    return;
                }
                Ok(None) => {
                    let why = format!(
                        "the lease of job {} is gone: another program has ended it",
                        shared.job
                    );
                    let _ = shared.notes.send(ClusterNote::JobLost(PoolError::Broker(why)));
                    return;
                }
                Err(_) => pause = Duration::from_millis(200),
            },
        }
    }
}

impl NamedJob {
    pub(super) fn new(link: &Link, shared: &Arc<ClusterShared>, held: HeldJob) -> Self {
        let (lease, ends) = (held.lease.clone(), JobLeaseEnd(Arc::new(Mutex::new(held.ends))));
        let keeper = tokio::spawn(keep(link.clone(), Arc::clone(shared), held, ends.clone()));
        Self { keeper, lease, ends, is_left: false }
    }

    /// When nothing may be written any more.
    pub(super) fn lease_end(&self) -> JobLeaseEnd {
        self.ends.clone()
    }

    /// Removes the job, or leaves it to another coordinator.
    pub(super) async fn end(&self, link: &Link, job: &str) {
        self.keeper.abort();
        let ended = async {
            if self.is_left {
                release(link, job, &self.lease).await
            } else {
                remove(link, job).await
            }
        };
        // What is not removed expires.
        let _ = timeout(ENDING, ended).await;
    }

    /// Another coordinator has the job.
    pub(super) fn is_lost(&self) {
        self.keeper.abort();
    }
}

async fn release(link: &Link, job: &str, lease: &JobLease) -> Result<(), NoAnswer> {
    loop {
        let Some((seq, latest)) = link.job_lease(job).await? else { return Ok(()) };
        if latest.coordinator != lease.coordinator || latest.is_released {
            return Ok(());
        }
        let released = JobLease { is_released: true, ..latest };
        let _ = link.write_job_lease(job, &released, seq).await;
    }
}

async fn remove(link: &Link, job: &str) -> Result<(), NoAnswer> {
    link.remove_job(job).await?;
    link.remove_bodies(job).await?;
    link.remove_job_lease(job).await
}

/// Removes what the servers keep of the job of this name, so that its tasks begin anew when they are submitted the
/// next time. Tasks of it that run go on, and their results are refused. It is no error if there is no such job.
///
/// ```no_run
/// # fn main() -> Result<(), procession::PoolError> {
/// let settings = procession_nats::ConnectSettings::new("nats://localhost");
/// procession_nats::forget(&settings, "nightly")?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`PoolError::JobHeld`] if a coordinator works on it; [`PoolError::Broker`] if no server answers, or refuses.
pub fn forget(settings: &ConnectSettings, job: &str) -> Result<(), PoolError> {
    check_name(job)?;
    ask(settings, async |link| {
        take(link, job, None).await?;
        let late = |_| Err(NoAnswer::in_time());
        Ok(timeout(ENDING, remove(link, job)).await.unwrap_or_else(late)?)
    })
}

pub(super) fn check_name(job: &str) -> Result<(), PoolError> {
    if is_token(job) {
        return Ok(());
    }
    let why = format!("the job's name {job:?} is not 1 to 64 of a-z, A-Z, 0-9, _, -");
    Err(PoolError::Setting(why))
}
