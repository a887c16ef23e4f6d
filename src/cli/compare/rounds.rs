//! The runs, in turn: A B C, A B C, and so on, until all are done or something ends them.
//!
//! ```text
//!   measuring thread   runs one after the other ──┐
//!                                                 ├──► one channel ──► this thread: what counts
//!   signals thread     Ctrl-C, SIGTERM ───────────┘
//! ```
//!
//! In turn, because a machine that is busy for a while should be so for all of them.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use crate::cli::machine::Machine;
use crate::cli::{Exit, signals};
use crate::flags::outcome::Counts;

use super::mode::Mode;
use super::process::Stage;
use super::progress::Progress;
use super::run::{Brought, Job, Run, Trouble, Turn};

/// What came of it.
#[derive(Debug)]
pub(super) struct Rounds {
    /// Of each mode, those that count.
    pub runs: Vec<Vec<Run>>,
    /// Of each mode, the most memory that any run had, warm-ups included.
    pub peaks: Vec<u64>,
    /// What a run has to bring to count.
    pub expected: Option<Expected>,
    /// What some runs brought instead; these do not count.
    pub unlike: Vec<String>,
    /// How many runs were compared with each other, warm-ups included.
    pub compared: usize,
    pub end: End,
    /// Which share of the machine's CPUs others had meanwhile.
    pub others: Option<f64>,
}

/// What more runs brought than anything else; of what equally many brought, what more runs brought
/// that are no warm-ups, or the earliest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub counts: Counts,
    /// The first run that brought it.
    pub first: Turn,
    /// Whether more than half of all runs did.
    pub is_majority: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// All runs are done.
    Done,
    /// Something is wrong with the job.
    Broken(String),
    Signal(Exit),
}

/// What this thread waits for.
pub(super) enum News {
    Begins { mode: usize },
    Ran { mode: usize, turn: Turn, run: Result<Run, Trouble> },
    Over,
    Signal(Exit),
}

/// Where signals are heard, from the first to the last round.
pub(super) struct Inbox {
    sender: Sender<News>,
    receiver: Receiver<News>,
}

impl Inbox {
    pub(super) fn open() -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let signalled = sender.clone();
        signals::watch(move |exit| {
            let _ = signalled.send(News::Signal(exit));
        })?;
        Ok(Self { sender, receiver })
    }
}

/// How long the last run may take to end when it was stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs every mode so many times.
pub(super) fn run(
    job: &dyn Job,
    modes: &[Mode],
    warmup: usize,
    runs: usize,
    inbox: &Inbox,
    progress: &Progress,
) -> Rounds {
    let mut rounds = Rounds {
        runs: vec![Vec::new(); modes.len()],
        peaks: vec![0; modes.len()],
        expected: None,
        unlike: Vec::new(),
        compared: 0,
        end: End::Done,
        others: None,
    };
    let mut ran = Vec::new();
    let machine = Machine::watch();
    let mut used = 0.0;
    let stage = Stage::default();
    progress.begin(modes, warmup + runs);
    thread::scope(|scope| {
        let (stage, sender) = (&stage, &inbox.sender);
        let measuring = thread::Builder::new().name("measuring".to_owned());
        let spawned = measuring.spawn_scoped(scope, move || {
            for round in 0..warmup + runs {
                let is_warmup = round < warmup;
                let number = 1 + if is_warmup { round } else { round - warmup };
                stage.look_closely(is_warmup);
                for (index, &mode) in modes.iter().enumerate() {
                    let _ = sender.send(News::Begins { mode: index });
                    let turn = Turn { mode, number, is_warmup };
                    let run = job.run(turn, stage);
                    let is_last = run.is_err();
                    let _ = sender.send(News::Ran { mode: index, turn, run });
                    if is_last {
                        let _ = sender.send(News::Over);
                        return;
                    }
                }
            }
            let _ = sender.send(News::Over);
        });
        if let Err(error) = spawned {
            rounds.end = End::Broken(format!("cannot start a thread: {error}"));
            return;
        }
        loop {
            let news = match rounds.end {
                End::Done => inbox.receiver.recv().ok(),
                // What is running was stopped, and has to end.
                _ => inbox.receiver.recv_timeout(PATIENCE).ok(),
            };
            match news {
                None | Some(News::Over) => break,
                Some(News::Begins { mode }) => progress.begins(mode),
                Some(News::Ran { mode, turn, run }) => {
                    progress.ran(mode);
                    used += run.as_ref().map_or(0.0, Run::cpu);
                    match acceptable(job, &ran, turn, run) {
                        Ok(run) => ran.extend(run.map(|run| Ran { mode, turn, run })),
                        Err(why) if rounds.end == End::Done => rounds.end = End::Broken(why),
                        Err(_) => {}
                    }
                }
                Some(News::Signal(exit)) if rounds.end == End::Done => {
                    rounds.end = End::Signal(exit);
                }
                Some(News::Signal(_)) => {}
            }
            if rounds.end != End::Done {
                stage.close();
            }
        }
    });
    progress.end();
    rounds.judge(ran);
    rounds.others = machine.share_of_others(Duration::from_secs_f64(used));
    rounds
}

/// A run that was done.
struct Ran {
    /// Which of the modes.
    mode: usize,
    turn: Turn,
    run: Run,
}

/// The run, if there is one; or why the comparison cannot go on.
fn acceptable(
    job: &dyn Job,
    earlier: &[Ran],
    turn: Turn,
    run: Result<Run, Trouble>,
) -> Result<Option<Run>, String> {
    let run = match run {
        Ok(run) => run,
        Err(Trouble::Stopped) => return Ok(None),
        Err(Trouble::CouldNot(why)) => return Err(format!("{turn}: {why}")),
    };
    let worked = |ran: &Ran| !ran.run.brought.is_nothing_but_errors();
    if run.brought.is_nothing_but_errors()
        && (!job.may_fail_entirely() || earlier.iter().any(worked))
    {
        let error = run.brought.error.as_deref().unwrap_or("errors");
        return Err(format!("{turn} brought nothing but errors: {error}"));
    }
    Ok(Some(run))
}

impl Rounds {
    /// Sorts out the runs that count. Which do is known only when all are done: the first one may be
    /// the odd one.
    fn judge(&mut self, ran: Vec<Ran>) {
        let Some((brought, expected)) = expected(&ran) else { return };
        self.expected = Some(expected);
        self.compared = ran.len();
        for Ran { mode, turn, run } in ran {
            match run.brought.unlike(&brought) {
                Some(difference) => self.unlike.push(format!("{turn}: {difference}")),
                None => {
                    self.peaks[mode] = self.peaks[mode].max(run.peak_rss);
                    if !turn.is_warmup {
                        self.runs[mode].push(run);
                    }
                }
            }
        }
    }
}

/// What a run has to bring to count.
fn expected(ran: &[Ran]) -> Option<(Brought, Expected)> {
    // Of each kind, the first run, how many there are, and how many of these are no warm-ups.
    let mut kinds: Vec<(&Ran, usize, usize)> = Vec::new();
    for each in ran {
        let is_such = |(first, ..): &&mut (&Ran, usize, usize)| {
            each.run.brought.unlike(&first.run.brought).is_none()
        };
        let counting = usize::from(!each.turn.is_warmup);
        match kinds.iter_mut().find(is_such) {
            Some((_, runs, that_count)) => {
                (*runs, *that_count) = (*runs + 1, *that_count + counting)
            }
            None => kinds.push((each, 1, counting)),
        }
    }
    // The last of several that are the most: so the earliest, from behind.
    let most = kinds.iter().rev().max_by_key(|(_, runs, that_count)| (*runs, *that_count));
    let (first, runs, _) = most?;
    let expected = Expected {
        counts: first.run.brought.counts,
        first: first.turn,
        is_majority: runs * 2 > ran.len(),
    };
    Some((first.run.brought.clone(), expected))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::cli::args;

    /// Brings what the test says, and notes who was asked.
    struct Scripted<F>(F, Mutex<Vec<String>>);

    impl<F: Fn(usize) -> Result<Counts, Trouble> + Sync> Job for Scripted<F> {
        fn run(&self, turn: Turn, _: &Stage) -> Result<Run, Trouble> {
            let mut asked = self.1.lock().unwrap();
            let counts = (self.0)(asked.len())?;
            asked.push(turn.mode.to_string());
            let error = (counts.error > 0).then(|| "HTTP 503".to_owned());
            let brought = Brought { counts, things: [].into(), error };
            Ok(Run {
                round: turn.number,
                seconds: 1.0,
                user: 0.5,
                system: 0.5,
                peak_rss: 7,
                workers: 0,
                concurrency: 1,
                brought,
            })
        }
    }

    const FINE: Counts = Counts { ok: 3, not_found: 1, error: 0, not_done: 0, unchanged: 0 };

    /// Three modes, a warm-up, two runs.
    fn rounds(
        script: impl Fn(usize) -> Result<Counts, Trouble> + Sync,
        signal: Option<Exit>,
    ) -> (Rounds, Vec<String>) {
        let (sender, receiver) = mpsc::channel();
        if let Some(exit) = signal {
            sender.send(News::Signal(exit)).unwrap();
        }
        let inbox = Inbox { sender, receiver };
        let modes = ["sequential", "threads:2", "processes:2"].map(|mode| mode.parse().unwrap());
        let job = Scripted(script, Mutex::default());
        let progress = Progress::new(args::Progress::None);
        let rounds = run(&job, &modes, 1, 2, &inbox, &progress);
        (rounds, job.1.into_inner().unwrap())
    }

    fn counted(rounds: &Rounds) -> Vec<usize> {
        rounds.runs.iter().map(Vec::len).collect()
    }

    #[test]
    fn the_modes_run_in_turn_and_warm_ups_do_not_count() {
        let (rounds, asked) = rounds(|_| Ok(FINE), None);
        assert_eq!(asked, ["sequential", "threads:2", "processes:2"].repeat(3));
        assert_eq!(counted(&rounds), [2, 2, 2]);
        assert_eq!((rounds.end, rounds.unlike.len()), (End::Done, 0));
        assert_eq!(rounds.peaks, [7, 7, 7]);
    }

    #[test]
    fn a_run_that_brings_something_else_does_not_count() {
        let script = |n| Ok(Counts { error: u64::from(n == 4), ..FINE });
        let (rounds, _) = rounds(script, None);
        assert_eq!(counted(&rounds), [2, 1, 2]);
        assert_eq!(
            rounds.unlike,
            ["run 1 of threads:2: 3 ok, 1 not found, 1 error (HTTP 503), \
              not 3 ok, 1 not found, 0 errors"]
        );
        assert_eq!(rounds.end, End::Done);
    }

    #[test]
    fn what_most_runs_brought_counts_also_if_the_first_one_brought_something_else() {
        let script = |n| Ok(Counts { error: u64::from(n == 0), ..FINE });
        let (rounds, _) = rounds(script, None);
        assert_eq!(counted(&rounds), [2, 2, 2]);
        let expected = rounds.expected.unwrap();
        assert_eq!((expected.counts, expected.is_majority), (FINE, true));
        assert_eq!(
            rounds.unlike,
            ["warm-up 1 of sequential: 3 ok, 1 not found, 1 error (HTTP 503), \
              not 3 ok, 1 not found, 0 errors"]
        );
        assert_eq!(rounds.compared, 9);
    }

    #[test]
    fn what_equally_many_runs_brought_is_decided_by_those_that_are_no_warm_ups() {
        // Three brought each of three things; all runs of the first round are warm-ups.
        let script = |n: usize| Ok(Counts { ok: 1 + n as u64 / 3, ..FINE });
        let (rounds, _) = rounds(script, None);
        assert_eq!(counted(&rounds), [1, 1, 1]);
        let expected = rounds.expected.unwrap();
        assert_eq!((expected.counts.ok, expected.is_majority), (2, false));
        assert_eq!(expected.first.to_string(), "run 1 of sequential");
        assert_eq!(rounds.unlike.len(), 6);
    }

    #[test]
    fn nothing_but_errors_ends_it_and_what_was_measured_stays() {
        let script = |n| match n {
            0..6 => Ok(FINE),
            _ => Ok(Counts { ok: 0, not_found: 0, error: 4, not_done: 0, unchanged: 0 }),
        };
        let (rounds, _) = rounds(script, None);
        let why = "run 2 of sequential brought nothing but errors: HTTP 503";
        assert_eq!(rounds.end, End::Broken(why.to_owned()));
        assert_eq!(counted(&rounds), [1, 1, 1]);
    }

    #[test]
    fn a_run_that_cannot_be_run_ends_it() {
        let script = |n| match n {
            1 => Err(Trouble::CouldNot("no such file".to_owned())),
            _ => Ok(FINE),
        };
        let (rounds, asked) = rounds(script, None);
        assert_eq!(rounds.end, End::Broken("warm-up 1 of threads:2: no such file".to_owned()));
        assert_eq!((counted(&rounds), asked.len()), (vec![0, 0, 0], 1));
    }

    #[test]
    fn a_signal_ends_it() {
        let script = |n| match n {
            0..4 => Ok(FINE),
            _ => Err(Trouble::Stopped),
        };
        let (rounds, _) = rounds(script, Some(Exit::Interrupted));
        assert_eq!(rounds.end, End::Signal(Exit::Interrupted));
        assert_eq!(counted(&rounds), [1, 0, 0]);
    }
}
