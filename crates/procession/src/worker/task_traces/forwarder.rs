//! [`Forwarder`]: a subscriber that sends spans and events to the coordinator.
//!
//! It has the open spans and, for each thread, those that are entered. A subscriber of the crate
//! `tracing-subscriber` has the same, with much that is not needed here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use procession_os::fork::Origin;
use tracing_core::callsite::Identifier;
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::{Event, Level, LevelFilter, Metadata, Subscriber};

use super::SendTrace;
use super::budget::RateBudget;
use super::values::ValueReader;
use crate::task::TaskId;
use crate::transport::{self, MAX_FIELDS, MAX_NAMES, MAX_SITES, MAX_SPANS, TraceRecord, TraceSite};

thread_local! {
    /// The task that runs on this thread.
    static TASK: Cell<Option<u64>> = const { Cell::new(None) };
    /// The spans that this thread has entered, the last of them at the end.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// See the head of the file.
pub(super) struct Forwarder {
    level: LevelFilter,
    send: SendTrace,
    state: Mutex<ForwarderState>,
    /// The tasks that run.
    running: Mutex<Vec<u64>>,
    origin: Origin,
}

struct ForwarderState {
    sites: HashMap<SiteKey, u32>,
    spans: HashMap<u64, OpenSpan>,
    /// The number of open spans that the coordinator has.
    shown_spans: usize,
    last_span: u64,
    budget: RateBudget,
    /// Not told yet.
    dropped: u64,
    /// When the number was last sent: between other records, and at the end of a task. In nanoseconds.
    told: [u64; 2],
}

/// The interval, in nanoseconds, at which the number of dropped records is sent.
const TELL_BETWEEN: u64 = 100_000_000;
/// The same at the end of a task: many short tasks may drop something each.
const TELL_AT_END: u64 = 1_000_000;

/// What makes two sites the same.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum SiteKey {
    OfTracing(Identifier),
    /// The level, the target, the file and the line.
    #[cfg(feature = "log")]
    OfLog(u8, String, Option<(String, u32)>),
}

#[derive(Clone, Copy)]
struct OpenSpan {
    metadata: &'static Metadata<'static>,
    /// The task that had created it.
    task: u64,
    /// The span that the coordinator has in its place: this one, or the nearest above it. 0: the task.
    shown: u64,
    handles: usize,
}

impl ForwarderState {
    /// The span that the coordinator has for this parent. 0, which is the task, if that was closed since then: a
    /// span that was not sent does not keep the one above it open.
    fn shown_above(&self, parent: Option<OpenSpan>) -> u64 {
        let shown = parent.map_or(0, |span| span.shown);
        if self.spans.contains_key(&shown) { shown } else { 0 }
    }
}

impl Forwarder {
    pub(super) fn new(level: LevelFilter, send: SendTrace) -> Self {
        let state = ForwarderState {
            sites: HashMap::new(),
            spans: HashMap::new(),
            shown_spans: 0,
            last_span: 0,
            budget: RateBudget::new(transport::now()),
            dropped: 0,
            told: [0; 2],
        };
        let (state, running) = (Mutex::new(state), Mutex::default());
        Self { level, send, state, running, origin: Origin::here() }
    }

    /// Runs a task on this thread.
    pub(super) fn during<R>(&self, task: TaskId, run: impl FnOnce() -> R) -> R {
        self.running().push(task.0);
        TASK.set(Some(task.0));
        let result = run();
        TASK.set(None);
        // A task may have left spans entered.
        ENTERED.take();
        if !self.origin.is_forked() {
            self.running().retain(|other| *other != task.0);
        }
        if let Some(mut state) = self.state() {
            self.tell_dropped(&mut state, task.0, 1, TELL_AT_END);
        }
        result
    }

    /// Tells how much was dropped last. No task runs any more.
    pub(super) fn end(&self) {
        if let Some(mut state) = self.state() {
            self.tell_dropped(&mut state, 0, 1, 0);
        }
    }

    /// Sends the number of dropped records, if it was not sent within this time.
    fn tell_dropped(&self, state: &mut ForwarderState, task: u64, which: usize, interval: u64) {
        if state.dropped == 0 {
            return;
        }
        let now = transport::now();
        if now.saturating_sub(state.told[which]) >= interval {
            state.told[which] = now;
            let number = std::mem::take(&mut state.dropped);
            (self.send)(task, &TraceRecord::Dropped { number }.to_bytes());
        }
    }

    /// `None` in a copy of this process, which must not write into the memory that the worker shares. There the
    /// lock may be held by a thread that the copy does not have.
    fn state(&self) -> Option<MutexGuard<'_, ForwarderState>> {
        if self.origin.is_forked() {
            return None;
        }
        Some(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn running(&self) -> MutexGuard<'_, Vec<u64>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task of threads that run none: the one that runs, if that is the only one. 0: none.
    fn sole(&self) -> u64 {
        match self.running()[..] {
            [task] => task,
            _ => 0,
        }
    }

    /// The task of this thread, or the one of this span.
    fn task(&self, of: Option<&OpenSpan>) -> u64 {
        let of_span = || of.map_or_else(|| self.sole(), |span| span.task);
        TASK.get().unwrap_or_else(of_span)
    }

    /// Sends a record, with `describe` where its site is new, or counts it as dropped. With the lock held, so that
    /// the coordinator reads the description first.
    fn send_at(
        &self,
        state: &mut ForwarderState,
        task: u64,
        site: Option<(SiteKey, &dyn Fn() -> TraceSite<'static>)>,
        record: impl FnOnce(u32) -> TraceRecord<'static>,
    ) -> bool {
        let known = site.as_ref().map(|(key, _)| state.sites.get(key).copied());
        let number = state.sites.len();
        if known == Some(None) && number == MAX_SITES {
            state.dropped += 1;
            return false;
        }
        let bytes = record(known.flatten().unwrap_or(number as u32)).to_bytes();
        if !state.budget.take(transport::now(), bytes.len()) {
            state.dropped += 1;
            return false;
        }
        self.tell_dropped(state, task, 0, TELL_BETWEEN);
        if let Some((key, describe)) = site.filter(|_| known == Some(None)) {
            (self.send)(task, &TraceRecord::Site(describe()).to_bytes());
            state.sites.insert(key, number as u32);
        }
        (self.send)(task, &bytes);
        true
    }

    /// Sends an event whose parent is this span, or the one that is entered.
    pub(super) fn send_event(
        &self,
        parent: Parent,
        key: SiteKey,
        describe: &dyn Fn() -> TraceSite<'static>,
        values: transport::Values<'static>,
    ) {
        let Some(mut state) = self.state() else { return };
        let parent = parent.id().and_then(|id| state.spans.get(&id).copied());
        let task = self.task(parent.as_ref());
        let parent = state.shown_above(parent);
        self.send_at(&mut state, task, Some((key, describe)), |site| TraceRecord::Event {
            parent,
            site,
            values,
        });
    }

    pub(super) fn takes(&self, level: Level) -> bool {
        level <= self.level
    }
}

/// The parent of a span or an event.
pub(super) enum Parent {
    /// The span that this thread has entered last.
    Entered,
    Explicit(Option<u64>),
}

impl Parent {
    fn id(&self) -> Option<u64> {
        match self {
            // At the end of a thread its thread-locals may be gone.
            Self::Entered => ENTERED.try_with(|spans| spans.borrow().last().copied()).ok()?,
            Self::Explicit(id) => *id,
        }
    }

    fn of(is_contextual: bool, explicit: Option<&Id>) -> Self {
        if is_contextual { Self::Entered } else { Self::Explicit(explicit.map(Id::into_u64)) }
    }
}

impl Subscriber for Forwarder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.takes(*metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        // Formats the values before the lock is taken: that is the program's code, which may make events.
        let mut reader = ValueReader::new();
        attributes.record(&mut reader);
        let metadata = attributes.metadata();
        let parent = Parent::of(attributes.is_contextual(), attributes.parent()).id();
        let Some(mut state) = self.state() else { return Id::from_u64(u64::MAX) };
        let parent = parent.and_then(|id| state.spans.get(&id).copied());
        let task = self.task(parent.as_ref());
        let above = state.shown_above(parent);
        state.last_span += 1;
        let span = state.last_span;
        let is_shown = if state.shown_spans < MAX_SPANS {
            let key = SiteKey::OfTracing(metadata.callsite());
            let (values, describe) = (reader.values, || describe(metadata));
            self.send_at(&mut state, task, Some((key, &describe)), |site| TraceRecord::Span {
                span,
                parent: above,
                site,
                values,
            })
        } else {
            state.dropped += 1;
            false
        };
        state.shown_spans += usize::from(is_shown);
        let shown = if is_shown { span } else { above };
        state.spans.insert(span, OpenSpan { metadata, task, shown, handles: 1 });
        Id::from_u64(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut reader = ValueReader::new();
        values.record(&mut reader);
        let (span, values) = (span.into_u64(), reader.values);
        let Some(mut state) = self.state() else { return };
        let open = state.spans.get(&span).copied();
        if let Some(open) = open.filter(|open| open.shown == span) {
            let task = self.task(Some(&open));
            self.send_at(&mut state, task, None, |_| TraceRecord::Values { span, values });
        }
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        let (span, from) = (span.into_u64(), follows.into_u64());
        let Some(mut state) = self.state() else { return };
        let is_shown = |id| state.spans.get(&id).copied().filter(|open| open.shown == id);
        if let (Some(open), Some(_)) = (is_shown(span), is_shown(from)) {
            let task = self.task(Some(&open));
            self.send_at(&mut state, task, None, |_| TraceRecord::Follows { span, from });
        }
    }

    fn event(&self, event: &Event<'_>) {
        let mut reader = ValueReader::new();
        event.record(&mut reader);
        let metadata = event.metadata();
        let parent = Parent::of(event.is_contextual(), event.parent());
        let key = SiteKey::OfTracing(metadata.callsite());
        self.send_event(parent, key, &|| describe(metadata), reader.values);
    }

    fn enter(&self, span: &Id) {
        let _ = ENTERED.try_with(|spans| spans.borrow_mut().push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        let id = span.into_u64();
        let _ = ENTERED.try_with(|spans| {
            let mut spans = spans.borrow_mut();
            if let Some(last) = spans.iter().rposition(|of| *of == id) {
                spans.remove(last);
            }
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(mut state) = self.state()
            && let Some(open) = state.spans.get_mut(&id.into_u64())
        {
            open.handles += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let span = id.into_u64();
        let Some(mut state) = self.state() else { return false };
        let Some(open) = state.spans.get_mut(&span) else { return false };
        open.handles -= 1;
        if open.handles > 0 {
            return false;
        }
        let open = *open;
        state.spans.remove(&span);
        if open.shown == span {
            state.shown_spans -= 1;
            // Not counted: there is one for each span that was sent.
            (self.send)(open.task, &TraceRecord::Closed { span }.to_bytes());
        }
        true
    }

    fn current_span(&self) -> Current {
        let metadata = |id| Some(self.state()?.spans.get(&id)?.metadata);
        match Parent::Entered.id().and_then(|id| Some((id, metadata(id)?))) {
            Some((id, metadata)) => Current::new(Id::from_u64(id), metadata),
            None => Current::none(),
        }
    }
}

/// A site, cut to the bounds.
fn describe(metadata: &Metadata<'static>) -> TraceSite<'static> {
    let mut site = TraceSite {
        is_span: metadata.is_span(),
        level: level_number(*metadata.level()),
        name: metadata.name().into(),
        target: metadata.target().into(),
        module: metadata.module_path().map(Into::into),
        file: metadata.file().map(Into::into),
        line: metadata.line(),
        fields: metadata
            .fields()
            .iter()
            .take(MAX_FIELDS)
            .map(|field| field.name().into())
            .collect(),
    };
    cut(&mut site);
    site
}

/// Takes what is too long out of a site.
pub(super) fn cut(site: &mut TraceSite<'static>) {
    if site.size() > MAX_NAMES {
        (site.module, site.file, site.line) = (None, None, None);
    }
    while site.size() > MAX_NAMES && site.fields.pop().is_some() {}
    if site.size() > MAX_NAMES {
        for text in [&mut site.name, &mut site.target] {
            *text = text.chars().take(MAX_NAMES / 8).collect();
        }
    }
}

/// From 1, an error, to 5.
fn level_number(level: Level) -> u8 {
    let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
    levels.iter().position(|of| *of == level).map_or(5, |at| at as u8 + 1)
}
