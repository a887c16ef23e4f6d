//! Records of spans and events from arbitrary bytes, for a subscriber that looks at all that it receives.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::dispatcher::Dispatch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::Traces;
use super::replay::{TaskOrigin, TracedWorker, WorkerTraces};
use crate::transport::MAX_TEXT;

/// A worker that has the tasks 0 to 4.
struct Worker {
    index: usize,
}

impl TracedWorker for Worker {
    fn worker(&self) -> usize {
        self.index
    }

    fn pid(&self) -> u32 {
        1
    }

    fn has_task(&self, task: u64) -> bool {
        task < 5
    }

    fn origin_of(&self, task: u64) -> Option<TaskOrigin> {
        self.has_task(task).then_some(TaskOrigin { name: "task", submitter: None })
    }
}

/// Notes names and values that are not as they must be. It does not panic: the pool would go on.
#[derive(Default)]
struct Looks {
    spans: AtomicU64,
    faults: AtomicU64,
}

impl Looks {
    fn at(&self, is_sound: bool) {
        self.faults.fetch_add(u64::from(!is_sound), Ordering::Relaxed);
    }
}

/// Looks at values.
struct Look<'l>(&'l Looks);

impl Visit for Look<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        // No character becomes longer than eleven bytes, and each of those no longer than two.
        self.0.at(text.len() <= 22 * MAX_TEXT + 2 && !text.contains(char::is_control));
        self.0.at(!field.name().contains(char::is_control));
    }
}

impl Subscriber for Looks {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.at(!metadata.name().contains(char::is_control));
        self.at(!metadata.target().contains(char::is_control));
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Look(self));
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Look(self));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Look(self));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Each line is a record after the digit of its task.
pub(crate) fn traced_from(data: &[u8]) {
    let traces = Traces { dispatch: Dispatch::new(Looks::default()) };
    // Each index may add a number of sites to this process, for its whole life.
    let worker = Worker { index: data.len() % 4 };
    let mut known = WorkerTraces::default();
    for line in data.split(|byte| *byte == b'\n') {
        let Some((task, record)) = line.split_first() else { continue };
        let task = u64::from(task.wrapping_sub(b'0'));
        if known.pass(&traces, &worker, task, record).is_err() {
            break;
        }
    }
    known.close_answered(&worker);
    known.end(&traces, &worker);
    let looks = traces.dispatch.downcast_ref::<Looks>();
    assert!(looks.is_some_and(|looks| looks.faults.load(Ordering::Relaxed) == 0));
}
