//! [`CasWrite`]: one write of a record that expects the record before it, until it is known whether it was
//! taken. An answer that does not come says nothing: the same record is sent again, and if that is refused,
//! the latest record tells by its nonce who was first.

use crate::task_record::{StoredRecord, TaskRecord};

/// A write whose outcome is not known yet.
#[derive(Debug, Clone)]
pub(crate) struct CasWrite {
    /// What is written.
    pub(crate) record: TaskRecord,
    /// The sequence number of the record before; 0: there is none.
    pub(crate) expect: u64,
}

/// What the server said.
#[derive(Debug, Clone)]
pub(crate) enum WriteReply {
    /// The record has this sequence number.
    Taken(u64),
    /// Another record was the last one.
    Refused,
    /// Nothing came in time, to a write or to a read.
    Unknown,
    /// The answer to a read.
    Latest(Option<StoredRecord>),
}

/// What to do next.
#[derive(Debug, Clone)]
pub(crate) enum WriteStep {
    /// Send the record, with the same nonce.
    Send,
    /// Read the latest record of the task, from the server that leads.
    Read,
    /// The record was taken, under this sequence number.
    Won(u64),
    /// It was not, and will never be: this is the latest record.
    Beaten(Option<StoredRecord>),
}

impl CasWrite {
    /// Takes an answer.
    pub(crate) fn step(&self, reply: WriteReply) -> WriteStep {
        match reply {
            WriteReply::Taken(seq) => WriteStep::Won(seq),
            WriteReply::Refused => WriteStep::Read,
            WriteReply::Unknown => WriteStep::Send,
            WriteReply::Latest(Some(latest)) if latest.record.nonce == self.record.nonce => {
                WriteStep::Won(latest.seq)
            }
            WriteReply::Latest(latest) => {
                let last = latest.as_ref().map_or(0, |latest| latest.seq);
                if last == self.expect { WriteStep::Send } else { WriteStep::Beaten(latest) }
            }
        }
    }
}
