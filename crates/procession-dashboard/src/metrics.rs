//! The gauges of a pool in the text format of Prometheus.

use std::fmt::Write;

use crate::gauges::{DurationGauge, Gauges};

/// The content type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics.
pub(crate) fn text(gauges: &Gauges) -> String {
    let mut text = String::new();
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        head(&mut text, name, kind, help);
        let _ = writeln!(text, "{name} {value}");
    };
    one("procession_tasks_pending", "gauge", "Tasks that have not begun.", gauges.pending as u64);
    one("procession_tasks_running", "gauge", "Tasks that run.", gauges.running as u64);
    one("procession_slots", "gauge", "Tasks that run at a time, at most.", gauges.slots as u64);
    one(
        "procession_workers",
        "gauge",
        "Worker processes that live, spares included.",
        gauges.workers.len() as u64,
    );
    one("procession_task_retries_total", "counter", "Attempts beyond the first.", gauges.retried);
    one(
        "procession_worker_replacements_total",
        "counter",
        "Workers that replaced one that died, was killed or was recycled.",
        gauges.respawned,
    );
    one("procession_spares", "gauge", "Spare workers that stand by.", gauges.spares as u64);
    one(
        "procession_spare_promotions_total",
        "counter",
        "Spares that took the place of a worker.",
        gauges.promoted,
    );
    let name = "procession_tasks_total";
    head(&mut text, name, "counter", "Tasks that ended.");
    for (outcome, count) in
        [("done", gauges.done), ("failed", gauges.failed), ("cancelled", gauges.cancelled)]
    {
        let _ = writeln!(text, "{name}{{outcome=\"{outcome}\"}} {count}");
    }
    durations(&mut text, "procession_task_wait_seconds", "From submission to start.", &gauges.wait);
    durations(&mut text, "procession_task_run_seconds", "Durations of tasks.", &gauges.run);
    let name = "procession_worker_memory_bytes";
    head(&mut text, name, "gauge", "Resident memory of a worker.");
    for worker in &gauges.workers {
        if let Some(memory) = worker.memory {
            let _ = writeln!(text, "{name}{{pid=\"{}\"}} {memory}", worker.pid);
        }
    }
    let name = "procession_worker_cpu_seconds_total";
    head(&mut text, name, "counter", "CPU time of a worker.");
    for worker in &gauges.workers {
        if let Some(cpu) = worker.cpu_s {
            let _ = writeln!(text, "{name}{{pid=\"{}\"}} {cpu}", worker.pid);
        }
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn durations(text: &mut String, name: &str, help: &str, gauge: &DurationGauge) {
    let DurationGauge { count, sum, median, p95, p99 } = gauge;
    head(text, name, "summary", help);
    for (quantile, value) in [("0.5", median), ("0.95", p95), ("0.99", p99)] {
        let _ = writeln!(text, "{name}{{quantile=\"{quantile}\"}} {value}");
    }
    let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {count}");
}
