//! The progress bar: what it says, and on which terminals it is drawn.
//!
//! It must never be drawn over anything else that is printed: whoever prints while it may be there
//! goes through [`Bar::aside`] or [`Bar::say`].

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, fmt};

use anstream::{AutoStream, ColorChoice};
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use crate::flags::outcome::Counts;

use super::args::{Color, Progress};
use super::stderr;

/// How often the bar is drawn at most, a second.
const FRAMES: u8 = 15;

/// The bar is drawn at least as often.
const LULL: Duration = Duration::from_millis(250);

/// Columns left free at the right: there a terminal echoes `^C`, which would else begin a new line,
/// and the bar would leave a copy of itself on the old one.
const MARGIN: u16 = 5;

/// On terminals narrower than this, only the most important things stand beside the bar.
const ROOMY: u16 = 60;

/// A bar; clones are the same bar.
#[derive(Clone)]
pub(super) struct Bar {
    bar: ProgressBar,
    counts: Arc<Mutex<Counts>>,
}

impl Bar {
    /// A bar that is drawn if it is wanted in any case, or if it `may` be and stderr is a terminal
    /// that can.
    pub(super) fn new(total: usize, progress: Progress, may: bool, color: Color) -> Self {
        let is_drawn = match progress {
            Progress::None => false,
            Progress::Bar => true,
            Progress::Auto => may && can_be_drawn(),
        };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target(is_drawn));
        let counts = Arc::<Mutex<Counts>>::default();
        let counted = Arc::clone(&counts);
        let tail = move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let counts = *counted.lock().unwrap_or_else(PoisonError::into_inner);
            let total = state.len().unwrap_or_default();
            let text = tail(counts, total, state.per_sec(), Term::stderr().size().1);
            // Writes to memory.
            let _ = out.write_str(&text);
        };
        let style = ProgressStyle::with_template(template(color))
            .expect("a template that is part of the program")
            .with_key("tail", tail);
        bar.set_style(style);
        Self { bar, counts }
    }

    /// Draws it for the first time; from then on also when nothing happens, so that what it tells
    /// in a lull is true.
    pub(super) fn begin(&self) {
        if !self.bar.is_hidden() {
            self.bar.tick();
            self.bar.enable_steady_tick(LULL);
        }
    }

    /// One more is done; these are all.
    pub(super) fn step(&self, counts: Counts) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        self.bar.inc(1);
    }

    /// Takes the bar away while `print` prints.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Says a line on stderr that a person should know in between.
    pub(super) fn say(&self, line: fmt::Arguments<'_>) {
        self.aside(|| stderr::say(line));
    }

    /// Takes the bar away for good.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Whether stderr is a terminal that can.
pub(super) fn can_be_drawn() -> bool {
    console::user_attended_stderr() && env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Stderr with a margin, or nowhere.
pub(super) fn target(is_drawn: bool) -> ProgressDrawTarget {
    if !is_drawn {
        return ProgressDrawTarget::hidden();
    }
    let term = Term::buffered_stderr();
    ProgressDrawTarget::term_like_with_hz(Box::new(WithMargin(term)), FRAMES)
}

fn template(color: Color) -> &'static str {
    let is_coloured = match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => AutoStream::choice(&io::stderr()) != ColorChoice::Never,
    };
    if is_coloured {
        // It was decided here, for stderr; the bar's own library would look at stdout.
        console::set_colors_enabled(true);
        "{wide_bar:.green} {tail}"
    } else {
        "{wide_bar} {tail}"
    }
}

/// What stands to the right of the bar: how many of how many, what went wrong, and the rate.
fn tail(counts: Counts, total: u64, per_second: f64, columns: u16) -> String {
    let Counts { ok: _, not_found, error, not_done: _, unchanged: _ } = counts;
    let mut text = format!("{}/{total}", counts.total());
    if not_found > 0 && columns >= ROOMY {
        text += &format!(", {not_found} not found");
    }
    if error > 0 {
        text += &format!(", {error} error{}", if error == 1 { "" } else { "s" });
    }
    if columns >= ROOMY {
        let decimals = usize::from(per_second < 10.0);
        text += &format!(", {per_second:.decimals$}/s");
    }
    text
}

/// A terminal that seems narrower than it is.
#[derive(Debug)]
pub(super) struct WithMargin(Term);

impl WithMargin {
    pub(super) fn new(term: Term) -> Self {
        Self(term)
    }
}

impl TermLike for WithMargin {
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
    fn the_tail_tells_what_there_is_to_tell_in_the_room_there_is() {
        let counts = |ok, not_found, error| Counts { ok, not_found, error, ..Default::default() };
        assert_eq!(tail(counts(0, 0, 0), 194, 0.0, 80), "0/194, 0.0/s");
        assert_eq!(tail(counts(76, 0, 0), 194, 26.1956, 80), "76/194, 26/s");
        assert_eq!(tail(counts(1, 9, 1), 676, 3.06, 80), "11/676, 9 not found, 1 error, 3.1/s");
        assert_eq!(tail(counts(1, 9, 2), 676, 3.06, 40), "12/676, 2 errors");
    }
}
