//! The counters and histograms of a pool in the facade `metrics`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use libtest_mimic::Trial;
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use procession::{Executor, Retries, Shutdown, TaskError, TaskOptions};

use crate::harness::{Gate, eventually};
use crate::tasks::{Bad, Echo, Ending, Pass, quiet};

/// The sums of all counters, and the numbers of values of all histograms.
#[derive(Default, Clone)]
struct Sums(Arc<Mutex<BTreeMap<String, u64>>>);

struct Sum {
    name: String,
    sums: Sums,
}

impl Sums {
    fn of(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    fn named(&self, key: &Key) -> Arc<Sum> {
        let labels: String = key.labels().map(|label| format!(" {}", label.value())).collect();
        Arc::new(Sum { name: format!("{}{labels}", key.name()), sums: self.clone() })
    }
}

impl CounterFn for Sum {
    fn increment(&self, value: u64) {
        *self.sums.0.lock().unwrap().entry(self.name.clone()).or_default() += value;
    }
    fn absolute(&self, _: u64) {}
}

impl HistogramFn for Sum {
    fn record(&self, value: f64) {
        assert!((0.0..60.0).contains(&value), "{value} s");
        self.increment(1);
    }
}

impl Recorder for Sums {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.named(key))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.named(key))
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![a_recorder_of_metrics_gets_each_end_retry_and_death_once]
}

fn a_recorder_of_metrics_gets_each_end_retry_and_death_once() {
    let sums = Sums::default();
    let build = || quiet().workers(1).retries(Retries::times(1)).build().expect("a pool");
    let pool = metrics::with_local_recorder(&sums, build);
    let outputs: Result<Vec<_>, TaskError> =
        pool.map((0..500).map(|n| Echo(n.to_string()))).collect();
    assert_eq!(outputs.expect("all of them").len(), 500);
    let gate = Gate::new();
    let running = pool.submit(Pass(gate.path()));
    let cancelled = pool.submit(Echo("never".into()));
    cancelled.cancel();
    gate.open();
    running.result().expect("it ran");
    assert!(matches!(pool.submit(Bad(Ending::Abort)).result(), Err(TaskError::WorkerDied(_))));
    let once = TaskOptions::new().retries(Retries::none());
    assert!(pool.submit_with(once, Bad(Ending::Abort)).result().is_err());
    assert_eq!(pool.submit(Echo("last".into())).result().as_deref(), Ok("last"));
    pool.shutdown(Shutdown::Wait);

    let stats = pool.stats();
    assert_eq!((stats.done, stats.failed, stats.cancelled), (502, 2, 1));
    // A counter grows after the future is done.
    let ended = ["done", "failed", "cancelled"].map(|how| format!("procession_tasks_total {how}"));
    eventually("all ends", || ended.each_ref().map(|name| sums.of(name)) == [502, 2, 1]);
    for name in ["procession_task_run_seconds", "procession_task_wait_seconds"] {
        assert_eq!(sums.of(name), 502, "{name}");
    }
    let counted = ["task_retries", "worker_deaths", "worker_replacements", "spare_promotions"]
        .map(|name| sums.of(&format!("procession_{name}_total")));
    assert_eq!(counted, [stats.retried, 3, stats.respawned, 0]);
    assert_eq!((stats.retried, stats.respawned), (1, 3));
}
