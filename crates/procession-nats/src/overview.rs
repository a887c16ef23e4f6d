//! [`overview`]: the agents and the queue, for people.

use std::collections::BTreeMap;
use std::time::Duration;

use procession::PoolError;
use serde_json::json;

use crate::apart::apart;
use crate::host_lease::HostLease;
use crate::link::{Link, NoAnswer};
use crate::settings::ConnectSettings;

/// The agents that renew their leases, and what waits for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostsOverview {
    /// The agents, in the order of their names.
    pub hosts: Vec<HostLease>,
    /// The number of tasks in the queue, by build. Tasks that were claimed are not in it.
    pub waiting: BTreeMap<String, u64>,
}

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
/// [`PoolError::Broker`] if no server answers within ten seconds, or refuses.
pub fn overview(settings: &ConnectSettings) -> Result<HostsOverview, PoolError> {
    let system = |error: std::io::Error| PoolError::System(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system)?;
    let read = async { read(&Link::connect(settings).await?).await };
    let read = apart(move || runtime.block_on(read)).map_err(system)?;
    read.map_err(|error| PoolError::Broker(error.to_string()))
}

async fn read(link: &Link) -> Result<HostsOverview, NoAnswer> {
    let filter = json!({ "subjects_filter": link.names.all_tasks() });
    let info = link.api(&format!("STREAM.INFO.{}", link.names.tasks()), &filter).await?;
    let mut overview = HostsOverview::default();
    for (subject, number) in info["state"]["subjects"].as_object().into_iter().flatten() {
        // {prefix}.t.{build}.{job}.{id}
        if let Some(build) = subject.split('.').nth(2) {
            *overview.waiting.entry(build.to_owned()).or_default() +=
                number.as_u64().unwrap_or_default();
        }
    }
    let now = info["ts"].as_str().and_then(|now| now.parse::<jiff::Timestamp>().ok());
    let stream = format!("KV_{}", link.names.hosts());
    for kept in link.scan(&stream, &link.names.lease(">"), 0, usize::MAX).await? {
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
