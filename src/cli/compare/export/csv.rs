//! The results for spreadsheets: a line for each mode, with columns named as in the JSON.

use super::Exporter;
use super::facts::ModeFacts;
use crate::cli::compare::comparison::Comparison;
use crate::cli::compare::report::ComparisonReport;

pub(super) struct Csv;

impl Exporter for Csv {
    fn extension(&self) -> &'static str {
        "csv"
    }

    fn export(&self, comparison: &Comparison, _: &ComparisonReport) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in &comparison.rows {
            writer.serialize(ModeFacts::of(row)).expect("plain data, into memory");
        }
        let bytes = writer.into_inner().expect("a write to memory cannot fail");
        String::from_utf8(bytes).expect("numbers and names of modes")
    }
}
