//! Asks the queue for messages: never for more than there are free slots, so that no task waits here that
//! another host could run.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::AgentShared;
use super::hold::{self, HeldCount};

/// How long the server keeps a request for messages.
const EXPIRES: Duration = Duration::from_secs(5);

/// A request for messages that the server has not answered to the end. There is one at a time: messages do not
/// say for which request they come.
struct PullRequest {
    number: u64,
    /// Messages that are still to come.
    left: usize,
    deadline: Instant,
}

impl PullRequest {
    fn new(number: u64, left: usize) -> Self {
        Self { number, left, deadline: Instant::now() + EXPIRES + Duration::from_secs(1) }
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
    let mut instance = shared.instance.subscribe();
    for number in 0.. {
        let _ = instance.wait_for(|instance| instance.has_lease).await;
        // A permit that is taken to see that there is one is given back at once.
        drop(shared.free.acquire().await);
        let free = shared.free.available_permits().max(1);
        if request(shared, inbox, number, free).await.is_err() {
            return;
        }
        let mut open = Some(PullRequest::new(number, free));
        while let Some(PullRequest { deadline, .. }) = open {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => {
                        if !take(shared, &mut open, message).await {
                            return;
                        }
                    }
                    None => return,
                },
                // The server has forgotten it.
                () = sleep_until(deadline) => open = None,
            }
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
async fn take(shared: &Arc<AgentShared>, open: &mut Option<PullRequest>, message: Message) -> bool {
    match message.status.map(|status| status.as_u16()) {
        None => {
            if let Some(request) = open {
                request.left -= 1;
            }
            open.take_if(|request| request.left == 0);
            // One that comes for a request that was forgotten may find no slot: it is delivered again.
            if let Ok(permit) = Arc::clone(&shared.free).try_acquire_owned() {
                tokio::spawn(hold::hold(message, HeldCount::new(shared, permit)));
            }
            true
        }
        // A heartbeat.
        Some(100) => true,
        Some(status) => {
            // Of a status; a task has its own subject.
            let number = message.subject.rsplit_once('.').map(|(_, number)| number);
            open.take_if(|request| number == Some(request.number.to_string().as_str()));
            // The request has ended, or there is no such consumer, or no server answers.
            let is_fine = matches!(status, 404 | 408);
            if !is_fine {
                sleep(Duration::from_millis(100)).await;
            }
            is_fine
        }
    }
}
