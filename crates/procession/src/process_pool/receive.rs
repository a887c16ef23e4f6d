//! Takes replies out of the memory that is shared with a worker and passes them on: done by the
//! worker's handler, or by a caller that waits for just that reply.

use std::cell::{OnceCell, RefCell};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::PoolEvent;
use super::inner::PoolInner;
use super::work_item::WorkItem;
use super::worker_handle::{Answered, Receiving, WorkerHandle};
use crate::blob::Blob;
use crate::error::TaskError;
use crate::scheduler::Event;
use crate::task::TaskId;
use crate::transport::{
    self, Attachment, ENCLOSED, Garbled, NOT_RECEIVED, OUTPUT, Record, Reply, SAID, Status,
    TAKE_IN, Timed, UNFIT,
};

/// How many replies are decided upon together at most: so many that locks hardly count, and so few
/// that those who wait for the first need not wait long for the last.
const BATCH: usize = 256;

/// How much of what a worker says of itself is kept, in characters.
const LONGEST_REASON: usize = 500;

/// Replies that follow each other within this time will do so for a while.
const SOON: Duration = Duration::from_micros(400);

/// Passes replies on until the worker has ended and all that it had replied is read.
pub(super) fn until_ended(shared: &PoolInner, handle: &WorkerHandle) -> Result<(), Garbled> {
    let mut last: Option<Instant> = None;
    loop {
        // Where they come thick and fast there will be more: better many at once than one by one.
        let is_soon = last.is_some_and(|last| last.elapsed() < SOON);
        // What it published before its end is there by the time that the end is known.
        let has_ended = handle.has_ended();
        let mut were_there = false;
        while batch(shared, handle, handle.receiving())? {
            were_there = true;
            // Those that came meanwhile are few; there will be more of them soon.
            if !has_ended && handle.receiving().is_empty() {
                break;
            }
        }
        if has_ended {
            return Ok(());
        }
        if were_there {
            last = Some(Instant::now());
        }
        if were_there && is_soon {
            handle.doze();
        } else {
            handle.wait_for_replies();
            // There may be room for calls now, without any reply.
            handle.flush();
        }
    }
}

/// Passes on what is there until that is done for which a caller lends its thread, if nobody else
/// is at it. Nothing that was read may be left lying: nobody would be called for it.
pub(super) fn lend_a_hand(
    shared: &PoolInner,
    handle: &WorkerHandle,
    is_done: impl Fn() -> bool,
) -> Result<bool, Garbled> {
    let mut were_there = false;
    while let Some(receiving) = handle.try_receiving()
        && !(receiving.is_empty() && is_done())
        && batch(shared, handle, receiving)?
    {
        were_there = true;
    }
    Ok(were_there)
}

/// Waits for the reply to the one call there is, and keeps its promise; false if the worker ended.
pub(super) fn only_reply(
    shared: &PoolInner,
    handle: &WorkerHandle,
    work_item: &WorkItem,
) -> Result<bool, Garbled> {
    loop {
        let has_ended = handle.has_ended();
        let mut receiving = handle.receiving();
        if let Some(taken) = take(handle, &mut receiving, true)? {
            let (number, text) = taken.split(&receiving)?;
            if taken.is(SAID) {
                shared.heard(handle, TaskId(number), taken.line(text)?);
                continue;
            }
            if taken.is(NOT_RECEIVED) {
                let reason = format!("the worker cannot receive it: {}", line(text)?);
                work_item.fail(0..1, TaskError::Undelivered { what: "task".to_owned(), reason });
                return Ok(true);
            }
            if taken.is(UNFIT) {
                continue;
            }
            let reply = match taken.lost() {
                None => Reply::parse(text)?,
                Some(_) => taken.undelivered(number, handle)?,
            };
            handle.answered(number, 1, |work_item, _| reply.id == work_item.id.0)?;
            work_item.answer(0, &reply);
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

/// A record, and what it lacks.
struct Taken {
    record: Record,
    enclosed: Attachment,
    /// Until they are handed over.
    blobs: RefCell<Vec<Blob>>,
    /// What is passed on if the enclosed could not be received.
    in_its_place: OnceCell<Vec<u8>>,
}

impl Taken {
    fn is(&self, kind: u8) -> bool {
        self.record.kind & !ENCLOSED == kind
    }

    /// Why a part of it is missing.
    fn lost(&self) -> Option<String> {
        let reason = self.enclosed.lost()?;
        Some(format!("this process cannot receive it: {reason}"))
    }

    /// A reply in place of the one that was lost, to the next task of this claim's call.
    fn undelivered<'r>(&'r self, claim: u64, handle: &WorkerHandle) -> Result<Reply<'r>, Garbled> {
        let id = handle.next_unanswered(claim)?;
        let reason = self.lost().unwrap_or_default();
        Reply::parse(
            self.in_its_place.get_or_init(|| transport::undelivered(id, &reason, Duration::ZERO)),
        )
    }

    /// What a task said, or that it was lost.
    fn line<'r>(&'r self, text: &'r [u8]) -> Result<&'r str, Garbled> {
        match self.lost() {
            None => line(text),
            Some(reason) => {
                let lost = || format!("(a long line is lost: {reason})").into_bytes();
                line(self.in_its_place.get_or_init(lost))
            }
        }
    }

    fn has_blobs(&self) -> bool {
        !self.blobs.borrow().is_empty()
    }

    fn split<'r>(&'r self, receiving: &'r Receiving) -> Result<(u64, &'r [u8]), Garbled> {
        let (number, text) = transport::split(receiving.bytes(self.record)).ok_or(Garbled)?;
        Ok((number, self.enclosed.text(text)))
    }
}

/// What a task said.
fn line(text: &[u8]) -> Result<&str, Garbled> {
    std::str::from_utf8(text).map_err(|_| Garbled)
}

/// The next record; `may_read` if none that was taken before is needed any more.
fn take(
    handle: &WorkerHandle,
    receiving: &mut Receiving,
    may_read: bool,
) -> Result<Option<Taken>, Garbled> {
    let Some((region, socket)) = handle.region.get().zip(handle.socket.get()) else {
        return Ok(None);
    };
    let record = loop {
        match receiving.next()? {
            Some(record) if record.kind == TAKE_IN => receiving.take_in(socket)?,
            Some(record) => break record,
            None if may_read && receiving.read(region)? => {}
            None => return Ok(None),
        }
    };
    let mut enclosed = match record.kind & ENCLOSED == 0 {
        true => Attachment::default(),
        false => receiving.attachment(socket)?,
    };
    let blobs = RefCell::new(enclosed.take_blobs());
    Ok(Some(Taken { record, enclosed, blobs, in_its_place: OnceCell::new() }))
}

/// Passes on the next replies, or what a task said; false if there is nothing.
fn batch(
    shared: &PoolInner,
    handle: &WorkerHandle,
    mut receiving: MutexGuard<'_, Receiving>,
) -> Result<bool, Garbled> {
    let (mut taken, mut is_sound) = (Vec::new(), Ok(()));
    // Those that lie in the memory that was read at once: the next read moves them. What a task
    // says is heard after the replies that came before, and before those that come after. And
    // blobs, each of which takes a descriptor, are passed on before there are more. What was lost comes
    // last, so that all that was answered before it is known.
    while taken.len() < BATCH
        && (taken.is_empty() || !receiving.is_empty())
        && !taken
            .last()
            .is_some_and(|last: &Taken| last.is(SAID) || last.has_blobs() || last.lost().is_some())
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
    let mut news = ReceivedReplies {
        shared,
        handle,
        is_over_memory_limit: shared.is_over_memory_limit(handle),
        events: Vec::with_capacity(taken.len()),
        replies: Vec::with_capacity(taken.len()),
    };
    let noted = news.note_all(&taken, &receiving);
    // What came before anything that cannot be understood was good, and is not lost.
    shared.answered(news.events, &news.replies);
    if let Ok(Some((task, line))) = noted {
        shared.heard(handle, task, line);
    }
    // What found no room before may find some now.
    handle.flush();
    noted.and(is_sound).map(|()| true)
}

/// What the scheduler is told of a batch.
struct ReceivedReplies<'r> {
    shared: &'r PoolInner,
    handle: &'r WorkerHandle,
    is_over_memory_limit: bool,
    events: Vec<Event<Arc<WorkItem>>>,
    replies: Vec<Reply<'r>>,
}

impl<'r> ReceivedReplies<'r> {
    /// Gives what a task said at the end.
    fn note_all(
        &mut self,
        taken: &'r [Taken],
        receiving: &'r Receiving,
    ) -> Result<Option<(TaskId, &'r str)>, Garbled> {
        let mut rest = taken;
        while let Some((first, others)) = rest.split_first() {
            let (number, text) = first.split(receiving)?;
            rest = others;
            if first.is(SAID) {
                return Ok(Some((TaskId(number), first.line(text)?)));
            } else if first.is(NOT_RECEIVED) || first.is(UNFIT) {
                self.note_unfit(first.is(NOT_RECEIVED).then_some(number), line(text)?)?;
            } else if first.lost().is_some() {
                let claim = match first.is(OUTPUT) {
                    true => Timed::from_number(number).claim.into(),
                    false => number,
                };
                self.note_reply(claim, first.undelivered(claim, self.handle)?)?;
            } else if first.is(OUTPUT) {
                rest = self.note_outputs(Timed::from_number(number), text, others, receiving)?;
            } else {
                let reply = Reply::parse(text)?;
                reply.blobs.swap(&first.blobs);
                self.note_reply(number, reply)?;
            }
        }
        Ok(None)
    }

    /// The worker is to be replaced; the call of this claim, if there is one, was not received.
    fn note_unfit(&mut self, claim: Option<u64>, reason: &str) -> Result<(), Garbled> {
        let seq = claim.map(|claim| self.handle.seq_of(claim)).transpose()?;
        let (worker_id, worker, pid) =
            (self.handle.worker_id, self.handle.worker(), self.handle.pid());
        let reason: String = reason.chars().take(LONGEST_REASON).collect();
        if self.handle.note_unfit() {
            let reason = reason.clone();
            self.shared.report(|| PoolEvent::WorkerUnfit { worker, pid, reason });
        }
        self.events.push(Event::Unfit { worker_id, seq, reason });
        Ok(())
    }

    fn note_reply(&mut self, claim: u64, reply: Reply<'r>) -> Result<(), Garbled> {
        let is_its = |work_item: &WorkItem, item| reply.id == work_item.id.0 + u64::from(item);
        let Answered { seq, .. } = self.handle.answered(claim, 1, is_its)?;
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

    /// Passes outputs on at once, since there is nothing to decide about them, and gives what lies
    /// behind them.
    fn note_outputs<'t>(
        &mut self,
        first: Timed,
        text: &[u8],
        others: &'t [Taken],
        receiving: &Receiving,
    ) -> Result<&'t [Taken], Garbled> {
        let mut outputs = vec![text];
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
            outputs.push(text);
            ran_for += timed.ran_for;
            rest = others;
        }
        let items = u32::try_from(outputs.len()).map_err(|_| Garbled)?;
        let is_of_many = |work_item: &WorkItem, _| work_item.is_of_many();
        let claim = u64::from(first.claim);
        let Answered { seq, work_item, item } = self.handle.answered(claim, items, is_of_many)?;
        let (worker_id, is_over_memory_limit, ran_for) =
            (self.handle.worker_id, self.is_over_memory_limit, ran_for / items);
        self.shared.deliver(&work_item, item, &outputs, ran_for);
        self.events.push(Event::Progressed {
            worker_id,
            seq,
            items,
            ran_for,
            is_over_memory_limit,
        });
        Ok(rest)
    }
}
