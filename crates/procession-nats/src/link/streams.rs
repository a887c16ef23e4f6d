//! The streams and buckets: how they are made, watched, and emptied; and bodies in the bucket.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::kv;
use async_nats::jetstream::object_store;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Republish, RetentionPolicy, StorageType,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::{ANSWER, Answer, Link, NoAnswer, full_text};
use crate::names::QueueLane;
use crate::settings::ConnectSettings;

/// A message that was delivered and neither claimed nor acknowledged is delivered again after this time.
/// It does not limit how long a task runs: messages are acknowledged when the task is claimed.
const ACK_WAIT: Duration = Duration::from_secs(3);
/// Leases that are not renewed are removed after this time. It is longer than any lease.
const OLD_LEASE: Duration = Duration::from_secs(3600);
/// The consumer of a build that no agent has asked for this long is removed. Agents make it again.
const OLD_CONSUMER: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a body may take on its way, at the least; and for each megabyte.
const BODY: Duration = Duration::from_secs(30);
/// No body is longer, whatever a message says: 4 GiB, or what an address can tell.
const LARGEST_BODY: usize = if usize::BITS > 32 { 1 << 32 } else { usize::MAX };

/// Why a body is not in the bucket.
#[derive(Debug)]
pub(crate) enum PutError {
    /// The server will not take it.
    Refused(NoAnswer),
    /// Nothing that says so was heard.
    NoAnswer(NoAnswer),
}

/// When each stream was made: a stream of the same name that was made later is another one.
pub(crate) type StreamAges = BTreeMap<String, String>;

impl Link {
    pub(super) async fn make_streams(&self, settings: &ConnectSettings) -> Result<(), NoAnswer> {
        let failed = |error: &dyn std::error::Error| {
            NoAnswer(format!("cannot make the streams: {}", full_text(error)))
        };
        let replicas = settings.replicas;
        let tasks = Config {
            name: self.names.tasks(),
            subjects: vec![self.names.all_tasks()],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            num_replicas: replicas,
            allow_direct: true,
            ..Config::default()
        };
        let records = Config {
            name: self.names.records(),
            subjects: vec![self.names.all_records()],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            max_messages_per_subject: 1,
            max_age: settings.keep_records,
            num_replicas: replicas,
            allow_direct: true,
            // Those who listen hear what was stored, and nothing else.
            republish: Some(Republish {
                source: self.names.all_records(),
                destination: self.names.all_news(),
                headers_only: false,
            }),
            ..Config::default()
        };
        for config in [tasks, records] {
            let made = self.context.get_or_create_stream(config).await;
            made.map_err(|error| failed(&error))?;
        }
        if self.context.get_key_value(self.names.hosts()).await.is_err() {
            let config = kv::Config {
                bucket: self.names.hosts(),
                history: 1,
                max_age: OLD_LEASE,
                storage: StorageType::File,
                num_replicas: replicas,
                ..kv::Config::default()
            };
            let made = self.context.create_key_value(config).await;
            made.map_err(|error| failed(&error))?;
        }
        if self.context.get_object_store(self.names.bodies()).await.is_err() {
            let config = object_store::Config {
                bucket: self.names.bodies(),
                // A body is of no use without its record.
                max_age: settings.keep_records,
                storage: StorageType::File,
                num_replicas: replicas,
                ..object_store::Config::default()
            };
            let made = self.context.create_object_store(config).await;
            made.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// When the streams were made, also those of the buckets. One that is gone is missing.
    pub(crate) async fn stream_ages(&self) -> Result<StreamAges, NoAnswer> {
        let mut ages = StreamAges::new();
        let names = &self.names;
        for name in [names.tasks(), names.records(), names.host_stream(), names.body_stream()] {
            let info = self.api(&format!("STREAM.INFO.{name}"), &json!({})).await?;
            let error = info.get("error").and_then(|error| error["err_code"].as_u64());
            match (error, info["created"].as_str()) {
                (None, Some(created)) => drop(ages.insert(name, created.to_owned())),
                // "stream not found"
                (Some(10059), _) => {}
                _ => return Err(NoAnswer(format!("stream {name}: {info}"))),
            }
        }
        Ok(ages)
    }

    /// Makes the consumers of a build, one for each lane, if they are not there.
    pub(crate) async fn make_consumers(&self, build: &str) -> Result<(), NoAnswer> {
        for lane in QueueLane::ALL {
            self.make_consumer(build, lane).await?;
        }
        Ok(())
    }

    async fn make_consumer(&self, build: &str, lane: QueueLane) -> Result<(), NoAnswer> {
        let stream = self.context.get_stream_no_info(self.names.tasks()).await;
        let stream = stream.map_err(|error| NoAnswer(full_text(&error)))?;
        let config = pull::Config {
            durable_name: Some(lane.consumer(build)),
            filter_subject: self.names.tasks_of_lane(build, lane),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            max_ack_pending: 1_000_000,
            max_waiting: 100_000,
            inactive_threshold: OLD_CONSUMER,
            ..pull::Config::default()
        };
        let made = stream.create_consumer(config).await;
        made.map(drop).map_err(|error| NoAnswer(full_text(&error)))
    }

    /// Removes the messages of these subjects.
    pub(crate) async fn purge(&self, stream: &str, subjects: &str) -> Result<(), NoAnswer> {
        let request = json!({ "filter": subjects });
        self.api(&format!("STREAM.PURGE.{stream}"), &request).await.map(drop)
    }

    /// Removes the messages of these subjects whose sequence numbers are below `seq`.
    pub(crate) async fn purge_below(
        &self,
        stream: &str,
        subjects: &str,
        seq: u64,
    ) -> Result<(), NoAnswer> {
        let request = json!({ "filter": subjects, "seq": seq });
        self.api(&format!("STREAM.PURGE.{stream}"), &request).await.map(drop)
    }

    async fn bucket(&self) -> Result<object_store::ObjectStore, NoAnswer> {
        let bucket = self.context.get_object_store(self.names.bodies()).await;
        bucket.map_err(|error| NoAnswer(full_text(&error)))
    }

    /// Puts a body into the bucket.
    pub(crate) async fn put_body(&self, name: &str, body: &[u8]) -> Result<(), PutError> {
        self.connected().await;
        let bucket = self.bucket().await.map_err(PutError::NoAnswer)?;
        let mut body_reader = body;
        let put = timeout(time_for(body.len()), bucket.put(name, &mut body_reader)).await;
        match put {
            Ok(Ok(_)) => Ok(()),
            // It was put before, and no answer came. An agent may have no permission to purge the copy.
            Ok(Err(_)) if has_body(&bucket, name, body).await => Ok(()),
            Ok(Err(error)) => {
                let cause = error.source().and_then(|source| source.downcast_ref());
                let answer = cause.map(Answer::of_error);
                let reason = NoAnswer(full_text(&error));
                Err(match answer {
                    Some(Answer::Fault(_)) => PutError::Refused(reason),
                    _ => PutError::NoAnswer(NoAnswer(self.or_denied(reason.0))),
                })
            }
            Err(_) => {
                let reason = "a body was not taken in time".to_owned();
                Err(PutError::NoAnswer(NoAnswer(reason)))
            }
        }
    }

    /// Gets a body of this length from the bucket, and checks its hash. The chunks are asked for one group after
    /// the other. The reader of the client panics if the server does not answer, and makes a consumer: a user
    /// with that permission could have messages of the stream sent to any subject.
    pub(crate) async fn get_body(&self, name: &str, len: usize) -> Result<Vec<u8>, NoAnswer> {
        if len > LARGEST_BODY {
            return Err(NoAnswer(format!("{name} is said to be {len} bytes long")));
        }
        self.connected().await;
        let got = timeout(time_for(len), async {
            let info = self.bucket().await?.info(name).await;
            let info = info.map_err(|error| NoAnswer(full_text(&error)))?;
            let body = self.get_chunks(&info.nuid, len).await?;
            let digest = digest(&body);
            if body.len() == len && info.digest.is_some_and(|stored| stored == digest) {
                Ok(body)
            } else {
                Err(NoAnswer(format!("{name} is not whole, or has another length than {len}")))
            }
        });
        let got = got.await;
        let got = got.unwrap_or_else(|_| Err(NoAnswer("a body did not arrive in time".to_owned())));
        got.map_err(|NoAnswer(why)| NoAnswer(self.or_denied(why)))
    }

    /// Gets a body of at most this length. `None`: it is not there, or not yet. Unlike [`get_body`](Self::get_body),
    /// this does not outlast a connection that is lost.
    pub(crate) async fn find_body(
        &self,
        name: &str,
        most: usize,
    ) -> Result<Option<Vec<u8>>, NoAnswer> {
        let info = async {
            self.connected().await;
            Ok(self.bucket().await?.info(name).await)
        };
        let late = |_| NoAnswer::in_time();
        match timeout(ANSWER, info).await.map_err(late)?? {
            Ok(info) if info.deleted => Ok(None),
            Ok(info) if info.size > most => {
                Err(NoAnswer(format!("{name} has {} bytes, more than {most}", info.size)))
            }
            Ok(info) => {
                let got = timeout(ANSWER + time_for(info.size), self.get_body(name, info.size));
                got.await.map_err(late)?.map(Some)
            }
            Err(error) if error.kind() == object_store::InfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(NoAnswer(full_text(&error))),
        }
    }

    async fn get_chunks(&self, nuid: &str, len: usize) -> Result<Vec<u8>, NoAnswer> {
        /// Chunks that are asked for at a time: 4 MiB.
        const CHUNKS: usize = 32;
        let (stream, subject) = (self.names.body_stream(), self.names.body_chunks(nuid));
        let (mut body, mut from) = (Vec::with_capacity(len.min(1 << 20)), 0);
        while body.len() < len {
            let page = self.page(&stream, &subject, from, CHUNKS).await?;
            let Some(last) = page.items.last() else { break };
            from = last.seq + 1;
            page.items.iter().for_each(|chunk| body.extend_from_slice(&chunk.payload));
        }
        Ok(body)
    }

    /// Removes a body from the bucket.
    pub(crate) async fn remove_body(&self, name: &str) -> Result<(), NoAnswer> {
        let removed = self.bucket().await?.delete(name).await;
        removed.map_err(|error| NoAnswer(full_text(&error)))
    }
}

/// Whether the bucket has this very body under the name.
async fn has_body(bucket: &object_store::ObjectStore, name: &str, body: &[u8]) -> bool {
    let Ok(Ok(info)) = timeout(ANSWER, bucket.info(name)).await else { return false };
    let is_whole = info.size == body.len() && info.digest == Some(digest(body));
    is_whole && !info.deleted
}

/// As the bucket notes it.
fn digest(body: &[u8]) -> String {
    format!("SHA-256={}", URL_SAFE.encode(Sha256::digest(body)))
}

fn time_for(len: usize) -> Duration {
    BODY + Duration::from_micros(len as u64)
}
