//! [`overview`]: the agents and the queue, for people.

use std::collections::BTreeMap;
use std::time::Duration;

use procession::PoolError;
use serde_json::json;
use tokio::time::timeout;

use crate::apart::ask;
use crate::host_lease::HostLease;
use crate::link::{Link, NoAnswer};
use crate::names::tasks_in;
use crate::settings::ConnectSettings;

/// The agents that renew their leases, and what waits for them.
/// See the examples of [`overview`] and [`HostsOverview::why`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostsOverview {
    /// The agents, in the order of their names.
    pub hosts: Vec<HostLease>,
    /// The number of tasks in the queue, by build. Tasks that were claimed are not in it.
    pub waiting: BTreeMap<String, u64>,
    /// How long the oldest of them has been in the queue, by build and by the clock of the server.
    pub oldest: BTreeMap<String, Duration>,
}

/// Why tasks of a build wait. See the examples of [`overview`] and [`HostsOverview::why`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitingReason {
    /// No agent has this build.
    NoHost,
    /// All agents of this build are about to end, and take no further tasks.
    Draining,
    /// All slots of the agents that take tasks of this build are taken.
    Busy {
        /// The number of these slots.
        slots: usize,
    },
    /// An agent of this build has a free slot: it is about to take a task, or it was a moment ago, or it is
    /// stopped or cut off, and this is not known yet.
    Free {
        /// The number of free slots.
        slots: usize,
    },
}

impl HostsOverview {
    /// Why tasks of a build wait, as far as the leases of the agents say.
    ///
    /// ```
    /// # use procession_nats::{HostsOverview, WaitingReason};
    /// assert_eq!(HostsOverview::default().why("flags-7"), WaitingReason::NoHost);
    /// ```
    pub fn why(&self, build: &str) -> WaitingReason {
        let of_build = || self.hosts.iter().filter(|host| host.build == build);
        if of_build().next().is_none() {
            return WaitingReason::NoHost;
        }
        let (mut takers, mut slots, mut free) = (0, 0_usize, 0_usize);
        for host in of_build().filter(|host| !host.is_draining) {
            takers += 1;
            // Any client that may write leases chooses these numbers, so their sum may be too large.
            slots = slots.saturating_add(host.slots);
            free = free.saturating_add(host.slots.saturating_sub(host.busy));
        }
        match (takers, free) {
            (0, _) => WaitingReason::Draining,
            (_, 0) => WaitingReason::Busy { slots },
            _ => WaitingReason::Free { slots: free },
        }
    }
}

/// How long the servers may take for all answers.
const READING: Duration = Duration::from_secs(30);

/// Reads which agents there are, and what waits in the queue.
///
/// ```no_run
/// # fn main() -> Result<(), procession::PoolError> {
/// let overview = procession_nats::overview(&procession_nats::ConnectSettings::new("nats://localhost"))?;
/// for host in &overview.hosts {
///     println!("{}: {} of {} slots", host.host, host.busy, host.slots);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`PoolError::Broker`] if no server can be reached within ten seconds, if they have not answered after 30 s more,
/// or if they refuse.
pub fn overview(settings: &ConnectSettings) -> Result<HostsOverview, PoolError> {
    ask(settings, async |link| Ok(read_in_time(link).await?))
}

pub(crate) async fn read_in_time(link: &Link) -> Result<HostsOverview, NoAnswer> {
    // Each request waits for the connection, which may be lost at any time.
    timeout(READING, read(link)).await.unwrap_or_else(|_| Err(NoAnswer::in_time()))
}

async fn read(link: &Link) -> Result<HostsOverview, NoAnswer> {
    let filter = json!({ "subjects_filter": link.names.all_tasks() });
    let info = link.api(&format!("STREAM.INFO.{}", link.names.tasks()), &filter).await?;
    let mut overview = HostsOverview::default();
    for (subject, number) in info["state"]["subjects"].as_object().into_iter().flatten() {
        // {prefix}.t.{build}.{lane}.{job}.{id}
        if let Some(build) = subject.split('.').nth(2) {
            let waiting = overview.waiting.entry(build.to_owned()).or_default();
            let tasks = number.as_u64().unwrap_or_default().saturating_mul(tasks_in(subject));
            // Any client that may write into the queue chooses these numbers, so their sum may be too large.
            *waiting = waiting.saturating_add(tasks);
        }
    }
    let now = info["ts"].as_str().and_then(|now| now.parse::<jiff::Timestamp>().ok());
    for build in overview.waiting.keys() {
        let subjects = link.names.tasks_of_build(build);
        let first = link.first(&link.names.tasks(), &subjects).await?;
        // It may have been taken by now.
        let time = first.and_then(|kept| kept.time);
        if let Some((now, then)) = now.zip(time) {
            let age = Duration::try_from(now.duration_since(then)).unwrap_or_default();
            overview.oldest.insert(build.clone(), age);
        }
    }
    let stream = link.names.host_stream();
    for kept in link.scan(&stream, &link.names.lease(">")).await? {
        let Some(lease) = kept.to_lease() else { continue };
        // Both by the clock of the server.
        let age = now.zip(kept.time).map(|(now, then)| now.duration_since(then));
        let longest = Duration::from_millis(lease.lease_ms).mul_f64(1.5);
        if age.is_none_or(|age| age.unsigned_abs() <= longest) {
            overview.hosts.push(lease);
        }
    }
    overview.hosts.sort_by(|a, b| (&a.host, &a.instance).cmp(&(&b.host, &b.instance)));
    Ok(overview)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(build: &str, slots: usize, busy: usize, is_draining: bool) -> HostLease {
        HostLease { build: build.to_owned(), slots, busy, is_draining, ..HostLease::example() }
    }

    #[test]
    fn the_reason_why_tasks_wait_is_that_of_the_agents_of_their_build() {
        let with = |hosts: Vec<HostLease>| HostsOverview { hosts, ..HostsOverview::default() };
        let other = host("other", 4, 0, false);
        assert_eq!(with(vec![other.clone()]).why("b"), WaitingReason::NoHost);
        let draining = host("b", 4, 1, true);
        assert_eq!(with(vec![other, draining.clone()]).why("b"), WaitingReason::Draining);
        let busy = host("b", 2, 2, false);
        let two = vec![draining, busy.clone(), busy.clone()];
        assert_eq!(with(two).why("b"), WaitingReason::Busy { slots: 4 });
        let some = vec![busy, host("b", 3, 2, false)];
        assert_eq!(with(some).why("b"), WaitingReason::Free { slots: 1 });
        let endless = vec![host("b", usize::MAX, 0, false), host("b", 3, 0, false)];
        assert_eq!(with(endless).why("b"), WaitingReason::Free { slots: usize::MAX });
    }
}
