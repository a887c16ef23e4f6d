//! [`TemplateProcess`]: one process of a template, as the pool sees it.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Pid;

use super::super::child::{Child, Ended};
use super::super::handler::StartMarks;
use super::super::inner::PoolInner;
use super::super::start_failure::StartFailure;
use super::super::worker_handle::KillReason;
use crate::error::with_unit;
use crate::printable::printable;
use crate::scheduler::NextStart;
use crate::transport::{HandshakeMessage, Sent, Socket};

/// A process that does not answer to a request for a copy is killed after this time.
const LONGEST_COPY: Duration = Duration::from_secs(10);

/// One process of a template.
pub(super) struct TemplateProcess {
    pub(super) child: Arc<Child>,
    pub(super) socket: Socket,
    /// The rank of its program.
    pub(super) rank: usize,
    /// The index of the worker for which it was started.
    pub(super) worker: usize,
    /// The marks of its start, until it serves or has ended.
    pub(super) awaited: Mutex<Option<StartMarks>>,
    /// Why it is ended.
    pub(super) failure: Mutex<Option<(StartFailure, Option<KillReason>)>>,
}

impl TemplateProcess {
    pub(super) fn awaited(&self) -> MutexGuard<'_, Option<StartMarks>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failure(&self) -> MutexGuard<'_, Option<(StartFailure, Option<KillReason>)>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has neither served nor failed yet.
    pub(super) fn is_undecided(&self) -> bool {
        self.awaited().is_some() && self.failure().is_none()
    }

    /// At its end: the cause of the end, and when the next process is started.
    pub(super) fn explain(&self, pool: &PoolInner, mut end: Ended) -> (String, NextStart) {
        end.last_output.extend(self.awaited().take().and_then(|awaited| awaited.said()));
        let failure = self.failure().take();
        if let Some((failure, kill_reason)) = failure {
            let process = (self.worker, self.child.pid());
            return failure.classify(pool, self.rank, process, kill_reason, &end);
        }
        let said = end.last_output.last();
        let said = said.map(|line| format!("; it last said: {}", printable(line)));
        let cause = format!("the template ended with {}{}", end.exit, said.unwrap_or_default());
        (cause, NextStart::WithBackoff)
    }

    /// Makes it copy itself, and returns the process id of the copy. The error says why there is no copy.
    pub(super) fn copy(&self, fds: &[BorrowedFd<'_>]) -> Result<Pid, String> {
        /// The longest wait for its end after it was killed.
        const LONGEST_END: Duration = Duration::from_secs(1);
        if HandshakeMessage::Copy.send(&self.socket, fds) != Sent::Yes {
            return Err("it takes no requests".to_owned());
        }
        if !self.socket.is_readable_within(LONGEST_COPY) {
            self.child.kill();
            self.socket.is_readable_within(LONGEST_END);
            return Err(format!("it did not answer within {}", with_unit(LONGEST_COPY)));
        }
        match HandshakeMessage::receive(&self.socket) {
            Ok(Some((HandshakeMessage::Copied { pid }, _))) => {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                pid.ok_or_else(|| "it named no process".to_owned())
            }
            Ok(Some((HandshakeMessage::NotCopied(reason), _))) => Err(printable(&reason).into()),
            _ => {
                self.child.kill();
                Err("it has ended".to_owned())
            }
        }
    }
}
