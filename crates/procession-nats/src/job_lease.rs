//! [`JobLease`]: which coordinator works on a job that has a name; and [`JobWatch`]: whether another one may take
//! the job over, by its own clock.

use std::time::{Duration, Instant};

use procession::PoolError;
use serde::{Deserialize, Serialize};

/// How long a coordinator keeps a job without having renewed its lease. It renews four times in this time.
pub(crate) const JOB_LEASE: Duration = Duration::from_secs(3);

/// What a coordinator writes about its job, again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobLease {
    /// The coordinator: another one in each process, and for each cluster.
    pub(crate) coordinator: String,
    /// The name of its host, for people.
    pub(crate) host: String,
    pub(crate) pid: u32,
    /// The build of its tasks.
    pub(crate) build: String,
    pub(crate) lease_ms: u64,
    pub(crate) renewals: u64,
    /// The coordinator has left the job, with its tasks, to another one.
    pub(crate) is_released: bool,
}

impl JobLease {
    /// Says that this coordinator has the job.
    pub(crate) fn refusal(&self, job: &str) -> PoolError {
        let by = format!("process {} on host {}", self.pid, self.host);
        PoolError::JobHeld { job: job.to_owned(), by }
    }
}

/// Watches the lease of a job that another coordinator may have.
#[derive(Debug, Default)]
pub(crate) struct JobWatch {
    /// The first lease that was seen, by its sequence number, and when that was.
    first: Option<(u64, Instant)>,
}

/// What may be done with a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum JobVerdict {
    /// It may be taken, by a lease that expects the one with this number; 0: there is none.
    Take(u64),
    /// It is not known yet whether its coordinator lives.
    Wait,
    /// Its coordinator lives.
    Held,
}

impl JobWatch {
    /// Judges the latest lease, with its sequence number.
    pub(crate) fn judge(&mut self, latest: Option<&(u64, JobLease)>, now: Instant) -> JobVerdict {
        let Some((seq, lease)) = latest else { return JobVerdict::Take(0) };
        if lease.is_released {
            return JobVerdict::Take(*seq);
        }
        let (first, since) = *self.first.get_or_insert((*seq, now));
        // Nobody keeps a job for ever by a number.
        let longest = Duration::from_millis(lease.lease_ms).min(20 * JOB_LEASE).mul_f64(1.5);
        if first != *seq {
            JobVerdict::Held
        } else if now.saturating_duration_since(since) > longest {
            JobVerdict::Take(first)
        } else {
            JobVerdict::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_taken_over_if_its_lease_is_not_renewed_for_one_and_a_half_times_its_length() {
        let lease = |is_released| JobLease {
            coordinator: "c".to_owned(),
            host: "h".to_owned(),
            pid: 1,
            build: "b".to_owned(),
            lease_ms: 1000,
            renewals: 1,
            is_released,
        };
        let (start, held) = (Instant::now(), (7, lease(false)));
        let after = |ms: u64| start + Duration::from_millis(ms);
        let mut watch = JobWatch::default();
        assert_eq!(watch.judge(None, start), JobVerdict::Take(0));
        assert_eq!(watch.judge(Some(&held), start), JobVerdict::Wait);
        assert_eq!(watch.judge(Some(&held), after(1500)), JobVerdict::Wait);
        assert_eq!(watch.judge(Some(&(8, lease(false))), after(1501)), JobVerdict::Held);
        assert_eq!(watch.judge(Some(&held), after(1501)), JobVerdict::Take(7));
        let released = (9, lease(true));
        assert_eq!(JobWatch::default().judge(Some(&released), start), JobVerdict::Take(9));
        let endless = (7, JobLease { lease_ms: u64::MAX, ..lease(false) });
        assert_eq!(watch.judge(Some(&endless), after(90_001)), JobVerdict::Take(7));
    }
}
