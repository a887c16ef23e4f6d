//! Jobs that have a name: their leases, and their removal.

use async_nats::jetstream::message::PublishMessage;
use serde_json::{Value, json};

use super::{Answer, Link, NoAnswer};
use crate::job_lease::JobLease;

impl Link {
    /// The lease of a job, with its sequence number.
    pub(crate) async fn job_lease(&self, job: &str) -> Result<Option<(u64, JobLease)>, NoAnswer> {
        let last = self.last(&self.names.records(), &self.names.job_lease(job)).await?;
        let Some((seq, payload)) = last else { return Ok(None) };
        let lease = serde_json::from_slice(&payload);
        let lease = lease.map_err(|error| NoAnswer(format!("the lease of job {job}: {error}")))?;
        Ok(Some((seq, lease)))
    }

    /// Writes the lease of a job, if the one before it has this sequence number.
    pub(crate) async fn write_job_lease(&self, job: &str, lease: &JobLease, expect: u64) -> Answer {
        let payload = serde_json::to_vec(lease).expect("text and numbers are always encodable");
        let message =
            PublishMessage::build().payload(payload.into()).expected_last_subject_sequence(expect);
        self.publish(self.names.job_lease(job), message).await
    }

    /// The number of the last record of all jobs.
    pub(crate) async fn last_record(&self) -> Result<u64, NoAnswer> {
        let info = self.api(&format!("STREAM.INFO.{}", self.names.records()), &json!({})).await?;
        let last = info["state"]["last_seq"].as_u64();
        last.ok_or_else(|| NoAnswer(format!("the stream of records: {info}")))
    }

    /// Removes the messages and records of a job.
    pub(crate) async fn remove_job(&self, job: &str) -> Result<(), NoAnswer> {
        self.purge(&self.names.tasks(), &self.names.tasks_of_job(job)).await?;
        self.purge(&self.names.records(), &self.names.records_of_job(job)).await
    }

    /// Removes the bodies of a job from the bucket.
    pub(crate) async fn remove_bodies(&self, job: &str) -> Result<(), NoAnswer> {
        let (stream, subjects) = (self.names.body_stream(), self.names.body_infos());
        let prefix = format!("{job}.");
        for kept in self.scan(&stream, &subjects).await? {
            let Ok(about) = serde_json::from_slice::<Value>(&kept.payload) else { continue };
            let name = about["name"].as_str().unwrap_or_default();
            if name.starts_with(&prefix) && about["deleted"] != true {
                self.remove_body(name).await?;
            }
        }
        Ok(())
    }

    /// Removes the lease of a job that has ended.
    pub(crate) async fn remove_job_lease(&self, job: &str) -> Result<(), NoAnswer> {
        self.purge(&self.names.records(), &self.names.job_lease(job)).await
    }
}
