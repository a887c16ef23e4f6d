//! Text for a person, in the width and the characters of the terminal.

use console::measure_text_width;
use textwrap::Options;

/// The narrowest terminal for which lines are broken.
const LEAST_WIDTH: usize = 20;

/// The text with lines that are broken between words where they are longer than `width`, and without
/// symbols that are not ASCII if `has_unicode` is not set.
pub(super) fn fit(text: &str, width: usize, has_unicode: bool) -> String {
    let mut fitted = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let content = line.strip_suffix('\n').unwrap_or(line);
        let end = &line[content.len()..];
        let content = if has_unicode { content.to_owned() } else { to_ascii(content) };
        if measure_text_width(&content) <= width.max(LEAST_WIDTH) {
            fitted += &content;
        } else {
            let options = Options::new(width.max(LEAST_WIDTH))
                .subsequent_indent("  ")
                .break_words(false)
                .word_splitter(textwrap::WordSplitter::NoHyphenation);
            let lines = textwrap::wrap(&glued(&content), options).join("\n");
            fitted += &lines.replace(GLUE, " ");
        }
        fitted += end;
    }
    fitted
}

/// A blank at which no line ends.
const GLUE: char = '\u{a0}';

/// The line with numbers glued to their units.
fn glued(line: &str) -> String {
    const UNITS: [&str; 10] = ["%", "B", "GB", "MB", "kB", "min", "ms", "s", "us", "µs"];
    let mut glued = String::with_capacity(line.len());
    for word in line.split(' ') {
        let is_unit = UNITS.contains(&word.trim_end_matches([',', ';', ':', '.', ')']));
        match glued.chars().last() {
            Some(last) if last.is_ascii_digit() && is_unit => glued.push(GLUE),
            Some(_) => glued.push(' '),
            None => {}
        }
        glued += word;
    }
    // A blank at the begin is no separator.
    let lead = line.len() - line.trim_start_matches(' ').len();
    format!("{}{}", " ".repeat(lead), glued.trim_start_matches(' '))
}

/// The text with the symbols of this program replaced by ASCII, of the same width where that is possible.
/// Other characters may be of names, and stay.
pub(super) fn to_ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'σ' => ascii.push('s'),
            '±' => ascii.push('~'),
            'µ' => ascii.push('u'),
            '–' => ascii.push('-'),
            '…' => ascii.push_str("..."),
            '∞' => ascii.push_str("inf"),
            other => ascii.push(other),
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words_and_others_stay() {
        let text = "a  table  of  20 wide\n1 x connection refused: one-file.txt two-files.txt\n\n";
        let expected = "a  table  of  20 wide\n1 x connection\n  refused:\n  one-file.txt\n  two-files.txt\n\n";
        assert_eq!(fit(text, 21, true), expected);
        assert_eq!(
            fit("  a run of more than 2.19 s; exit", 25, true),
            "  a run of more than\n  2.19 s; exit"
        );
        let word = "x".repeat(50);
        assert_eq!(fit(&word, 20, true), word);
        let coloured = "\u{1b}[1merror:\u{1b}[0m no such command";
        assert_eq!(fit(coloured, 21, true), "\u{1b}[1merror:\u{1b}[0m no such\n  command");
        assert_eq!(fit(coloured, 22, true), coloured);
    }

    #[test]
    fn ascii_keeps_the_columns_and_the_names() {
        let text = "mean ± σ  1.5 ± 0.1  2 µs  –";
        let ascii = fit(text, 80, false);
        assert!(ascii.is_ascii() && ascii.len() == text.chars().count(), "{ascii}");
        assert_eq!(fit("ü…", 80, false), "ü...");
    }
}
