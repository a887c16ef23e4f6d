//! What a cluster looks after from time to time: the leases of the hosts that run its tasks, records that it
//! was not sent, messages that the queue has lost, streams that are gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use procession::PoolError;

use super::bundles::HostSlots;
use super::driven::WaitingMessage;
use super::driver::{ClusterDriver, ClusterNote};
use super::said::LATE;
use super::shared::ClusterEvent;
use crate::host_lease::HostLease;
use crate::link::{Link, NoAnswer, Page, RecordMessage, StreamAges};
use crate::owner::OwnerEvent;

/// A message that has waited for this long is looked for in the queue.
const LOOK_AFTER: Duration = Duration::from_secs(3);
/// The most messages that are looked for at a time, once a second.
const LOOKS: usize = 64;
/// How long tasks wait before the event `NoHost`: no host has their build.
const NO_HOST_AFTER: Duration = Duration::from_secs(5);

/// The results of the requests of the upkeep.
pub(crate) enum UpkeepNote {
    /// The lease of an instance was read.
    Lease { instance: String, lease: Result<Option<(u64, HostLease)>, NoAnswer> },
    /// All leases were read.
    Leases(Vec<HostLease>),
    /// Records were read from this sequence number on.
    Scanned { gap: u64, page: Result<Page<(u64, RecordMessage)>, NoAnswer> },
    /// The streams were looked at.
    Streams(Result<StreamAges, NoAnswer>),
}

pub(crate) struct Upkeep {
    pub(super) broken: Option<PoolError>,
    /// When the streams were made.
    ages: StreamAges,
    /// How often in a row they were gone.
    gone: u32,
    ticks: u64,
    /// Counts the gaps, and which of them were looked into.
    gap: u64,
    scanned: u64,
    is_scanning: bool,
    /// All records up to this number are known.
    checked: u64,
    /// What was seen a second ago.
    seen_before: u64,
    /// Instances whose leases are being read.
    confirming: Vec<String>,
    /// Where the next look at messages begins.
    look_from: u64,
    without_host_since: Option<Instant>,
    has_told: bool,
    ended_since_purge: u64,
    pub(super) slots: HostSlots,
}

impl Upkeep {
    pub(super) async fn new(link: &Link, checked: u64) -> Result<Self, NoAnswer> {
        let ages = link.stream_ages().await?;
        Ok(Self {
            broken: None,
            ages,
            gone: 0,
            ticks: 0,
            gap: 0,
            scanned: 0,
            is_scanning: false,
            checked,
            seen_before: checked,
            confirming: Vec::new(),
            look_from: 0,
            without_host_since: None,
            has_told: false,
            ended_since_purge: 0,
            slots: HostSlots::default(),
        })
    }
}

impl ClusterDriver {
    /// Ten times a second.
    pub(super) fn tick(&mut self) {
        self.shared.delivery.help();
        self.upkeep.ticks += 1;
        self.check_leases();
        self.give_up_unheard(LATE);
        self.look_at_slots();
        self.let_gathered_go();
        let running = self.open_tasks(self.running.keys()) as u64;
        self.shared.count(|stats| stats.running = running);
        if !self.upkeep.ticks.is_multiple_of(10) {
            return;
        }
        self.kill_again();
        self.look_for_records();
        self.look_for_messages();
        self.look_for_hosts();
        if self.upkeep.ticks.is_multiple_of(20) {
            self.look_for_streams();
        }
        if self.upkeep.ticks.is_multiple_of(100) && self.link.is_connected() {
            self.look_at_running(LOOKS);
        }
        if self.upkeep.ticks.is_multiple_of(600) {
            self.shared.table().forget_old(Instant::now());
        }
        self.purge_old();
    }

    /// The connection was lost and is back, or messages were dropped.
    pub(super) fn note_gap(&mut self) {
        self.upkeep.gap += 1;
        self.read_leases();
    }

    fn send_when_done(&self, request: impl Future<Output = UpkeepNote> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let note = request.await;
            let _ = shared.notes.send(ClusterNote::Upkeep(note));
        });
    }

    pub(super) fn upkeep_note(&mut self, note: UpkeepNote) {
        match note {
            UpkeepNote::Lease { instance, lease } => self.confirmed(&instance, lease),
            UpkeepNote::Leases(leases) => {
                let mut table = self.shared.table();
                for lease in leases {
                    if table.revision(&lease.instance) == 0 {
                        table.renewed(lease, 1, Instant::now());
                    }
                }
            }
            UpkeepNote::Scanned { gap, page } => self.has_scanned(gap, page),
            UpkeepNote::Streams(ages) => self.streams_are(ages),
        }
    }

    pub(super) fn read_leases(&self) {
        let link = self.link.clone();
        self.send_when_done(
            async move { UpkeepNote::Leases(link.leases().await.unwrap_or_default()) },
        );
    }

    /// An instance that seems to be lost is asked for once more, where its lease is kept: what was not heard
    /// may have been missed.
    fn check_leases(&mut self) {
        if !self.link.is_connected() {
            return;
        }
        let now = Instant::now();
        let table = self.shared.table();
        let mut overdue: Vec<_> = self
            .running
            .values()
            .filter(|instance| table.is_overdue(instance, now))
            .filter(|instance| !self.upkeep.confirming.contains(instance))
            .cloned()
            .collect();
        drop(table);
        overdue.sort();
        overdue.dedup();
        for instance in overdue {
            self.upkeep.confirming.push(instance.clone());
            let link = self.link.clone();
            self.send_when_done(async move {
                let lease = link.lease(&instance).await;
                UpkeepNote::Lease { instance, lease }
            });
        }
    }

    fn confirmed(&mut self, instance: &str, lease: Result<Option<(u64, HostLease)>, NoAnswer>) {
        self.upkeep.confirming.retain(|other| other != instance);
        let Ok(lease) = lease else { return };
        if let Some((_, lease)) = lease {
            let mut table = self.shared.table();
            let known = table.renewals(instance);
            if known.is_none_or(|known| lease.renewals > known) {
                let revision = table.revision(instance) + 1;
                table.renewed(lease, revision, Instant::now());
                return;
            }
        }
        if !self.shared.table().is_overdue(instance, Instant::now()) {
            return;
        }
        let ids: Vec<_> =
            self.running.iter().filter(|(_, it)| *it == instance).map(|(id, _)| *id).collect();
        let claim = ids.first().and_then(|id| self.tasks.get(id)?.owner.claim());
        if let Some(claim) = claim {
            let (host, tasks) = (claim.host.clone(), self.open_tasks(ids.iter()));
            self.shared.tell(ClusterEvent::HostLost { host, tasks });
        }
        for id in ids {
            self.apply(id, OwnerEvent::InstanceLost(instance.to_owned()), None);
        }
    }

    /// A request to end a task may have been lost.
    fn kill_again(&mut self) {
        for (id, instance) in &self.running {
            let members = self.tasks.get(id).map(|task| task.owner.cancelled());
            if let Some(members) = members.filter(|members| !members.is_empty()) {
                self.kill(*id, instance, members);
            }
        }
    }

    /// The number of tasks in these bundles that have no result.
    fn open_tasks<'i>(&self, ids: impl Iterator<Item = &'i u64>) -> usize {
        ids.filter_map(|id| Some(self.tasks.get(id)?.owner.open().len())).sum()
    }

    /// After a gap, all records since the last one that is known are read. Without a gap, one is asked for:
    /// if there is one that was not heard of, there was a gap.
    fn look_for_records(&mut self) {
        if self.tasks.is_empty() || self.upkeep.is_scanning || !self.link.is_connected() {
            return;
        }
        let gap = self.upkeep.gap;
        if self.upkeep.scanned == gap {
            self.upkeep.checked = self.upkeep.checked.max(self.upkeep.seen_before);
        }
        self.upkeep.seen_before = self.seen;
        self.upkeep.is_scanning = true;
        let (link, shared) = (self.link.clone(), Arc::clone(&self.shared));
        let (from, has_gap) = (self.upkeep.checked + 1, self.upkeep.scanned < gap);
        let probe_from = self.seen + 1;
        self.send_when_done(async move {
            let page = if has_gap {
                link.records(&shared.job, from).await
            } else {
                link.next_record(&shared.job, probe_from).await
            };
            UpkeepNote::Scanned { gap, page }
        });
    }

    fn has_scanned(&mut self, gap: u64, page: Result<Page<(u64, RecordMessage)>, NoAnswer>) {
        self.upkeep.is_scanning = false;
        let Ok(Page { items: records, next }) = page else { return };
        let was_gap = self.upkeep.scanned < gap;
        for (id, RecordMessage { stored, body }) in records {
            let is_news = stored.seq > self.seen;
            let seq = stored.seq;
            self.apply(id, OwnerEvent::Observed(stored), Some(body));
            if was_gap {
                self.seen = self.seen.max(seq);
            } else if is_news {
                self.upkeep.gap += 1;
            }
        }
        if !was_gap {
            return;
        }
        match next {
            // All before it are known now, also if the connection is lost again.
            Some(next) => {
                self.upkeep.checked = self.upkeep.checked.max(next - 1);
                self.look_for_records();
            }
            None => {
                self.upkeep.scanned = gap;
                self.look_at_running(1024);
            }
        }
    }

    /// Records that are gone would never be heard of. The oldest tasks are looked at.
    fn look_at_running(&self, most: usize) {
        for id in self.running.keys().copied().take(most) {
            let Some(known) = self.tasks.get(&id).map(|task| task.owner.seq()) else { continue };
            let (link, shared) = (self.link.clone(), Arc::clone(&self.shared));
            tokio::spawn(async move {
                let (event, body) = match link.latest(&shared.job, id).await {
                    Ok(Some(RecordMessage { stored, body })) => {
                        (OwnerEvent::read(known, stored), Some(body))
                    }
                    Ok(None) => (OwnerEvent::RecordGone, None),
                    Err(_) => return,
                };
                let _ = shared.notes.send(ClusterNote::Event { id, event, body });
            });
        }
    }

    fn look_for_messages(&mut self) {
        if !self.link.is_connected() {
            return;
        }
        let now = Instant::now();
        let is_old = |it: &WaitingMessage| now.saturating_duration_since(it.since) > LOOK_AFTER;
        let from = self.upkeep.look_from;
        let later = self.waiting.range(from..).chain(self.waiting.range(..from));
        let old: Vec<_> =
            later.filter(|(_, it)| is_old(it)).map(|(id, _)| *id).take(LOOKS).collect();
        self.upkeep.look_from = old.last().map_or(0, |last| last + 1);
        for id in old {
            let Some(task) = self.tasks.get(&id) else { continue };
            let (Some(seq), lane, tasks) = (task.owner.queued(), task.lane, task.tasks) else {
                continue;
            };
            let (link, shared) = (self.link.clone(), Arc::clone(&self.shared));
            tokio::spawn(async move {
                let subject = link.names.task(&shared.build, lane, &shared.job, (id, tasks));
                let Ok(is_queued) = link.is_queued(&subject).await else { return };
                if is_queued {
                    return;
                }
                // First the queue, then the record: a claim comes before the acknowledgement.
                let Ok(latest) = link.latest(&shared.job, id).await else { return };
                let _ = shared.notes.send(ClusterNote::Looked { id, seq, latest });
            });
        }
    }

    fn look_for_hosts(&mut self) {
        let now = Instant::now();
        let table = self.shared.table();
        let mut builds = BTreeMap::new();
        for lease in table.live(now).filter(|lease| !lease.is_draining) {
            *builds.entry(lease.build.clone()).or_insert(0) += 1;
        }
        // After an outage, agents have as long as their leases are to be heard of again.
        let longest = NO_HOST_AFTER.max(table.longest_lease());
        drop(table);
        let is_without = self.link.is_connected()
            && !builds.contains_key(&self.shared.build)
            && !self.waiting.is_empty();
        let upkeep = &mut self.upkeep;
        let since = match is_without {
            true => *upkeep.without_host_since.get_or_insert(now),
            false => {
                upkeep.without_host_since = None;
                upkeep.has_told = false;
                now
            }
        };
        let without = is_without.then(|| now.saturating_duration_since(since));
        self.shared.count(|stats| stats.without_host = without);
        if without.is_some_and(|without| without >= longest) && !upkeep.has_told {
            upkeep.has_told = true;
            let (build, others) = (self.shared.build.clone(), builds.into_keys().collect());
            self.shared.tell(ClusterEvent::NoHost { build, others });
        }
    }

    fn look_for_streams(&self) {
        if self.link.is_connected() && self.upkeep.broken.is_none() {
            let link = self.link.clone();
            self.send_when_done(async move { UpkeepNote::Streams(link.stream_ages().await) });
        }
    }

    /// A server that starts may not know its streams for a moment, so they have to be gone twice.
    fn streams_are(&mut self, ages: Result<StreamAges, NoAnswer>) {
        let Ok(ages) = ages else { return };
        if ages == self.upkeep.ages {
            self.upkeep.gone = 0;
            return;
        }
        self.upkeep.gone += 1;
        if self.upkeep.gone >= 2 && self.upkeep.broken.is_none() {
            let gone = self.upkeep.ages.iter().find(|(name, age)| ages.get(*name) != Some(age));
            let name = gone.map_or("", |(name, _)| name);
            let error = format!("the stream {name} was deleted, with what it kept");
            self.break_all(PoolError::Broker(error));
        }
    }

    /// Removes the records of tasks that have ended, many at a time. A message of such a task that comes late
    /// cannot begin it: its claim expects a record that is gone.
    fn purge_old(&mut self) {
        const MANY: u64 = 10_000;
        // A coordinator that attaches asks for them.
        if self.named.is_some() {
            return;
        }
        let finished = self.shared.stats().finished;
        if finished < self.upkeep.ended_since_purge + MANY {
            return;
        }
        let oldest = self.tasks.values().map(|task| task.owner.seq()).filter(|seq| *seq > 0).min();
        let below = oldest.unwrap_or(self.seen).min(self.upkeep.checked);
        // The server takes 0 for "all of them", also those of tasks that run.
        if below == 0 {
            return;
        }
        self.upkeep.ended_since_purge = finished;
        let (link, shared) = (self.link.clone(), Arc::clone(&self.shared));
        tokio::spawn(async move {
            let subjects = link.names.records_of_job(&shared.job);
            let _ = link.purge_below(&link.names.records(), &subjects, below).await;
        });
    }
}
