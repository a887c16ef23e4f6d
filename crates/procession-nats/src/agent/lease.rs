//! Renews the lease of an agent, and fences it: an agent that could not renew for the length of its lease
//! ends its tasks, half a lease before a coordinator gives them to others.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use super::{AgentRequest, AgentShared, logs, new_instance};
use crate::cas_write::WriteReply;
use crate::link::Answer;

/// Until the runtime ends.
pub(super) async fn hold(shared: Arc<AgentShared>) {
    loop {
        let listener = tokio::spawn(listen(Arc::clone(&shared)));
        hold_one(&shared).await;
        listener.abort();
        shared.set_lease_end(None);
        // All who hold tasks see that it has changed.
        shared.instance.send_replace(new_instance());
    }
}

/// Returns when the lease is lost.
async fn hold_one(shared: &AgentShared) {
    let pause = shared.lease / 4;
    let mut renewals = 0;
    // When the last renewal that the server has confirmed was sent.
    let mut renewed: Option<Instant> = None;
    loop {
        if *shared.has_ended.borrow() {
            return std::future::pending().await;
        }
        renewals += 1;
        let lease = shared.lease_record(renewals);
        let (sent, renewal) = (Instant::now(), shared.link.renew(&lease));
        let deadline = renewed.map(|renewed| renewed + shared.lease);
        let longest = match deadline {
            Some(deadline) => deadline.saturating_duration_since(sent),
            None => Duration::from_secs(1),
        };
        let is_taken =
            matches!(timeout(longest, renewal).await, Ok(Answer::Reply(WriteReply::Taken(_))));
        if is_taken {
            renewed = Some(sent);
            shared.set_lease_end(Some((sent + shared.lease).into_std()));
            shared
                .instance
                .send_if_modified(|instance| !std::mem::replace(&mut instance.has_lease, true));
        }
        if renewed.is_some_and(|renewed| renewed.elapsed() >= shared.lease) {
            return;
        }
        sleep(if is_taken { pause } else { pause.min(Duration::from_millis(200)) }).await;
    }
}

/// Hears what coordinators ask of this instance.
async fn listen(shared: Arc<AgentShared>) {
    let subject = shared.link.names.control(&shared.instance.borrow().id);
    loop {
        if let Ok(mut requests) = shared.link.client.subscribe(subject.clone()).await {
            while let Some(message) = requests.next().await {
                match serde_json::from_slice(&message.payload) {
                    Ok(AgentRequest::Kill(request)) => drop(shared.kills.send(request)),
                    Ok(AgentRequest::Logs(request)) => logs::answer(&shared, request),
                    Err(_) => {}
                }
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}
