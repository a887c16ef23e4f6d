//! The progress of a run: a bar and its text, and the terminals on which it is drawn; or lines, where there
//! is no terminal.
//!
//! The bar must never be drawn over other output: while it may be drawn, output goes through
//! [`RunProgressBar::suspend`] or [`RunProgressBar::print_line`].

use std::ffi::OsStr;
use std::io;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use std::{env, fmt};

use anstream::{AutoStream, ColorChoice};
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use crate::files::outcome::OutcomeCounts;

use procession_os::threads::ThreadSpec;

use super::options::{ColorOption, PROGRESS_INTERVAL, ProgressOption};
use super::{format, stderr, stdout};

/// Maximum number of redraws a second.
const FRAMES: u8 = 15;

/// Interval of redraws while nothing changes.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// Columns left free at the right. A terminal echoes `^C` there; without them the echo would begin a
/// new line and leave a copy of the bar on the old one.
const MARGIN: u16 = 5;

/// The fewest columns of the bar itself. Where there are fewer, the less important numbers are left out.
const LEAST_BAR: usize = 4;

/// A progress bar. Clones are the same bar.
#[derive(Clone)]
pub(super) struct RunProgressBar {
    bar: ProgressBar,
    numbers: Arc<Mutex<RunNumbers>>,
    /// The interval of lines, if there are lines in place of the bar.
    interval: Option<Duration>,
    /// Ends the thread of the lines when the last clone is dropped, or at the end of the run.
    lines: Arc<Mutex<Option<mpsc::Sender<()>>>>,
}

/// The numbers that are shown.
#[derive(Debug, Clone, Copy, Default)]
struct RunNumbers {
    counts: OutcomeCounts,
    total: u64,
    /// What was downloaded.
    bytes: u64,
    per_second: f64,
}

impl RunProgressBar {
    /// A bar that is drawn if the option says so, or, with `Auto`, if `may_show` is set and stderr is
    /// a terminal that can draw it; else, with `may_show`, lines.
    pub(super) fn new(
        total: usize,
        progress: ProgressOption,
        may_show: bool,
        color: ColorOption,
    ) -> Self {
        let (is_drawn, interval) = match (progress, Surroundings::now()) {
            (ProgressOption::None, _) => (false, None),
            (ProgressOption::Bar, _) => (true, None),
            (ProgressOption::Lines(interval), _) => (false, Some(interval)),
            (ProgressOption::Auto, _) if !may_show => (false, None),
            (ProgressOption::Auto, surroundings) => surroundings.progress(),
        };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target(is_drawn));
        let numbers = RunNumbers { total: total as u64, ..RunNumbers::default() };
        let numbers = Arc::new(Mutex::new(numbers));
        let shared = Arc::clone(&numbers);
        let tail = move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let mut numbers = *shared.lock().unwrap_or_else(PoisonError::into_inner);
            numbers.per_second = state.per_sec();
            let text = tail(&numbers, room(Term::stderr().size().1));
            // Cannot fail: it writes to memory.
            let _ = out.write_str(&text);
        };
        let style = ProgressStyle::with_template(template(color))
            .expect("a template that is part of the program")
            .with_key("tail", tail);
        let style = if stdout::has_unicode() { style } else { style.progress_chars("#>-") };
        bar.set_style(style);
        Self { bar, numbers, interval, lines: Arc::default() }
    }

    /// Draws the bar, from now on also at intervals, so that the shown rate is right; or begins the lines.
    pub(super) fn begin(&self) {
        if let Some(interval) = self.interval {
            let (sender, ended) = mpsc::channel();
            *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
            let numbers = Arc::clone(&self.numbers);
            // Without a thread there are no lines, and the run goes on.
            let _ =
                ThreadSpec::new("progress").start(move || print_lines(&numbers, interval, &ended));
        }
        if !self.bar.is_hidden() {
            self.bar.tick();
            self.bar.enable_steady_tick(REDRAW_INTERVAL);
        }
    }

    /// Advances the bar by one; `counts` are all outcomes so far, and `bytes` what this one has downloaded.
    pub(super) fn step(&self, counts: OutcomeCounts, bytes: Option<u64>) {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.counts = counts;
        numbers.bytes += bytes.unwrap_or_default();
        drop(numbers);
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

    /// Removes the bar, or ends the lines.
    pub(super) fn end(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.bar.finish_and_clear();
    }
}

/// What the kind of progress depends on, if no option sets it.
#[derive(Debug, Clone, Copy)]
struct Surroundings {
    /// Stderr is a terminal that can draw a bar.
    can_draw: bool,
    /// Stdout goes to another program, which may print on the same terminal whenever it wants.
    has_reader: bool,
}

impl Surroundings {
    fn now() -> Self {
        Self { can_draw: can_be_drawn(), has_reader: stdout::has_reader() }
    }

    /// Whether the bar is drawn, and the interval of lines.
    fn progress(self) -> (bool, Option<Duration>) {
        match self {
            Self { can_draw: true, has_reader: false } => (true, None),
            _ => (false, Some(PROGRESS_INTERVAL)),
        }
    }
}

/// Whether stderr is a terminal that can draw a bar.
pub(super) fn can_be_drawn() -> bool {
    console::user_attended_stderr() && knows_escapes(env::var_os("TERM").as_deref())
}

/// Whether a terminal of this type knows escape sequences.
fn knows_escapes(term: Option<&OsStr>) -> bool {
    term.is_some_and(|term| term != "dumb" && !term.is_empty())
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

/// Prints a line at each interval, until the run ends.
fn print_lines(numbers: &Mutex<RunNumbers>, interval: Duration, ended: &mpsc::Receiver<()>) {
    let began = Instant::now();
    while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let mut numbers = *numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = began.elapsed().as_secs_f64();
        numbers.per_second = numbers.counts.total() as f64 / elapsed;
        let tail = tail(&numbers, usize::MAX);
        stderr::print(format_args!("coordinator: {} s: {tail}", elapsed.round()));
    }
}

/// The columns that the text to the right of the bar may have.
fn room(columns: u16) -> usize {
    usize::from(columns.saturating_sub(MARGIN)).saturating_sub(LEAST_BAR + 1)
}

/// The text to the right of the bar, no longer than `room` if possible: the number of outcomes and the errors
/// always, and, in this order, as far as there is room: the time that is left, what was not found, the data,
/// and the rate.
fn tail(numbers: &RunNumbers, room: usize) -> String {
    let RunNumbers { counts, total, bytes, per_second } = *numbers;
    let OutcomeCounts { ok: _, not_found, error, not_done: _, unchanged: _ } = counts;
    let done = format!("{}/{total}", counts.total());
    let errors = (error > 0).then(|| format::count(error, "error"));
    let left = total.saturating_sub(counts.total());
    let eta = (per_second > 0.0 && left > 0 && counts.total() > 0)
        .then(|| format!("{} left", duration(left as f64 / per_second)));
    let missing = (not_found > 0).then(|| format!("{not_found} not found"));
    let data = (bytes > 0).then(|| format::bytes(bytes));
    let rate = format!("{per_second:.0$}/s", usize::from(per_second < 10.0));
    // As they are shown, with their importance.
    let optional = [(1, missing), (2, data), (3, Some(rate)), (0, eta)];
    let mut used = done.len() + errors.as_ref().map_or(0, |errors| errors.len() + 2);
    let mut shown = [false; 4];
    for importance in 0..optional.len() {
        let at = optional.iter().position(|(its, _)| *its == importance);
        let part = at.and_then(|at| Some((at, optional[at].1.as_ref()?)));
        if let Some((at, part)) = part
            && used.saturating_add(part.len() + 2) <= room
        {
            used += part.len() + 2;
            shown[at] = true;
        }
    }
    let optional = optional.into_iter().zip(shown).filter(|(_, is_shown)| *is_shown);
    let parts = [Some(done), errors].into_iter().chain(optional.map(|((_, part), _)| part));
    parts.flatten().collect::<Vec<_>>().join(", ")
}

/// A time that is only estimated: `7 s`, `3:05 min`, `2:10 h`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5999 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02} h", seconds / 3600, seconds / 60 % 60),
    }
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

    fn numbers(ok: u64, not_found: u64, error: u64, per_second: f64) -> RunNumbers {
        let counts = OutcomeCounts { ok, not_found, error, ..Default::default() };
        RunNumbers { counts, total: 676, bytes: ok * 600, per_second }
    }

    #[test]
    fn the_tail_has_all_numbers_where_there_is_room() {
        let tail = |numbers| tail(&numbers, 80);
        assert_eq!(tail(numbers(0, 0, 0, 0.0)), "0/676, 0.0/s");
        assert_eq!(tail(numbers(76, 0, 0, 26.1956)), "76/676, 46 kB, 26/s, 23 s left");
        assert_eq!(
            tail(numbers(1, 9, 1, 3.06)),
            "11/676, 1 error, 9 not found, 600 B, 3.1/s, 3:38 min left"
        );
        assert_eq!(tail(numbers(676, 0, 0, 26.0)), "676/676, 406 kB, 26/s");
    }

    #[test]
    fn on_a_narrow_terminal_the_important_numbers_stay() {
        let tail = |room| tail(&numbers(1, 9, 2, 3.06), room);
        assert_eq!(tail(0), "12/676, 2 errors");
        assert_eq!(tail(31), "12/676, 2 errors, 3:37 min left");
        assert_eq!(tail(44), "12/676, 2 errors, 9 not found, 3:37 min left");
        assert_eq!(tail(31 + 7), "12/676, 2 errors, 600 B, 3:37 min left");
    }

    #[test]
    fn forty_columns_hold_the_errors_and_the_time_that_is_left() {
        let numbers = numbers(147, 0, 100, 8.3);
        assert_eq!(tail(&numbers, room(40)), "247/676, 100 errors, 52 s left");
    }

    #[test]
    fn a_bar_is_drawn_where_no_other_program_may_print_over_it() {
        let progress = |can_draw, has_reader| Surroundings { can_draw, has_reader }.progress();
        let lines = (false, Some(PROGRESS_INTERVAL));
        assert_eq!(progress(true, false), (true, None));
        assert_eq!(progress(true, true), lines, "coordinator --json | head");
        assert_eq!([progress(false, false), progress(false, true)], [lines; 2]);
    }

    #[test]
    fn a_terminal_of_no_type_or_a_dumb_one_draws_no_bar() {
        let knows = |term: &str| knows_escapes(Some(OsStr::new(term)));
        assert!(knows("xterm-256color") && knows("linux"));
        assert!(!knows("dumb") && !knows("") && !knows_escapes(None));
    }

    #[test]
    fn an_estimated_time_is_short() {
        let texts = [0.2, 99.0, 185.0, 7800.0].map(duration);
        assert_eq!(texts, ["1 s", "99 s", "3:05 min", "2:10 h"]);
    }
}
