//! Numbers for users, and text that is safe to print on a terminal or to paste into a shell.

use std::borrow::Cow;

use procession_os::terminal::is_control;

/// A time: `0.3 ms`, `150 ms`, `1.53 s`, `12 min`.
pub(super) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 9.995 => format!("{ms:.2} ms"),
        ms if ms < 99.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 99_995.0 => format!("{:.2} s", ms / 1e3),
        ms if ms < 999_500.0 => format!("{:.0} s", ms / 1e3),
        ms => format!("{:.0} min", ms / 60e3),
    }
}

/// The same, in microseconds if it is very short: `12 µs`.
pub(super) fn fine_milliseconds(ms: f64) -> String {
    match ms {
        ms if ms > 0.0 && ms < 0.0995 => format!("{:.0} µs", (ms * 1e3).max(1.0)),
        ms => milliseconds(ms),
    }
}

/// An amount of data: `590 B`, `8.6 MB`.
pub(super) fn bytes(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if amount < 999.5 || unit == "GB" {
            let decimals = usize::from(amount < 9.95 && unit != "B");
            return format!("{amount:.decimals$} {unit}");
        }
        amount /= 1000.0;
    }
    unreachable!("the last unit takes all")
}

/// A number of things: `1 error`, `2 errors`.
pub(super) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// The text with control characters escaped.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match is_control(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// The same for a text of several lines: line breaks and tabs stay.
pub(super) fn printable_lines(text: &str) -> String {
    let parts = text.split_inclusive(['\n', '\t']);
    let shown = parts.map(|part| match part.strip_suffix(['\n', '\t']) {
        Some(before) => format!("{}{}", printable(before), &part[before.len()..]),
        None => printable(part).into_owned(),
    });
    shown.collect()
}

/// The text, quoted if a shell would not read it as one word.
pub(super) fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("'{}'", text.replace('\'', "'\\''"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_about_three_digits() {
        let formatted = [0.0, 1.904, 99.9, 150.3, 1534.0, 120_000.0, 7.2e6].map(milliseconds);
        let expected = ["0.00 ms", "1.90 ms", "99.9 ms", "150 ms", "1.53 s", "120 s", "120 min"];
        assert_eq!(formatted, expected);
        let fine = [0.0, 0.0004, 0.0126, 0.0994, 0.1, 1.5].map(fine_milliseconds);
        assert_eq!(fine, ["0.00 ms", "1 µs", "13 µs", "99 µs", "0.10 ms", "1.50 ms"]);
    }

    #[test]
    fn amounts_have_two_or_three() {
        let formatted = [0, 590, 1000, 8_600_000, 999_600, 12_300_000_000].map(bytes);
        assert_eq!(formatted, ["0 B", "590 B", "1.0 kB", "8.6 MB", "1.0 MB", "12 GB"]);
    }

    #[test]
    fn a_word_for_the_shell_is_quoted_where_it_must_be() {
        assert_eq!(shell_word("a/b-c.d"), "a/b-c.d");
        assert_eq!(shell_word("it's here"), r"'it'\''s here'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("plain ü"), "plain ü");
        assert_eq!(printable("\x1b[31mred\t"), "\\u{1b}[31mred\\t");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(printable_lines("a\x1b\tb\n\nc\r\n"), "a\\u{1b}\tb\n\nc\\r\n");
        assert_eq!(printable_lines(""), "");
    }
}
