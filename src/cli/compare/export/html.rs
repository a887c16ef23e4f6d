//! The report as a page without references to other files, in light and dark colours.

use super::Exporter;
use super::svg::{self, escape};
use crate::cli::compare::comparison::Comparison;
use crate::cli::compare::report::{ComparisonReport, ReportTable, SPEED_UP};

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1f2328;--faint:#59636e;--grid:#d1d9e0;--paper:#fff;--band:#f6f8fa}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--faint:#9198a1;--grid:#3d444d;--paper:#0d1117;--band:#151b23}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:52rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}p{margin:.4rem 0}
.faint,footer{color:var(--faint)}footer{margin-top:2rem;font-size:.85rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid var(--grid)}
th:first-child,td:first-child{text-align:left}th small{font-weight:400;color:var(--faint)}
tbody tr:nth-child(odd){background:var(--band)}svg{max-width:100%;height:auto}
code{font-family:ui-monospace,monospace;font-size:.9em;overflow-wrap:anywhere}
";

pub(super) struct Html;

impl Exporter for Html {
    fn extension(&self) -> &'static str {
        "html"
    }

    fn export(&self, comparison: &Comparison, report: &ComparisonReport) -> String {
        page(comparison, report)
    }
}

fn page(comparison: &Comparison, report: &ComparisonReport) -> String {
    let ComparisonReport { title, subtitle, times, bars, verdicts, scaling, remarks } = report;
    let context = &comparison.context;
    let title = escape(title);
    let lines = |lines: &[String], tag: &str| -> String {
        lines.iter().map(|line| format!("<{tag}>{}</{tag}>\n", escape(line.trim()))).collect()
    };
    let verdicts = match verdicts.is_empty() {
        true => String::new(),
        false => format!("<ul>\n{}</ul>\n", lines(verdicts, "li")),
    };
    let scaling = scaling
        .as_ref()
        .map_or_else(String::new, |scaling| format!("<h2>{SPEED_UP}</h2>\n{}", table(scaling)));
    let chart = if bars.is_empty() { String::new() } else { svg::draw("Mean time", bars) };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>{title}</h1>\n<p class=\"faint\">{subtitle}</p>\n\
         {table}{chart}{verdicts}{scaling}{remarks}\
         <footer><p><code>{command}</code></p><p>procession {version}, {when}</p></footer>\n\
         </body>\n</html>\n",
        subtitle = escape(subtitle),
        table = table(times),
        remarks = lines(remarks, "p"),
        command = escape(&context.command),
        version = context.version,
        when = context.when,
    )
}

fn table(table: &ReportTable) -> String {
    let ReportTable { head, units, rows } = table;
    let head = head.iter().enumerate().map(|(n, head)| {
        let unit = units.get(n).filter(|unit| !unit.is_empty());
        let unit = unit.map(|unit| format!(" <small>{}</small>", escape(unit)));
        format!("<th>{}{}</th>", escape(head), unit.unwrap_or_default())
    });
    let row = |row: &Vec<String>| {
        let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    format!(
        "<div class=\"wide\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table></div>\n",
        head.collect::<String>(),
        rows.iter().map(row).collect::<String>()
    )
}
