//! Reads the records that a worker has written to its ring, and passes them to the scheduler, the
//! promises and `on_say`. Runs on the handler thread of the worker, or on a thread that waits for a
//! result (see [`task_control`](super::task_control)).

mod taken;

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use self::taken::{Attached, ReceivedReplies, line};
use super::PoolEvent;
use super::completion::Outputs;
use super::flood::VainWaits;
use super::inner::PoolInner;
use super::unasked::Unasked;
use super::work_item::WorkItem;
use super::worker_handle::{Answered, Process, Receiving, WorkerHandle};
use crate::error::TaskError;
use crate::limits;
use crate::long_buffers::{self, LongBufferUse};
use crate::printable::printable;
use crate::scheduler::Event;
use crate::transport::{
    Garbled, HAS_ATTACHMENT, NOT_RECEIVED, OUTPUT, PARTIAL, Reply, SAID, Status, TAKE_IN, TRACED,
    Timed, UNFIT,
};

/// Largest number of records that are passed to the scheduler together. More would save few locks, and
/// delay the first result by the decoding of the last.
const MAX_RECORDS: usize = 256;

/// Largest number of characters that are kept of a reason from a worker.
const MAX_REASON: usize = 500;

/// If replies follow each other within this time, the handler waits for several at once.
const BURST: Duration = Duration::from_micros(400);

/// How often it is looked for segments that are idle.
const BETWEEN_TIDYING: Duration = Duration::from_millis(500);

/// On the handler thread: receives until the worker has ended and all its records are read.
pub(super) fn until_ended(pool: &PoolInner, handle: &WorkerHandle) -> Result<(), Garbled> {
    let _keeps_buffers = LongBufferUse::begin();
    let mut last: Option<Instant> = None;
    let (mut tidied, mut vain) = (Instant::now(), VainWaits::default());
    loop {
        let is_burst = last.is_some_and(|last| last.elapsed() < BURST);
        // Before the ring is read: records that were published before the end are read then.
        let has_ended = handle.has_ended();
        if has_ended {
            handle.receiving().note_end();
        }
        let mut has_received = false;
        while receive(pool, handle, handle.receiving())? {
            has_received = true;
            // Records that arrive during the wait are left for the next round, which finds more of them.
            if !has_ended && handle.receiving().is_empty() {
                break;
            }
        }
        if has_ended {
            return Ok(());
        }
        if has_received {
            last = Some(Instant::now());
            vain.reset();
        }
        if has_received && is_burst {
            handle.wait_coalesced();
        } else {
            vain.wait(|| handle.wait_for_replies());
            // The worker may have made room for calls without a reply.
            handle.flush();
            if tidied.elapsed() > BETWEEN_TIDYING {
                handle.drop_idle_segments();
                long_buffers::drop_idle();
                tidied = Instant::now();
            }
        }
    }
}

/// On the thread of a waiting caller: receives until its result is there, or the ring is empty, or the
/// handler is receiving. Returns whether there was a record. Records that were read from the ring are
/// all passed on: the handler is not woken for them.
pub(super) fn until_done(
    pool: &PoolInner,
    handle: &WorkerHandle,
    is_done: impl Fn() -> bool,
) -> Result<bool, Garbled> {
    let mut has_received = false;
    while let Some(receiving) = handle.try_receiving()
        && !(receiving.is_empty() && is_done())
        && receive(pool, handle, receiving)?
    {
        has_received = true;
    }
    Ok(has_received)
}

/// Receives the reply to the initializer, the only call of the worker, and completes its promise.
/// Returns false if the worker ended.
pub(super) fn initializer_reply(
    pool: &PoolInner,
    handle: &WorkerHandle,
    work_item: &WorkItem,
) -> Result<bool, Garbled> {
    loop {
        let has_ended = handle.has_ended();
        let mut receiving = handle.receiving();
        if has_ended {
            receiving.note_end();
        }
        if let Some(taken) = take(handle, &mut receiving, true)? {
            let (number, text) = taken.split(&receiving)?;
            if taken.is(SAID) || taken.is(UNFIT) || taken.is(PARTIAL) || taken.is(TRACED) {
                let weight = taken.weight(&receiving);
                // An initializer has no future that could be asked for its partial results.
                if taken.is(SAID) {
                    Unasked::Line(number, taken.line(text)?).pass(pool, handle)?;
                } else if taken.is(TRACED) {
                    Unasked::Trace(number, text).pass(pool, handle)?;
                }
                let pause = receiving.count_unasked(weight);
                drop(receiving);
                if let Some(pause) = pause {
                    handle.pause(pause);
                }
                continue;
            }
            if taken.is(NOT_RECEIVED) {
                let reason = format!("the worker cannot receive it: {}", line(text)?);
                work_item.fail(0..1, TaskError::Undelivered { what: "task".to_owned(), reason });
                return Ok(true);
            }
            let reply = match taken.lost() {
                None => Reply::parse(text)?,
                Some(_) => taken.undelivered(number, handle)?,
            };
            handle.answered(number, 1, |work_item, _| reply.id == work_item.id.0)?;
            handle.traces().close_answered(handle);
            work_item.complete_with(0, &reply);
            return Ok(true);
        }
        drop(receiving);
        if has_ended {
            return Ok(false);
        }
        handle.wait_for_replies();
        handle.flush();
    }
}

/// The next record. With `may_read` it reads from the ring if all records that were read before are
/// taken; that invalidates them.
fn take(
    handle: &WorkerHandle,
    receiving: &mut Receiving,
    may_read: bool,
) -> Result<Option<ReceivedReplies>, Garbled> {
    let Some(Process { region, socket, .. }) = handle.process() else { return Ok(None) };
    let record = loop {
        match receiving.next()? {
            Some(record) if record.kind == TAKE_IN => receiving.take_in(socket)?,
            Some(record) => break record,
            None if may_read && receiving.read(region)? => {}
            None => return Ok(None),
        }
    };
    if record.kind & HAS_ATTACHMENT == 0 {
        return Ok(Some(ReceivedReplies { record, attached: None }));
    }
    let attached = Attached::new(receiving.attachment(record, socket)?);
    Ok(Some(ReceivedReplies { record, attached: Some(Box::new(attached)) }))
}

/// Receives the next records and passes them on. Returns false if there are none.
fn receive(
    pool: &PoolInner,
    handle: &WorkerHandle,
    mut receiving: MutexGuard<'_, Receiving>,
) -> Result<bool, Garbled> {
    let (mut taken, mut is_sound) = (Vec::new(), Ok(()));
    // Only records of one read, which the next read invalidates.
    while taken.len() < MAX_RECORDS
        && (taken.is_empty() || !receiving.is_empty())
        && !taken.last().is_some_and(ReceivedReplies::ends_group)
    {
        match take(handle, &mut receiving, taken.is_empty()) {
            Ok(Some(next)) => taken.push(next),
            Ok(None) => break,
            Err(garbled) => {
                is_sound = Err(garbled);
                break;
            }
        }
    }
    if taken.is_empty() {
        return is_sound.map(|()| false);
    }
    let mut replies = ReplyEvents {
        pool,
        handle,
        is_over_memory_limit: is_over_memory_limit(pool, handle),
        events: Vec::with_capacity(taken.len()),
        replies: Vec::with_capacity(taken.len()),
        outputs: Vec::new(),
    };
    let added = replies.add_all(&taken, &receiving);
    if pool.listeners.traces().is_some() {
        handle.traces().close_answered(handle);
    }
    // The records before a malformed one are valid and are passed on.
    pool.replied(handle, replies.events, &replies.replies, &replies.outputs);
    let unasked = taken.last().filter(|last| last.is_unasked()).map(|last| last.weight(&receiving));
    let passed = added.and_then(|last| last.map_or(Ok(()), |last| last.pass(pool, handle)));
    let result = passed.and(is_sound).map(|()| true);
    let pause = unasked.and_then(|weight| receiving.count_unasked(weight));
    drop(taken);
    drop(receiving);
    // The worker has made room for calls.
    handle.flush();
    if let Some(pause) = pause {
        handle.pause(pause);
    }
    result
}

/// Whether the worker uses more memory than [`Recycling::above_memory`](crate::Recycling) allows.
fn is_over_memory_limit(pool: &PoolInner, handle: &WorkerHandle) -> bool {
    pool.setup
        .max_memory
        .is_some_and(|max| limits::resident_memory(handle.pid()).is_some_and(|memory| memory > max))
}

/// The events for the scheduler, the replies with which it completes tasks, and the outputs of chunks.
struct ReplyEvents<'r> {
    pool: &'r PoolInner,
    handle: &'r WorkerHandle,
    is_over_memory_limit: bool,
    events: Vec<Event<Arc<WorkItem>>>,
    replies: Vec<Reply<'r>>,
    outputs: Vec<Outputs<'r>>,
}

impl<'r> ReplyEvents<'r> {
    /// Adds the records. Returns what a task has sent while it runs, if the last record is that.
    fn add_all(
        &mut self,
        taken: &'r [ReceivedReplies],
        receiving: &'r Receiving,
    ) -> Result<Option<Unasked<'r>>, Garbled> {
        let mut rest = taken;
        while let Some((first, others)) = rest.split_first() {
            let (number, text) = first.split(receiving)?;
            rest = others;
            if first.is(SAID) {
                return Ok(Some(Unasked::Line(number, first.line(text)?)));
            } else if first.is(PARTIAL) {
                return Ok(Some(Unasked::Partial(number, first.partial(text))));
            } else if first.is(TRACED) {
                return Ok(Some(Unasked::Trace(number, text)));
            } else if first.is(NOT_RECEIVED) || first.is(UNFIT) {
                self.add_unfit(first.is(NOT_RECEIVED).then_some(number), line(text)?);
            } else if first.lost().is_some() {
                let claim = match first.is(OUTPUT) {
                    true => Timed::from_number(number).claim.into(),
                    false => number,
                };
                self.add_reply(claim, first.undelivered(claim, self.handle)?)?;
            } else if first.is(OUTPUT) {
                rest = self.add_outputs(Timed::from_number(number), text, others, receiving)?;
            } else {
                let reply = Reply::parse(text)?;
                reply.blobs.replace(first.take_blobs());
                self.add_reply(number, reply)?;
            }
        }
        Ok(None)
    }

    /// The worker must be replaced. With a claim, it could not receive the call of this claim, which may have
    /// been taken back since the first such report.
    fn add_unfit(&mut self, claim: Option<u64>, reason: &str) {
        let seq = claim.and_then(|claim| self.handle.seq_of(claim));
        let (worker_id, worker, pid) =
            (self.handle.worker_id, self.handle.worker(), self.handle.pid());
        let reason: String = printable(reason).chars().take(MAX_REASON).collect();
        if self.handle.note_unfit() {
            let reason = reason.clone();
            self.pool.listeners.event(|| PoolEvent::WorkerUnfit { worker, pid, reason });
        }
        self.events.push(Event::Unfit { worker_id, seq, reason });
    }

    fn add_reply(&mut self, claim: u64, mut reply: Reply<'r>) -> Result<(), Garbled> {
        let is_valid = |work_item: &WorkItem, item| reply.id == work_item.id.0 + u64::from(item);
        let Answered { seq, work_item, .. } = self.handle.answered(claim, 1, is_valid)?;
        reply.task = work_item.name;
        self.events.push(Event::Replied {
            worker_id: self.handle.worker_id,
            seq,
            ran_for: Duration::from_micros(reply.run_us),
            has_failed: matches!(
                reply.status,
                Status::Failed | Status::Panicked | Status::Undelivered
            ),
            is_over_memory_limit: self.is_over_memory_limit,
        });
        self.replies.push(reply);
        Ok(())
    }

    /// Adds consecutive outputs of one call. Returns the records behind them.
    fn add_outputs(
        &mut self,
        first: Timed,
        text: &'r [u8],
        others: &'r [ReceivedReplies],
        receiving: &'r Receiving,
    ) -> Result<&'r [ReceivedReplies], Garbled> {
        let mut texts = vec![text];
        let mut ran_for = first.ran_for;
        let mut rest = others;
        while let Some((next, others)) = rest.split_first()
            && next.is(OUTPUT)
            && next.lost().is_none()
        {
            let (number, text) = next.split(receiving)?;
            let timed = Timed::from_number(number);
            if timed.claim != first.claim {
                break;
            }
            texts.push(text);
            ran_for += timed.ran_for;
            rest = others;
        }
        let count = u32::try_from(texts.len()).map_err(|_| Garbled)?;
        let is_valid = |work_item: &WorkItem, _| work_item.is_chunk();
        let claim = u64::from(first.claim);
        let Answered { seq, work_item, item } = self.handle.answered(claim, count, is_valid)?;
        let (worker_id, is_over_memory_limit, ran_for) =
            (self.handle.worker_id, self.is_over_memory_limit, ran_for / count);
        self.outputs.push(Outputs { work_item, first: item, texts, ran_for });
        self.events.push(Event::Progressed {
            worker_id,
            seq,
            count,
            ran_for,
            is_over_memory_limit,
        });
        Ok(rest)
    }
}
