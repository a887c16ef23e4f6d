//! Lines and partial results that tasks send while they run, as records to the coordinator.

use super::ReplySender;
use crate::future::{EncodedPartial, PartialError};
use crate::progress_lines::WriteLine;
use crate::task::TaskId;
use crate::transport::{INLINE_LIMIT, PARTIAL, SAID};

impl WriteLine for ReplySender {
    fn write(&self, task: TaskId, _: usize, line: &str) {
        // A forked copy of the worker must not write into the memory that the worker shares.
        if self.origin.is_forked() {
            return;
        }
        if let Err(stuck) = self.send(SAID, task.0, line.as_bytes(), &[]) {
            // Part of a line fits into a record without an attachment.
            const SPARED: usize = 200;
            let end = (0..=INLINE_LIMIT - SPARED).rev().find(|end| line.is_char_boundary(*end));
            let part = &line[..end.unwrap_or_default()];
            let cut = format!("{part} ... (cut: the worker {stuck})");
            let _ = self.send(SAID, task.0, cut.as_bytes(), &[]);
        }
        self.region.reply_events().notify();
    }

    fn emit(&self, task: TaskId, partial: EncodedPartial) -> Result<(), PartialError> {
        if self.origin.is_forked() {
            let reason = "this process is a copy of the worker".to_owned();
            return Err(PartialError::Undelivered { reason });
        }
        let sent = self.send(PARTIAL, task.0, &partial.text, &partial.blobs);
        self.region.reply_events().notify();
        let undelivered =
            |stuck| PartialError::Undelivered { reason: format!("the worker {stuck}") };
        sent.map(drop).map_err(undelivered)
    }
}
