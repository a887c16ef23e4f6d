//! The loop of a worker: takes the next call, claims it, runs its task and replies.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::reply_sender::{ReplySender, WorkerLink};
use super::streams::Streams;
use super::task_journal::{RunnerLane, TaskJournal};
use super::task_traces::TaskTraces;
use super::{end_at_once, refused};
use crate::codec::{self, Refusal, with_encoding};
use crate::panics;
use crate::progress_lines::LineSink;
use crate::registry::Registry;
use crate::shared_value;
use crate::stop_signal::{StopSignal, WorkerStop};
use crate::task::{Context, LabelSink, Locals, Task, TaskId};
use crate::transport::{
    self, AdaptiveSpin, Assembly, Attachment, Call, Direction, HAS_ATTACHMENT, Marking,
    NOT_RECEIVED, Patience, RELEASED, Reader, Records, ReplyBuffer, SegmentReader, SharedRegion,
    Socket, Status, TAKE_IN,
};
use procession_os as os;
use procession_os::fork::Origin;
use procession_os::threads::ThreadSpec;

/// The state that the threads share which run calls (runners).
pub(super) struct WorkerLoop {
    registry: Registry,
    worker: usize,
    locals: Arc<Locals>,
    lines: LineSink,
    region: Arc<SharedRegion>,
    inbox: Mutex<Inbox>,
    reply_sender: Arc<ReplySender>,
    /// Those of the inbox.
    segments: SegmentReader,
    /// Number of runners that have a call.
    busy: AtomicUsize,
    streams: Streams,
    origin: Origin,
    journal: Option<TaskJournal>,
    traces: Option<TaskTraces>,
}

/// The ring of calls and the socket, as read by one runner at a time.
struct Inbox {
    reader: Reader,
    records: Records,
    socket: Arc<Socket>,
    assembly: Assembly,
    spin: AdaptiveSpin,
}

/// The runners beside the main thread.
#[derive(Default)]
pub(super) struct Runners {
    pub threads: Vec<JoinHandle<()>>,
    /// The error of the first thread that could not be started, if there are fewer than requested.
    pub refused: Option<io::Error>,
}

/// The sequence number of the initializer's call, which comes before all tasks.
const INITIALIZER: u32 = 0;

/// A call that was taken out of the inbox. The buffers are used again for the next call.
#[derive(Default)]
struct Taken {
    record: Vec<u8>,
    attachment: Attachment,
}

impl WorkerLoop {
    pub(super) fn new(
        registry: Registry,
        marking: Marking,
        locals: Arc<Locals>,
        link: WorkerLink,
        journal: Option<TaskJournal>,
    ) -> Self {
        let segments = SegmentReader::new(Arc::clone(&link.region), Direction::ToWorker);
        let reply_sender = Arc::new(ReplySender::new(&link));
        let WorkerLink { region, socket, .. } = link;
        let (speaks, traces) = (Arc::clone(&reply_sender), Arc::clone(&reply_sender));
        let trace = move |task, record: &[u8]| traces.trace(task, record);
        Self {
            registry,
            worker: marking.worker,
            locals,
            lines: LineSink::new(speaks),
            region,
            inbox: Mutex::new(Inbox {
                reader: Reader::default(),
                records: Records::default(),
                socket,
                assembly: Assembly::with(segments.clone()),
                spin: AdaptiveSpin::default(),
            }),
            reply_sender,
            segments,
            busy: AtomicUsize::new(0),
            streams: Streams::as_they_are(),
            origin: Origin::here(),
            journal,
            traces: TaskTraces::open(marking, Box::new(trace)),
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the segments back to the system that were not used for some time.
    pub(super) fn drop_idle_segments(&self) {
        self.segments.drop_given_up();
        self.reply_sender.drop_idle_segments();
    }

    /// Has a crash of this process recorded in the region.
    pub(super) fn record_crashes(&self) {
        // A signal handler has no owner, so it gets the region for as long as the process lives.
        SharedRegion::record_crashes(Box::leak(Box::new(Arc::clone(&self.region))));
    }

    /// Starts the runners with these numbers, as many as the system allows.
    pub(super) fn start_runners(
        self: &Arc<Self>,
        numbers: Range<usize>,
        stack: Option<usize>,
    ) -> Runners {
        let mut runners = Runners::default();
        let threads = numbers.end;
        for n in numbers {
            let worker_loop = Arc::clone(self);
            let thread = ThreadSpec::new(format!("runner-{n}")).with_stack(stack);
            match thread.start(move || worker_loop.run_or_end(threads)) {
                Ok(thread) => runners.threads.push(thread),
                Err(error) => {
                    runners.refused = Some(refused(error));
                    break;
                }
            }
        }
        runners
    }

    /// Runs calls until the coordinator closes the ring. A panic of the loop ends the process.
    pub(super) fn run_or_end(&self, threads: usize) {
        if panics::catch(|| self.run_until_closed(threads)).is_err() {
            // The panic was printed. Without this runner, calls would wait for ever.
            end_at_once();
        }
    }

    fn run_until_closed(&self, threads: usize) {
        os::signals::end_with_the_parent();
        os::crash::use_own_signal_stack();
        let (mut taken, mut reply_buffer) = (Taken::default(), ReplyBuffer::default());
        let lane = self.journal.as_ref().map(TaskJournal::lane);
        let mut context = self.context();
        while self.take_next(&mut taken) {
            self.run(&mut taken, &mut reply_buffer, &mut context, lane.as_ref());
            self.busy.fetch_sub(1, Ordering::SeqCst);
            if threads > 1 {
                // The runner that waits for calls did not know that this one was the last with a call.
                self.note_if_idle();
            }
        }
    }

    /// The context of a runner's tasks, before the first one.
    fn context(&self) -> Context {
        Context {
            task: TaskId(0),
            worker: self.worker,
            attempt: 0,
            locals: Arc::clone(&self.locals),
            lines: self.lines.clone(),
            label: None,
            stop: StopSignal::Worker(WorkerStop {
                region: Arc::clone(&self.region),
                claim: 0,
                stop_after: None,
                begun_at: 0,
            }),
        }
    }

    /// Drops the values of `Context::local`. No task runs any more.
    pub(super) fn drop_locals(&self) {
        self.locals.clear();
    }

    /// Writes the last lines of the journal, and those about what was dropped. No task runs any more.
    pub(super) fn end_records(&self) {
        if let Some(traces) = &self.traces {
            traces.end();
        }
        if let Some(journal) = &self.journal {
            journal.end();
        }
    }

    /// An idle worker sends no further reply, so a waiting handler is woken for those it has sent.
    fn note_if_idle(&self) {
        if self.busy.load(Ordering::SeqCst) == 0 {
            self.region.set_idle(true);
            self.region.reply_events().notify_dozing();
        }
    }

    /// Waits for the next call; returns false when the ring is closed. One runner waits for the event
    /// count, the others for the lock of the inbox.
    fn take_next(&self, taken: &mut Taken) -> bool {
        let mut inbox = self.inbox();
        let Inbox { reader, records, socket, assembly, spin } = &mut *inbox;
        let ring = self.region.calls();
        loop {
            // The coordinator is trusted. A malformed record means that it is ending.
            let record = records.next().unwrap_or_else(|_| end_at_once());
            if record.is_some_and(|record| record.kind == TAKE_IN) {
                // An attachment that cannot be received is reported with its call.
                let _ = assembly.take_in(socket, &mut Patience::none());
                continue;
            }
            if let Some(record) = record.filter(|record| record.kind == RELEASED) {
                shared_value::drop_released(records.bytes(record));
                continue;
            }
            if let Some(record) = record {
                taken.record.clear();
                taken.record.extend_from_slice(records.bytes(record));
                taken.attachment = match record.kind & HAS_ATTACHMENT != 0 {
                    true => assembly
                        .next(records.appendix(record), socket, &mut Patience::none())
                        .unwrap_or_else(|_| {
                            // A task may have replaced the descriptor of the socket.
                            Attachment::lost_because("it is not in the socket of this process")
                        }),
                    false => Attachment::default(),
                };
                if let Some(reason) = taken.attachment.lost() {
                    // The call stays unclaimed, so the coordinator can take it back.
                    let Some((call, _)) = Call::split(&taken.record) else { end_at_once() };
                    self.reply_sender.report(NOT_RECEIVED, call.claim, reason);
                    continue;
                }
                self.busy.fetch_add(1, Ordering::SeqCst);
                return true;
            }
            // Read before the ring: a call that was published before the close is not missed.
            let is_closed = self.region.is_closed();
            if reader.read(&ring, records).unwrap_or_else(|_| end_at_once()) {
                continue;
            }
            if is_closed {
                return false;
            }
            self.note_if_idle();
            let is_there = || reader.is_ready(&ring) || self.region.is_closed();
            self.region.call_events().wait_unless(spin, is_there);
            self.region.set_idle(false);
        }
    }

    #[expect(clippy::too_many_lines, reason = "steps whose order matters")]
    fn run(
        &self,
        taken: &mut Taken,
        reply_buffer: &mut ReplyBuffer,
        context: &mut Context,
        lane: Option<&Arc<RunnerLane>>,
    ) {
        let Some((call, parts)) = Call::split(&taken.record) else { end_at_once() };
        // The journal has tasks only.
        let lane = lane.filter(|_| call.seq != INITIALIZER);
        let Some(claim) = self.region.claim(call.claim) else { end_at_once() };
        context.attempt = call.attempt;
        context.label = lane.map(|lane| Arc::clone(lane) as LabelSink);
        if let StopSignal::Worker(stop) = &mut context.stop {
            stop.claim = call.claim;
            stop.stop_after = (call.stop_after > 0).then(|| Duration::from_nanos(call.stop_after));
        }
        let runner = self.registry.runner(parts.name);
        let mut blobs = taken.attachment.take_blobs();
        let mut begin = 0;
        let mut now = transport::now();
        if let Some(stream) = self.streams.closed(now) {
            // The call stays unclaimed, so the coordinator can take it back.
            let reason = format!("a task has closed the {stream} of this process");
            return self.reply_sender.report(NOT_RECEIVED, call.claim, &reason);
        }
        for item in 0..u64::from(call.count) {
            if !claim.begin(call.seq, now) {
                taken.attachment = Attachment::default();
                // The call was taken back. The coordinator may have calls that wait for room.
                self.region.reply_events().notify();
                return;
            }
            context.task = TaskId(call.id + item);
            if let StopSignal::Worker(stop) = &mut context.stop {
                stop.begun_at = now;
            }
            reply_buffer.clear();
            reply_buffer.blobs = std::mem::take(&mut blobs);
            let text = taken.attachment.text(parts.text);
            let task = match call.count {
                1 => text,
                _ => parts.text_of(item as usize, text, &mut begin).unwrap_or_default(),
            };
            if let Some(lane) = lane {
                lane.begin(context.task, parts.name, call.attempt, now);
            }
            let status = match &runner {
                Ok(run) => TaskTraces::during(self.traces.as_ref(), context.task, || {
                    run(task, context, reply_buffer)
                }),
                Err(reason) => {
                    reply_buffer.put_refusal(Status::Undecodable, parts.name, Refusal::new(reason))
                }
            };
            if self.origin.is_forked() {
                // This is a copy of the worker that the task has forked. Only the worker replies.
                os::fork::end_the_copy();
            }
            claim.end();
            if item + 1 == u64::from(call.count) {
                // Before the reply: then the coordinator can use its segment for the next call.
                taken.attachment = Attachment::default();
            }
            let then = std::mem::replace(&mut now, transport::now());
            let ran_for = Duration::from_nanos(now.saturating_sub(then));
            // Before the reply: the line of a long or failed task is in the journal when its future is done.
            let has_written = lane.is_some_and(|lane| lane.end(status, ran_for, reply_buffer));
            if has_written {
                now = transport::now();
            }
            if self.reply_sender.send_result(&call, item, status, ran_for, reply_buffer) {
                // The time of the wait is not part of the next task's run time.
                now = transport::now();
            }
        }
        if call.seq == INITIALIZER {
            self.streams.settle();
        }
    }
}

/// Decodes a task, runs it and encodes its result into the reply buffer. A [`Registry`] has one such
/// function for each type of task.
pub(crate) fn answer<T: Task>(
    task: &[u8],
    context: &Context,
    reply_buffer: &mut ReplyBuffer,
) -> Status {
    // `Deserialize` may be the user's code, so its panics are caught.
    let blobs = std::mem::take(&mut reply_buffer.blobs);
    match with_encoding!(T::ENCODING, F => codec::decode::<F, T>(task, blobs)) {
        Ok(task) => reply_buffer.put::<T>(panics::run(task, context)),
        Err(refusal) => reply_buffer.put_refusal(Status::Undecodable, T::NAME, refusal),
    }
}
