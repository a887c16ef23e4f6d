//! The list of all runs that have logs: their settings and results.

use std::fs::{self, DirEntry};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use console::truncate_str;
use serde_json::{Value, json};

use super::super::options::ColorOption;
use super::super::stdout;
use super::super::table::Table;
use procession_journal::{
    LogEntry, LogEvent, RunDir, RunHistory, RunReport, RunSettings, coordinators, reserve,
};
use procession_os::regular_file;

/// Number of bytes that are read at the begin and at the end of a log, for its settings and its report.
const OUTLINE_BYTES: u64 = 64 * 1024;

/// The fewest columns of the server.
const LEAST_SERVER: usize = 6;

/// Shows the list, the newest first and no more than `most`, as a table or a line of JSON a run.
pub(super) fn run(
    logs: &Path,
    most: Option<usize>,
    is_json: bool,
    color: ColorOption,
) -> anyhow::Result<()> {
    let runs = RunDir::list(logs)?;
    let latest = RunDir::find(logs, None).ok();
    let runs = runs.iter().rev().take(most.unwrap_or(usize::MAX));
    let rows = runs.map(|run| ListRow::of(run, latest.as_ref() == Some(run)));
    let rows: Vec<_> = rows.collect();
    if is_json {
        let lines = rows.iter().map(|row| Ok(serde_json::to_string(&row.as_json())? + "\n"));
        return stdout::print(&lines.collect::<serde_json::Result<String>>()?);
    }
    if rows.is_empty() && latest.is_none() {
        return stdout::print(&format!("There are no logs of runs in {}.\n", logs.display()));
    }
    stdout::print_prose(&as_text(&rows, stdout::width()), color)
}

/// A run, as far as the begin and the end of its log tell.
struct ListRow {
    name: String,
    is_latest: bool,
    history: RunHistory,
    /// How it ended, and whether it goes on.
    ended: String,
    is_running: bool,
}

impl ListRow {
    fn of(run: &RunDir, is_latest: bool) -> Self {
        let (history, is_readable) = match outline(run) {
            Ok(history) => (history, true),
            Err(_) => (RunHistory::default(), false),
        };
        let is_running = history.report.is_none() && run.is_running();
        let ended = match (history.report, is_running, is_readable) {
            (Some(report), ..) => format!("exit code {}", report.exit_code),
            (None, true, _) => "it goes on".to_owned(),
            (None, false, true) => how_without_a_report(&history, is_empty(&run.path())),
            (None, false, false) => "cannot be read".to_owned(),
        };
        Self { name: run.name().to_owned(), is_latest, history, ended, is_running }
    }

    fn as_json(&self) -> Value {
        let Self { name, is_latest, history, ended, is_running } = self;
        json!({
            "run": name,
            "is_latest": is_latest,
            "is_running": is_running,
            "ended": ended,
            "missing": history.missing,
            "settings": history.settings.as_ref().map(without_codes),
            "report": history.report,
        })
    }

    fn color(&self) -> Style {
        match (self.history.report, self.is_running) {
            (Some(RunReport { exit_code: 0, .. }), _) => Style::new(),
            (None, true) => AnsiColor::Green.on_default(),
            _ => AnsiColor::Red.on_default(),
        }
    }

    /// The mode, the server, and the number of files.
    fn settings(&self) -> [String; 3] {
        let Some(settings) = &self.history.settings else {
            return ["?", "?", "?"].map(str::to_owned);
        };
        // Of another program than this one, its name stands in place of the server.
        let server_or_program = settings.program.as_ref().unwrap_or(&settings.server);
        [settings.mode.clone(), server_or_program.clone(), settings.codes.to_string()]
    }

    /// ok, not found, errors, not done, and the time.
    fn results(&self) -> [String; 5] {
        let Some(report) = self.history.report else { return Default::default() };
        [
            report.ok.to_string(),
            report.not_found.to_string(),
            report.error.to_string(),
            report.not_done.map_or_else(|| "?".to_owned(), |number| number.to_string()),
            format!("{:.2} s", report.elapsed_s),
        ]
    }

    fn cells(&self) -> Vec<String> {
        let annotation = if self.is_latest { " (latest)" } else { "" };
        let color = self.color();
        let ended = format!("{color}{}{color:#}{}", self.ended, missing(&self.history));
        let name = [format!("{}{annotation}", self.name)];
        name.into_iter().chain(self.settings()).chain(self.results()).chain([ended]).collect()
    }

    /// The same in fewer columns; the name without its date, which stands above.
    fn short_cells(&self, server_width: usize) -> Vec<String> {
        let [mode, server, files] = self.settings();
        let mode = match mode.as_str() {
            "processes" => "proc",
            "threads" => "thr",
            "sequential" => "seq",
            other => other,
        };
        let [ok, not_found, errors, not_done, time] = self.results();
        let color = self.color();
        let ended = match self.history.report {
            Some(report) => report.exit_code.to_string(),
            // The log may have an exit code and no report.
            None => self.ended.strip_prefix("exit code ").unwrap_or(&self.ended).to_owned(),
        };
        let (_, time_of_day) = split_name(&self.name);
        let host = server.split_once("://").map_or(&*server, |(_, host)| host);
        let server = truncate_str(host, server_width, "~").into_owned();
        let ended = format!("{color}{ended}{color:#}");
        let cells = [time_of_day.to_owned(), mode.to_owned(), server, files];
        cells.into_iter().chain([ok, not_found, errors, not_done, time, ended]).collect()
    }
}

/// The date of a run's name, and the rest, which finds the run as well. A name of another form has no date.
fn split_name(name: &str) -> (&str, &str) {
    let is_date = |date: &str| date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    match name.split_once('T') {
        Some((date, rest)) if date.len() == 10 && is_date(date) => (date, rest),
        _ => ("", name),
    }
}

fn as_text(rows: &[ListRow], width: usize) -> String {
    let head = &[
        "run",
        "mode",
        "server",
        "files",
        "ok",
        "not found",
        "errors",
        "not done",
        "time",
        "ended",
    ];
    let mut table = Table::new(head, &["mode", "server", "ended"]);
    rows.iter().for_each(|row| table.row(row.cells()));
    if table.width() <= width {
        return table.render(width);
    }
    let short = |server_width| {
        let head = &["run", "mode", "server", "files", "ok", "404", "err", "left", "time", "ended"];
        let mut table = Table::new(head, &["mode", "server", "ended"]);
        rows.iter().for_each(|row| table.row(row.short_cells(server_width)));
        table
    };
    // The server has what the others leave.
    let others = short(LEAST_SERVER).width() - LEAST_SERVER;
    let table = short(width.saturating_sub(others).max(LEAST_SERVER));
    if table.width() > width {
        return table.render(width);
    }
    let text = table.render(width);
    let mut lines = text.lines();
    let mut grouped = format!("{}\n", lines.next().unwrap_or_default());
    let mut last = "";
    for (line, row) in lines.zip(rows) {
        let (date, _) = split_name(&row.name);
        if date != last {
            grouped += &format!("{date}\n");
            last = date;
        }
        grouped += &format!("{line}\n");
    }
    grouped
}

/// The lines that are missing from its log, as a suffix.
fn missing(history: &RunHistory) -> String {
    history.missing.as_ref().map(|missing| format!("; {missing}")).unwrap_or_default()
}

fn how_without_a_report(history: &RunHistory, is_empty: bool) -> String {
    match history.processes.first() {
        Some(coordinator) => coordinator.how.clone().unwrap_or_else(|| "killed".to_owned()),
        // The run has written nothing: the disk may have been full.
        None if is_empty => "left no log".to_owned(),
        None => "cannot be read".to_owned(),
    }
}

/// Whether all files in the directory are empty.
fn is_empty(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>());
    let has_some = |entry: &DirEntry| entry.metadata().map_or(true, |file| file.len() > 0);
    !entries.unwrap_or_default().iter().any(has_some)
}

/// The history in the begin and the end of the coordinator's log.
fn outline(run: &RunDir) -> io::Result<RunHistory> {
    let mut history = RunHistory::default();
    for path in coordinators(&run.path()) {
        let mut file = regular_file::to_read(&path)?;
        let length = file.metadata()?.len();
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(OUTLINE_BYTES).read_to_end(&mut bytes)?;
        if length > OUTLINE_BYTES {
            file.seek(SeekFrom::Start(length.saturating_sub(OUTLINE_BYTES).max(OUTLINE_BYTES)))?;
            let mut end = BufReader::new(file);
            bytes.push(b'\n');
            end.read_until(b'\n', &mut Vec::new())?;
            end.take(OUTLINE_BYTES).read_to_end(&mut bytes)?;
        }
        let lines = bytes.split(|&byte| byte == b'\n');
        let entries = lines.filter_map(|line| LogEntry::from_json(line).ok());
        let outlines = entries.filter(|entry| {
            matches!(
                entry.event,
                LogEvent::Start { .. }
                    | LogEvent::Run { .. }
                    | LogEvent::Summary { .. }
                    | LogEvent::LinesLost { .. }
                    | LogEvent::Exit { .. }
            )
        });
        outlines.for_each(|entry| history.add(entry));
    }
    reserve::entries(&run.path()).into_iter().for_each(|entry| history.add(entry));
    Ok(history)
}

/// The settings without the codes, which may be thousands.
fn without_codes(settings: &RunSettings) -> RunSettings {
    RunSettings { wanted: Vec::new(), ..settings.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, server: &str) -> ListRow {
        let mut history = RunHistory::default();
        let settings = json!({"event": "run", "mode": "processes", "server": server, "codes": 10000,
            "workers": 2, "connections": 2, "dest": "d"});
        let report = json!({"event": "summary", "ok": 9999, "not_found": 1, "error": 0, "not_done": 0,
            "elapsed_s": 123.4, "exit_code": 0});
        for mut event in [settings, report] {
            event["ts"] = "2026-11-29T18:43:59.000000Z".into();
            event["level"] = "info".into();
            event["process"] = "coordinator".into();
            event["pid"] = 1.into();
            history.add(serde_json::from_value(event).expect("an entry"));
        }
        let ended = "exit code 0".to_owned();
        ListRow { name: name.into(), is_latest: false, history, ended, is_running: false }
    }

    #[test]
    fn the_list_fits_into_80_columns() {
        let mut without_report = row("2026-11-28T18-43-58-23535", "LOCAL");
        (without_report.history.report, without_report.ended) = (None, "exit code 3".to_owned());
        let rows = [
            row("2026-11-29T18-43-59-1234567", "https://a.very.long.name.example.org"),
            row("2026-11-29T18-43-58-23535", "LOCAL"),
            row("2026-11-28T18-43-59-23535", "12 servers"),
            without_report,
        ];
        assert!(as_text(&rows, 200).contains("2026-11-29T18-43-59-1234567"));
        let text = as_text(&rows, 80);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.iter().all(|line| console::measure_text_width(line) <= 80), "{text}");
        assert!(lines[1] == "2026-11-29" && lines[4] == "2026-11-28", "{text}");
        assert!(lines[2].starts_with("18-43-59-1234567  proc  a.very."), "{text}");
        assert_eq!(
            lines[2].split_whitespace().skip(3).collect::<Vec<_>>().join(" "),
            "10000 9999 1 0 0 123.40 s 0"
        );
        // All exit codes have one form.
        assert!(
            console::strip_ansi_codes(lines[6]).ends_with(" 3") && !text.contains("exit code"),
            "{text}"
        );
    }
}
