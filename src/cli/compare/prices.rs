//! What a task costs that does nothing: the price of handing it over and of having its result
//! back, with many on their way at a time.

use super::labour::Labour;
use super::mode::{Crew, Language, Mode, Size};
use super::progress::Progress;
use super::rounds::{self, End, Inbox};
use super::run::Run;
use super::statistics::Spread;

/// So many tasks that do nothing are run to see what a task costs, so many times.
const IDLE_JOBS: usize = 4_000;
const IDLE_RUNS: usize = 5;

pub(super) struct Prices {
    /// In seconds, by one worker of each kind.
    pub of_each: Vec<(Mode, Spread)>,
    /// Runs that did not bring what most did, which do not count.
    pub unlike: Vec<String>,
    pub end: End,
}

/// What a task costs that does nothing.
pub(super) fn measure(
    labour: &Labour,
    modes: &[Mode],
    inbox: &Inbox,
    progress: &Progress,
) -> Prices {
    let one = |mode: &Mode| {
        let crew = match mode.crew {
            Crew::Sequential => Crew::Sequential,
            Crew::Threads(_) => Crew::Threads(Some(1)),
            Crew::Processes(_) => Crew::Processes(Some(Size { workers: 1, threads: 1 })),
        };
        Mode { crew, ..*mode }
    };
    let mut kinds: Vec<Mode> = Vec::new();
    for mode in modes.iter().map(one) {
        let is_call = mode.crew == Crew::Sequential && mode.language == Language::Python;
        if !kinds.contains(&mode) && !is_call {
            kinds.push(mode);
        }
    }
    let idle = labour.idle(IDLE_JOBS);
    let rounds = rounds::run(&idle, &kinds, 1, IDLE_RUNS, inbox, progress);
    let price = |(mode, runs): (Mode, Vec<Run>)| {
        let times: Vec<_> = runs.iter().map(|run| run.seconds / IDLE_JOBS as f64).collect();
        Some((mode, Spread::of(&times)?))
    };
    let of_each = kinds.into_iter().zip(rounds.runs).filter_map(price).collect();
    Prices { of_each, unlike: rounds.unlike, end: rounds.end }
}
