//! What the driver asks of the servers for one task. Each request is a task of the runtime, which sends a note when
//! it has an answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::driver::{ClusterDriver, ClusterNote};
use super::named::JobLeaseEnd;
use crate::cas_write::WriteReply;
use crate::link::{Answer, Link, NoAnswer, PutError, RecordMessage};
use crate::members::Members;
use crate::message::{Body, QueuedHead, QueuedMember, join};
use crate::owner::OwnerEvent;
use crate::task_record::TaskRecord;

/// Only if the job has no name, or is this coordinator's.
async fn may_write(lease: Option<&JobLeaseEnd>) -> bool {
    match lease {
        Some(lease) => lease.has_lease().await,
        None => true,
    }
}

/// Stores large bodies in the bucket.
async fn store(link: &Link, bodies: &[Arc<Body>]) -> Result<(), PutError> {
    for body in bodies {
        body.store(link).await?;
    }
    Ok(())
}

impl ClusterDriver {
    fn job_lease_end(&self) -> Option<JobLeaseEnd> {
        self.named.as_ref().map(|named| named.lease_end())
    }

    pub(super) fn write(&self, id: u64, record: TaskRecord, expect: u64) {
        let (link, shared) = (self.link.clone(), Arc::clone(&self.shared));
        let lease = self.job_lease_end();
        tokio::spawn(async move {
            let nonce = record.nonce;
            let answer = match may_write(lease.as_ref()).await {
                true => link.write(&shared.job, id, &record, &[], expect).await,
                false => Answer::Reply(WriteReply::Unknown),
            };
            let _ = shared.notes.send(match answer {
                Answer::Reply(reply) => {
                    let event = OwnerEvent::Replied { nonce, reply };
                    ClusterNote::Event { id, event, body: None }
                }
                Answer::Fault(reason) => {
                    let event = OwnerEvent::Replied { nonce, reply: WriteReply::Unknown };
                    ClusterNote::Fault { id, event, reason }
                }
            });
        });
    }

    pub(super) fn read(&self, id: u64, nonce: u64) {
        let (link, shared) = (self.link.clone(), Arc::clone(&self.shared));
        tokio::spawn(async move {
            let (reply, body) = match link.latest(&shared.job, id).await {
                Ok(Some(RecordMessage { stored, body })) => {
                    (WriteReply::Latest(Some(stored)), Some(body))
                }
                Ok(None) => (WriteReply::Latest(None), None),
                Err(_) => (WriteReply::Unknown, None),
            };
            let event = OwnerEvent::Replied { nonce, reply };
            let _ = shared.notes.send(ClusterNote::Event { id, event, body });
        });
    }

    pub(super) fn publish(&self, id: u64, attempt: u32, seq: u64) {
        let Some(task) = self.tasks.get(&id) else { return };
        let members = task.members.iter().flatten().map(|member| {
            let (options, body) = (member.options, member.body.head.clone());
            QueuedMember { options, body }
        });
        let (input, members) = (task.input, members.collect());
        let head = QueuedHead { attempt, seq, input, members };
        let (requeued, lane, lease) = (task.requeued, task.lane, self.job_lease_end());
        let tasks = task.tasks;
        let bodies = task.members.iter().flatten().map(|member| Arc::clone(&member.body));
        let (link, shared, bodies) =
            (self.link.clone(), Arc::clone(&self.shared), bodies.collect::<Vec<_>>());
        tokio::spawn(async move {
            let subject = link.names.task(&shared.build, lane, &shared.job, (id, tasks));
            // The server drops a message with the id of an earlier one, also if it has lost that.
            let copy = format!("{}.{id}.{seq}.{requeued}", shared.job);
            let event = |is_known| OwnerEvent::Published { seq, is_known };
            let stored = match may_write(lease.as_ref()).await {
                true => store(&link, &bodies).await,
                false => Err(PutError::NoAnswer(NoAnswer("the job is not ours".to_owned()))),
            };
            let answer = match stored {
                Ok(()) => {
                    let message = join(&head, bodies.iter().map(|body| body.inline()));
                    link.enqueue(subject, &copy, message.into()).await
                }
                Err(PutError::Refused(NoAnswer(reason))) => Answer::Fault(reason),
                Err(PutError::NoAnswer(_)) => {
                    sleep(Duration::from_millis(200)).await;
                    Answer::Reply(WriteReply::Unknown)
                }
            };
            let _ = shared.notes.send(match answer {
                Answer::Reply(WriteReply::Taken(_)) => {
                    ClusterNote::Event { id, event: event(true), body: None }
                }
                Answer::Reply(_) => ClusterNote::Event { id, event: event(false), body: None },
                Answer::Fault(reason) => ClusterNote::Fault { id, event: event(false), reason },
            });
        });
    }

    pub(super) fn kill(&self, id: u64, instance: &str, members: Members) {
        let (link, shared) = (self.link.clone(), Arc::clone(&self.shared));
        let subject = link.names.control(instance);
        tokio::spawn(async move {
            let request = crate::agent::KillRequest { job: shared.job.clone(), id, members };
            let payload = serde_json::to_vec(&request).expect("text and numbers are encodable");
            // It may be lost: it is repeated until the task has ended.
            let _ = link.client.publish(subject, payload.into()).await;
        });
    }
}
