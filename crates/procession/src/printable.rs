//! [`printable`]: text of a worker, for a terminal. Control characters could change its colours, its title
//! and what it showed before, and make it send text as if it were typed.

use std::borrow::Cow;

use procession_os::terminal::is_control;

/// The text with each control character in the notation of Rust's strings, such as `\u{1b}`; line breaks
/// and tabs stay.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_unprintable(character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

fn is_unprintable(character: char) -> bool {
    is_control(character) && character != '\n' && character != '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_other_text_stays() {
        for text in ["", "a\tb\nc", "ünï \u{1F1E7}\u{1F1F7} \\ \"quoted\""] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
        let escapes = "\u{1b}]0;title\u{7}\u{1b}[31mred\r\u{9b}2J\u{202e}\u{200f}\u{61c}\u{7f}\0";
        let shown = r"\u{1b}]0;title\u{7}\u{1b}[31mred\r\u{9b}2J\u{202e}\u{200f}\u{61c}\u{7f}\u{0}";
        assert_eq!(printable(escapes), shown);
    }
}
