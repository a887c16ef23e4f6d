//! [`TaskRecord`]: what is written down about a task. The latest record of a task is its state.
//!
//! ```text
//!   (none) ──► Queued ──► Claimed ──► Done
//!                │  ▲        │
//!                │  └────────┤  the next attempt
//!                ▼           ▼
//!             Revoked ◄──────┘
//! ```
//!
//! Each arrow is one write that expects the sequence number of the record before it, and that the server
//! refuses if another record has come in between. No arrow but the first starts from "no record": so a claim
//! of a task whose records were removed is refused, whenever it comes.
//!
//! The tasks of a [bundle](crate::members) have one record. Each result, or several at a time, is one more `Claimed`
//! record, followed by all results up to then; `Done` is followed by all of them.

use serde::{Deserialize, Serialize};

use crate::members::Members;

/// A record of one task, or of a bundle of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskRecord {
    /// A random number for each record. A record that is sent again has the same number: so a writer that
    /// got no answer finds out whether its record was taken.
    pub(crate) nonce: u64,
    /// The number of the attempt, from 1.
    pub(crate) attempt: u32,
    /// In a job that has a name: the hash of the task. A coordinator that attaches compares it with that of its
    /// own task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<u64>,
    /// The tasks whose results follow the record: all that the attempt has up to now.
    #[serde(default, skip_serializing_if = "Members::is_empty")]
    pub(crate) reported: Members,
    /// The state of the task.
    pub(crate) state: RecordedState,
}

/// The state of a task, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RecordedState {
    /// It may be claimed. Written by the coordinator.
    Queued,
    /// A host has it. Written by its agent.
    Claimed(HostClaim),
    /// It has its results, which follow the record. Written by the agent with the claim.
    Done,
    /// It will not run, or its result does not count. Written by the coordinator.
    Revoked(Revocation),
}

/// Who has claimed a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostClaim {
    /// The agent, from its start, or from the last time that it lost its lease.
    pub(crate) instance: String,
    /// The name of the host, for people.
    pub(crate) host: String,
    /// How long the agent goes on without having renewed its lease, in milliseconds.
    pub(crate) lease_ms: u64,
}

/// Why a task was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Revocation {
    /// Its future was cancelled.
    Cancelled,
    /// This host was lost, and the task has no further attempt.
    HostLost(String),
}

/// A record with the sequence number that the server gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredRecord {
    /// Larger than those of all records before.
    pub(crate) seq: u64,
    /// The record.
    pub(crate) record: TaskRecord,
}

impl TaskRecord {
    /// The record as one line of JSON.
    pub(crate) fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("text and numbers are always encodable");
        line.push(b'\n');
        line
    }

    /// Splits a message into its record and what follows it. `None`: it is no record.
    pub(crate) fn split(message: &[u8]) -> Option<(Self, &[u8])> {
        let end = message.iter().position(|byte| *byte == b'\n')?;
        Some((serde_json::from_slice(&message[..end]).ok()?, &message[end + 1..]))
    }
}
