//! The report on a terminal or in a pipe, in the width, characters and colours of the output.

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::Style;
use console::Term;

use crate::cli::options::ColorOption;
use crate::cli::prose::to_ascii;
use crate::cli::stdout;

use super::chart;
use super::report::{ComparisonReport, ReportTable, SPEED_UP};

/// Width of the report where there is no terminal.
const DEFAULT_COLUMNS: usize = 80;

/// The capabilities of the output.
#[derive(Debug, Clone, Copy)]
struct Screen {
    /// Maximum length of a line, if it is limited.
    columns: Option<usize>,
    is_unicode: bool,
}

/// Prints the report to standard output.
pub(super) fn print(report: &ComparisonReport, color: ColorOption) -> io::Result<()> {
    let choice = match color {
        ColorOption::Auto => ColorChoice::Auto,
        ColorOption::Always => ColorChoice::Always,
        ColorOption::Never => ColorChoice::Never,
    };
    let mut out = AutoStream::new(io::stdout(), choice);
    let columns = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let screen = Screen { columns, is_unicode: stdout::has_unicode() };
    out.write_all(render(report, screen).as_bytes())?;
    out.flush()
}

fn render(report: &ComparisonReport, screen: Screen) -> String {
    let ComparisonReport { title, subtitle, times, bars, verdicts, scaling, remarks } = report;
    let mut page = ReportPage { text: String::new(), columns: screen.columns };
    page.line(title, Style::new().bold());
    page.line(subtitle, Style::new().dimmed());
    page.text += &format!("\n{}", table(times, screen.columns));
    let glyphs = if screen.is_unicode { chart::UNICODE } else { chart::ASCII };
    let chart = chart::draw(bars, screen.columns.unwrap_or(DEFAULT_COLUMNS), glyphs);
    if !chart.is_empty() {
        page.text += &format!("\n{}\n", chart.join("\n"));
    }
    page.paragraph(verdicts);
    if let Some(scaling) = scaling {
        page.text += &format!("\n{SPEED_UP}:\n{}", table(scaling, screen.columns));
    }
    page.paragraph(remarks);
    if screen.is_unicode { page.text } else { to_ascii(&page.text) }
}

struct ReportPage {
    text: String,
    columns: Option<usize>,
}

impl ReportPage {
    fn line(&mut self, line: &str, style: Style) {
        let indent = if line.starts_with(' ') { "    " } else { "  " };
        for line in wrap(line, self.columns.unwrap_or(DEFAULT_COLUMNS), indent) {
            self.text += &format!("{style}{line}{style:#}\n");
        }
    }

    fn paragraph(&mut self, lines: &[String]) {
        if !lines.is_empty() {
            self.text.push('\n');
        }
        for line in lines {
            self.line(line, Style::new());
        }
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// The table if it fits, else a list.
fn table(table: &ReportTable, columns: Option<usize>) -> String {
    let ReportTable { head, units, rows } = table;
    let all = || [head, units].into_iter().chain(rows);
    let widest = |n: usize| all().filter_map(|row| row.get(n)).map(|cell| width(cell)).max();
    let widths: Vec<_> = (0..head.len()).map(|n| widest(n).unwrap_or(0)).collect();
    let total = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
    if columns.is_some_and(|columns| total > columns) {
        return list(table);
    }
    let line = |cells: &[String], style: Style| {
        let pad = |(n, (cell, &width)): (usize, (&String, &usize))| match n {
            0 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        };
        let cells: Vec<_> = cells.iter().zip(&widths).enumerate().map(pad).collect();
        format!("{style}{}{style:#}\n", cells.join("  ").trim_end())
    };
    let mut text = line(head, Style::new().bold());
    if !units.is_empty() {
        text += &line(units, Style::new().dimmed());
    }
    text + &rows.iter().map(|row| line(row, Style::new())).collect::<String>()
}

/// The table with a line for each cell.
fn list(table: &ReportTable) -> String {
    let ReportTable { head, units, rows } = table;
    let widest = head.iter().skip(1).map(|head| width(head)).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let bold = Style::new().bold();
        // A number needs the name of its column.
        let named = match row[0].parse::<u32>() {
            Ok(_) => format!("{} {}", row[0], head[0]),
            Err(_) => row[0].clone(),
        };
        text += &format!("{bold}{named}{bold:#}\n");
        for (n, cell) in row.iter().enumerate().skip(1) {
            let unit = units.get(n).map(|unit| format!(" {unit}")).unwrap_or_default();
            let line = format!("  {:widest$}  {cell}{unit}", head[n]);
            text += &format!("{}\n", line.trim_end());
        }
    }
    text
}

/// The text in lines of at most this width, unless a word is longer; all but the first are indented.
fn wrap(text: &str, width: usize, indent: &str) -> impl Iterator<Item = String> {
    let lead = &text[..text.len() - text.trim_start().len()];
    let mut lines = vec![lead.to_owned()];
    let mut is_empty = true;
    // A number and its % sign stay on one line.
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match words.last_mut() {
            Some(number) if word.starts_with('%') => *number += &format!(" {word}"),
            _ => words.push(word.to_owned()),
        }
    }
    for word in &words {
        let last = lines.last_mut().expect("there is one");
        if is_empty {
            last.push_str(word);
        } else if self::width(last) + 1 + self::width(word) <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(format!("{indent}{word}"));
        }
        is_empty = false;
    }
    lines.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_table_that_is_too_wide_becomes_a_list() {
        let wide = ReportTable {
            head: cells(&["mode", "mean ± σ", "CPU"]),
            units: cells(&["", "ms", "s"]),
            rows: vec![cells(&["threads:30", "12.5 ± 0.1", "0.1"]), cells(&["x", "–", "–"])],
        };
        assert_eq!(
            plain(&table(&wide, Some(27))),
            "mode          mean ± σ  CPU\n\
             \u{20}                   ms    s\n\
             threads:30  12.5 ± 0.1  0.1\n\
             x                    –    –\n"
        );
        assert_eq!(
            plain(&table(&wide, Some(26))),
            "threads:30\n\
             \u{20} mean ± σ  12.5 ± 0.1 ms\n\
             \u{20} CPU       0.1 s\n\
             x\n\
             \u{20} mean ± σ  – ms\n\
             \u{20} CPU       – s\n"
        );
    }

    #[test]
    fn words_are_kept_whole() {
        let lines: Vec<_> = wrap("one two  three, incomprehensibly", 9, "  ").collect();
        assert_eq!(lines, ["one two", "  three,", "  incomprehensibly"]);
        assert_eq!(wrap("", 9, "").collect::<Vec<_>>(), [""]);
        assert_eq!(wrap("a 95 %: b", 6, "").collect::<Vec<_>>(), ["a", "95 %:", "b"]);
        assert_eq!(wrap("  a b", 4, "    ").collect::<Vec<_>>(), ["  a", "    b"]);
    }
}
