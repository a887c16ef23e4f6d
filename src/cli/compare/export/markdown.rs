//! The report for documents.

use super::Exporter;
use crate::cli::compare::comparison::Comparison;
use crate::cli::compare::report::{ComparisonReport, ReportTable, SPEED_UP};

pub(super) struct Markdown;

impl Exporter for Markdown {
    fn extension(&self) -> &'static str {
        "md"
    }

    fn export(&self, _: &Comparison, report: &ComparisonReport) -> String {
        let ComparisonReport { title, subtitle, times, bars: _, verdicts, scaling, remarks } =
            report;
        let mut text = format!("### {title}\n\n{subtitle}\n\n{}", table(times));
        if !verdicts.is_empty() {
            let verdicts: String = verdicts.iter().map(|line| format!("- {line}\n")).collect();
            text += &format!("\n{verdicts}");
        }
        if let Some(scaling) = scaling {
            text += &format!("\n{SPEED_UP}:\n\n{}", table(scaling));
        }
        text + &remarks.iter().map(|line| format!("\n{}\n", line.trim())).collect::<String>()
    }
}

fn table(table: &ReportTable) -> String {
    let ReportTable { head, units, rows } = table;
    let head = head.iter().enumerate().map(|(n, head)| match units.get(n) {
        Some(unit) if !unit.is_empty() => format!("{head}, {unit}"),
        _ => head.clone(),
    });
    let row = |cells: Vec<String>| {
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<_> = (0..table.head.len()).map(|n| if n == 0 { "---" } else { "---:" }).collect();
    let body: String = rows.iter().cloned().map(row).collect();
    format!("{}|{}|\n{body}", row(head.collect()), rule.join("|"))
}
