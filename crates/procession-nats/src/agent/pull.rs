//! Asks the queue for messages: never for more than there are free slots, so that no task waits here that
//! another host could run.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::AgentShared;
use super::hold::{self, Delivered, HeldCount};
use super::lanes::{EXPIRES, LaneRequest, LaneRequests};
use crate::message::QueuedHead;
use crate::names::QueueLane;

/// The time since which each bundle that arrived has found too few free slots.
#[derive(Debug, Default)]
pub(super) struct SlotShortage(Mutex<Option<Instant>>);

impl SlotShortage {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, now: Instant) {
        self.since().get_or_insert(now);
    }

    fn end(&self) {
        *self.since() = None;
    }

    /// Whether long tasks keep the slots, so that a bundle would have to wait for their ends.
    fn is_long(&self, now: Instant) -> bool {
        const LONG: Duration = Duration::from_secs(3);
        self.since().is_some_and(|since| now.saturating_duration_since(since) >= LONG)
    }
}

/// Until the agent is drained.
pub(super) async fn pull(shared: Arc<AgentShared>) {
    let mut draining = shared.is_draining.subscribe();
    tokio::select! {
        () = pull_always(&shared) => {}
        _ = draining.wait_for(|is_draining| *is_draining) => {}
    }
}

async fn pull_always(shared: &Arc<AgentShared>) {
    loop {
        let inbox = shared.link.client.new_inbox();
        let mut gaps = shared.link.gaps();
        gaps.mark_unchanged();
        shared.link.connected().await;
        if let Ok(messages) = shared.link.client.subscribe(format!("{inbox}.*")).await {
            // After an outage the server knows nothing of the requests before.
            tokio::select! {
                () = pull_with(shared, &inbox, messages) => {}
                _ = gaps.changed() => {}
            }
        }
        sleep(Duration::from_millis(20)).await;
        let _ = shared.link.make_consumers(&shared.build).await;
    }
}

/// Returns when the subscription or a consumer is gone.
async fn pull_with(shared: &Arc<AgentShared>, inbox: &str, mut messages: Subscriber) {
    let mut instance = shared.instance.subscribe();
    let mut lanes = LaneRequests::new();
    loop {
        let _ = instance.wait_for(|instance| instance.has_lease).await;
        let free = free_slots(shared).await;
        // Each task needs a slot. The next messages are expected to have as many tasks as the last one.
        let most = free.div_ceil(shared.in_message.load(Ordering::Relaxed).max(1));
        while let Some(request) = lanes.next(most, Instant::now()) {
            if ask(shared, inbox, request).await.is_err() {
                return;
            }
        }
        let later = Instant::now() + EXPIRES;
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => {
                    if !take(shared, inbox, &mut lanes, message).await {
                        return;
                    }
                }
                None => return,
            },
            // A permit that is taken to see that there is one is given back at once.
            permit = shared.free.acquire(), if free == 0 => drop(permit),
            () = sleep_until(lanes.deadline().unwrap_or(later)) => {}
        }
    }
}

/// The number of free slots. If some are and most are not, those that become free in the next moment are waited
/// for: one request for several messages costs less than several requests. With few slots, nothing is.
async fn free_slots(shared: &AgentShared) -> usize {
    const MOMENT: Duration = Duration::from_millis(1);
    let (free, enough) = (shared.free.available_permits(), shared.slots.div_ceil(8));
    if free > 0 && free < enough {
        let enough = u32::try_from(enough).unwrap_or(u32::MAX);
        let _ = timeout(MOMENT, shared.free.acquire_many(enough)).await;
    }
    shared.free.available_permits()
}

async fn ask(
    shared: &AgentShared,
    inbox: &str,
    request: LaneRequest,
) -> Result<(), async_nats::PublishError> {
    let LaneRequest { lane, number, batch, waits } = request;
    let expires = u64::try_from(EXPIRES.as_nanos()).unwrap_or(u64::MAX);
    let request = match waits {
        true => json!({ "batch": batch, "expires": expires }),
        false => json!({ "batch": batch, "no_wait": true }),
    };
    let (stream, consumer) = (shared.link.names.tasks(), lane.consumer(&shared.build));
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
    let (reply, request) = (format!("{inbox}.{number}"), request.to_string().into());
    shared.link.client.publish_with_reply(subject, reply, request).await
}

/// Returns false if a consumer seems to be gone.
async fn take(
    shared: &Arc<AgentShared>,
    inbox: &str,
    lanes: &mut LaneRequests,
    message: Message,
) -> bool {
    let Some(status) = message.status.map(|status| status.as_u16()) else {
        if let Some(lane) = QueueLane::of_subject(&message.subject) {
            lanes.message(lane);
        }
        let delivered = QueuedHead::split(&message.payload);
        let tasks = delivered.as_ref().map_or(1, |(head, _)| head.members.len());
        shared.in_message.store(tasks, Ordering::Relaxed);
        // A bundle that has more tasks than this agent has slots waits for all slots.
        let slots = u32::try_from(tasks.min(shared.slots)).unwrap_or(u32::MAX);
        match Arc::clone(&shared.free).try_acquire_many_owned(slots) {
            Ok(permit) => {
                if tasks > 1 {
                    shared.shortage.end();
                }
                let count = HeldCount::new(shared, permit);
                drop(tokio::spawn(hold::hold(message, delivered, count)));
            }
            Err(_) if tasks > 1 => {
                drop(tokio::spawn(hold_later(Arc::clone(shared), message, delivered, slots)));
            }
            Err(_) => give_back(shared, message).await,
        }
        return true;
    };
    match status {
        // A heartbeat.
        100 => true,
        // There are no messages, or a request has expired.
        404 | 408 => {
            // Of a status; a task has its own subject.
            let number = message.subject.rsplit_once('.').and_then(|(_, it)| it.parse().ok());
            match number.and_then(|number| lanes.empty(number, Instant::now())) {
                Some(request) => ask(shared, inbox, request).await.is_ok(),
                None => true,
            }
        }
        // There is no such consumer, or no server answers.
        _ => {
            sleep(Duration::from_millis(100)).await;
            false
        }
    }
}

/// Waits until each task of a bundle has a slot: the tasks that have the slots are mostly short, too. If there have
/// been too few slots for long, the bundle takes those that are free, at least one.
async fn hold_later(
    shared: Arc<AgentShared>,
    message: Message,
    delivered: Option<Delivered>,
    slots: u32,
) {
    const LONGEST: Duration = Duration::from_millis(100);
    let free = u32::try_from(shared.free.available_permits()).unwrap_or(u32::MAX);
    let is_long = shared.shortage.is_long(Instant::now());
    let enough = if is_long { free.clamp(1, slots) } else { slots };
    let permit = timeout(LONGEST, Arc::clone(&shared.free).acquire_many_owned(enough)).await;
    let permit = permit.ok().and_then(Result::ok);
    match &permit {
        Some(_) if enough == slots => shared.shortage.end(),
        Some(_) => {}
        None => shared.shortage.note(Instant::now()),
    }
    // A drained agent ends only after all tasks that are counted here.
    let count = permit.map(|it| HeldCount::new(&shared, it));
    match count.filter(|_| !*shared.is_draining.borrow()) {
        Some(count) => hold::hold(message, delivered, count).await,
        None => give_back(&shared, message).await,
    }
}

/// There is no free slot: several lanes that were empty had a message at the same time, or it comes late.
async fn give_back(shared: &AgentShared, message: Message) {
    if let Some(reply) = message.reply {
        // If it is lost, the server waits for the acknowledgement, and delivers it again.
        let _ = shared.link.client.publish(reply, "-NAK".into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_short_for_long_if_no_bundle_has_got_enough_for_three_seconds() {
        let (shortage, start) = (SlotShortage::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert!(!shortage.is_long(after(5000)));
        shortage.note(start);
        shortage.note(after(2900));
        assert!(!shortage.is_long(after(2999)) && shortage.is_long(after(3000)));
        shortage.end();
        assert!(!shortage.is_long(after(5000)));
    }
}
