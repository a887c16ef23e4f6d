//! [`ValueReader`]: reads the values of a span or an event, up to a number of bytes.

use std::borrow::Cow;
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};

use crate::transport::{FieldValue, MAX_FIELDS, MAX_TEXT, Values};

/// The values of a record.
pub(super) struct ValueReader {
    pub(super) values: Values<'static>,
    /// The number of bytes that texts may still have.
    room: usize,
}

/// What follows a text that was cut.
const CUT: &str = "…";

impl ValueReader {
    pub(super) fn new() -> Self {
        // Each of the fields may be cut.
        Self { values: Vec::new(), room: MAX_TEXT - MAX_FIELDS * CUT.len() }
    }

    fn add(&mut self, field: &Field, value: FieldValue<'static>) {
        if field.index() < MAX_FIELDS {
            self.values.push((field.index() as u8, value));
        }
    }

    /// Formats a text, and stops where there is no more room.
    pub(super) fn text(&mut self, value: fmt::Arguments<'_>) -> Cow<'static, str> {
        let mut text = Bounded { text: String::new(), room: self.room, is_cut: false };
        // An error of the value's own leaves what it wrote before.
        let _ = text.write_fmt(value);
        self.room = text.room;
        if text.is_cut {
            text.text.push_str(CUT);
        }
        text.text.into()
    }
}

struct Bounded {
    text: String,
    room: usize,
    is_cut: bool,
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let mut end = more.len().min(self.room);
        while !more.is_char_boundary(end) {
            end -= 1;
        }
        self.text.push_str(&more[..end]);
        self.room -= end;
        if end < more.len() {
            (self.room, self.is_cut) = (0, true);
            return Err(fmt::Error);
        }
        Ok(())
    }
}

impl Visit for ValueReader {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, FieldValue::Float(value.to_bits()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, FieldValue::Int(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, FieldValue::Unsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, FieldValue::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let text = self.text(format_args!("{value}"));
        self.add(field, FieldValue::Text(text));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = self.text(format_args!("{value:?}"));
        self.add(field, FieldValue::Formatted(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_where_there_is_no_more_room() {
        let mut reader = ValueReader::new();
        let room = reader.room;
        assert_eq!(reader.text(format_args!("a{}b", 1)), "a1b");
        let long = reader.text(format_args!("{}", "ü".repeat(MAX_TEXT)));
        assert_eq!(long.chars().last(), Some('…'));
        // With the three bytes of the first text, and without the mark of the cut.
        let used = "a1b".len() + long.len() - CUT.len();
        assert!((room - 8..=room).contains(&used), "{used} of {room}");
        assert_eq!(reader.text(format_args!("c")), CUT);
        assert_eq!(reader.text(format_args!("")), "");
    }
}
