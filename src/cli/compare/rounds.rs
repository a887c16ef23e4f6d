//! The runs of all modes, in turn: A B C, A B C, and so on, until all are done or an error or a signal
//! ends the comparison.
//!
//! ```text
//!   measuring thread   runs, one at a time ───────┐
//!                                                 ├──► one channel ──► main thread: the results
//!   signals thread     Ctrl-C, SIGTERM ───────────┘
//! ```
//!
//! The modes run in turn so that a disturbance of the machine affects all of them.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use procession_os::threads;

use crate::cli::background_load::BackgroundLoad;
use crate::cli::exit::ProgramExit;
use crate::cli::signals;
use crate::files::outcome::OutcomeCounts;

use super::mode::MeasuredMode;
use super::progress::ComparisonProgress;
use super::run::{MeasuredJob, MeasuredRun, RunError, RunId, RunResult};
use super::runner::ProcessRunner;

/// The results of all rounds.
#[derive(Debug)]
pub(super) struct RoundResults {
    /// By mode: the runs that count.
    pub runs: Vec<Vec<MeasuredRun>>,
    /// By mode: the peak memory of all runs, warm-ups included.
    pub peaks: Vec<u64>,
    /// The result that a run must have to count.
    pub expected: Option<ExpectedResult>,
    /// The runs with other results, which do not count, in words.
    pub deviations: Vec<String>,
    /// Number of runs whose results were compared, warm-ups included.
    pub compared: usize,
    pub end: ComparisonEnd,
    /// Share of the machine's CPUs that other programs used.
    pub background_load: Option<f64>,
}

/// The result that most runs had. Of equally frequent results, the one that more runs had that are no
/// warm-ups; else the earliest.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpectedResult {
    pub counts: OutcomeCounts,
    /// The first run with this result.
    pub first: RunId,
    /// Whether more than half of all runs had it.
    pub is_majority: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ComparisonEnd {
    /// All runs are done.
    Done,
    /// A run failed; with the error.
    Broken(String),
    Signal(ProgramExit),
}

/// What the main thread waits for.
pub(super) enum RoundMessage {
    Begins { mode: usize },
    Ended { mode: usize, id: RunId, run: Result<MeasuredRun, RunError> },
    AllDone,
    Signal(ProgramExit),
}

/// The channel of messages, which receives signals from its creation on.
pub(super) struct RoundMessages {
    sender: Sender<RoundMessage>,
    receiver: Receiver<RoundMessage>,
}

impl RoundMessages {
    pub(super) fn open() -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let signals = sender.clone();
        signals::watch(move |exit| {
            let _ = signals.send(RoundMessage::Signal(exit));
        })?;
        Ok(Self { sender, receiver })
    }
}

/// How long the last run may take to end after it was stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs every mode `warmup + runs` times.
pub(super) fn run(
    job: &dyn MeasuredJob,
    modes: &[MeasuredMode],
    warmup: usize,
    runs: usize,
    messages: &RoundMessages,
    progress: &ComparisonProgress,
) -> RoundResults {
    let background = BackgroundLoad::watch();
    let runner = ProcessRunner::default();
    let mut collected = CollectedRuns { finished: Vec::new(), cpu: 0.0, end: ComparisonEnd::Done };
    progress.begin(modes, warmup + runs);
    thread::scope(|scope| {
        let (runner, sender) = (&runner, &messages.sender);
        let measuring = thread::Builder::new().name("measuring".to_owned());
        let spawned = measuring.spawn_scoped(scope, move || {
            run_all(job, modes, warmup, runs, runner, sender);
            let _ = sender.send(RoundMessage::AllDone);
        });
        match spawned {
            Ok(_) => collected.receive(job, messages, progress, runner),
            Err(error) => {
                collected.end = ComparisonEnd::Broken(threads::refusal(&error));
            }
        }
    });
    progress.end();
    let CollectedRuns { finished, cpu, end } = collected;
    let background_load = background.share(Duration::from_secs_f64(cpu));
    RoundResults { background_load, ..RoundResults::of(finished, modes.len(), end) }
}

/// Runs the modes in turn, up to the first error.
fn run_all(
    job: &dyn MeasuredJob,
    modes: &[MeasuredMode],
    warmup: usize,
    runs: usize,
    runner: &ProcessRunner,
    sender: &Sender<RoundMessage>,
) {
    for round in 0..warmup + runs {
        let is_warmup = round < warmup;
        let number = 1 + if is_warmup { round } else { round - warmup };
        runner.sample_densely(is_warmup);
        for (index, &mode) in modes.iter().enumerate() {
            let _ = sender.send(RoundMessage::Begins { mode: index });
            let id = RunId { mode, number, is_warmup };
            let run = job.run(id, runner);
            let has_failed = run.is_err();
            let _ = sender.send(RoundMessage::Ended { mode: index, id, run });
            if has_failed {
                return;
            }
        }
    }
}

/// A run that has ended.
struct FinishedRun {
    /// Index of the mode.
    mode: usize,
    id: RunId,
    run: MeasuredRun,
}

/// The runs that have ended so far.
struct CollectedRuns {
    finished: Vec<FinishedRun>,
    /// CPU time of all runs, in seconds.
    cpu: f64,
    end: ComparisonEnd,
}

impl CollectedRuns {
    /// Receives messages until all runs have ended. After an error or a signal, the run in progress is
    /// stopped.
    fn receive(
        &mut self,
        job: &dyn MeasuredJob,
        messages: &RoundMessages,
        progress: &ComparisonProgress,
        runner: &ProcessRunner,
    ) {
        loop {
            let message = match self.end {
                ComparisonEnd::Done => messages.receiver.recv().ok(),
                _ => messages.receiver.recv_timeout(STOP_TIMEOUT).ok(),
            };
            match message {
                None | Some(RoundMessage::AllDone) => break,
                Some(RoundMessage::Begins { mode }) => progress.begin_run(mode),
                Some(RoundMessage::Ended { mode, id, run }) => {
                    progress.end_run(mode);
                    self.add(job, mode, id, run);
                }
                Some(RoundMessage::Signal(exit)) => self.break_off(ComparisonEnd::Signal(exit)),
            }
            if self.end != ComparisonEnd::Done {
                runner.close();
            }
        }
    }

    /// Ends the comparison; only the first reason counts.
    fn break_off(&mut self, end: ComparisonEnd) {
        if self.end == ComparisonEnd::Done {
            self.end = end;
        }
    }

    fn add(
        &mut self,
        job: &dyn MeasuredJob,
        mode: usize,
        id: RunId,
        run: Result<MeasuredRun, RunError>,
    ) {
        self.cpu += run.as_ref().map_or(0.0, MeasuredRun::cpu);
        let run = match run {
            Ok(run) => run,
            Err(RunError::Stopped) => return,
            Err(error) => return self.break_off(ComparisonEnd::Broken(format!("{id}: {error}"))),
        };
        let has_succeeded = |finished: &FinishedRun| !finished.run.result.is_nothing_but_errors();
        if run.result.is_nothing_but_errors()
            && (!job.may_fail_entirely() || self.finished.iter().any(has_succeeded))
        {
            let error = run.result.error.as_deref().unwrap_or("errors");
            let why = format!("{id} had nothing but errors: {error}");
            return self.break_off(ComparisonEnd::Broken(why));
        }
        self.finished.push(FinishedRun { mode, id, run });
    }
}

impl RoundResults {
    /// Selects the runs that count. This is possible only at the end: the first run may be the one
    /// with another result.
    fn of(finished: Vec<FinishedRun>, modes: usize, end: ComparisonEnd) -> Self {
        let mut results = Self {
            runs: vec![Vec::new(); modes],
            peaks: vec![0; modes],
            expected: None,
            deviations: Vec::new(),
            compared: finished.len(),
            end,
            background_load: None,
        };
        let Some((result, expected)) = expected_result(&finished) else { return results };
        results.expected = Some(expected);
        for FinishedRun { mode, id, run } in finished {
            match run.result.difference(&result) {
                Some(difference) => results.deviations.push(format!("{id}: {difference}")),
                None => {
                    results.peaks[mode] = results.peaks[mode].max(run.peak_rss);
                    if !id.is_warmup {
                        results.runs[mode].push(run);
                    }
                }
            }
        }
        results
    }
}

/// The result that a run must have to count.
fn expected_result(finished: &[FinishedRun]) -> Option<(RunResult, ExpectedResult)> {
    // For each result: the first run, the number of runs, and how many of them are no warm-ups.
    let mut kinds: Vec<(&FinishedRun, usize, usize)> = Vec::new();
    for each in finished {
        let is_same = |(first, ..): &&mut (&FinishedRun, usize, usize)| {
            each.run.result.difference(&first.run.result).is_none()
        };
        let counting = usize::from(!each.id.is_warmup);
        match kinds.iter_mut().find(is_same) {
            Some((_, runs, that_count)) => {
                (*runs, *that_count) = (*runs + 1, *that_count + counting)
            }
            None => kinds.push((each, 1, counting)),
        }
    }
    // `max_by_key` returns the last maximum; reversed, that is the earliest.
    let most = kinds.iter().rev().max_by_key(|(_, runs, that_count)| (*runs, *that_count));
    let (first, runs, _) = most?;
    let expected = ExpectedResult {
        counts: first.run.result.counts,
        first: first.id,
        is_majority: runs * 2 > finished.len(),
    };
    Some((first.run.result.clone(), expected))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::cli::options::ProgressOption;

    /// A job with the results of a script, which records the modes.
    struct ScriptedJob<F>(F, Mutex<Vec<String>>);

    impl<F: Fn(usize) -> Result<OutcomeCounts, RunError> + Sync> MeasuredJob for ScriptedJob<F> {
        fn run(&self, id: RunId, _: &ProcessRunner) -> Result<MeasuredRun, RunError> {
            let mut asked = self.1.lock().unwrap();
            let counts = (self.0)(asked.len())?;
            asked.push(id.mode.to_string());
            let error = (counts.error > 0).then(|| "HTTP 503".to_owned());
            let result = RunResult { counts, digests: [].into(), error };
            Ok(MeasuredRun {
                round: id.number,
                seconds: 1.0,
                user: 0.5,
                system: 0.5,
                peak_rss: 7,
                workers: 0,
                concurrency: 1,
                result,
            })
        }
    }

    const FINE: OutcomeCounts =
        OutcomeCounts { ok: 3, not_found: 1, error: 0, not_done: 0, unchanged: 0 };

    /// Three modes, a warm-up, two runs.
    fn rounds(
        script: impl Fn(usize) -> Result<OutcomeCounts, RunError> + Sync,
        signal: Option<ProgramExit>,
    ) -> (RoundResults, Vec<String>) {
        let (sender, receiver) = mpsc::channel();
        if let Some(exit) = signal {
            sender.send(RoundMessage::Signal(exit)).unwrap();
        }
        let messages = RoundMessages { sender, receiver };
        let modes = ["sequential", "threads:2", "processes:2"].map(|mode| mode.parse().unwrap());
        let job = ScriptedJob(script, Mutex::default());
        let progress = ComparisonProgress::new(ProgressOption::None);
        let rounds = run(&job, &modes, 1, 2, &messages, &progress);
        (rounds, job.1.into_inner().unwrap())
    }

    fn counted(rounds: &RoundResults) -> Vec<usize> {
        rounds.runs.iter().map(Vec::len).collect()
    }

    #[test]
    fn the_modes_run_in_turn_and_warm_ups_do_not_count() {
        let (rounds, asked) = rounds(|_| Ok(FINE), None);
        assert_eq!(asked, ["sequential", "threads:2", "processes:2"].repeat(3));
        assert_eq!(counted(&rounds), [2, 2, 2]);
        assert_eq!((rounds.end, rounds.deviations.len()), (ComparisonEnd::Done, 0));
        assert_eq!(rounds.peaks, [7, 7, 7]);
    }

    #[test]
    fn a_run_with_another_result_does_not_count() {
        let script = |n| Ok(OutcomeCounts { error: u64::from(n == 4), ..FINE });
        let (rounds, _) = rounds(script, None);
        assert_eq!(counted(&rounds), [2, 1, 2]);
        assert_eq!(
            rounds.deviations,
            ["run 1 of threads:2: 3 ok, 1 not found, 1 error (HTTP 503), \
              not 3 ok, 1 not found, 0 errors"]
        );
        assert_eq!(rounds.end, ComparisonEnd::Done);
    }

    #[test]
    fn the_result_of_most_runs_counts_even_if_the_first_run_has_another() {
        let script = |n| Ok(OutcomeCounts { error: u64::from(n == 0), ..FINE });
        let (rounds, _) = rounds(script, None);
        assert_eq!(counted(&rounds), [2, 2, 2]);
        let expected = rounds.expected.unwrap();
        assert_eq!((expected.counts, expected.is_majority), (FINE, true));
        assert_eq!(
            rounds.deviations,
            ["warm-up 1 of sequential: 3 ok, 1 not found, 1 error (HTTP 503), \
              not 3 ok, 1 not found, 0 errors"]
        );
        assert_eq!(rounds.compared, 9);
    }

    #[test]
    fn of_equally_frequent_results_that_of_more_runs_without_warm_ups_counts() {
        // Three runs have each of three results; all runs of the first round are warm-ups.
        let script = |n: usize| Ok(OutcomeCounts { ok: 1 + n as u64 / 3, ..FINE });
        let (rounds, _) = rounds(script, None);
        assert_eq!(counted(&rounds), [1, 1, 1]);
        let expected = rounds.expected.unwrap();
        assert_eq!((expected.counts.ok, expected.is_majority), (2, false));
        assert_eq!(expected.first.to_string(), "run 1 of sequential");
        assert_eq!(rounds.deviations.len(), 6);
    }

    #[test]
    fn nothing_but_errors_ends_the_comparison_and_earlier_runs_count() {
        let script = |n| match n {
            0..6 => Ok(FINE),
            _ => Ok(OutcomeCounts { ok: 0, not_found: 0, error: 4, not_done: 0, unchanged: 0 }),
        };
        let (rounds, _) = rounds(script, None);
        let why = "run 2 of sequential had nothing but errors: HTTP 503";
        assert_eq!(rounds.end, ComparisonEnd::Broken(why.to_owned()));
        assert_eq!(counted(&rounds), [1, 1, 1]);
    }

    #[test]
    fn a_run_that_cannot_be_started_ends_the_comparison() {
        let script = |n| match n {
            1 => Err(RunError::Io(std::io::Error::other("no such file"))),
            _ => Ok(FINE),
        };
        let (rounds, asked) = rounds(script, None);
        assert_eq!(
            rounds.end,
            ComparisonEnd::Broken("warm-up 1 of threads:2: cannot run it: no such file".to_owned())
        );
        assert_eq!((counted(&rounds), asked.len()), (vec![0, 0, 0], 1));
    }

    #[test]
    fn a_signal_ends_the_comparison() {
        let script = |n| match n {
            0..4 => Ok(FINE),
            _ => Err(RunError::Stopped),
        };
        let (rounds, _) = rounds(script, Some(ProgramExit::Interrupted));
        assert_eq!(rounds.end, ComparisonEnd::Signal(ProgramExit::Interrupted));
        assert_eq!(counted(&rounds), [1, 0, 0]);
    }
}
