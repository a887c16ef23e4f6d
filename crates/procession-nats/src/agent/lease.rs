//! Renews the lease of an agent, and fences it: an agent that could not renew for the length of its lease
//! ends its tasks, half a lease before a coordinator gives them to others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use super::{AgentRequest, AgentShared, logs, new_instance};
use crate::cas_write::WriteReply;
use crate::link::Answer;

/// When the lease ends by the clock that was last renewed. `None`: it was not renewed yet.
#[derive(Debug, Default)]
pub(super) struct AgentLeaseEnd(Mutex<Option<Instant>>);

impl AgentLeaseEnd {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lease still lasts. After its end this stays false until the next instance.
    pub(super) fn is_ahead(&self) -> bool {
        let end = self.lock();
        end.is_some_and(|end| Instant::now() < end)
    }

    /// Returns false if the lease has already ended: then it stays so. A task of this agent may have given up its claim
    /// because of that end, and the coordinator gives such a claim to another host only after the end of this instance.
    fn renew(&self, end: Instant) -> bool {
        let mut last = self.lock();
        let is_over = last.is_some_and(|last| Instant::now() >= last);
        if !is_over {
            *last = Some(end);
        }
        !is_over
    }

    /// Forgets the end, for the next instance.
    fn reset(&self) {
        *self.lock() = None;
    }
}

/// Until the runtime ends.
pub(super) async fn hold(shared: Arc<AgentShared>) {
    loop {
        let listener = tokio::spawn(listen(Arc::clone(&shared)));
        hold_one(&shared).await;
        listener.abort();
        // All who hold tasks see that it has changed.
        shared.instance.send_replace(new_instance());
        shared.lease_end.reset();
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
            // This process may have been stopped since it asked.
            if !shared.lease_end.renew(sent + shared.lease) {
                return;
            }
            renewed = Some(sent);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_has_ended_is_not_renewed_by_an_answer_that_comes_late() {
        const LONG: Duration = Duration::from_secs(60);
        let (end, now) = (AgentLeaseEnd::default(), Instant::now());
        assert!(!end.is_ahead());
        assert!(end.renew(now + LONG) && end.is_ahead());
        assert!(end.renew(now) && !end.is_ahead());
        assert!(!end.renew(now + LONG) && !end.is_ahead(), "a task may have been given up");
        end.reset();
        assert!(end.renew(now + LONG) && end.is_ahead());
    }
}
