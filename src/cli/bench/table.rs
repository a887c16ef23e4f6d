//! The results as a table: in columns if these fit into the width, else one value in each line.

use std::fmt::Write;

use super::figures::Figures;

/// A part of the table: names of columns, and rows with a value for each.
struct TablePart {
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<String>)>,
}

/// The whole text, in lines that fit into the columns if possible.
pub(super) fn of(figures: &Figures, columns: usize) -> String {
    let parts = parts(figures);
    let labels = parts.iter().flat_map(|part| &part.rows).map(|(label, _)| width(label));
    let label = labels.max().unwrap_or_default();
    let cells = parts.iter().flat_map(|part| {
        let values = part.rows.iter().flat_map(|(_, values)| values);
        values.map(|value| width(value)).chain(part.columns.iter().map(|name| width(name)))
    });
    let cell = cells.max().unwrap_or_default();

    let mut text = title(figures) + "\n";
    for part in &parts {
        text.push('\n');
        let fits = label + part.columns.len() * (cell + GAP) <= columns;
        match fits {
            true => in_columns(part, label, cell, &mut text),
            false => in_lines(part, cell, &mut text),
        }
    }
    text.push('\n');
    // A number and its unit belong on one line.
    let advice = UNITS.iter().fold(figures.advice.clone(), |advice, unit| {
        advice.replace(&format!(" {unit}"), &format!("{GLUE}{unit}"))
    });
    for line in textwrap::wrap(&advice, columns.max(20)) {
        text += &line.replace(GLUE, " ");
        text.push('\n');
    }
    text
}

/// A blank at which no line ends.
const GLUE: char = '\u{a0}';
const UNITS: [&str; 4] = ["%", "µs ", "ms ", "s "];
/// Between columns.
const GAP: usize = 2;

fn in_columns(part: &TablePart, label: usize, cell: usize, text: &mut String) {
    let mut line = |first: &str, cells: &mut dyn Iterator<Item = &str>| {
        let mut line = format!("{first:<label$}");
        for value in cells {
            // Cannot fail: it writes to memory.
            let _ = write!(line, "{:GAP$}{value:>cell$}", "");
        }
        *text += line.trim_end();
        text.push('\n');
    };
    line("", &mut part.columns.iter().copied());
    for (name, values) in &part.rows {
        line(name, &mut values.iter().map(String::as_str));
    }
}

fn in_lines(part: &TablePart, cell: usize, text: &mut String) {
    let name = part.columns.iter().map(|name| width(name)).max().unwrap_or_default();
    for (label, values) in &part.rows {
        *text += label;
        text.push('\n');
        for (column, value) in part.columns.iter().zip(values) {
            // Cannot fail: it writes to memory.
            let _ = writeln!(text, "{:GAP$}{column:<name$}{:GAP$}{value:>cell$}", "", "");
        }
    }
}

fn title(Figures { workers, cpus, quick, debug_build, .. }: &Figures) -> String {
    let many =
        |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let workers = many(*workers, "worker");
    let quick = if *quick { ", measured quickly" } else { "" };
    let build = if *debug_build { ", by a debug build, which is slower" } else { "" };
    format!("{workers} on {}{quick}{build}", many(*cpus, "CPU"))
}

fn parts(figures: &Figures) -> [TablePart; 3] {
    let Figures {
        version: _,
        cpus: _,
        workers: _,
        quick: _,
        start_up_ms,
        respawn_ms,
        round_trip_us,
        submit_tasks_per_s,
        map_tasks_per_s,
        payloads,
        cost: _,
        background_load: _,
        debug_build: _,
        advice: _,
    } = figures;
    let of_modes = |label: &str, values: [f64; 3]| (label.to_owned(), values.map(number).to_vec());
    let of_starts = |label: &str, range: &super::figures::MedianAndMax| {
        (label.to_owned(), [range.median, range.longest].map(number).to_vec())
    };
    [
        TablePart {
            columns: vec!["sequential", "threads", "processes"],
            rows: vec![
                of_modes("submit, tasks/s", submit_tasks_per_s.each(|rate| *rate)),
                of_modes("map, tasks/s", map_tasks_per_s.each(|rate| *rate)),
                of_modes("round trip, median µs", round_trip_us.each(|time| time.p50)),
                of_modes("round trip, p99 µs", round_trip_us.each(|time| time.p99)),
            ],
        },
        TablePart {
            columns: vec!["median", "longest"],
            rows: vec![
                of_starts("fresh pool to result, ms", start_up_ms),
                of_starts("error to next result, ms", respawn_ms),
            ],
        },
        TablePart {
            columns: vec!["MiB/s"],
            rows: payloads
                .iter()
                .map(|payload| {
                    (
                        format!("{} and back", size(payload.size_bytes)),
                        vec![number(payload.mib_per_s)],
                    )
                })
                .collect(),
        },
    ]
}

fn size(bytes: usize) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

/// A number with three significant digits, grouped by thousands.
fn number(value: f64) -> String {
    let digits = if value > 0.0 { value.log10().floor() as i32 } else { 0 };
    if digits < 2 {
        let decimals = usize::try_from(2 - digits).unwrap_or_default();
        return format!("{value:.decimals$}");
    }
    let unit = 10_f64.powi(digits - 2);
    let digits = format!("{:.0}", (value / unit).round() * unit);
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Cost, MedianAndMax, Payload, PerMode, Quantiles};
    use super::*;

    fn figures() -> Figures {
        let quantiles = |p50, p99| Quantiles { p50, p99 };
        let cost = Cost::of(&[vec![35e-6; 9]], None);
        Figures {
            version: "1.2.3",
            cpus: 2,
            workers: 2,
            quick: false,
            start_up_ms: MedianAndMax { median: 1.742, longest: 12.96 },
            respawn_ms: MedianAndMax { median: 1.571, longest: 103.4 },
            round_trip_us: PerMode {
                sequential: quantiles(0.2263, 0.2451),
                threads: quantiles(1.921, 75.02),
                processes: quantiles(59.51, 122.1),
            },
            submit_tasks_per_s: PerMode { sequential: 3.5e6, threads: 894_200.0, processes: 218e3 },
            map_tasks_per_s: PerMode { sequential: 4.17e6, threads: 373e3, processes: 12.3e6 },
            payloads: vec![
                Payload { size_bytes: 64 << 10, mib_per_s: 522.4 },
                Payload { size_bytes: 64 << 20, mib_per_s: 1335.0 },
            ],
            cost,
            background_load: None,
            debug_build: false,
            advice: cost.advice(None, false),
        }
    }

    #[test]
    fn modes_are_columns_if_they_fit() {
        let expected = "\
2 workers on 2 CPUs

                          sequential     threads   processes
submit, tasks/s            3,500,000     894,000     218,000
map, tasks/s               4,170,000     373,000  12,300,000
round trip, median µs          0.226        1.92        59.5
round trip, p99 µs             0.245        75.0         122

                              median     longest
fresh pool to result, ms        1.74        13.0
error to next result, ms        1.57         103

                               MiB/s
64 KiB and back                  522
64 MiB and back                1,340

On this machine a task takes 35 µs longer in a process than on a thread. That is
under 10 % for tasks of 350 µs or longer, and under 1 % for tasks of 3.5 ms or
longer (tasks of more than 1.0 ms were not measured).
";
        assert_eq!(of(&figures(), 80), expected);
    }

    #[test]
    fn modes_are_lines_if_they_do_not_fit() {
        let text = of(&figures(), 40);
        assert!(text.lines().all(|line| width(line) <= 40), "{text}");
        let expected = "\
map, tasks/s
  sequential   4,170,000
  threads        373,000
  processes   12,300,000
";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("\nOn this machine a task takes 35 µs\nlonger"), "{text}");
    }
}
