//! A subscriber that keeps all spans and events, with their place in the tree.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_core::span::Current;

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// A span or an event.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) level: Level,
    pub(crate) target: String,
    pub(crate) name: String,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) line: Option<u32>,
    parent: Option<u64>,
    /// Of a span: the number of handles.
    handles: usize,
    is_span: bool,
    metadata: &'static Metadata<'static>,
}

/// What happened, in order. The id of a span is its index, counted from 1.
#[derive(Clone)]
pub(crate) struct TreeRecorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    level: LevelFilter,
}

impl TreeRecorder {
    pub(crate) fn new(level: LevelFilter) -> Self {
        Self { seen: Arc::default(), level }
    }

    /// The events of this target, in order.
    pub(crate) fn events(&self, target: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| !seen.is_span && seen.target == target).cloned().collect()
    }

    pub(crate) fn messages(&self, target: &str) -> Vec<String> {
        self.events(target).into_iter().map(|event| event.fields["message"].clone()).collect()
    }

    /// The spans above it, the nearest first.
    pub(crate) fn above(&self, seen: &Seen) -> Vec<Seen> {
        let all = self.seen.lock().unwrap();
        let at = |id: u64| all[id as usize - 1].clone();
        let mut next = seen.parent.map(at);
        let mut above = Vec::new();
        while let Some(span) = next {
            next = span.parent.map(at);
            above.push(span);
        }
        above
    }

    /// The names of the spans above it, the nearest first.
    pub(crate) fn path(&self, seen: &Seen) -> Vec<String> {
        self.above(seen).into_iter().map(|span| span.name).collect()
    }

    /// The names of the spans that are open.
    pub(crate) fn open(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|span| span.handles > 0).map(|span| span.name.clone()).collect()
    }

    fn add(
        &self,
        metadata: &'static Metadata<'static>,
        fields: SeenFields,
        parent: Option<u64>,
    ) -> u64 {
        let is_span = metadata.is_span();
        let mut seen = self.seen.lock().unwrap();
        seen.push(Seen {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            name: metadata.name().to_owned(),
            fields: fields.0,
            line: metadata.line(),
            parent,
            handles: usize::from(is_span),
            is_span,
            metadata,
        });
        seen.len() as u64
    }
}

fn entered() -> Option<u64> {
    ENTERED.with(|spans| spans.borrow().last().copied())
}

#[derive(Default)]
struct SeenFields(BTreeMap<String, String>);

impl Visit for SeenFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Subscriber for TreeRecorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target() != "unwanted"
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = SeenFields::default();
        span.record(&mut fields);
        let explicit = || span.parent().map(Id::into_u64);
        let parent = if span.is_contextual() { entered() } else { explicit() };
        Id::from_u64(self.add(span.metadata(), fields, parent))
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = SeenFields::default();
        event.record(&mut fields);
        let explicit = || event.parent().map(Id::into_u64);
        let parent = if event.is_contextual() { entered() } else { explicit() };
        self.add(event.metadata(), fields, parent);
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut fields = SeenFields::default();
        values.record(&mut fields);
        self.seen.lock().unwrap()[span.into_u64() as usize - 1].fields.extend(fields.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, span: &Id) {
        ENTERED.with(|spans| spans.borrow_mut().push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        ENTERED.with(|spans| assert_eq!(spans.borrow_mut().pop(), Some(span.into_u64())));
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.seen.lock().unwrap()[id.into_u64() as usize - 1].handles += 1;
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let span = &mut self.seen.lock().unwrap()[id.into_u64() as usize - 1];
        span.handles -= 1;
        span.handles == 0
    }

    fn current_span(&self) -> Current {
        let metadata = |id: u64| self.seen.lock().unwrap()[id as usize - 1].metadata;
        entered().map_or_else(Current::none, |id| Current::new(Id::from_u64(id), metadata(id)))
    }
}
