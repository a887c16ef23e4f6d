//! The lanes in a terminal, with or without colours and Unicode.
//!
//! ```text
//!            0         0.5        1.0        1.5 s
//! worker 0   AA━━━━━━━━AC━━━━━━━━━AE╌╌╌╌╌✗
//!            AB╌╌╌╌╌╌╌╌AD━━↻━━━━━━AF━━━━━✗
//! worker 0                                AE╌╌╌╌╌
//! ```

use std::fmt::Write;

use anstyle::{AnsiColor, Color};

use super::super::format::{count, milliseconds};
use super::lanes::{self, Lane};
use procession_journal::{Annotation, Micros, Span, SpanOutcome};
use procession_journal::{ProcessKind, RunHistory};

/// Maximum number of lanes.
const MOST_LANES: usize = 64;

/// The capabilities of the terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct TerminalStyle {
    pub width: usize,
    pub is_coloured: bool,
    pub has_unicode: bool,
}

/// The glyphs of outcomes and annotations.
struct LaneGlyphs {
    ok: char,
    not_found: char,
    error: char,
    lost: char,
    running: char,
    died: char,
    again: char,
    timed_out: char,
}

const UNICODE: LaneGlyphs = LaneGlyphs {
    ok: '━',
    not_found: '╌',
    error: '▒',
    lost: '░',
    running: '┅',
    died: '✗',
    again: '↻',
    timed_out: '!',
};

const ASCII: LaneGlyphs = LaneGlyphs {
    ok: '=',
    not_found: '-',
    error: '#',
    lost: '~',
    running: '>',
    died: 'X',
    again: 'r',
    timed_out: '!',
};

impl LaneGlyphs {
    fn of(&self, outcome: SpanOutcome) -> char {
        match outcome {
            SpanOutcome::Ok => self.ok,
            SpanOutcome::NotFound => self.not_found,
            SpanOutcome::Error => self.error,
            SpanOutcome::Lost => self.lost,
            SpanOutcome::Running => self.running,
        }
    }
}

fn color(outcome: SpanOutcome) -> AnsiColor {
    match outcome {
        SpanOutcome::Ok => AnsiColor::Green,
        SpanOutcome::NotFound => AnsiColor::Yellow,
        SpanOutcome::Error => AnsiColor::Red,
        SpanOutcome::Lost => AnsiColor::Magenta,
        SpanOutcome::Running => AnsiColor::Blue,
    }
}

/// The timeline as text.
pub(super) fn draw(name: &str, history: &RunHistory, style: TerminalStyle) -> String {
    let glyphs = if style.has_unicode { &UNICODE } else { &ASCII };
    let lanes = lanes::of(history);
    let (begin, end) = history.period.unwrap_or_default();
    let mut text = headline(name, history);
    if lanes.is_empty() {
        return text + "No task has begun.\n";
    }
    let labels: Vec<String> = lanes.iter().map(|lane| label(lane, style.width)).collect();
    let margin = labels.iter().map(String::len).max().unwrap_or(0) + 1;
    let scale = TimeScale {
        begin,
        length: (end - begin).max(1),
        cells: style.width.saturating_sub(margin).max(10),
    };
    let _ = writeln!(text, "{:margin$}{}", "", scale.axis());
    for (lane, label) in lanes.iter().zip(&labels).take(MOST_LANES) {
        let cells = scale.lane(lane, history, glyphs);
        let _ = write!(text, "{label:margin$}");
        put(&cells, style.is_coloured, &mut text);
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    if lanes.len() > MOST_LANES {
        let more = lanes.len() - MOST_LANES;
        let _ = writeln!(text, "… and {}: see --html", count(more as u64, "more lane"));
    }
    text.push('\n');
    text += &legend(history, glyphs, style);
    text += &deaths(history);
    text
}

fn headline(name: &str, history: &RunHistory) -> String {
    let summary = history.summary();
    let mut text = format!(
        "Run {name}: {} ok, {} not found, {}",
        summary.ok,
        summary.not_found,
        count(summary.error, "error")
    );
    if summary.not_done > 0 {
        let what = if history.missing.is_some() { "not done or not known" } else { "not done" };
        let _ = write!(text, ", {} {what}", summary.not_done);
    }
    if let Some(report) = history.report {
        let _ = write!(text, " in {:.2} s", report.elapsed_s);
    }
    if summary.without_line > 0 {
        let _ = write!(text, "\n{} of these are not drawn", summary.without_line);
    }
    if let Some(missing) = &history.missing {
        let _ = write!(text, "\n{missing}");
    }
    text + "\n\n"
}

/// The name of a lane: short on a narrow terminal, and only on the first lane of a worker.
fn label(lane: &Lane<'_>, width: usize) -> String {
    /// The most characters of the name of a process of another host.
    const NAME: usize = 24;
    if let ProcessKind::Other(name) = &lane.process.kind {
        let shown: String = name.chars().take(if width < 60 { 8 } else { NAME }).collect();
        return if lane.slot == 0 { shown } else { String::new() };
    }
    match (lane.process.worker, lane.slot) {
        (Some(worker), 0) if width < 60 => format!("w{worker}"),
        (Some(worker), 0) => format!("worker {worker} {}", lane.process.pid),
        (Some(_), _) => String::new(),
        (None, slot) if width < 60 => format!("t{slot}"),
        (None, slot) => format!("thread {slot}"),
    }
}

/// Converts times to columns.
struct TimeScale {
    begin: Micros,
    length: Micros,
    cells: usize,
}

/// A column of a lane.
#[derive(Clone, Copy)]
struct LaneCell {
    glyph: char,
    outcome: Option<SpanOutcome>,
    is_mark: bool,
}

impl TimeScale {
    fn cell(&self, at: Micros) -> usize {
        let cell = (at - self.begin).max(0) as u128 * self.cells as u128 / self.length as u128;
        usize::try_from(cell).unwrap_or(usize::MAX).min(self.cells - 1)
    }

    fn lane(&self, lane: &Lane<'_>, history: &RunHistory, glyphs: &LaneGlyphs) -> Vec<LaneCell> {
        let empty = LaneCell { glyph: ' ', outcome: None, is_mark: false };
        let mut cells = vec![empty; self.cells];
        let end = self.begin + self.length;
        for span in &lane.spans {
            self.bar(span, end, glyphs, &mut cells);
        }
        for annotation in &history.annotations {
            if let Annotation::Died { at, process, .. } = annotation
                && *process == lane.index
            {
                let outcome = Some(SpanOutcome::Error);
                cells[self.cell(*at)] = LaneCell { glyph: glyphs.died, outcome, is_mark: true };
            }
        }
        cells
    }

    fn bar(&self, span: &Span, end: Micros, glyphs: &LaneGlyphs, cells: &mut [LaneCell]) {
        let (first, last) = (self.cell(span.begin), self.cell(span.end.unwrap_or(end)));
        // The column of the end belongs to the next bar.
        let last = if last > first { last - 1 } else { first };
        let glyph = glyphs.of(span.outcome);
        // Of several spans in a column, the worst outcome is shown.
        let is_better =
            |cell: &LaneCell| cell.outcome.is_some_and(|other| rank(span.outcome) < rank(other));
        let Some(first) = (first..=last).find(|cell| !is_better(&cells[*cell])) else { return };
        cells[first..=last].fill(LaneCell { glyph, outcome: Some(span.outcome), is_mark: false });
        let label = span.label();
        let is_printable = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        // The marks at the end have their own columns, and so has a mark of a try.
        let marks = usize::from(span.is_retried) + usize::from(span.timed_out);
        let marks = marks.max(usize::from(!span.tries.is_empty())).max(1);
        let mut unnamed = first;
        if last - first + 1 >= label.len() + marks && is_printable(&label) {
            for (cell, letter) in cells[first..].iter_mut().zip(label.chars()) {
                cell.glyph = letter;
            }
            unnamed = first + label.len();
        }
        for failed in &span.tries {
            // Behind the name, which would not be read otherwise.
            let at = self.cell(failed.at).clamp(unnamed.min(last), last);
            if at > first {
                cells[at].glyph = glyphs.again;
            }
        }
        if span.is_retried {
            cells[last].glyph = glyphs.again;
        }
        if span.timed_out {
            let at = last - usize::from(span.is_retried && last > first);
            cells[at].glyph = glyphs.timed_out;
        }
    }

    /// The axis, with round times.
    fn axis(&self) -> String {
        let seconds = self.length as f64 / 1e6;
        // The most labels that fit with a distance.
        let most = (self.cells / 10).max(1) as f64;
        let raw = seconds / most;
        let magnitude = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude);
        let step = step.into_iter().find(|step| *step >= raw).unwrap_or(10.0 * magnitude);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let mut axis = String::new();
        for n in 0.. {
            let at = n as f64 * step;
            let column = (at / seconds * self.cells as f64).round() as usize;
            let label = if n == 0 { "0 s".to_owned() } else { format!("{at:.decimals$}") };
            if column + label.len() > self.cells {
                break;
            }
            let _ = write!(axis, "{:pad$}{label}", "", pad = column.saturating_sub(axis.len()));
        }
        axis
    }
}

fn rank(outcome: SpanOutcome) -> u8 {
    match outcome {
        SpanOutcome::Running => 0,
        SpanOutcome::Ok => 1,
        SpanOutcome::NotFound => 2,
        SpanOutcome::Lost => 3,
        SpanOutcome::Error => 4,
    }
}

fn put(cells: &[LaneCell], is_coloured: bool, text: &mut String) {
    let used = cells.iter().rposition(|cell| cell.glyph != ' ').map_or(0, |last| last + 1);
    for run in cells[..used].chunk_by(|a, b| (a.outcome, a.is_mark) == (b.outcome, b.is_mark)) {
        let style = match run[0].outcome.filter(|_| is_coloured) {
            None => anstyle::Style::new(),
            Some(outcome) if run[0].is_mark => color(outcome).on_default().bold(),
            Some(outcome) => anstyle::Style::new().fg_color(Some(Color::Ansi(color(outcome)))),
        };
        let glyphs: String = run.iter().map(|cell| cell.glyph).collect();
        let _ = write!(text, "{style}{glyphs}{style:#}");
    }
}

fn legend(history: &RunHistory, glyphs: &LaneGlyphs, style: TerminalStyle) -> String {
    let has_outcome = |outcome| history.spans.iter().any(|span| span.outcome == outcome);
    let outcomes = [
        (SpanOutcome::Ok, "ok"),
        (SpanOutcome::NotFound, "not found"),
        (SpanOutcome::Error, "error"),
        (
            SpanOutcome::Lost,
            if history.missing.is_some() {
                "lost, or its end is missing"
            } else {
                "lost with its worker"
            },
        ),
        (SpanOutcome::Running, "runs"),
    ];
    let mut items = Vec::new();
    for (outcome, what) in outcomes.into_iter().filter(|(outcome, _)| has_outcome(*outcome)) {
        let glyph = glyphs.of(outcome);
        let color = match style.is_coloured {
            true => color(outcome).on_default(),
            false => anstyle::Style::new(),
        };
        items.push(format!("{color}{glyph}{glyph}{color:#} {what}"));
    }
    if history.spans.iter().any(|span| span.is_retried || !span.tries.is_empty()) {
        items.push(format!("{} tried again", glyphs.again));
    }
    if history.spans.iter().any(|span| span.timed_out) {
        items.push(format!("{} ran for too long", glyphs.timed_out));
    }
    if history.annotations.iter().any(|annotation| matches!(annotation, Annotation::Died { .. })) {
        items.push(format!("{} the worker died", glyphs.died));
    }
    // Items that do not fit go to the next line.
    let mut text = String::new();
    let mut column = 0;
    for item in items {
        let wide = console::measure_text_width(&item);
        if column > 0 && column + 3 + wide > style.width {
            text.push('\n');
            column = 0;
        }
        if column > 0 {
            text += "   ";
            column += 3;
        }
        text += &item;
        column += wide;
    }
    text + "\n"
}

fn deaths(history: &RunHistory) -> String {
    let mut text = String::new();
    let begin = history.period.map_or(0, |(begin, _)| begin);
    for annotation in &history.annotations {
        if let Annotation::Died { at, process, how } = annotation {
            let lost = history.spans.iter();
            let lost =
                lost.filter(|span| span.process == *process && span.outcome == SpanOutcome::Lost);
            let timed_out: Vec<_> =
                lost.clone().filter(|span| span.timed_out).map(|span| &*span.code).collect();
            let why = match &timed_out[..] {
                [] => String::new(),
                codes => format!(": {} ran for too long", codes.join(", ")),
            };
            let process = &history.processes[*process];
            let after = milliseconds((at - begin) as f64 / 1e3);
            let _ = writeln!(
                text,
                "{} (pid {}) ended with {how} after {after}, with {} at work{why}",
                process.name(),
                process.pid,
                count(lost.count() as u64, "task"),
            );
        }
    }
    text
}
