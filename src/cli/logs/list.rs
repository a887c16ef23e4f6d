//! The list of all runs that have logs: their settings and results.

use std::fs::{self, DirEntry, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anstyle::{AnsiColor, Style};

use super::super::options::ColorOption;
use super::super::stdout;
use super::super::table::Table;
use procession_journal::{LogEntry, LogEvent, RunDir, RunHistory, reserve, run_dir};

/// Number of bytes that are read at the begin and at the end of a log, for its settings and its report.
const OUTLINE_BYTES: u64 = 64 * 1024;

/// Shows the list.
pub(super) fn run(logs: &Path, color: ColorOption) -> anyhow::Result<()> {
    let runs = RunDir::list(logs)?;
    if runs.is_empty() {
        return stdout::print(&format!("There are no logs of runs in {}.\n", logs.display()));
    }
    let latest = RunDir::find(logs, None)?;
    let texts = &["mode", "server", "ended"];
    let head = &[
        "run",
        "mode",
        "server",
        "flags",
        "ok",
        "not found",
        "errors",
        "not done",
        "time",
        "ended",
    ];
    let mut table = Table::new(head, texts);
    for run in runs.iter().rev() {
        let annotation = if *run == latest { " (latest)" } else { "" };
        let mut cells = vec![format!("{}{annotation}", run.name())];
        cells.extend(cells_of(run));
        table.row(cells);
    }
    stdout::print_colored(&table.render(stdout::width()), color)
}

fn cells_of(run: &RunDir) -> [String; 9] {
    let (history, is_readable) = match outline(run) {
        Ok(history) => (history, true),
        Err(_) => (RunHistory::default(), false),
    };
    let [mut mode, mut server, mut flags] = ["?", "?", "?"].map(str::to_owned);
    if let Some(settings) = &history.settings {
        // Of another program than this one, its name stands in place of the server.
        let server_or_program = settings.program.as_ref().unwrap_or(&settings.server);
        (mode, server) = (settings.mode.clone(), server_or_program.clone());
        flags = settings.codes.to_string();
    }
    let [ok, not_found, errors, not_done, time, ended] = match history.report {
        Some(report) => {
            let (color, how) = match report.exit_code {
                0 => (Style::new(), "exit code 0".to_owned()),
                code => (AnsiColor::Red.on_default(), format!("exit code {code}")),
            };
            [
                report.ok.to_string(),
                report.not_found.to_string(),
                report.error.to_string(),
                report.not_done.map_or_else(|| "?".to_owned(), |number| number.to_string()),
                format!("{:.2} s", report.elapsed_s),
                format!("{color}{how}{color:#}{}", missing(&history)),
            ]
        }
        None => {
            let (color, how) = match (run.is_running(), is_readable) {
                (true, _) => (AnsiColor::Green.on_default(), "it goes on".to_owned()),
                (false, true) => (
                    AnsiColor::Red.on_default(),
                    how_without_a_report(&history, is_empty(&run.path())),
                ),
                (false, false) => (AnsiColor::Red.on_default(), "cannot be read".to_owned()),
            };
            let how = format!("{color}{how}{color:#}{}", missing(&history));
            [String::new(), String::new(), String::new(), String::new(), String::new(), how]
        }
    };
    [mode, server, flags, ok, not_found, errors, not_done, time, ended]
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
    for path in run_dir::coordinators(&run.path()) {
        let mut file = File::open(path)?;
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
        let entries = lines.filter_map(|line| serde_json::from_slice::<LogEntry>(line).ok());
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
