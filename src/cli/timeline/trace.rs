//! A run as Chrome trace events, for Perfetto and chrome://tracing.
//!
//! The format is described in "Trace Event Format" of the Chromium project: an `X` is a bar with a
//! begin and a duration in microseconds, an `i` an instant, an `M` a name.

use serde_json::{Map, Value, json};

use super::lanes::{self, slot_name};
use procession_journal::{Annotation, Span, SpanOutcome};
use procession_journal::{ProcessKind, RunHistory};

/// The trace, as JSON.
pub(super) fn of(name: &str, history: &RunHistory) -> String {
    let end = history.period.map_or(0, |(_, end)| end);
    let mut events = TraceEvents::default();
    let mut processes: Vec<_> = history.processes.iter().collect();
    processes.sort_by_key(|process| (process.worker, process.begin));
    for (order, process) in processes.into_iter().enumerate() {
        let pid = process.pid;
        let shown = format!("{} ({pid})", process.name());
        events
            .push(json!({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": shown}}));
        events.push(
            json!({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": order}}),
        );
    }
    for lane in lanes::of(history) {
        let (pid, tid) = (lane.process.pid, lane.slot);
        let shown = format!("{} {tid}", slot_name(lane.process));
        events.push(
            json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": shown}}),
        );
        for span in lane.spans {
            events.push(json!({
                "ph": "X", "cat": span.outcome.as_str(), "name": span.label(), "cname": color(span.outcome),
                "pid": pid, "tid": tid, "ts": span.begin, "dur": span.duration(end),
                "args": details(span),
            }));
            for failed in &span.tries {
                let what = format!("try {}: {}", failed.attempt, failed.error);
                events.push(json!({"ph": "i", "s": "t", "cat": "retry", "name": what, "pid": pid,
                    "tid": tid, "ts": failed.at}));
            }
        }
    }
    history.annotations.iter().for_each(|annotation| events.push(instant(history, annotation)));
    let other = json!({"run": name, "program": concat!("procession ", env!("CARGO_PKG_VERSION"))});
    let TraceEvents(events) = events;
    format!("{{\"traceEvents\":[{events}],\"displayTimeUnit\":\"ms\",\"otherData\":{other}}}")
}

/// Events as JSON text: as values, the events of a long run would need gigabytes.
#[derive(Default)]
struct TraceEvents(String);

impl TraceEvents {
    fn push(&mut self, event: Value) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0 += &event.to_string();
    }
}

fn details(span: &Span) -> Value {
    let mut args = Map::new();
    args.insert("status".into(), span.outcome.as_str().into());
    args.insert("run".into(), span.run.into());
    let mut add = |name: &str, value: Option<Value>| {
        args.extend(value.map(|value| (name.to_owned(), value)));
    };
    add("requests", (span.attempts > 0).then(|| span.attempts.into()));
    add("bytes", span.bytes.map(Value::from));
    add("http", span.http.map(Value::from));
    add("error", span.error.clone().map(Value::from));
    add("unchanged", span.unchanged.then_some(Value::Bool(true)));
    add("timed_out", span.timed_out.then_some(Value::Bool(true)));
    add("retried", span.is_retried.then_some(Value::Bool(true)));
    Value::Object(args)
}

fn instant(history: &RunHistory, annotation: &Annotation) -> Value {
    let coordinator =
        history.processes.iter().find(|process| process.kind == ProcessKind::Coordinator);
    let coordinator = coordinator.map_or(0, |process| process.pid);
    match annotation {
        Annotation::Died { at, process, how } => {
            let name = format!("died of {how}");
            json!({"ph": "i", "s": "p", "cat": "death", "name": name,
                "pid": history.processes[*process].pid, "tid": 0, "ts": at})
        }
        Annotation::Retried { at, code, fault, run, span } => {
            let (pid, tid) = span.map_or((coordinator, 0), |span| {
                let span = &history.spans[span];
                (history.processes[span.process].pid, span.slot)
            });
            let code = code.as_deref().unwrap_or("a task");
            let name = format!("{code} is run again after a {fault}");
            json!({"ph": "i", "s": "t", "cat": "retry", "name": name, "pid": pid, "tid": tid,
                "ts": at, "args": {"run": run}})
        }
        Annotation::TimedOut { at, code } => {
            let name = format!("{} ran for too long", code.as_deref().unwrap_or("a task"));
            json!({"ph": "i", "s": "g", "cat": "timeout", "name": name, "pid": coordinator, "tid": 0,
                "ts": at})
        }
    }
}

/// A colour name of the trace format.
fn color(outcome: SpanOutcome) -> &'static str {
    match outcome {
        SpanOutcome::Ok => "good",
        SpanOutcome::NotFound => "bad",
        SpanOutcome::Error => "terrible",
        SpanOutcome::Lost => "black",
        SpanOutcome::Running => "grey",
    }
}
