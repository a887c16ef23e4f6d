//! The error of the writers: why a value is not encoded, and at which field.

use std::fmt;

/// A value that cannot be encoded so that an equal value is decoded.
pub(crate) struct Refusal(Box<RefusalParts>);

struct RefusalParts {
    /// The steps of the path, innermost first.
    path: Vec<String>,
    reason: String,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(Box::new(RefusalParts { path: Vec::new(), reason: reason.into() }))
    }

    /// Adds a field or variant to the path.
    #[cold]
    pub(super) fn in_field(self, name: &str) -> Self {
        self.within(format!(".{name}"))
    }

    /// Adds an element of a sequence to the path.
    #[cold]
    pub(super) fn in_element(self, index: usize) -> Self {
        self.within(format!("[{index}]"))
    }

    /// Adds a map key to the path, given as JSON, cut to 100 bytes.
    #[cold]
    pub(super) fn under_key(self, json: &[u8]) -> Self {
        const MOST: usize = 100;
        let key = String::from_utf8_lossy(&json[..json.len().min(MOST)]);
        let name = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
        let is_plain = |c: char| c.is_alphanumeric() || c == '_';
        match name {
            // Fields of a struct with flattened fields are written as map keys.
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

    /// The path of the refused part, such as `.items[3].ratio`. Empty for the whole value. Of a path with many steps, the
    /// first and the last ones.
    pub(crate) fn field(&self) -> String {
        const MOST: usize = 24;
        let steps: Vec<_> = self.0.path.iter().rev().map(String::as_str).collect();
        if steps.len() <= MOST {
            return steps.concat();
        }
        let (first, rest) = steps.split_at(MOST / 2);
        let (left_out, last) = rest.split_at(rest.len() - MOST / 2);
        format!("{} …({} steps)… {}", first.concat(), left_out.len(), last.concat())
    }

    /// With another reason, made of this one.
    #[cold]
    pub(super) fn map_reason(mut self, reason: impl FnOnce(&str) -> String) -> Self {
        self.0.reason = reason(&self.0.reason);
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_shows_its_ends() {
        let path = |steps| (0..steps).fold(Refusal::new("it is NaN"), Refusal::in_element).field();
        assert_eq!(path(2), "[1][0]");
        assert_eq!(path(24).matches('[').count(), 24);
        let long = path(10_000);
        assert!(long.starts_with("[9999][9998]") && long.ends_with("[1][0]"), "{long}");
        assert!(long.contains(" …(9976 steps)… ") && long.len() < 200, "{long}");
    }
}
