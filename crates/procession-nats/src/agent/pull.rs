//! Asks the queue for messages: never for more than there are free slots, so that no task waits here that
//! another host could run.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::{AgentShared, hold};
use crate::link::header;

/// How long the server keeps a request for messages.
const EXPIRES: Duration = Duration::from_secs(5);

/// Requests for messages that the server has not answered to the end.
#[derive(Default)]
struct PullRequests {
    open: VecDeque<PullRequest>,
    next: u64,
}

struct PullRequest {
    number: u64,
    /// Messages that are still to come.
    left: usize,
    deadline: Instant,
}

impl PullRequests {
    fn left(&self) -> usize {
        self.open.iter().map(|request| request.left).sum()
    }

    fn begin(&mut self, left: usize) -> u64 {
        self.next += 1;
        let deadline = Instant::now() + EXPIRES + Duration::from_secs(1);
        self.open.push_back(PullRequest { number: self.next, left, deadline });
        self.next
    }

    /// A message has come. It does not say for which request, so it counts for the oldest.
    fn delivered(&mut self) {
        if let Some(request) = self.open.front_mut() {
            request.left -= 1;
        }
        self.open.retain(|request| request.left > 0);
    }

    /// A request has ended, and this many of its messages will not come.
    fn ended(&mut self, number: u64, undelivered: Option<usize>) {
        let own = self.open.iter().find(|request| request.number == number);
        let mut rest = undelivered.or(own.map(|own| own.left)).unwrap_or_default();
        // What was counted for an older request was perhaps one of this.
        let (ended, others): (Vec<_>, Vec<_>) =
            self.open.drain(..).partition(|request| request.number == number);
        let all: usize = ended.iter().map(|request| request.left).sum();
        self.open.extend(others);
        rest = rest.saturating_sub(all);
        while rest > 0 && !self.open.is_empty() {
            self.delivered();
            rest -= 1;
        }
    }

    fn forget_late(&mut self) {
        let now = Instant::now();
        self.open.retain(|request| request.deadline > now);
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
        let _ = shared.link.make_consumer(&shared.build).await;
    }
}

/// Returns when the subscription or the consumer is gone.
async fn pull_with(shared: &Arc<AgentShared>, inbox: &str, mut messages: Subscriber) {
    let mut requests = PullRequests::default();
    let mut instance = shared.instance.subscribe();
    loop {
        let _ = instance.wait_for(|instance| instance.has_lease).await;
        requests.forget_late();
        let free = shared.free.available_permits().saturating_sub(requests.left());
        // Not one at a time while many are on their way.
        if free > 0 && (requests.open.is_empty() || free >= shared.slots.div_ceil(4)) {
            let number = requests.begin(free);
            if request(shared, inbox, number, free).await.is_err() {
                return;
            }
        }
        let is_full = requests.open.is_empty();
        let deadline = requests.open.front().map(|request| request.deadline);
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => {
                    if !take(shared, &mut requests, message).await {
                        return;
                    }
                }
                None => return,
            },
            // A permit that is taken to see that there is one is given back at once.
            _ = shared.free.acquire(), if is_full => {}
            () = sleep(Duration::from_millis(5)), if !is_full && free > 0 => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
        }
    }
}

async fn request(
    shared: &AgentShared,
    inbox: &str,
    number: u64,
    batch: usize,
) -> Result<(), async_nats::PublishError> {
    let expires = u64::try_from(EXPIRES.as_nanos()).unwrap_or(u64::MAX);
    let request = json!({ "batch": batch, "expires": expires }).to_string();
    let stream = shared.link.names.tasks();
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", shared.build);
    let reply = format!("{inbox}.{number}");
    shared.link.client.publish_with_reply(subject, reply, request.into()).await
}

/// Returns false if the consumer seems to be gone.
async fn take(shared: &Arc<AgentShared>, requests: &mut PullRequests, message: Message) -> bool {
    // Of a status; a task has its own subject.
    let number = message.subject.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
    let number = number.unwrap_or_default();
    let undelivered = header(&message, "Nats-Pending-Messages");
    let undelivered = undelivered.and_then(|number| usize::try_from(number).ok());
    match message.status.map(|status| status.as_u16()) {
        None => {
            requests.delivered();
            // One that comes for a request that was forgotten may find no slot: it is delivered again.
            if let Ok(permit) = Arc::clone(&shared.free).try_acquire_owned() {
                shared.held.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(hold::hold(Arc::clone(shared), message, permit));
            }
            true
        }
        // A heartbeat.
        Some(100) => true,
        // The request has ended.
        Some(404 | 408) => {
            requests.ended(number, undelivered);
            true
        }
        // No such consumer, too many requests, nobody answers.
        Some(_) => {
            requests.ended(number, undelivered);
            sleep(Duration::from_millis(100)).await;
            false
        }
    }
}
