//! What a person sees while it runs: how far it is, what runs now, and how long it may take.

use std::cell::RefCell;
use std::env;
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::args;
use crate::cli::bar::WithMargin;

use super::mode::Mode;

pub(super) struct Progress {
    bar: ProgressBar,
    course: RefCell<Course>,
}

/// What is known so far.
#[derive(Default)]
struct Course {
    modes: Vec<Mode>,
    rounds: usize,
    done: usize,
    /// Of each mode, how long its runs took, in seconds, and how many there were.
    took: Vec<(f64, usize)>,
    now: usize,
    since: Option<Instant>,
}

impl Progress {
    pub(super) fn new(wanted: args::Progress) -> Self {
        let can = || {
            console::user_attended_stderr()
                && env::var_os("TERM").is_some_and(|term| term != "dumb")
        };
        let is_drawn = match wanted {
            args::Progress::None => false,
            args::Progress::Bar => true,
            args::Progress::Auto => can(),
        };
        let target = if is_drawn {
            ProgressDrawTarget::term_like_with_hz(
                Box::new(WithMargin::new(Term::buffered_stderr())),
                4,
            )
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}");
        bar.set_style(style.expect("a template that is part of the program"));
        Self { bar, course: RefCell::default() }
    }

    pub(super) fn begin(&self, modes: &[Mode], rounds: usize) {
        *self.course.borrow_mut() = Course {
            modes: modes.to_vec(),
            rounds,
            took: vec![(0.0, 0); modes.len()],
            ..Course::default()
        };
        self.bar.reset();
        self.bar.set_length((modes.len() * rounds) as u64);
        if !self.bar.is_hidden() {
            // A bar that stands still says that nothing runs.
            self.bar.enable_steady_tick(Duration::from_millis(500));
        }
    }

    pub(super) fn begins(&self, mode: usize) {
        let mut course = self.course.borrow_mut();
        course.now = mode;
        course.since = Some(Instant::now());
        self.bar.set_message(course.tell());
    }

    pub(super) fn ran(&self, mode: usize) {
        let mut course = self.course.borrow_mut();
        let took = course.since.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
        course.took[mode].0 += took;
        course.took[mode].1 += 1;
        course.done += 1;
        self.bar.set_position(course.done as u64);
    }

    /// Takes it away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Course {
    fn tell(&self) -> String {
        let name = self.modes[self.now];
        match self.left() {
            Some(seconds) => format!("{name}, {} left", clock(seconds)),
            None => name.to_string(),
        }
    }

    /// How long it may still take, once every mode has run.
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
    fn what_is_left_is_told_when_every_mode_has_run_once() {
        let modes: Vec<Mode> = vec!["threads".parse().unwrap(), "processes:2".parse().unwrap()];
        let mut course =
            Course { modes, rounds: 11, took: vec![(30.0, 1), (0.0, 0)], ..Course::default() };
        assert_eq!(course.tell(), "threads");
        course.took[1] = (4.0, 1);
        course.now = 1;
        assert_eq!(course.tell(), "processes:2, 5m40s left");
        course.took = vec![(4000.0, 1), (4.0, 1)];
        assert_eq!(course.tell(), "processes:2, 11h07m left");
    }
}
