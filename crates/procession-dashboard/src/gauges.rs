//! [`Gauges`]: the numbers of a pool at one moment. `GaugeHistory`: those of the past, for the charts.

use std::time::{Instant, SystemTime};

use serde::Serialize;

/// Maximum number of samples that are kept. Then about half of them are discarded, so that the others are
/// as far apart in time as half of the maximum needs, and from then on they are kept at this interval.
const MAX_SAMPLES: usize = 600;

/// The numbers of a pool at one moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Gauges {
    /// Number of tasks that run at a time, at most.
    pub slots: usize,
    /// Tasks that have not begun.
    pub pending: usize,
    /// Tasks that run.
    pub running: usize,
    /// Tasks that ended with an output.
    pub done: u64,
    /// Tasks that ended with an error.
    pub failed: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Attempts beyond the first.
    pub retried: u64,
    /// Workers that replaced another.
    pub respawned: u64,
    /// Spares that stand by.
    pub spares: usize,
    /// Spares that took the place of a worker.
    pub promoted: u64,
    /// Times from the submission of a task to its start.
    pub wait: DurationGauge,
    /// Durations of tasks.
    pub run: DurationGauge,
    /// The workers that live, spares included.
    pub workers: Vec<WorkerGauge>,
}

/// A distribution of durations, in seconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct DurationGauge {
    /// Number of durations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Their median.
    pub median: f64,
    /// Their 95th percentile.
    pub p95: f64,
    /// Their 99th percentile.
    pub p99: f64,
}

/// A worker process.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct WorkerGauge {
    /// Process id.
    pub pid: u32,
    /// Resident memory, in bytes.
    pub memory: Option<u64>,
    /// CPU time, in seconds.
    pub cpu_s: Option<f64>,
}

/// Gauges of the present and a sample of those of the past.
#[derive(Debug, Default)]
pub(crate) struct GaugeHistory {
    pub(crate) now: Gauges,
    /// Number of samples that were ever taken.
    pub(crate) number: u64,
    /// By time. The last is the newest that was taken.
    samples: Vec<GaugeSample>,
    /// The shortest time between two samples that are kept, in milliseconds; the newest is kept until
    /// there is another one.
    interval: f64,
    last: Option<LastGauges>,
}

#[derive(Debug)]
struct LastGauges {
    at: Instant,
    /// The same in milliseconds since 1970, as the page draws it.
    since_1970: f64,
    ended: u64,
    cpu: Vec<(u32, f64)>,
}

/// One moment, as the page draws it.
#[derive(Debug, Clone, Copy, Serialize)]
struct GaugeSample {
    /// Milliseconds since 1970.
    at: f64,
    running: usize,
    pending: usize,
    /// Tasks that ended, a second.
    rate: f64,
    /// CPUs that the workers used.
    cpu: f64,
    /// Resident memory of all workers, in bytes.
    memory: u64,
}

/// The pool as the page shows it.
#[derive(Debug, Serialize)]
pub(crate) struct PoolPicture {
    now: Gauges,
    samples: Vec<GaugeSample>,
}

impl GaugeHistory {
    /// Adds the gauges that were asked for at this time. Those that another thread has overtaken are
    /// discarded.
    pub(crate) fn add(&mut self, at: Instant, now: Gauges) {
        if self.last.as_ref().is_some_and(|last| at < last.at) {
            return;
        }
        let ended = now.done + now.failed + now.cancelled;
        let cpu: Vec<_> =
            now.workers.iter().filter_map(|worker| Some((worker.pid, worker.cpu_s?))).collect();
        let (rate, used) = self.last.as_ref().map_or((0.0, 0.0), |last| {
            let seconds = at.duration_since(last.at).as_secs_f64().max(1e-3);
            let used = |(pid, cpu): &(u32, f64)| {
                let before = last.cpu.iter().find(|(other, _)| other == pid);
                cpu - before.map_or(0.0, |(_, cpu)| *cpu)
            };
            let used = cpu.iter().map(used).sum::<f64>();
            (ended.saturating_sub(last.ended) as f64 / seconds, used.max(0.0) / seconds)
        });
        let since_1970 = match &self.last {
            // As steady as `Instant`.
            Some(last) => last.since_1970 + at.duration_since(last.at).as_secs_f64() * 1e3,
            None => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0.0, |time| time.as_secs_f64() * 1e3),
        };
        let sample = GaugeSample {
            at: since_1970,
            running: now.running,
            pending: now.pending,
            rate,
            cpu: used,
            memory: now.workers.iter().filter_map(|worker| worker.memory).sum(),
        };
        self.last = Some(LastGauges { at, since_1970, ended, cpu });
        self.now = now;
        self.number += 1;
        self.keep(sample);
    }

    /// Keeps the newest sample, and the one before it only if it is not too close to its predecessor.
    fn keep(&mut self, newest: GaugeSample) {
        if let [.., before, last] = &self.samples[..]
            && last.at - before.at < self.interval
        {
            self.samples.pop();
        }
        self.samples.push(newest);
        if self.samples.len() >= MAX_SAMPLES {
            let period = newest.at - self.samples[0].at;
            self.interval = (period / (MAX_SAMPLES / 2) as f64).max(1.0);
            self.samples.pop();
            let mut next = f64::MIN;
            self.samples.retain(|sample| {
                let is_due = sample.at >= next;
                if is_due {
                    next = sample.at + self.interval;
                }
                is_due
            });
            self.samples.push(newest);
        }
    }

    pub(crate) fn picture(&self) -> Option<PoolPicture> {
        (self.number > 0)
            .then(|| PoolPicture { now: self.now.clone(), samples: self.samples.clone() })
    }
}
