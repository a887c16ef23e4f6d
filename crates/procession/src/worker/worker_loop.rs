//! Where a worker does its work: takes the next call, claims it, runs it and replies.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::streams::Streams;
use super::{end_at_once, refused};
use crate::blob::Blob;
use crate::codec;
use crate::panics;
use crate::progress_lines::LineSink;
use crate::registry::Registry;
use crate::task::{Context, Locals, Task, TaskId};
use crate::transport::{
    self, AdaptiveSpin, Assembly, Attachment, Call, ENCLOSED, INLINE_LIMIT, NOT_RECEIVED, OUTPUT,
    Passed, Patience, REPLY, Reader, Records, ReplyBuffer, SAID, SharedRegion, Socket, Status,
    Stuck, TAKE_IN, Timed, UNFIT, Writer,
};
use procession_os as os;
use procession_os::fork::Origin;
use procession_os::threads::ThreadSpec;

/// What the threads that run calls have in common.
pub(super) struct WorkerLoop {
    registry: Registry,
    worker: usize,
    locals: Arc<Locals>,
    lines: LineSink,
    region: Arc<SharedRegion>,
    inbox: Mutex<Inbox>,
    reply_sender: Arc<ReplySender>,
    /// How many threads have a call.
    busy: AtomicUsize,
    streams: Streams,
    origin: Origin,
}

/// Where calls come from.
struct Inbox {
    reader: Reader,
    records: Records,
    socket: Arc<Socket>,
    assembly: Assembly,
    patience: AdaptiveSpin,
}

/// What this process says to the coordinator.
struct ReplySender {
    region: Arc<SharedRegion>,
    outbox: Mutex<Outbox>,
}

/// Where replies go.
struct Outbox {
    writer: Writer,
    socket: Arc<Socket>,
}

/// The threads that run calls beside the first.
#[derive(Default)]
pub(super) struct Runners {
    pub threads: Vec<JoinHandle<()>>,
    /// Why there are no more of them, if fewer than asked for.
    pub refused: Option<io::Error>,
}

/// The sequence number of a call that comes before all tasks.
const INITIALIZER: u32 = 0;

/// For how long at most a reply waits for room in the socket before the coordinator is asked anew.
const SOCKET_MAY_BE_FULL: Duration = Duration::from_millis(100);

/// A call as it was taken out of the inbox; used again for the next one.
#[derive(Default)]
struct Taken {
    record: Vec<u8>,
    enclosed: Attachment,
}

impl WorkerLoop {
    pub(super) fn new(
        registry: Registry,
        worker: usize,
        region: SharedRegion,
        socket: Arc<Socket>,
    ) -> Self {
        let region = Arc::new(region);
        let reply_sender = Arc::new(ReplySender {
            region: Arc::clone(&region),
            outbox: Mutex::new(Outbox { writer: Writer::default(), socket: Arc::clone(&socket) }),
        });
        let speaks = Arc::clone(&reply_sender);
        Self {
            registry,
            worker,
            locals: Arc::default(),
            lines: LineSink::new(move |task, _, line| speaks.say(task, line)),
            region,
            inbox: Mutex::new(Inbox {
                reader: Reader::default(),
                records: Records::default(),
                socket,
                assembly: Assembly::default(),
                patience: AdaptiveSpin::default(),
            }),
            reply_sender,
            busy: AtomicUsize::new(0),
            streams: Streams::as_they_are(),
            origin: Origin::here(),
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts threads of these numbers that run calls, beside the calling thread: as many as the system
    /// allows.
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

    /// Runs calls until no more will come.
    pub(super) fn run_or_end(&self, threads: usize) {
        if panics::catch(|| self.run_until_closed(threads)).is_err() {
            // The panic was reported. What this thread had to do would never be done.
            end_at_once();
        }
    }

    fn run_until_closed(&self, threads: usize) {
        os::signals::end_with_the_parent();
        let (mut taken, mut reply_buffer) = (Taken::default(), ReplyBuffer::default());
        while self.take_next(&mut taken) {
            self.run(&mut taken, &mut reply_buffer);
            self.busy.fetch_sub(1, Ordering::SeqCst);
            if threads > 1 {
                // The one that waits for calls could not know that it was the last.
                self.note_if_idle();
            }
        }
    }

    /// Drops what outlived single tasks, when no task runs any more.
    pub(super) fn drop_locals(&self) {
        self.locals.clear();
    }

    /// An idle worker sends no further reply, so a waiting handler is woken for those it has sent.
    fn note_if_idle(&self) {
        if self.busy.load(Ordering::SeqCst) == 0 {
            self.region.set_idle(true);
            self.region.reply_events().notify_dozing();
        }
    }

    /// Waits for the next call; false if none will come any more. Of several threads one waits for
    /// the bell, and the others for that one.
    fn take_next(&self, taken: &mut Taken) -> bool {
        let mut inbox = self.inbox();
        let Inbox { reader, records, socket, assembly, patience } = &mut *inbox;
        let ring = self.region.calls();
        loop {
            // The coordinator is no stranger: what it writes is sound, or it is at its end.
            let record = records.next().unwrap_or_else(|_| end_at_once());
            if record.is_some_and(|record| record.kind == TAKE_IN) {
                // What cannot be taken in is missing later.
                let _ = assembly.take_in(socket, &mut Patience::none());
                continue;
            }
            if let Some(record) = record {
                taken.record.clear();
                taken.record.extend_from_slice(records.bytes(record));
                taken.enclosed = match record.kind & ENCLOSED != 0 {
                    true => assembly.next(socket, &mut Patience::none()).unwrap_or_else(|_| {
                        // A task may have put another file in the place of the socket.
                        Attachment::lost_because("it is not in the socket of this process")
                    }),
                    false => Attachment::default(),
                };
                if let Some(reason) = taken.enclosed.lost() {
                    // It stays unclaimed: the coordinator takes it back.
                    let Some((call, _)) = Call::split(&taken.record) else { end_at_once() };
                    self.reply_sender.report(NOT_RECEIVED, call.claim, reason);
                    continue;
                }
                self.busy.fetch_add(1, Ordering::SeqCst);
                return true;
            }
            // Whether none will come must be known before looking whether there is one.
            let is_closed = self.region.is_closed();
            if reader.read(&ring, records).unwrap_or_else(|_| end_at_once()) {
                continue;
            }
            if is_closed {
                return false;
            }
            self.note_if_idle();
            let is_there = || reader.is_ready(&ring) || self.region.is_closed();
            self.region.call_events().wait_unless(patience, is_there);
            self.region.set_idle(false);
        }
    }

    fn run(&self, taken: &mut Taken, reply_buffer: &mut ReplyBuffer) {
        let Some((call, parts)) = Call::split(&taken.record) else { end_at_once() };
        let Some(claim) = self.region.claim(call.claim) else { end_at_once() };
        let mut context = Context {
            task: TaskId(call.id),
            worker: self.worker,
            attempt: call.attempt,
            locals: Arc::clone(&self.locals),
            lines: self.lines.clone(),
        };
        let runner = self.registry.runner(parts.name);
        let mut blobs = taken.enclosed.take_blobs();
        let text = taken.enclosed.text(parts.text);
        let mut texts = parts.texts(text);
        let mut now = transport::now();
        if let Some(stream) = self.streams.closed(now) {
            // It stays unclaimed: the coordinator takes it back.
            let reason = format!("a task has closed the {stream} of this process");
            return self.reply_sender.report(NOT_RECEIVED, call.claim, &reason);
        }
        for item in 0..u64::from(call.count) {
            if !claim.begin(call.seq, now) {
                // It was taken back. There may be more that found no room behind it.
                self.region.reply_events().notify();
                return;
            }
            context.task = TaskId(call.id + item);
            reply_buffer.data.clear();
            reply_buffer.blobs = std::mem::take(&mut blobs);
            let task = if call.count == 1 { text } else { texts.next().unwrap_or_default() };
            let status = match &runner {
                Ok(run) => run(task, &context, reply_buffer),
                Err(reason) => reply_buffer.put_reason(Status::Undecodable, reason),
            };
            if self.origin.is_forked() {
                // The task has forked this process: it is for the worker to reply, not for its copy.
                os::fork::end_the_copy();
            }
            claim.end();
            let then = std::mem::replace(&mut now, transport::now());
            let ran_for = Duration::from_nanos(now.saturating_sub(then));
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

impl ReplySender {
    /// Sends the result of one task of a call. Whether that took long: it had to wait for room, or
    /// could not be sent.
    fn send_result(
        &self,
        call: &Call,
        item: u64,
        status: Status,
        ran_for: Duration,
        reply_buffer: &mut ReplyBuffer,
    ) -> bool {
        let (claim, id) = (call.claim, call.id + item);
        let blobs = std::mem::take(&mut reply_buffer.blobs);
        let sent = if call.count > 1 && status == Status::Ok && blobs.is_empty() {
            self.output(Timed { claim, ran_for }, &reply_buffer.data)
        } else {
            let reply = transport::envelope(id, status, reply_buffer, ran_for);
            self.reply(claim, &reply, &blobs)
        };
        if let Err(stuck) = &sent {
            let reason = format!("the worker {stuck}");
            // First, so that the coordinator sends no call after it has read the reply.
            self.report(UNFIT, 0, &reason);
            let _ = self.reply(claim, &transport::undelivered(id, &reason, ran_for), &[]);
        }
        sent.unwrap_or(true)
    }

    /// Says whether it had to wait for room; so do the next ones.
    fn reply(&self, claim: u32, reply: &[u8], blobs: &[Blob]) -> Result<bool, Stuck> {
        let has_waited = self.send(REPLY, u64::from(claim), reply, blobs)?;
        self.region.announce_reply(claim, self.region.replies().is_filling());
        Ok(has_waited)
    }

    fn output(&self, timed: Timed, output: &[u8]) -> Result<bool, Stuck> {
        let has_waited = self.send(OUTPUT, timed.to_number(), output, &[])?;
        self.region.announce_reply(timed.claim, self.region.replies().is_filling());
        Ok(has_waited)
    }

    fn say(&self, task: TaskId, line: &str) {
        if let Err(stuck) = self.send(SAID, task.0, line.as_bytes(), &[]) {
            // A part of it needs nothing.
            const SPARED: usize = 200;
            let end = (0..=INLINE_LIMIT - SPARED).rev().find(|end| line.is_char_boundary(*end));
            let part = &line[..end.unwrap_or_default()];
            let cut = format!("{part} ... (cut: the worker {stuck})");
            let _ = self.send(SAID, task.0, cut.as_bytes(), &[]);
        }
        self.region.reply_events().notify();
    }

    /// Tells what is wrong with this process, in a text short enough to need nothing.
    fn report(&self, kind: u8, claim: u32, reason: &str) {
        let _ = self.send(kind, u64::from(claim), reason.as_bytes(), &[]);
        self.region.reply_events().notify();
    }

    fn send(&self, kind: u8, number: u64, text: &[u8], blobs: &[Blob]) -> Result<bool, Stuck> {
        let ring = self.region.replies();
        let mut has_waited = false;
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let Outbox { writer, socket } = &mut *outbox;
        let is_inline = text.len() <= INLINE_LIMIT;
        let enclosed = (!is_inline).then_some(text);
        let mut begun = 0;
        let lacks = loop {
            match transport::pass(enclosed, blobs, begun, socket) {
                Passed::Nothing => break false,
                Passed::All => break true,
                Passed::Part(items) => begun = items,
                Passed::Stuck(stuck, _) => return Err(stuck),
            }
            // The coordinator takes something out with what it has not read yet; or else has to be
            // asked to.
            if !ring.has_unread() {
                let _ = writer.write(&ring, TAKE_IN, &[]).unwrap_or_else(|_| end_at_once());
            }
            self.region.reply_events().notify();
            socket.wait_writable(SOCKET_MAY_BE_FULL);
            has_waited = true;
        };
        let kind = if lacks { kind | ENCLOSED } else { kind };
        let inline = if is_inline { text } else { &[] };
        let parts = [&number.to_le_bytes()[..], inline];
        // Full: the coordinator's own code is in a callback, or it has a lot to do.
        while !writer.write(&ring, kind, &parts).unwrap_or_else(|_| end_at_once()) {
            let fits = || writer.fits(&ring, &parts);
            self.region.space_events().sleep_unless(fits);
            has_waited = true;
        }
        Ok(has_waited)
    }
}

/// Decodes a task, runs it and puts what comes of it: what a [`Registry`] keeps of a kind of task.
pub(crate) fn answer<T: Task>(
    task: &[u8],
    context: &Context,
    reply_buffer: &mut ReplyBuffer,
) -> Status {
    // `Deserialize` is the user's code as well.
    let blobs = std::mem::take(&mut reply_buffer.blobs);
    match codec::decode::<T>(T::ENCODING, task, blobs) {
        Ok(task) => reply_buffer.put::<T>(panics::run(task, context)),
        Err(reason) => reply_buffer.put_reason(Status::Undecodable, &reason),
    }
}
