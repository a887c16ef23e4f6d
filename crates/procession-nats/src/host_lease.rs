//! [`HostLease`]: what an agent writes into the bucket of hosts, again and again; and [`HostTable`]: what a
//! coordinator has seen of it, by its own clock. Clocks of two machines are never compared.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::task_record::HostClaim;

/// An agent, as it was when it last renewed its lease. See the example of [`Cluster::stats`](crate::Cluster::stats).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostLease {
    /// The name of the host.
    pub host: String,
    /// The agent, from its start, or from the last time that it lost its lease.
    pub instance: String,
    /// The build that it runs tasks of.
    pub build: String,
    /// Its process id.
    pub pid: u32,
    /// The number of worker processes.
    pub workers: usize,
    /// The number of tasks that it holds at most.
    pub slots: usize,
    /// The number of tasks that it holds.
    pub busy: usize,
    /// How long it goes on without having renewed the lease, in milliseconds. After one and a half times
    /// this, its tasks are taken away.
    pub lease_ms: u64,
    /// It takes no further tasks, and ends when it has none.
    pub is_draining: bool,
    /// How often it was renewed.
    pub renewals: u64,
}

/// What is believed of a lease's length.
const LEASES: std::ops::RangeInclusive<u64> = 100..=600_000;

/// The longest lease that an agent may have.
pub(crate) const LONGEST_LEASE: Duration = Duration::from_millis(*LEASES.end());

/// What a coordinator has seen of the agents.
#[derive(Debug, Default)]
pub(crate) struct HostTable {
    hosts: HashMap<String, SeenHost>,
}

#[derive(Debug)]
struct SeenHost {
    lease: Option<HostLease>,
    lease_ms: u64,
    /// When the last renewal was heard of.
    at: Instant,
    /// Its sequence number.
    revision: u64,
}

impl SeenHost {
    fn is_overdue(&self, now: Instant) -> bool {
        let limit = Duration::from_millis(self.lease_ms).mul_f64(1.5);
        now.saturating_duration_since(self.at) > limit
    }
}

impl HostTable {
    /// A renewal was heard of, or read.
    pub(crate) fn renewed(&mut self, lease: HostLease, revision: u64, now: Instant) {
        let lease_ms = lease.lease_ms.clamp(*LEASES.start(), *LEASES.end());
        let seen = self.hosts.entry(lease.instance.clone()).or_insert_with(|| SeenHost {
            lease: None,
            lease_ms,
            at: now,
            revision: 0,
        });
        if revision > seen.revision {
            *seen = SeenHost { lease: Some(lease), lease_ms, at: now, revision };
        }
    }

    /// An agent has claimed a task, so it lived a moment ago.
    pub(crate) fn claimed(&mut self, claim: &HostClaim, now: Instant) {
        let lease_ms = claim.lease_ms.clamp(*LEASES.start(), *LEASES.end());
        let unknown = || SeenHost { lease: None, lease_ms, at: now, revision: 0 };
        self.hosts.entry(claim.instance.clone()).or_insert_with(unknown);
    }

    /// An agent has ended, and has removed its lease.
    pub(crate) fn ended(&mut self, instance: &str) {
        if let Some(seen) = self.hosts.get_mut(instance) {
            seen.lease = None;
        }
    }

    /// Whether an agent has not renewed its lease for one and a half times its length. An agent that was
    /// never heard of is.
    pub(crate) fn is_overdue(&self, instance: &str, now: Instant) -> bool {
        self.hosts.get(instance).is_none_or(|seen| seen.is_overdue(now))
    }

    /// The last renewal that was heard of.
    pub(crate) fn revision(&self, instance: &str) -> u64 {
        self.hosts.get(instance).map_or(0, |seen| seen.revision)
    }

    /// How often the lease was renewed, as far as was heard.
    pub(crate) fn renewals(&self, instance: &str) -> Option<u64> {
        self.hosts.get(instance)?.lease.as_ref().map(|lease| lease.renewals)
    }

    /// The agents that renew their leases.
    pub(crate) fn live(&self, now: Instant) -> impl Iterator<Item = &HostLease> {
        let live = self.hosts.values().filter(move |seen| !seen.is_overdue(now));
        live.filter_map(|seen| seen.lease.as_ref())
    }

    /// The longest lease of an agent that has not ended, as it was last heard of.
    pub(crate) fn longest_lease(&self) -> Duration {
        let leases = self.hosts.values().filter(|seen| seen.lease.is_some());
        Duration::from_millis(leases.map(|seen| seen.lease_ms).max().unwrap_or_default())
    }

    /// Forgets agents that were not heard of for long.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        const OLD: Duration = Duration::from_secs(3600);
        self.hosts.retain(|_, seen| now.saturating_duration_since(seen.at) < OLD);
    }
}

#[cfg(test)]
impl HostLease {
    /// The lease of an idle host with one slot.
    pub(crate) fn example() -> Self {
        let text = |text: &str| text.to_owned();
        Self {
            host: text("h"),
            instance: text("i"),
            build: text("b"),
            pid: 1,
            workers: 1,
            slots: 1,
            busy: 0,
            lease_ms: 1000,
            is_draining: false,
            renewals: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(lease_ms: u64, renewals: u64) -> HostLease {
        HostLease { lease_ms, renewals, ..HostLease::example() }
    }

    #[test]
    fn an_agent_is_overdue_after_one_and_a_half_times_the_lease_that_it_writes_itself() {
        let (start, mut table) = (Instant::now(), HostTable::default());
        let after = |ms: u64| start + Duration::from_millis(ms);
        assert!(table.is_overdue("i", start), "never heard of");
        table.renewed(lease(1000, 1), 5, start);
        assert!(!table.is_overdue("i", after(1500)));
        assert!(table.is_overdue("i", after(1501)));
        table.renewed(lease(1000, 1), 5, after(1400));
        assert!(table.is_overdue("i", after(1501)), "the same renewal, heard of again");
        table.renewed(lease(8000, 2), 6, after(1400));
        assert!(!table.is_overdue("i", after(13_400)));
        assert_eq!(table.live(after(13_400)).count(), 1);
        assert_eq!(table.longest_lease(), Duration::from_secs(8));
        assert_eq!(table.live(after(13_401)).count(), 0);
        // Nobody keeps a task for ever by a number.
        table.renewed(lease(u64::MAX, 3), 7, start);
        assert!(table.is_overdue("i", start + Duration::from_secs(901)));
    }
}
