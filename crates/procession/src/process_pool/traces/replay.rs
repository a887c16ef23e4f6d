//! [`WorkerTraces`]: the spans of one worker that are open in the program's subscriber, and its sites.

use std::collections::HashMap;

use tracing::dispatcher::{self, Dispatch};
use tracing::field::{self, Field, Value, ValueSet};
use tracing::span::Id;
use tracing::{Event, Metadata, Span};

use super::super::worker_handle::WorkerHandle;
use super::Traces;
use super::sites::{self, RemoteSite};
use crate::panics;
use crate::printable::printable;
use crate::transport::{
    FieldValue, Garbled, MAX_FIELDS, MAX_SITES, MAX_SPANS, MAX_TEXT, TraceRecord, Values,
};

/// A worker, as the records that it sends are looked at.
pub(in super::super) trait TracedWorker {
    /// Its index.
    fn worker(&self) -> usize;
    fn pid(&self) -> u32;
    /// Whether it has this task and has not answered it.
    fn has_task(&self, task: u64) -> bool;
    /// Where such a task comes from.
    fn origin_of(&self, task: u64) -> Option<TaskOrigin>;
}

/// Where a task comes from: its name, and the span in which it was submitted.
pub(in super::super) struct TaskOrigin {
    pub name: &'static str,
    pub submitter: Option<Span>,
}

impl TracedWorker for WorkerHandle {
    fn worker(&self) -> usize {
        self.worker()
    }

    fn pid(&self) -> u32 {
        self.pid()
    }

    fn has_task(&self, task: u64) -> bool {
        self.has_task(task)
    }

    fn origin_of(&self, task: u64) -> Option<TaskOrigin> {
        let (work_item, _) = self.work_item_of(task)?;
        Some(TaskOrigin { name: work_item.name, submitter: work_item.submitter.0.clone() })
    }
}

/// See the head of the file. After a panic of the subscriber it goes on.
#[derive(Default)]
pub(crate) struct WorkerTraces {
    /// By their number in the worker. `None`: the worker has added too many.
    sites: Vec<Option<&'static RemoteSite>>,
    /// Open spans, by their number in the worker.
    spans: HashMap<u64, RemoteSpan>,
    /// The spans of tasks that were not answered.
    tasks: HashMap<u64, RemoteSpan>,
    /// For records of no task that the worker has.
    own: Option<RemoteSpan>,
    /// Records that were dropped here, since their site was not kept.
    dropped: u64,
}

/// A span that is open in the program's subscriber.
struct RemoteSpan {
    span: Span,
    /// Where its children are placed.
    place: TreePlace,
    /// Bytes of values that may still be added to it: a subscriber may keep them all.
    room: usize,
}

/// Largest depth of spans of one worker: a subscriber may print all spans above an event with it.
const MAX_DEPTH: usize = 64;
/// What a value or a link counts in addition to its text, in bytes.
const EACH: usize = 16;

/// Where spans and events are placed.
#[derive(Clone)]
struct TreePlace {
    dispatch: Dispatch,
    /// The nearest span that the subscriber has not refused. It stays open while this place is used.
    parent: Option<Span>,
    /// Number of spans of the worker above it.
    depth: usize,
}

impl RemoteSpan {
    /// A span that was made here. The subscriber may have refused it.
    fn at(place: TreePlace, span: Span) -> Self {
        let TreePlace { dispatch, parent, depth } = place;
        let parent = if span.id().is_some() { Some(span.clone()) } else { parent };
        let place = TreePlace { dispatch, parent, depth: depth + 1 };
        Self { place, span, room: 4 * MAX_TEXT }
    }

    /// Whether these bytes may be added.
    fn takes(&mut self, bytes: usize) -> bool {
        let left = self.room.checked_sub(bytes);
        self.room = left.unwrap_or(self.room);
        left.is_some()
    }
}

/// The bytes that values count. An error: more than a worker sends.
fn size(values: &Values<'_>) -> Result<usize, Garbled> {
    let text = |value: &FieldValue<'_>| match value {
        FieldValue::Text(text) | FieldValue::Formatted(text) => text.len(),
        _ => 0,
    };
    let texts: usize = values.iter().map(|(_, value)| text(value)).sum();
    if texts > MAX_TEXT { Err(Garbled) } else { Ok(texts + EACH * values.len()) }
}

impl WorkerTraces {
    /// Passes a record on. An error: no worker of this library sends such a record.
    pub(in super::super) fn pass(
        &mut self,
        traces: &Traces,
        handle: &impl TracedWorker,
        task: u64,
        record: &[u8],
    ) -> Result<(), Garbled> {
        match TraceRecord::parse(record)? {
            TraceRecord::Site(site) => {
                if !site.is_valid() || self.sites.len() == MAX_SITES {
                    return Err(Garbled);
                }
                // A subscriber that panics loses what is made here.
                let find = || sites::find(site, handle.worker());
                let found = panics::catch(|| dispatcher::with_default(&traces.dispatch, find));
                self.sites.push(found.ok().flatten());
            }
            TraceRecord::Span { span, parent, site, values } => {
                if self.spans.len() == MAX_SPANS || self.spans.contains_key(&span) {
                    return Err(Garbled);
                }
                size(&values)?;
                let (site, place) = (self.site(site)?, self.place(traces, handle, task, parent)?);
                let site = site.filter(|_| place.depth < MAX_DEPTH);
                let made = match site {
                    Some(site) => place.open(site, &values),
                    None => Span::none(),
                };
                self.dropped += u64::from(site.is_none());
                self.spans.insert(span, RemoteSpan::at(place, made));
            }
            TraceRecord::Values { span, values } => self.add_values(span, &values)?,
            TraceRecord::Follows { span, from } => {
                let from = self.spans.get(&from).ok_or(Garbled)?.span.clone();
                let remote = self.spans.get_mut(&span).ok_or(Garbled)?;
                if remote.takes(EACH) {
                    let _ = panics::catch(|| remote.span.follows_from(&from).is_none());
                } else {
                    self.dropped += 1;
                }
                panics::discard(from);
            }
            TraceRecord::Closed { span } => {
                panics::discard(self.spans.remove(&span).ok_or(Garbled)?);
            }
            TraceRecord::Event { parent, site, values } => {
                size(&values)?;
                let (site, place) = (self.site(site)?, self.place(traces, handle, task, parent)?);
                match site {
                    Some(site) => place.tell(site, &values),
                    None => self.dropped += 1,
                }
            }
            TraceRecord::Dropped { number } => {
                let place = self.place(traces, handle, task, 0)?;
                place.tell_dropped(handle, number, "too many in a second, or of spans and places");
            }
        }
        Ok(())
    }

    fn add_values(&mut self, span: u64, values: &Values<'_>) -> Result<(), Garbled> {
        let size = size(values)?;
        let remote = self.spans.get_mut(&span).ok_or(Garbled)?;
        if !remote.takes(size) {
            self.dropped += 1;
        } else if let Some(metadata) = remote.span.metadata() {
            let record = |values: &ValueSet<'_>| {
                remote.span.record_all(values);
            };
            let _ = panics::catch(|| with_values(metadata, values, record));
        }
        Ok(())
    }

    /// Closes the spans of the tasks that were answered.
    pub(in super::super) fn close_answered(&mut self, handle: &impl TracedWorker) {
        if !self.tasks.is_empty() {
            let answered = self.tasks.extract_if(|task, _| !handle.has_task(*task));
            answered.for_each(panics::discard);
        }
    }

    /// Closes all spans at the end of the worker.
    pub(in super::super) fn end(&mut self, traces: &Traces, handle: &impl TracedWorker) {
        if self.dropped > 0 {
            let place = self.own(traces, handle);
            place.tell_dropped(
                handle,
                self.dropped,
                "of too many places in the code, or too deep or too large",
            );
        }
        panics::discard(std::mem::take(self));
    }

    fn site(&self, site: u32) -> Result<Option<&'static RemoteSite>, Garbled> {
        self.sites.get(site as usize).copied().ok_or(Garbled)
    }

    /// The place below this span of the worker, or that of this task.
    fn place(
        &mut self,
        traces: &Traces,
        handle: &impl TracedWorker,
        task: u64,
        parent: u64,
    ) -> Result<TreePlace, Garbled> {
        if parent > 0 {
            return Ok(self.spans.get(&parent).ok_or(Garbled)?.place.clone());
        }
        if let Some(known) = self.tasks.get(&task)
            && handle.has_task(task)
        {
            return Ok(known.place.clone());
        }
        let Some(origin) = handle.origin_of(task) else {
            return Ok(self.own(traces, handle));
        };
        self.close_answered(handle);
        let span = of_task(traces, handle, task, &origin);
        let place = span.place.clone();
        self.tasks.insert(task, span);
        Ok(place)
    }

    /// The place of what belongs to no task.
    fn own(&mut self, traces: &Traces, handle: &impl TracedWorker) -> TreePlace {
        let own = self.own.get_or_insert_with(|| {
            let (worker, pid) = (handle.worker(), handle.pid());
            let make =
                || tracing::error_span!(target: "procession", parent: None, "worker", worker, pid);
            let dispatch = traces.dispatch.clone();
            let span = panics::catch(|| dispatcher::with_default(&dispatch, make));
            let place = TreePlace { dispatch, parent: None, depth: 0 };
            RemoteSpan::at(place, span.unwrap_or_else(|_| Span::none()))
        });
        own.place.clone()
    }
}

/// The span of a task, below that of its submitter. Its level is that of errors, so that a subscriber that wants
/// any event wants the span.
fn of_task(
    traces: &Traces,
    handle: &impl TracedWorker,
    task: u64,
    origin: &TaskOrigin,
) -> RemoteSpan {
    let submitter = origin.submitter.as_ref();
    let parent = submitter.filter(|span| span.id().is_some()).cloned();
    let dispatch =
        submitter.and_then(|span| span.with_subscriber(|(_, dispatch)| dispatch.clone()));
    let dispatch = dispatch.unwrap_or_else(|| traces.dispatch.clone());
    let (name, worker, pid) = (origin.name, handle.worker(), handle.pid());
    let above = parent.as_ref().and_then(Span::id);
    let make = || tracing::error_span!(target: "procession", parent: above, "task", task, name, worker, pid);
    let span = panics::catch(|| dispatcher::with_default(&dispatch, make));
    RemoteSpan::at(TreePlace { dispatch, parent, depth: 0 }, span.unwrap_or_else(|_| Span::none()))
}

impl TreePlace {
    fn parent_id(&self) -> Option<Id> {
        self.parent.as_ref().and_then(Span::id)
    }

    /// Creates a span here.
    fn open(&self, site: &'static RemoteSite, values: &Values<'_>) -> Span {
        let metadata = site.static_metadata();
        let made = panics::catch(|| {
            if !metadata.is_span() || !self.dispatch.enabled(metadata) {
                return Span::none();
            }
            with_values(metadata, values, |values| {
                Span::child_of_with(self.parent_id(), metadata, values, &self.dispatch)
            })
        });
        made.unwrap_or_else(|_| Span::none())
    }

    /// Makes an event here.
    fn tell(&self, site: &'static RemoteSite, values: &Values<'_>) {
        let metadata = site.static_metadata();
        let _ = panics::catch(|| {
            if metadata.is_event() && self.dispatch.enabled(metadata) {
                with_values(metadata, values, |values| {
                    self.dispatch.event(&Event::new_child_of(self.parent_id(), metadata, values));
                });
            }
        });
    }

    /// Tells the subscriber that spans and events were dropped.
    fn tell_dropped(&self, handle: &impl TracedWorker, number: u64, why: &str) {
        let (worker, pid, parent) = (handle.worker(), handle.pid(), self.parent_id());
        let tell = || {
            tracing::warn!(
                target: "procession", parent: parent, worker, pid, number, why,
                "spans and events were dropped"
            );
        };
        let _ = panics::catch(|| dispatcher::with_default(&self.dispatch, tell));
    }
}

/// Calls `take` with the values of a record, without control characters.
fn with_values<R>(
    metadata: &'static Metadata<'static>,
    values: &Values<'_>,
    take: impl FnOnce(&ValueSet<'_>) -> R,
) -> R {
    let owned = |value: &FieldValue<'_>| -> Box<dyn Value> {
        match value {
            FieldValue::Bool(value) => Box::new(*value),
            FieldValue::Int(value) => Box::new(*value),
            FieldValue::Unsigned(value) => Box::new(*value),
            FieldValue::Float(bits) => Box::new(f64::from_bits(*bits)),
            FieldValue::Text(text) => Box::new(printable(text).into_owned()),
            FieldValue::Formatted(text) => Box::new(field::display(printable(text).into_owned())),
        }
    };
    let fields: Vec<Field> = metadata.fields().iter().collect();
    let Some(first) = fields.first() else {
        return take(&metadata.fields().value_set::<[(&Field, Option<&dyn Value>); 0]>(&[]));
    };
    let known = values.iter().filter_map(|(at, value)| Some((fields.get(*at as usize)?, value)));
    let known: Vec<_> = known.map(|(field, value)| (field, owned(value))).collect();
    // A set has a fixed number of places; those without a value are not seen.
    let mut places: [(&Field, Option<&dyn Value>); MAX_FIELDS] = [(first, None); MAX_FIELDS];
    for (place, (field, value)) in places.iter_mut().zip(&known) {
        *place = (field, Some(&**value));
    }
    take(&metadata.fields().value_set(&places))
}
