//! The submitter thread: submits downloads to an executor until all are submitted or it is stopped. If errors
//! can end the run, it sends none ahead: a worker may send the requests that it has received after the error.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use procession::{Engine, Executor, PoolError, Shutdown, TaskError};
use procession_os::threads::ThreadSpec;

use crate::cli::hosts::RunsNow;
use crate::cli::run_log::SubmittedCodes;
use crate::files::outcome::{DownloadOutcome, DownloadStatus};
use crate::files::task::Download;

/// A running submitter.
pub(super) struct Submitter {
    executor: Arc<dyn Engine>,
    gate: Arc<SubmissionGate>,
}

/// How errors end a run.
pub(super) struct ErrorBound {
    /// After this number of errors no more downloads are begun.
    pub errors: usize,
    /// The most downloads that are submitted and not complete: as many as the executor runs at a time.
    pub in_flight: MostInFlight,
}

/// The most downloads that run at a time.
pub(super) enum MostInFlight {
    Fixed(usize),
    /// As many as other hosts run at present. Hosts come and go.
    Now(RunsNow),
}

impl MostInFlight {
    /// At least one.
    fn get(&self) -> usize {
        match self {
            Self::Fixed(most) => *most,
            Self::Now(most) => most().max(1),
        }
    }
}

/// Where the submitter waits until it may submit one more download.
struct SubmissionGate {
    bound: Option<ErrorBound>,
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_stopped: bool,
    in_flight: usize,
    errors: usize,
}

impl SubmissionGate {
    fn new(bound: Option<ErrorBound>) -> Self {
        Self { bound, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more download may be submitted, and counts it. Returns `false` if no more may be submitted at all.
    fn enter(&self) -> bool {
        /// A bound for each wait, so that a missed wake-up delays a submission by no more.
        const LONGEST_WAIT: Duration = Duration::from_secs(1);
        let most_errors = self.bound.as_ref().map_or(usize::MAX, |bound| bound.errors);
        let most = || self.bound.as_ref().map_or(usize::MAX, |bound| bound.in_flight.get());
        let mut state = self.lock();
        loop {
            if state.is_stopped || state.errors >= most_errors {
                return false;
            }
            if state.in_flight < most() {
                state.in_flight += 1;
                return true;
            }
            let waited = self.changed.wait_timeout(state, LONGEST_WAIT);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A download that was submitted is complete.
    fn leave(&self, is_error: bool) {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.errors += usize::from(is_error);
        drop(state);
        self.changed.notify_one();
    }

    fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_one();
    }
}

/// Whether the result counts as an error of the run. A cancelled download does not: it is not done.
fn is_error(result: &Result<DownloadOutcome, TaskError>) -> bool {
    match result {
        Ok(outcome) => outcome.status == DownloadStatus::Error,
        Err(TaskError::Cancelled | TaskError::PoolBroken(_)) => false,
        Err(_) => true,
    }
}

impl Submitter {
    /// Starts to submit the downloads. `done` is called with the number of each, counted from 0, and its
    /// result, submitted or not.
    pub(super) fn start(
        executor: Arc<dyn Engine>,
        downloads: impl Iterator<Item = Download> + Send + 'static,
        submitted: SubmittedCodes,
        bound: Option<ErrorBound>,
        done: impl Fn(usize, Result<DownloadOutcome, TaskError>) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let gate = Arc::new(SubmissionGate::new(bound));
        let submitter = Self { executor: Arc::clone(&executor), gate: Arc::clone(&gate) };
        spawn("submitter", move || {
            for (number, download) in downloads.enumerate() {
                let (code, done) = (download.item.code.clone(), done.clone());
                if !gate.enter() {
                    done(number, Err(TaskError::Cancelled));
                    continue;
                }
                let future = executor.submit(download);
                submitted.insert(future.id(), code);
                let gate = Arc::clone(&gate);
                future.on_done(move |result| {
                    gate.leave(is_error(result));
                    match result {
                        // The executor was shut down just before this submission.
                        Err(TaskError::PoolBroken(PoolError::ShutDown)) => {
                            done(number, Err(TaskError::Cancelled));
                        }
                        result => done(number, result.clone()),
                    }
                });
            }
        })?;
        Ok(submitter)
    }

    /// Submits no more, and cancels the downloads that have not begun, submitted or not. Downloads
    /// that have begun continue: to cancel their futures would kill the workers that run them.
    pub(super) fn stop(&self) {
        self.gate.stop();
        let executor = Arc::clone(&self.executor);
        // The shutdown returns when all downloads that have begun have ended. If no thread can be
        // started for it, the deadline of the caller ends the run.
        let _ = spawn("shutdown", move || executor.shutdown(Shutdown::CancelPending));
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    ThreadSpec::new(name).start_with_retries(work).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_gate_lets_as_many_pass_as_may_be_in_flight_and_none_after_the_errors() {
        let in_flight = MostInFlight::Fixed(2);
        let gate = SubmissionGate::new(Some(ErrorBound { errors: 2, in_flight }));
        assert!(gate.enter() && gate.enter());
        gate.leave(true);
        assert!(gate.enter());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.enter());
            gate.leave(true);
            assert!(!waiting.join().expect("no panic"), "the second error has come first");
        });
        gate.leave(false);
        assert!(!gate.enter());
    }

    #[test]
    fn a_gate_lets_one_pass_when_no_host_is_known_and_more_when_hosts_come() {
        let (slots, looks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, seen) = (Arc::clone(&slots), Arc::clone(&looks));
        let runs_now = move || {
            let slots = now.load(Ordering::SeqCst);
            seen.fetch_add(1, Ordering::SeqCst);
            slots
        };
        let in_flight = MostInFlight::Now(Arc::new(runs_now));
        let gate = SubmissionGate::new(Some(ErrorBound { errors: 9, in_flight }));
        assert!(gate.enter());
        let soon = |is_so: &dyn Fn() -> bool| {
            (0..30_000).any(|_| {
                std::thread::sleep(Duration::from_millis(1));
                is_so()
            })
        };
        std::thread::scope(|scope| {
            let second = scope.spawn(|| gate.enter());
            let waited = soon(&|| looks.load(Ordering::SeqCst) == 2) && !second.is_finished();
            slots.store(2, Ordering::SeqCst);
            let is_over = soon(&|| second.is_finished());
            // Otherwise it would wait for ever.
            gate.stop();
            assert!(second.join().expect("no panic") && waited && is_over);
        });
        assert_eq!(gate.lock().in_flight, 2);
    }

    #[test]
    fn a_gate_without_a_bound_ends_when_it_is_stopped() {
        let gate = SubmissionGate::new(None);
        for _ in 0..3 {
            assert!(gate.enter());
            gate.leave(true);
        }
        gate.stop();
        assert!(!gate.enter());
    }
}
