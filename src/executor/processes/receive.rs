//! Takes replies out of the memory that is shared with a worker and passes them on: done by the
//! worker's handler, or by a caller that waits for just that reply.

use std::sync::MutexGuard;
use std::time::Duration;

use serde_json::value::RawValue;

use super::parcel::Parcel;
use super::post::{Post, Receiving};
use super::scheduler::Event;
use super::shared::Shared;
use crate::task::TaskId;
use crate::wire::{self, ENCLOSED, FromWorker, Garbled, Record, Reply, SAID, Status, Text};

/// How many replies are decided upon together at most: so many that locks hardly count, and so few
/// that those who wait for the first need not wait long for the last.
const BATCH: usize = 64;

/// Passes replies on until the worker has ended and all that it had replied is read.
pub(super) fn until_ended(shared: &Shared, post: &Post) -> Result<(), Garbled> {
    loop {
        // What it published before its end is there by the time that the end is known.
        let has_ended = post.has_ended();
        let mut were_there = false;
        while batch(shared, post, post.receiving())? {
            were_there = true;
        }
        if has_ended {
            return Ok(());
        }
        // Where there were some there will be more: better many at once than one by one.
        if were_there {
            post.doze();
        } else {
            post.wait_for_replies();
        }
    }
}

/// Passes on some replies, if nobody else is at it.
pub(super) fn lend_a_hand(shared: &Shared, post: &Post) -> Result<bool, Garbled> {
    match post.try_receiving() {
        Some(receiving) => batch(shared, post, receiving),
        None => Ok(false),
    }
}

/// Waits for the reply to the one call there is, and keeps its promise; false if the worker ended.
pub(super) fn only_reply(shared: &Shared, post: &Post, parcel: &Parcel) -> Result<bool, Garbled> {
    loop {
        let has_ended = post.has_ended();
        let mut receiving = post.receiving();
        if let Some(taken) = take(post, &mut receiving)? {
            let (number, text) = taken.split(&receiving)?;
            if taken.is_said() {
                shared.heard(post, TaskId(number), text);
                continue;
            }
            let reply = serde_json::from_str(text).map_err(|_| Garbled)?;
            post.release([number])?;
            if let Some(owed) = parcel.take_owed() {
                owed.answer(&reply);
            }
            return Ok(true);
        }
        drop(receiving);
        if has_ended {
            return Ok(false);
        }
        post.wait_for_replies();
    }
}

/// A record, and its text if that came separately.
struct Taken {
    record: Record,
    enclosed: Option<Text>,
}

impl Taken {
    fn is_said(&self) -> bool {
        self.record.kind & !ENCLOSED == SAID
    }

    fn split<'r>(&'r self, receiving: &'r Receiving) -> Result<(u64, &'r str), Garbled> {
        let (number, text) = wire::split(receiving.bytes(self.record)).ok_or(Garbled)?;
        let text = self.enclosed.as_ref().map_or(Ok(text), Text::as_str);
        Ok((number, text.map_err(|_| Garbled)?))
    }
}

fn take(post: &Post, receiving: &mut Receiving) -> Result<Option<Taken>, Garbled> {
    let mut next = receiving.next()?;
    if next.is_none()
        && let Some(exchange) = post.exchange.get()
        && receiving.read(exchange)?
    {
        next = receiving.next()?;
    }
    let Some(record) = next else { return Ok(None) };
    let enclosed = if record.kind & ENCLOSED == 0 {
        None
    } else if let Some(FromWorker::Enclosed(text)) = receiving.message() {
        Some(text)
    } else {
        return Err(Garbled);
    };
    Ok(Some(Taken { record, enclosed }))
}

/// Passes on the next replies, or what a task said; false if there is nothing.
fn batch(
    shared: &Shared,
    post: &Post,
    mut receiving: MutexGuard<'_, Receiving>,
) -> Result<bool, Garbled> {
    let mut taken = Vec::new();
    // Those that lie in the memory that was read at once: the next read moves them. What a task
    // says is heard after the replies that came before, and before those that come after.
    while taken.len() < BATCH
        && (taken.is_empty() || !receiving.is_empty())
        && !taken.last().is_some_and(Taken::is_said)
    {
        match take(post, &mut receiving)? {
            Some(next) => taken.push(next),
            None => break,
        }
    }
    if taken.is_empty() {
        return Ok(false);
    }
    let (mut replies, mut claims, mut said) = (Vec::new(), Vec::new(), None);
    let mut is_sound = true;
    for taken in &taken {
        let Ok((number, text)) = taken.split(&receiving) else {
            is_sound = false;
            break;
        };
        if taken.is_said() {
            said = Some((TaskId(number), text));
        } else if let Ok(reply) = serde_json::from_str::<Reply<&RawValue>>(text) {
            claims.push(number);
            replies.push(reply);
        } else {
            // What came before it was good, and is not lost.
            is_sound = false;
            break;
        }
    }
    post.release(claims)?;
    let (tenant, is_fat) = (post.tenant, shared.is_fat(post));
    let events = replies.iter().map(|reply| Event::Replied {
        tenant,
        id: TaskId(reply.id),
        ran_for: Duration::from_micros(reply.run_us),
        has_failed: matches!(reply.status, Status::Failed | Status::Panicked),
        is_fat,
    });
    shared.answered(events, &replies);
    if let Some((task, line)) = said {
        shared.heard(post, task, line);
    }
    // What found no room before may find some now.
    post.flush();
    if is_sound { Ok(true) } else { Err(Garbled) }
}
