//! Ends one running call: its process is killed, if the call still runs and has run for its allowed
//! time.

use std::time::Duration;

use super::{KillReason, WorkerHandle};
use crate::scheduler::{Begun, Claimed};
use crate::transport::Progress;

/// The outcome of an order to end a call.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::process_pool) enum TerminateOutcome {
    /// The process was killed.
    Killed,
    /// The call was not ended, because of what its claim says.
    Postponed(Claimed),
}

/// What the first look at the claim of a call says.
#[derive(Debug, PartialEq, Eq)]
enum FirstLook {
    NotBegun,
    /// None of its tasks runs.
    HasEnded,
    /// The task that runs has run for less than its time.
    HasTimeLeft {
        ran_for: Duration,
    },
    IsToEnd,
}

impl FirstLook {
    /// `progress` is what the claim says; `None` if the call has no claim yet. `allowed` is the time that its task may
    /// run; `None` if the call was cancelled.
    fn at(progress: Option<Progress>, allowed: Option<Duration>) -> Self {
        match progress {
            None | Some(Progress { begun: 0, .. }) => Self::NotBegun,
            Some(Progress { runs_for: None, .. }) => Self::HasEnded,
            Some(Progress { runs_for: Some(ran_for), .. }) => {
                match allowed.is_some_and(|allowed| ran_for < allowed) {
                    true => Self::HasTimeLeft { ran_for },
                    false => Self::IsToEnd,
                }
            }
        }
    }
}

impl WorkerHandle {
    /// Kills the process if the call has run for `allowed`; without `allowed`, if it runs at all.
    /// If the process goes on, also returns the calls that were taken back from it.
    ///
    /// The claim is read twice. In between, everything that has not begun is taken back: so the
    /// process is not killed for a task that began after the first look.
    pub(in crate::process_pool) fn end_call(
        &self,
        seq: u64,
        allowed: Option<Duration>,
    ) -> (TerminateOutcome, Vec<Begun>) {
        let postponed = |claimed, back| (TerminateOutcome::Postponed(claimed), back);
        let first = self.progress(seq);
        if first.is_none() && !self.has_call(seq) {
            // The reply was read, and the scheduler gets its event.
            return postponed(Claimed::Ended { is_being_read: true }, Vec::new());
        }
        match FirstLook::at(first, allowed) {
            FirstLook::NotBegun => {
                // Without `allowed` it is cancelled, so it need not begin.
                let back = allowed.is_none().then(|| self.take_back(seq..=seq));
                return postponed(Claimed::NotBegun, back.unwrap_or_default());
            }
            FirstLook::HasEnded => return postponed(self.ended_claim(seq), Vec::new()),
            FirstLook::HasTimeLeft { ran_for } => {
                return postponed(Claimed::RunsFor(ran_for), Vec::new());
            }
            FirstLook::IsToEnd => {}
        }
        let back = self.take_back(0..=u64::MAX);
        if still_runs(first, self.progress(seq), allowed) {
            self.kill(KillReason::Late);
            return (TerminateOutcome::Killed, Vec::new());
        }
        postponed(self.ended_claim(seq), back)
    }

    /// Asks the task of a call to stop, or takes it back if it has not begun. Returns the calls that
    /// were taken back.
    pub(in crate::process_pool) fn ask_to_stop(&self, seq: u64) -> Vec<Begun> {
        let back = self.take_back(seq..=seq);
        if let Some(region) = self.region() {
            self.sending().claims.ask_to_stop(region, seq);
        }
        back
    }

    fn progress(&self, seq: u64) -> Option<Progress> {
        let region = self.region()?;
        self.sending().claims.progress(region, seq)
    }

    fn ended_claim(&self, seq: u64) -> Claimed {
        Claimed::Ended { is_being_read: self.may_have_unread_reply(seq) }
    }

    /// Whether the reply to a call that has ended by its claim may be unread. Records that arrive
    /// after the first question about a call do not count: otherwise a worker could postpone the end
    /// of one call by replies to others.
    fn may_have_unread_reply(&self, seq: u64) -> bool {
        let Some(region) = self.region() else { return false };
        let Some(mut receiving) = self.try_receiving() else { return true };
        receiving.may_have_unread_reply(region, seq)
    }
}

/// Whether the task that ran at the first look at the claim still runs at the second look. In a chunk, the next task may
/// have begun in between, before it was taken back; that task has not used up its time. Without `allowed`, the whole
/// call is cancelled.
fn still_runs(
    first: Option<Progress>,
    second: Option<Progress>,
    allowed: Option<Duration>,
) -> bool {
    let Some(second) = second.filter(|second| second.runs_for.is_some()) else { return false };
    allowed.is_none() || first.is_some_and(|first| first.begun == second.begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The claim of a call of which this number of tasks have begun.
    fn begun(begun: u32, runs_for: Option<Duration>) -> Option<Progress> {
        Some(Progress { begun, runs_for })
    }

    #[test]
    fn a_task_is_ended_only_when_it_has_run_for_its_time() {
        let (allowed, ran_for) = (Duration::from_secs(1), Duration::from_millis(999));
        let look = |progress| FirstLook::at(progress, Some(allowed));
        assert_eq!(look(begun(1, Some(ran_for))), FirstLook::HasTimeLeft { ran_for });
        assert_eq!(
            look(begun(3, Some(Duration::ZERO))),
            FirstLook::HasTimeLeft { ran_for: Duration::ZERO }
        );
        assert_eq!(look(begun(3, Some(allowed))), FirstLook::IsToEnd);
        assert_eq!(look(begun(3, None)), FirstLook::HasEnded);
        // A call that is cancelled has no time left.
        assert_eq!(FirstLook::at(begun(1, Some(Duration::ZERO)), None), FirstLook::IsToEnd);
        for allowed in [Some(allowed), None] {
            for progress in [None, begun(0, None)] {
                assert_eq!(FirstLook::at(progress, allowed), FirstLook::NotBegun);
            }
        }
    }

    #[test]
    fn a_task_of_a_chunk_is_not_ended_for_the_one_before_it() {
        let (long, short) = (Some(Duration::from_secs(1)), Some(Duration::ZERO));
        assert!(still_runs(begun(3, long), begun(3, long), long));
        assert!(!still_runs(begun(3, long), begun(4, short), long));
        // A cancel is for the whole call, whichever of its tasks runs.
        assert!(still_runs(begun(3, long), begun(4, short), None));
    }

    #[test]
    fn a_call_that_has_ended_meanwhile_is_not_ended_by_force() {
        let long = Some(Duration::from_secs(1));
        for allowed in [long, None] {
            assert!(!still_runs(begun(1, long), begun(1, None), allowed));
            assert!(!still_runs(begun(1, long), None, allowed));
        }
    }
}
