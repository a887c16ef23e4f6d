//! [`Answer`]: what a server says to a write.

use std::error::Error;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::{self, ErrorCode};

use super::full_text;
use crate::cas_write::WriteReply;

/// The answer to a write: either one that the state machines know, or a refusal of another kind.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(WriteReply),
    /// The server will not take it: it is too large, or the storage is full.
    Fault(String),
}

impl Answer {
    /// What the error of a publication says of it.
    pub(super) fn of_error(error: &PublishError) -> Self {
        let source = error.source().and_then(|source| source.downcast_ref());
        let code = source.map(jetstream::Error::error_code);
        match error.kind() {
            PublishErrorKind::WrongLastSequence => Self::Reply(WriteReply::Refused),
            PublishErrorKind::MaxPayloadExceeded => Self::Fault(full_text(error)),
            PublishErrorKind::Other => match code {
                // The same, as servers with replicas say it while another write is on its way.
                Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) => {
                    Self::Reply(WriteReply::Refused)
                }
                // A copy of this message is on its way.
                Some(ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT) => {
                    Self::Reply(WriteReply::Unknown)
                }
                _ => Self::Fault(full_text(error)),
            },
            // Nobody answers while a server starts.
            _ => Self::Reply(WriteReply::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_server_that_do_not_say_that_it_will_not_take_a_message_are_no_faults() {
        let answer = |code: u64| {
            let error = serde_json::json!({ "code": 400, "err_code": code, "description": "d" });
            let error: jetstream::Error = serde_json::from_value(error).expect("an error");
            Answer::of_error(&PublishError::with_source(PublishErrorKind::Other, error))
        };
        assert!(matches!(answer(10164), Answer::Reply(WriteReply::Refused)));
        assert!(matches!(answer(10158), Answer::Reply(WriteReply::Unknown)));
        assert!(matches!(answer(10077), Answer::Fault(_)), "the stream is full");
    }
}
