//! Bars with whiskers, drawn with characters.
//!
//! ```text
//! threads:30  ██▒┤ 3.62 s
//! processes   ████████████████████████▒▒▒──┤ 49.10 s
//! ```
//!
//! Full up to the fastest run, lighter up to the mean, a line up to the slowest.

/// A bar, and the range of its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChartBar {
    pub label: String,
    pub value: f64,
    pub low: f64,
    pub high: f64,
    /// The value as text.
    pub text: String,
}

/// The characters to draw with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChartGlyphs {
    full: char,
    light: char,
    line: char,
    end: char,
    /// Drawn in place of a bar that is too short.
    trace: char,
}

pub(super) const UNICODE: ChartGlyphs =
    ChartGlyphs { full: '█', light: '▒', line: '─', end: '┤', trace: '▏' };
pub(super) const ASCII: ChartGlyphs =
    ChartGlyphs { full: '#', light: '=', line: '-', end: '|', trace: '|' };

/// Minimum width of the bars.
const MIN_WIDTH: usize = 10;

/// One line for each bar, none wider than `columns`; no lines if the chart does not fit.
pub(super) fn draw(bars: &[ChartBar], columns: usize, glyphs: ChartGlyphs) -> Vec<String> {
    let width = |text: &str| text.chars().count();
    let labels = bars.iter().map(|bar| width(&bar.label)).max().unwrap_or(0);
    let texts = bars.iter().map(|bar| width(&bar.text)).max().unwrap_or(0);
    // Two blanks after the label, one before the value.
    let room = columns.saturating_sub(labels + texts + 3);
    let longest = bars.iter().map(|bar| bar.high).fold(0.0, f64::max);
    if room < MIN_WIDTH || longest <= 0.0 {
        return Vec::new();
    }
    let cells = |value: f64| (value / longest * room as f64).round() as usize;
    let line = |bar: &ChartBar| {
        let (low, value, high) = (cells(bar.low), cells(bar.value), cells(bar.high));
        let mut drawn: String = (0..high)
            .map(|cell| match cell {
                _ if cell < low => glyphs.full,
                _ if cell < value => glyphs.light,
                _ if cell + 1 < high => glyphs.line,
                _ => glyphs.end,
            })
            .collect();
        if drawn.is_empty() {
            drawn.push(glyphs.trace);
        }
        format!("{:labels$}  {drawn} {}", bar.label, bar.text)
    };
    bars.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, low: f64, value: f64, high: f64) -> ChartBar {
        ChartBar { label: label.to_owned(), value, low, high, text: format!("{value} s") }
    }

    #[test]
    fn bars_end_at_their_mean_and_whiskers_at_the_slowest_run() {
        let bars =
            [bar("one", 8.0, 10.0, 20.0), bar("three", 5.0, 5.0, 5.0), bar("no", 0.01, 0.01, 0.01)];
        assert_eq!(
            draw(&bars, 34, UNICODE),
            ["one    ████████▒▒─────────┤ 10 s", "three  █████ 5 s", "no     ▏ 0.01 s",]
        );
        assert_eq!(draw(&bars, 34, ASCII)[0], "one    ########==---------| 10 s");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let bars = [bar("processes:2x15", 1.0, 2.0, 3.0), bar("b", 0.5, 2.5, 3.0)];
        for columns in 0..100 {
            let lines = draw(&bars, columns, UNICODE);
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{columns}");
            assert_eq!(lines.is_empty(), columns < 32, "{columns}");
        }
    }
}
