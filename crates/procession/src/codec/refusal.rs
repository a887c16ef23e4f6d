//! Why a value was not encoded, and where in it.

use std::fmt;

/// The value cannot be encoded so that the same value is decoded.
pub(crate) struct Refusal(Box<Inner>);

struct Inner {
    /// The steps from the refused part outwards.
    path: Vec<String>,
    reason: String,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(Box::new(Inner { path: Vec::new(), reason: reason.into() }))
    }

    /// The same, seen from the value that has the refused part as this field, or variant.
    #[cold]
    pub(super) fn in_field(self, name: &str) -> Self {
        self.within(format!(".{name}"))
    }

    /// The same, seen from the sequence that has the refused part as this element.
    #[cold]
    pub(super) fn in_element(self, index: usize) -> Self {
        self.within(format!("[{index}]"))
    }

    /// The same, seen from the map that has the refused part under this key, as JSON has it.
    #[cold]
    pub(super) fn under_key(self, json: &[u8]) -> Self {
        const MOST: usize = 100;
        let key = String::from_utf8_lossy(&json[..json.len().min(MOST)]);
        let name = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
        let is_plain = |c: char| c.is_alphanumeric() || c == '_';
        match name {
            // The fields of a flattened struct are written as the keys of a map.
            Some(name) if name.starts_with(char::is_alphabetic) && name.chars().all(is_plain) => {
                self.in_field(name)
            }
            _ => self.within(format!("[{key}]")),
        }
    }

    fn within(mut self, step: String) -> Self {
        self.0.path.push(step);
        self
    }

    /// The path of the refused part, such as `.items[3].ratio`; empty for the value itself.
    pub(crate) fn field(&self) -> String {
        self.0.path.iter().rev().map(String::as_str).collect()
    }

    pub(crate) fn into_reason(self) -> String {
        self.0.reason
    }
}

impl serde::ser::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field();
        match field.is_empty() {
            true => f.write_str(&self.0.reason),
            false => write!(f, "{field}: {}", self.0.reason),
        }
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refusal({self})")
    }
}
