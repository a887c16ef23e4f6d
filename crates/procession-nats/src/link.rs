//! [`Link`]: a connection to the NATS servers, with the few requests that coordinators and agents make. Each
//! of them has a deadline, and none of them is given up because the connection is down: it waits for it.

mod answer;
mod denials;
mod jobs;
mod pages;
mod streams;

pub(crate) use answer::Answer;
pub(crate) use pages::Page;
pub(crate) use streams::{PutError, StreamAges};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::RawMessage;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, Message, StatusCode};
use bytes::Bytes;
use procession::PoolError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use self::denials::Denials;
use self::pages::PageBytes;
use crate::cas_write::WriteReply;
use crate::host_lease::HostLease;
use crate::names::Names;
use crate::settings::ConnectSettings;
use crate::task_record::{StoredRecord, TaskRecord};

/// How long an answer is waited for.
pub(crate) const ANSWER: Duration = Duration::from_secs(1);
/// How long a connection is tried at the start.
const FIRST_CONNECTION: Duration = Duration::from_secs(10);
/// How long servers are asked at the start to make the streams: they may have to elect one that leads first.
const FIRST_STREAMS: Duration = Duration::from_secs(5);

/// A connection. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) client: Client,
    context: Context,
    pub(crate) names: Arc<Names>,
    /// Counts what may have made messages be missed: reconnections, and messages that were dropped here.
    gaps: watch::Receiver<u64>,
    denials: Arc<Denials>,
    page_bytes: Arc<PageBytes>,
}

/// A record and what follows it in its message.
#[derive(Debug, Clone)]
pub(crate) struct RecordMessage {
    pub(crate) stored: StoredRecord,
    pub(crate) body: Bytes,
}

/// The lease in a message, if it is one of this instance.
fn lease_of(instance: &str, payload: &[u8]) -> Option<HostLease> {
    let lease: HostLease = serde_json::from_slice(payload).ok()?;
    (lease.instance == instance).then_some(lease)
}

/// No answer came, or none that says anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoAnswer(pub(crate) String);

impl NoAnswer {
    pub(crate) fn in_time() -> Self {
        Self("the servers did not answer in time".to_owned())
    }
}

impl From<NoAnswer> for PoolError {
    fn from(NoAnswer(why): NoAnswer) -> Self {
        Self::Broker(why)
    }
}

impl RecordMessage {
    /// From a message of a stream, or one that a stream has sent again.
    fn new(seq: u64, payload: &Bytes) -> Option<Self> {
        let (record, body) = TaskRecord::split(payload)?;
        let body = payload.slice_ref(body);
        Some(Self { stored: StoredRecord { seq, record }, body })
    }

    /// From a message that the stream of records has sent again.
    pub(crate) fn from_news(message: &Message) -> Option<Self> {
        Self::new(header(message, "Nats-Sequence")?, &message.payload)
    }
}

fn header(message: &Message, name: &str) -> Option<u64> {
    message.headers.as_ref()?.get(name)?.as_str().parse().ok()
}

impl Link {
    /// Connects, and makes the streams if they are not there.
    pub(crate) async fn connect(settings: &ConnectSettings) -> Result<Self, NoAnswer> {
        let names = Arc::new(Names::new(&settings.prefix).map_err(NoAnswer)?);
        let (gap, gaps) = watch::channel(0);
        let counted = AtomicU64::new(0);
        let count = move || {
            gap.send_replace(counted.fetch_add(1, Ordering::Relaxed) + 1);
        };
        let count = Arc::new(count);
        let denials = Arc::new(Denials::default());
        let noted = Arc::clone(&denials);
        let options = settings
            .options()
            .map_err(|error| NoAnswer(error.to_string()))?
            .max_reconnects(None)
            .connection_timeout(Duration::from_secs(3))
            .ping_interval(Duration::from_secs(5))
            .request_timeout(Some(ANSWER))
            .subscription_capacity(1 << 18)
            .reconnect_delay_callback(|tries| {
                Duration::from_millis(100).saturating_mul(tries.min(10) as u32)
            })
            .event_callback(move |event| {
                match event {
                    Event::Connected | Event::SlowConsumer(_) => count(),
                    Event::ServerError(error) => noted.note(&error),
                    _ => {}
                }
                async {}
            });
        let client = Self::open(settings, options).await?;
        let context = jetstream::ContextBuilder::new()
            .timeout(ANSWER)
            .max_ack_inflight(1 << 16)
            .build(client.clone());
        let page_bytes = Arc::default();
        let link = Self { client, context, names, gaps, denials, page_bytes };
        let deadline = Instant::now() + FIRST_STREAMS;
        while let Err(NoAnswer(why)) = link.make_streams(settings).await {
            if link.denials.last().is_some() || Instant::now() > deadline {
                return Err(NoAnswer(link.or_denied(why)));
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(link)
    }

    async fn open(settings: &ConnectSettings, options: ConnectOptions) -> Result<Client, NoAnswer> {
        let urls: Vec<_> = settings.url.split(',').map(str::trim).map(str::to_owned).collect();
        let connected = timeout(FIRST_CONNECTION, options.connect(urls)).await;
        let url = settings.shown_url();
        let failed = |cause: &str| NoAnswer(format!("cannot connect to NATS at {url}: {cause}"));
        match connected {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(failed(&full_text(&error))),
            Err(_) => Err(failed("no answer within 10 s")),
        }
    }

    /// A request that is denied gets no answer, so the reason comes another way.
    fn or_denied(&self, why: String) -> String {
        match self.denials.last() {
            Some(subject) => format!("{why}: the servers do not allow this user to use {subject}"),
            None => why,
        }
    }

    /// Changes with each reconnection, and whenever messages were dropped.
    pub(crate) fn gaps(&self) -> watch::Receiver<u64> {
        self.gaps.clone()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Requests that are sent while the connection is down would all be sent at once when it is back.
    pub(crate) async fn connected(&self) {
        while !self.is_connected() {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Publishes to a stream and waits for its answer.
    async fn publish(&self, subject: String, message: PublishMessage) -> Answer {
        self.connected().await;
        let sent = match self.context.send_publish(subject.clone(), message).await {
            Ok(acked) => acked.await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(ack) => Answer::Reply(WriteReply::Taken(ack.sequence)),
            Err(error) => {
                let answer = Answer::of_error(&error);
                if !matches!(answer, Answer::Reply(WriteReply::Unknown)) {
                    return answer;
                }
                if self.denials.take(&subject) {
                    return Answer::Fault(format!("this user may not publish to {subject}"));
                }
                sleep(Duration::from_millis(100)).await;
                answer
            }
        }
    }

    /// Writes a record, if the one before it has this sequence number.
    pub(crate) async fn write(
        &self,
        job: &str,
        id: u64,
        record: &TaskRecord,
        body: &[u8],
        expect: u64,
    ) -> Answer {
        let mut payload = record.to_line();
        payload.extend_from_slice(body);
        let message =
            PublishMessage::build().payload(payload.into()).expected_last_subject_sequence(expect);
        self.publish(self.names.record(job, id), message).await
    }

    /// Puts a message into the queue. `copy` is the same if it is sent again.
    pub(crate) async fn enqueue(&self, subject: String, copy: &str, payload: Bytes) -> Answer {
        let message = PublishMessage::build().payload(payload).message_id(copy);
        self.publish(subject, message).await
    }

    /// The latest record of a task, as the server says that leads.
    pub(crate) async fn latest(
        &self,
        job: &str,
        id: u64,
    ) -> Result<Option<RecordMessage>, NoAnswer> {
        let last = self.last(&self.names.records(), &self.names.record(job, id)).await?;
        Ok(last.and_then(|(seq, payload)| RecordMessage::new(seq, &payload)))
    }

    /// The lease of an instance, as the server says that leads.
    pub(crate) async fn lease(&self, instance: &str) -> Result<Option<(u64, HostLease)>, NoAnswer> {
        let stream = self.names.host_stream();
        let last = self.last(&stream, &self.names.lease(instance)).await?;
        Ok(last.and_then(|(seq, payload)| Some((seq, lease_of(instance, &payload)?))))
    }

    /// All leases that were not removed.
    pub(crate) async fn leases(&self) -> Result<Vec<HostLease>, NoAnswer> {
        let stream = self.names.host_stream();
        let kept = self.scan(&stream, &self.names.lease(">")).await?;
        Ok(kept.iter().filter_map(|kept| kept.to_lease()).collect())
    }

    /// Writes a lease.
    pub(crate) async fn renew(&self, lease: &HostLease) -> Answer {
        let payload = serde_json::to_vec(lease).expect("text and numbers are always encodable");
        let message = PublishMessage::build().payload(payload.into());
        self.publish(self.names.lease(&lease.instance), message).await
    }

    /// Removes a lease: the agent has ended.
    pub(crate) async fn remove_lease(&self, instance: &str) -> Answer {
        let message = PublishMessage::build().header("KV-Operation", "PURGE");
        self.publish(self.names.lease(instance), message.header("Nats-Rollup", "sub")).await
    }

    async fn last(&self, stream: &str, subject: &str) -> Result<Option<(u64, Bytes)>, NoAnswer> {
        self.connected().await;
        let request = serde_json::json!({ "last_by_subj": subject });
        let reply = self.api(&format!("STREAM.MSG.GET.{stream}"), &request).await?;
        if let Some(error) = reply.get("error") {
            // "no message found"
            return match error.get("err_code").and_then(serde_json::Value::as_u64) {
                Some(10037) => Ok(None),
                _ => Err(NoAnswer(error.to_string())),
            };
        }
        let failed = |error: &dyn std::fmt::Display| NoAnswer(error.to_string());
        let raw: RawMessage =
            serde_json::from_value(reply["message"].clone()).map_err(|error| failed(&error))?;
        let message = StreamMessage::try_from(raw).map_err(|error| failed(&error))?;
        Ok(Some((message.sequence, message.payload)))
    }

    /// A request to the API of JetStream.
    pub(crate) async fn api(
        &self,
        subject: &str,
        request: &serde_json::Value,
    ) -> Result<serde_json::Value, NoAnswer> {
        let answer = self.context.request(subject.to_owned(), request).await;
        answer.map_err(|error| NoAnswer(full_text(&error)))
    }

    /// Whether the queue has the message of a task.
    pub(crate) async fn is_queued(&self, subject: &str) -> Result<bool, NoAnswer> {
        self.connected().await;
        // By the last one of the subject, which the server finds at once; it searches for the first one.
        let request = serde_json::json!({ "last_by_subj": subject }).to_string();
        let api = format!("$JS.API.DIRECT.GET.{}", self.names.tasks());
        let answer = self.client.request(api, request.into()).await;
        let answer = answer.map_err(|error| NoAnswer(error.to_string()))?;
        match answer.status {
            None => Ok(true),
            Some(StatusCode::NOT_FOUND) => Ok(false),
            Some(status) => Err(NoAnswer(format!("a message was looked for: {status}"))),
        }
    }
}

/// An error with its causes.
pub(crate) fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}
