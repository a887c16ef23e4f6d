//! The progress bar: its text, and the terminals on which it is drawn.
//!
//! The bar must never be drawn over other output: while it may be drawn, output goes through
//! [`RunProgressBar::suspend`] or [`RunProgressBar::print_line`].

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, fmt};

use anstream::{AutoStream, ColorChoice};
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use crate::flags::outcome::OutcomeCounts;

use super::options::{ColorOption, ProgressOption};
use super::stderr;

/// Maximum number of redraws a second.
const FRAMES: u8 = 15;

/// Interval of redraws while nothing changes.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// Columns left free at the right. A terminal echoes `^C` there; without them the echo would begin a
/// new line and leave a copy of the bar on the old one.
const MARGIN: u16 = 5;

/// On terminals with fewer columns, only the most important numbers are shown.
const WIDE: u16 = 60;

/// A progress bar. Clones are the same bar.
#[derive(Clone)]
pub(super) struct RunProgressBar {
    bar: ProgressBar,
    counts: Arc<Mutex<OutcomeCounts>>,
}

impl RunProgressBar {
    /// A bar that is drawn if the option says so, or, with `Auto`, if `may_draw` is set and stderr is
    /// a terminal that can draw it.
    pub(super) fn new(
        total: usize,
        progress: ProgressOption,
        may_draw: bool,
        color: ColorOption,
    ) -> Self {
        let is_drawn = match progress {
            ProgressOption::None => false,
            ProgressOption::Bar => true,
            ProgressOption::Auto => may_draw && can_be_drawn(),
        };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target(is_drawn));
        let counts = Arc::<Mutex<OutcomeCounts>>::default();
        let counted = Arc::clone(&counts);
        let tail = move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let counts = *counted.lock().unwrap_or_else(PoisonError::into_inner);
            let total = state.len().unwrap_or_default();
            let text = tail(counts, total, state.per_sec(), Term::stderr().size().1);
            // Cannot fail: it writes to memory.
            let _ = out.write_str(&text);
        };
        let style = ProgressStyle::with_template(template(color))
            .expect("a template that is part of the program")
            .with_key("tail", tail);
        bar.set_style(style);
        Self { bar, counts }
    }

    /// Draws the bar, from now on also at intervals, so that the shown rate is right.
    pub(super) fn begin(&self) {
        if !self.bar.is_hidden() {
            self.bar.tick();
            self.bar.enable_steady_tick(REDRAW_INTERVAL);
        }
    }

    /// Advances the bar by one; `counts` are all outcomes so far.
    pub(super) fn step(&self, counts: OutcomeCounts) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        self.bar.inc(1);
    }

    /// Hides the bar while `print` prints.
    pub(super) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Prints a line on stderr.
    pub(super) fn print_line(&self, line: fmt::Arguments<'_>) {
        self.suspend(|| stderr::print(line));
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Whether stderr is a terminal that can draw a bar.
pub(super) fn can_be_drawn() -> bool {
    console::user_attended_stderr() && env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Stderr with a margin, or no target.
pub(super) fn target(is_drawn: bool) -> ProgressDrawTarget {
    if !is_drawn {
        return ProgressDrawTarget::hidden();
    }
    let term = Term::buffered_stderr();
    ProgressDrawTarget::term_like_with_hz(Box::new(TermWithMargin(term)), FRAMES)
}

fn template(color: ColorOption) -> &'static str {
    let is_coloured = match color {
        ColorOption::Always => true,
        ColorOption::Never => false,
        ColorOption::Auto => AutoStream::choice(&io::stderr()) != ColorChoice::Never,
    };
    if is_coloured {
        // The bar's library would decide by stdout, and the bar is on stderr.
        console::set_colors_enabled(true);
        "{wide_bar:.green} {tail}"
    } else {
        "{wide_bar} {tail}"
    }
}

/// The text to the right of the bar: the number of outcomes, the errors, and the rate.
fn tail(counts: OutcomeCounts, total: u64, per_second: f64, columns: u16) -> String {
    let OutcomeCounts { ok: _, not_found, error, not_done: _, unchanged: _ } = counts;
    let mut text = format!("{}/{total}", counts.total());
    if not_found > 0 && columns >= WIDE {
        text += &format!(", {not_found} not found");
    }
    if error > 0 {
        text += &format!(", {error} error{}", if error == 1 { "" } else { "s" });
    }
    if columns >= WIDE {
        let decimals = usize::from(per_second < 10.0);
        text += &format!(", {per_second:.decimals$}/s");
    }
    text
}

/// A terminal that reports [`MARGIN`] fewer columns.
#[derive(Debug)]
pub(super) struct TermWithMargin(Term);

impl TermWithMargin {
    pub(super) fn new(term: Term) -> Self {
        Self(term)
    }
}

impl TermLike for TermWithMargin {
    fn width(&self) -> u16 {
        self.0.size().1.saturating_sub(MARGIN).max(1)
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_has_fewer_numbers_on_a_narrow_terminal() {
        let counts =
            |ok, not_found, error| OutcomeCounts { ok, not_found, error, ..Default::default() };
        assert_eq!(tail(counts(0, 0, 0), 194, 0.0, 80), "0/194, 0.0/s");
        assert_eq!(tail(counts(76, 0, 0), 194, 26.1956, 80), "76/194, 26/s");
        assert_eq!(tail(counts(1, 9, 1), 676, 3.06, 80), "11/676, 9 not found, 1 error, 3.1/s");
        assert_eq!(tail(counts(1, 9, 2), 676, 3.06, 40), "12/676, 2 errors");
    }
}
