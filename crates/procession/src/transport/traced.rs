//! The records in which a worker sends the spans and events of its tasks: JSON, after the id of the task.
//!
//! A place in the code is described once for each process, by a `TraceSite`; later records have its number. A
//! worker that keeps to these bounds is never taken for a malformed one; they bound what the coordinator keeps
//! of any worker.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::ring::Garbled;

/// The environment variable with the process id of the coordinator and the least important level that it
/// wants, for its workers.
pub(crate) const TRACES_VARIABLE: &str = "PROCESSION_TRACING";

/// The largest number of sites of one process.
pub(crate) const MAX_SITES: usize = 1024;
/// The largest number of spans of one process that are open at a time.
pub(crate) const MAX_SPANS: usize = 1024;
/// The largest number of fields of a site: as many as the macros of `tracing` took at first.
pub(crate) const MAX_FIELDS: usize = 32;
/// The longest text of all values of a record together, in bytes. With all of them escaped, a record needs no
/// attachment.
pub(crate) const MAX_TEXT: usize = 8 * 1024;
/// The same for the names in a site.
pub(crate) const MAX_NAMES: usize = 2 * 1024;

/// What a worker tells about the spans and events of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum TraceRecord<'r> {
    /// Describes the site with the next number, from 0.
    Site(TraceSite<'r>),
    /// A span was created. `parent`: 0 stands for the task.
    Span { span: u64, parent: u64, site: u32, values: Values<'r> },
    /// Values of a span that were recorded later.
    Values { span: u64, values: Values<'r> },
    /// A span follows from another one.
    Follows { span: u64, from: u64 },
    /// A span was closed.
    Closed { span: u64 },
    /// An event. `parent`: 0 stands for the task.
    Event { parent: u64, site: u32, values: Values<'r> },
    /// This number of spans and events was dropped since the last such record.
    Dropped { number: u64 },
}

/// A place in the code that makes spans or events.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct TraceSite<'r> {
    pub is_span: bool,
    /// From 1, an error, to 5.
    pub level: u8,
    pub name: Cow<'r, str>,
    pub target: Cow<'r, str>,
    pub module: Option<Cow<'r, str>>,
    pub file: Option<Cow<'r, str>>,
    pub line: Option<u32>,
    pub fields: Vec<Cow<'r, str>>,
}

/// Values by the index of their field.
pub(crate) type Values<'r> = Vec<(u8, FieldValue<'r>)>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum FieldValue<'r> {
    Bool(bool),
    Int(i64),
    Unsigned(u64),
    /// The bits of an `f64`, which JSON cannot hold exactly.
    Float(u64),
    Text(Cow<'r, str>),
    /// A value that was formatted for `Debug` or `Display`.
    Formatted(Cow<'r, str>),
}

impl TraceSite<'_> {
    /// The number of bytes of all its names.
    pub(crate) fn size(&self) -> usize {
        let Self { name, target, module, file, fields, .. } = self;
        let optional = [module, file].into_iter().flatten().map(|text| text.len());
        let fields = fields.iter().map(|field| field.len());
        name.len() + target.len() + optional.chain(fields).sum::<usize>()
    }

    /// Whether it keeps to the bounds.
    pub(crate) fn is_valid(&self) -> bool {
        (1..=5).contains(&self.level) && self.fields.len() <= MAX_FIELDS && self.size() <= MAX_NAMES
    }
}

impl TraceRecord<'_> {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers are always encodable")
    }
}

impl TraceRecord<'static> {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Garbled> {
        if bytes.len() > super::INLINE_LIMIT {
            return Err(Garbled);
        }
        serde_json::from_slice(bytes).map_err(|_| Garbled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_border_and_the_longest_needs_no_attachment() {
        let longest = "\u{1}".repeat(MAX_TEXT);
        let values = vec![
            (0, FieldValue::Text(longest.into())),
            (1, FieldValue::Float(f64::NAN.to_bits())),
            (31, FieldValue::Int(i64::MIN)),
        ];
        let site = TraceSite {
            is_span: false,
            level: 3,
            name: "\u{1}".repeat(MAX_NAMES - 7).into(),
            target: "täsk".into(),
            module: None,
            file: None,
            line: Some(7),
            fields: vec!["x\n".into()],
        };
        assert!(site.is_valid());
        let records = [
            TraceRecord::Site(site.clone()),
            TraceRecord::Event { parent: u64::MAX, site: u32::MAX, values },
            TraceRecord::Dropped { number: 1 },
        ];
        for record in records {
            let bytes = record.to_bytes();
            assert!(bytes.len() <= crate::transport::INLINE_LIMIT, "{}", bytes.len());
            assert_eq!(TraceRecord::parse(&bytes), Ok(record));
        }
        assert!(!TraceSite { level: 6, ..site.clone() }.is_valid());
        assert!(!TraceSite { target: "x".repeat(MAX_NAMES).into(), ..site }.is_valid());
        let long = TraceRecord::Dropped { number: 1 }.to_bytes();
        let padded = [long, vec![b' '; crate::transport::INLINE_LIMIT]].concat();
        assert_eq!(TraceRecord::parse(&padded), Err(Garbled));
        assert_eq!(TraceRecord::parse(b"{}"), Err(Garbled));
    }
}
