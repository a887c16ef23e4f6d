//! Characters that may neither be printed on a terminal nor be part of the name of a file.

/// Whether the character controls the terminal or changes the direction of the text.
pub(crate) fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
