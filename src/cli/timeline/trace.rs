//! A run as Chrome trace events, which Perfetto and chrome://tracing show.
//!
//! The format is described in "Trace Event Format" of the Chromium project: an `X` is a bar with a
//! beginning and a duration in microseconds, an `i` an instant, an `M` a name.

use serde_json::{Map, Value, json};

use super::lanes::{self, slot_name};
use procession_journal::story::{Fate, Mark, Span};
use procession_journal::{Process, Story};

/// The trace, as JSON.
pub(super) fn of(name: &str, story: &Story) -> String {
    let end = story.period.map_or(0, |(_, end)| end);
    let mut events = Events::default();
    let mut parties: Vec<_> = story.parties.iter().collect();
    parties.sort_by_key(|party| (party.worker, party.begin));
    for (order, party) in parties.into_iter().enumerate() {
        let pid = party.pid;
        let shown = format!("{} ({pid})", party.name());
        events
            .push(json!({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": shown}}));
        events.push(
            json!({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": order}}),
        );
    }
    for lane in lanes::of(story) {
        let (pid, tid) = (lane.party.pid, lane.slot);
        let shown = format!("{} {tid}", slot_name(lane.party));
        events.push(
            json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": shown}}),
        );
        for span in lane.spans {
            events.push(json!({
                "ph": "X", "cat": span.fate.as_str(), "name": span.code, "cname": color(span.fate),
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
    story.marks.iter().for_each(|mark| events.push(instant(story, mark)));
    let other = json!({"run": name, "program": concat!("procession ", env!("CARGO_PKG_VERSION"))});
    let Events(events) = events;
    format!("{{\"traceEvents\":[{events}],\"displayTimeUnit\":\"ms\",\"otherData\":{other}}}")
}

/// Events, each as its JSON: as values, those of a long run would take gigabytes.
#[derive(Default)]
struct Events(String);

impl Events {
    fn push(&mut self, event: Value) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0 += &event.to_string();
    }
}

fn details(span: &Span) -> Value {
    let mut args = Map::new();
    args.insert("status".into(), span.fate.as_str().into());
    args.insert("run".into(), span.run.into());
    let mut add = |name: &str, value: Option<Value>| {
        args.extend(value.map(|value| (name.to_owned(), value)));
    };
    add("requests", (span.attempts > 0).then(|| span.attempts.into()));
    add("bytes", span.bytes.map(Value::from));
    add("http", span.http.map(Value::from));
    add("error", span.error.clone().map(Value::from));
    add("unchanged", span.unchanged.then_some(Value::Bool(true)));
    add("timed_out", span.is_late.then_some(Value::Bool(true)));
    add("retried", span.is_retried.then_some(Value::Bool(true)));
    Value::Object(args)
}

fn instant(story: &Story, mark: &Mark) -> Value {
    let coordinator = story.parties.iter().find(|party| party.process == Process::Coordinator);
    let coordinator = coordinator.map_or(0, |party| party.pid);
    match mark {
        Mark::Died { at, party, how } => {
            let name = format!("died of {how}");
            json!({"ph": "i", "s": "p", "cat": "death", "name": name,
                "pid": story.parties[*party].pid, "tid": 0, "ts": at})
        }
        Mark::Retried { at, code, fault, run, span } => {
            let (pid, tid) = span.map_or((coordinator, 0), |span| {
                let span = &story.spans[span];
                (story.parties[span.party].pid, span.slot)
            });
            let code = code.as_deref().unwrap_or("a task");
            let name = format!("{code} is run again after a {fault}");
            json!({"ph": "i", "s": "t", "cat": "retry", "name": name, "pid": pid, "tid": tid,
                "ts": at, "args": {"run": run}})
        }
        Mark::TimedOut { at, code } => {
            let name = format!("{} ran for too long", code.as_deref().unwrap_or("a task"));
            json!({"ph": "i", "s": "g", "cat": "timeout", "name": name, "pid": coordinator, "tid": 0,
                "ts": at})
        }
    }
}

/// Of the names that the viewers know.
fn color(fate: Fate) -> &'static str {
    match fate {
        Fate::Ok => "good",
        Fate::NotFound => "bad",
        Fate::Error => "terrible",
        Fate::Lost => "black",
        Fate::Running => "grey",
    }
}
