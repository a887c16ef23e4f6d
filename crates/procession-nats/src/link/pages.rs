//! Reads what streams keep, a page at a time. A server drops connections on which too much waits. So pages become smaller
//! when a connection is lost while a page is read. The pages that were read before are not read again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::StatusCode;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{sleep, timeout};

use super::{ANSWER, Link, NoAnswer, RecordMessage, header, lease_of};
use crate::host_lease::HostLease;

/// The maximum number of messages in a page.
const PAGE: usize = 256;

/// The maximum size of a page in bytes, which only its last message may exceed. It is divided by 4 when a page does not
/// arrive whole, and grows by [`MORE`](Self::MORE) with each page that does.
#[derive(Debug)]
pub(super) struct PageBytes(AtomicUsize);

impl PageBytes {
    const LEAST: usize = 64 * 1024;
    const MOST: usize = 4 * 1024 * 1024;
    const MORE: usize = 32 * 1024;

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Two pages may arrive at the same time, and one of the two changes may be lost. The size need not be exact.
    fn note(&self, has_arrived: bool) {
        let next = if has_arrived { self.get() + Self::MORE } else { self.get() / 4 };
        self.0.store(next.clamp(Self::LEAST, Self::MOST), Ordering::Relaxed);
    }
}

impl Default for PageBytes {
    fn default() -> Self {
        Self(AtomicUsize::new(Self::MOST))
    }
}

/// A message that a stream keeps.
#[derive(Debug)]
pub(crate) struct KeptMessage {
    pub(crate) seq: u64,
    pub(crate) subject: String,
    /// When it was stored, by the clock of the server.
    pub(crate) time: Option<jiff::Timestamp>,
    pub(crate) payload: Bytes,
}

impl KeptMessage {
    /// The lease that it is, if it is one of the instance that its subject names.
    pub(crate) fn to_lease(&self) -> Option<HostLease> {
        let (_, instance) = self.subject.rsplit_once('.')?;
        lease_of(instance, &self.payload)
    }

    fn to_record(&self) -> Option<(u64, RecordMessage)> {
        let (_, id) = crate::names::job_and_id(&self.subject)?;
        Some((id, RecordMessage::new(self.seq, &self.payload)?))
    }
}

/// Some of what was asked for, in the order in which it was stored.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// The sequence number from which the next page begins, if there is one.
    pub(crate) next: Option<u64>,
}

impl Link {
    /// All messages of a stream whose subjects match the pattern `subjects`.
    pub(crate) async fn scan(
        &self,
        stream: &str,
        subjects: &str,
    ) -> Result<Vec<KeptMessage>, NoAnswer> {
        let (mut all, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            let page = self.page(stream, subjects, from, PAGE).await?;
            all.extend(page.items);
            next = page.next;
        }
        Ok(all)
    }

    /// The first message of a stream whose subject matches the pattern `subjects`.
    pub(crate) async fn first(
        &self,
        stream: &str,
        subjects: &str,
    ) -> Result<Option<KeptMessage>, NoAnswer> {
        Ok(self.page(stream, subjects, 0, 1).await?.items.into_iter().next())
    }

    /// The first record of a job from a sequence number on, if there is one.
    pub(crate) async fn next_record(
        &self,
        job: &str,
        from: u64,
    ) -> Result<Page<(u64, RecordMessage)>, NoAnswer> {
        self.page_of_records(job, from, 1).await
    }

    /// Records of a job from a sequence number on.
    pub(crate) async fn records(
        &self,
        job: &str,
        from: u64,
    ) -> Result<Page<(u64, RecordMessage)>, NoAnswer> {
        self.page_of_records(job, from, PAGE).await
    }

    async fn page_of_records(
        &self,
        job: &str,
        from: u64,
        most: usize,
    ) -> Result<Page<(u64, RecordMessage)>, NoAnswer> {
        let subjects = self.names.records_of_job(job);
        let Page { items, next } = self.page(&self.names.records(), &subjects, from, most).await?;
        Ok(Page { items: items.iter().filter_map(KeptMessage::to_record).collect(), next })
    }

    /// At most `most` messages of a stream whose subjects match the pattern `subjects`, from a sequence number on. If
    /// the connection is lost meanwhile, the page is asked for again, unless the servers do not allow it.
    pub(super) async fn page(
        &self,
        stream: &str,
        subjects: &str,
        from: u64,
        most: usize,
    ) -> Result<Page<KeptMessage>, NoAnswer> {
        const TRIES: usize = 3;
        const PAUSE: Duration = Duration::from_millis(50);
        let mut tries = 1;
        loop {
            self.connected().await;
            let page = self.page_once(stream, subjects, from, most).await;
            let subject = subject_of(stream);
            if page.is_err() && self.denials.has(&subject) {
                return Err(NoAnswer(format!("this user may not publish to {subject}")));
            }
            self.page_bytes.note(page.is_ok());
            if page.is_ok() || tries == TRIES {
                return page;
            }
            tries += 1;
            sleep(PAUSE).await;
        }
    }

    async fn page_once(
        &self,
        stream: &str,
        subjects: &str,
        from: u64,
        most: usize,
    ) -> Result<Page<KeptMessage>, NoAnswer> {
        let failed = |error: &dyn std::fmt::Display| NoAnswer(error.to_string());
        let mut gaps = self.gaps();
        gaps.mark_unchanged();
        let inbox = self.client.new_inbox();
        let subscribed = self.client.subscribe(inbox.clone()).await;
        let mut answers = subscribed.map_err(|error| failed(&error))?;
        let request = serde_json::json!({
            "seq": from.max(1), "next_by_subj": subjects, "batch": most, "max_bytes": self.page_bytes.get(),
        });
        let subject = subject_of(stream);
        let sent = self.client.publish_with_reply(subject, inbox, request.to_string().into()).await;
        sent.map_err(|error| failed(&error))?;
        let mut items: Vec<KeptMessage> = Vec::new();
        loop {
            let answer = tokio::select! {
                answer = timeout(ANSWER, answers.next()) => answer,
                // The rest of the answer went to the connection before this one.
                Ok(()) = gaps.changed() => return Err(NoAnswer("the connection was lost".to_owned())),
            };
            let Ok(Some(answer)) = answer else {
                return Err(NoAnswer("a stream was read, and its answer did not end".to_owned()));
            };
            match answer.status {
                None => {}
                Some(StatusCode::NOT_FOUND) => return Ok(Page { items, next: None }),
                Some(status) if status.as_u16() == 204 => {
                    let has_more = header(&answer, "Nats-Num-Pending").is_some_and(|left| left > 0);
                    let last = items.last().filter(|_| has_more);
                    return Ok(Page { next: last.map(|last| last.seq + 1), items });
                }
                Some(status) => return Err(NoAnswer(format!("a stream was read: {status}"))),
            }
            let headers = answer.headers.as_ref();
            let subject = headers.and_then(|headers| headers.get("Nats-Subject"));
            if let (Some(subject), Some(seq)) = (subject, header(&answer, "Nats-Sequence")) {
                let time = headers.and_then(|headers| headers.get("Nats-Time-Stamp"));
                let time = time.and_then(|time| time.as_str().parse().ok());
                let before = items.last().map_or(from.saturating_sub(1), |last| last.seq);
                if !is_behind(seq, before) {
                    return Err(NoAnswer(format!(
                        "a stream was read: message {seq} is not in its place"
                    )));
                }
                let (subject, payload) = (subject.as_str().to_owned(), answer.payload);
                items.push(KeptMessage { seq, subject, time, payload });
            }
        }
    }
}

/// Where a server is asked for messages of a stream.
fn subject_of(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
}

/// Whether a message may be the next one behind this sequence number. If not, pages could go on for ever.
fn is_behind(seq: u64, before: u64) -> bool {
    before < seq && seq < u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_only_go_on() {
        assert!(is_behind(1, 0) && is_behind(9, 7) && is_behind(u64::MAX - 1, 0));
        assert!(!is_behind(0, 0) && !is_behind(7, 7) && !is_behind(6, 7));
        assert!(!is_behind(u64::MAX, 0), "none could follow");
    }

    #[test]
    fn pages_become_small_quickly_and_large_slowly_within_bounds() {
        let bytes = PageBytes::default();
        let sizes = [false, false, true, false, false].map(|has_arrived| {
            bytes.note(has_arrived);
            bytes.get() / 1024
        });
        assert_eq!(sizes, [1024, 256, 288, 72, 64]);
        (0..1_000).for_each(|_| bytes.note(true));
        assert_eq!(bytes.get(), PageBytes::MOST);
    }
}
