//! The progress of a comparison: the number of runs, the current mode, and the estimated time.

use std::cell::RefCell;

use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::bar::{self, TermWithMargin};
use crate::cli::options::ProgressOption;

use super::mode::MeasuredMode;

pub(super) struct ComparisonProgress {
    bar: ProgressBar,
    estimate: RefCell<ProgressEstimate>,
}

/// The durations so far, for the estimate.
#[derive(Default)]
struct ProgressEstimate {
    modes: Vec<MeasuredMode>,
    rounds: usize,
    done: usize,
    /// By mode: the total duration of the runs, in seconds, and their number.
    took: Vec<(f64, usize)>,
    now: usize,
    since: Option<Instant>,
}

impl ComparisonProgress {
    pub(super) fn new(option: ProgressOption) -> Self {
        let is_drawn = match option {
            ProgressOption::None | ProgressOption::Lines(_) => false,
            ProgressOption::Bar => true,
            ProgressOption::Auto => bar::can_be_drawn(),
        };
        let target = if is_drawn {
            ProgressDrawTarget::term_like_with_hz(
                Box::new(TermWithMargin::new(Term::buffered_stderr())),
                4,
            )
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}");
        bar.set_style(style.expect("a template that is part of the program"));
        Self { bar, estimate: RefCell::default() }
    }

    pub(super) fn begin(&self, modes: &[MeasuredMode], rounds: usize) {
        *self.estimate.borrow_mut() = ProgressEstimate {
            modes: modes.to_vec(),
            rounds,
            took: vec![(0.0, 0); modes.len()],
            ..ProgressEstimate::default()
        };
        self.bar.reset();
        self.bar.set_length((modes.len() * rounds) as u64);
        if !self.bar.is_hidden() {
            // A bar that does not change looks as if nothing ran.
            self.bar.enable_steady_tick(Duration::from_millis(500));
        }
    }

    pub(super) fn begin_run(&self, mode: usize) {
        let mut estimate = self.estimate.borrow_mut();
        estimate.now = mode;
        estimate.since = Some(Instant::now());
        self.bar.set_message(estimate.message());
    }

    pub(super) fn end_run(&self, mode: usize) {
        let mut estimate = self.estimate.borrow_mut();
        let took = estimate.since.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
        estimate.took[mode].0 += took;
        estimate.took[mode].1 += 1;
        estimate.done += 1;
        self.bar.set_position(estimate.done as u64);
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl ProgressEstimate {
    fn message(&self) -> String {
        let name = self.modes[self.now];
        match self.left() {
            Some(seconds) => format!("{name}, {} left", clock(seconds)),
            None => name.to_string(),
        }
    }

    /// The remaining time in seconds, once every mode has run.
    fn left(&self) -> Option<f64> {
        let left = self.took.iter().map(|&(seconds, runs)| {
            (runs > 0).then(|| seconds / runs as f64 * (self.rounds - runs) as f64)
        });
        left.sum()
    }
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_time_is_known_when_every_mode_has_run_once() {
        let modes: Vec<MeasuredMode> =
            vec!["threads".parse().unwrap(), "processes:2".parse().unwrap()];
        let mut estimate = ProgressEstimate {
            modes,
            rounds: 11,
            took: vec![(30.0, 1), (0.0, 0)],
            ..ProgressEstimate::default()
        };
        assert_eq!(estimate.message(), "threads");
        estimate.took[1] = (4.0, 1);
        estimate.now = 1;
        assert_eq!(estimate.message(), "processes:2, 5m40s left");
        estimate.took = vec![(4000.0, 1), (4.0, 1)];
        assert_eq!(estimate.message(), "processes:2, 11h07m left");
    }
}
