//! [`HostJournals`]: what other hosts did in a run, in journals beside that of the coordinator, so that logs, timeline,
//! `--resume` and the dashboard know it. The times are the coordinator's: clocks of two machines are never compared.

use std::collections::BTreeMap;

use procession_journal::{self as journal, Journal};

use crate::cli::format;
use crate::files::outcome::DownloadOutcome;
use crate::files::task::log_of_host;

/// A worker of another host: the name of the host, the index of the worker, its process.
type HostWorker = (String, usize, u32);

/// A journal for each worker of other hosts.
#[derive(Default)]
pub(super) struct HostJournals {
    of: BTreeMap<HostWorker, Option<HostJournal>>,
    /// The numbers of the hosts, by name.
    numbers: BTreeMap<String, usize>,
}

struct HostJournal {
    journal: Journal,
    /// The ends of the last tasks of each slot, in microseconds since 1970 by the clock of the host.
    slots: Vec<i64>,
}

impl HostJournals {
    /// Writes down an outcome, if it is one of another host and this run keeps logs.
    pub(super) fn record(&mut self, outcome: &DownloadOutcome) {
        let (Some(host), Some(worker)) = (&outcome.host, outcome.worker) else { return };
        let Some(own) = journal::current() else { return };
        let new = self.numbers.len();
        let number = *self.numbers.entry(host.clone()).or_insert(new);
        let opened = self.of.entry((host.clone(), worker, outcome.pid)).or_insert_with(|| {
            let dir = own.path().parent()?;
            let name = format!("{}/{worker}", format::printable(host));
            // Without it, the run goes on.
            let journal = Journal::of_host(dir, number, &name, outcome.pid).ok()?;
            Some(HostJournal { journal, slots: Vec::new() })
        });
        if let Some(HostJournal { journal, slots }) = opened {
            let begin = outcome.started_us();
            let free = slots.iter().position(|end| *end <= begin).unwrap_or(slots.len());
            slots.resize(slots.len().max(free + 1), 0);
            slots[free] = outcome.ended_us;
            log_of_host(journal, outcome, free);
        }
    }
}
