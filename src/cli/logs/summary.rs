//! A run in numbers.

use std::path::Path;

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use serde_json::json;

use super::super::format::{bytes, count, fine_milliseconds};
use super::super::options::ColorOption;
use super::super::table::Table;
use super::super::{run_selection, stdout};
use procession_journal as journal;
use procession_journal::{LogSummary, ProcessSummary};
use procession_journal::{RunHistory, RunReport, RunSettings};

/// Maximum number of codes that are listed for a cause by default.
const LISTED: usize = 12;

/// Shows the numbers of the run in this directory; `most` is the number of slowest tasks, and of codes for a
/// cause.
pub(super) fn run(
    path: &Path,
    most: Option<usize>,
    is_json: bool,
    color: ColorOption,
) -> anyhow::Result<()> {
    let read = journal::read(path);
    let (history, warnings) =
        read.with_context(|| format!("cannot read the logs in {}", path.display()))?;
    let mut summary = history.summary();
    if let Some(most) = most {
        summary.slowest = history.slowest(most);
    }
    let name = run_selection::name(path);
    match is_json {
        true => stdout::print(&as_json(&name, &history, &summary)?)?,
        false => {
            let is_running = journal::is_running(path);
            let width = stdout::width();
            let most = most.unwrap_or(LISTED);
            let text = as_text(&name, &history, &summary, is_running, most, width);
            stdout::print_prose(&text, color)?;
        }
    }
    super::print_warnings(&warnings);
    Ok(())
}

fn as_json(name: &str, history: &RunHistory, summary: &LogSummary) -> anyhow::Result<String> {
    let report = history.report.map(|report| {
        let RunReport { ok, not_found, error, not_done, unchanged, elapsed_s, exit_code } = report;
        json!({"ok": ok, "not_found": not_found, "error": error, "not_done": not_done,
            "unchanged": unchanged,
            "elapsed_s": elapsed_s, "exit_code": exit_code})
    });
    let settings = history.settings.as_ref().map(
        |RunSettings { mode, server, codes, workers, connections, .. }| {
            json!({"mode": mode, "server": server, "codes": codes, "workers": workers,
            "connections": connections})
        },
    );
    let all = json!({"run": name, "setting": settings, "summary": summary, "report": report});
    Ok(serde_json::to_string(&all)? + "\n")
}

fn as_text(
    name: &str,
    history: &RunHistory,
    summary: &LogSummary,
    is_running: bool,
    most: usize,
    width: usize,
) -> String {
    let mut text = headline(name, history, summary, is_running);
    text.push('\n');
    text += &processes(summary, is_running).render(width);
    if summary.without_line > 0 {
        text += &format!(
            "{} by the run's own count; the lines that tell where are missing\n",
            count(summary.without_line, "further end")
        );
    }
    if summary.never_ran > 0 {
        text += &format!("{} never ran\n", count(summary.never_ran, "task"));
    }
    if !summary.errors.is_empty() {
        text += &format!("\nErrors: {}\n", summary.error);
        for group in &summary.errors {
            let codes = &group.codes[..group.codes.len().min(most)];
            let more = match group.codes.len() - codes.len() {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let number = group.codes.len();
            text += &format!("{number:5}  {}: {}{more}\n", group.cause, codes.join(", "));
        }
    }
    let grouped: usize = summary.errors.iter().map(|group| group.codes.len()).sum();
    if let Some(rest @ 1..) = summary.error.checked_sub(grouped as u64) {
        if summary.errors.is_empty() {
            text += &format!("\nErrors: {}\n", summary.error);
        }
        text += &format!("{rest:5}  with a cause that is missing from the log\n");
    }
    if !summary.slowest.is_empty() {
        text += "\nSlowest tasks\n";
        for slow in &summary.slowest {
            let outcome = slow.outcome.replace('_', " ");
            let tries = match slow.attempts {
                0 | 1 => String::new(),
                n => format!(", {n} tries"),
            };
            let time = fine_milliseconds(slow.ms);
            text += &format!("{time:>9}  {} {outcome}, {}{tries}\n", slow.code, slow.by);
        }
    }
    text
}

/// The settings and the results.
fn headline(name: &str, history: &RunHistory, summary: &LogSummary, is_running: bool) -> String {
    let mut text = format!("Run {name}");
    if let Some(settings @ RunSettings { program: Some(program), .. }) = &history.settings {
        let RunSettings { mode, workers, connections, .. } = settings;
        let workers = count(*workers as u64, "worker");
        let tasks = count(*connections as u64, "task");
        text += &format!(": {program}, {mode}, {workers}, {tasks} at a time");
    } else if let Some(settings) = &history.settings {
        let RunSettings { mode, server, codes, workers, connections, .. } = settings;
        let workers = match workers {
            0 => String::new(),
            n => format!(", {}", count(*n as u64, "worker")),
        };
        let (files, connections) =
            (count(*codes as u64, "file"), count(*connections as u64, "connection"));
        text += &format!(": {files} from {server}, {mode}{workers}, {connections}");
    }
    let LogSummary { ok, not_found, error, unchanged, not_done, missing, .. } = summary;
    let unchanged =
        if *unchanged > 0 { format!(" ({unchanged} unchanged)") } else { String::new() };
    text += &format!("\n{ok} ok{unchanged}, {not_found} not found, {}", count(*error, "error"));
    if *not_done > 0 {
        let what = if missing.is_some() { "not done or not known" } else { "not done" };
        text += &format!(", {not_done} {what}");
    }
    text += &match history.report {
        Some(RunReport { elapsed_s, exit_code, .. }) => {
            format!(" in {elapsed_s:.2} s; exit code {exit_code}\n")
        }
        None if is_running => "; it goes on\n".to_owned(),
        None => "; it left no report\n".to_owned(),
    };
    if let Some(missing) = missing {
        text += &format!("{missing}\n");
    }
    let is_of_flags = history.settings.as_ref().is_none_or(|run| run.program.is_none());
    if let Some(report) = history.report
        && !agrees(&report, summary)
        && !is_of_flags
    {
        let RunReport { ok, error, not_done, .. } = report;
        text += &format!(
            "The pool itself counted {ok} ok, {}, {} cancelled: a worker that was killed has not \
             written its last lines, or tasks were cancelled while they ran.\n",
            count(error, "error"),
            not_done.unwrap_or_default()
        );
    } else if let Some(report) = history.report
        && !agrees(&report, summary)
    {
        let RunReport { ok, not_found, error, not_done, .. } = report;
        let not_done = not_done.map_or_else(String::new, |number| format!(", {number} not done"));
        text += &format!(
            "The run itself reported {ok} ok, {not_found} not found, {}{not_done}: some lines \
             are missing here.\n",
            count(error, "error")
        );
    }
    text
}

/// Whether the lines agree with the run's own report.
fn agrees(report: &RunReport, summary: &LogSummary) -> bool {
    let errors = match report.not_done {
        Some(not_done) => report.error == summary.error && not_done == summary.not_done,
        // Older versions counted codes that were not done as errors.
        None => {
            [summary.error, summary.error.saturating_add(summary.not_done)].contains(&report.error)
        }
    };
    errors && (report.ok, report.not_found) == (summary.ok, summary.not_found)
}

const RED: Style = AnsiColor::Red.on_default();

fn number(n: u64) -> String {
    if n == 0 { "-".to_owned() } else { n.to_string() }
}

fn red_number(n: u64) -> String {
    if n == 0 { "-".to_owned() } else { format!("{RED}{n}{RED:#}") }
}

/// The CPU time, which is not known of the processes of a coordinator that was killed.
fn seconds(cpu: Option<f64>) -> String {
    cpu.map_or_else(|| "?".to_owned(), |cpu| format!("{cpu:.2} s"))
}

fn processes(summary: &LogSummary, is_running: bool) -> Table {
    let head = &[
        "process",
        "pid",
        "tasks",
        "ok",
        "not found",
        "errors",
        "lost",
        "busy",
        "median",
        "p95",
        "data",
        "CPU",
        "memory",
        "ended",
    ];
    let mut table = Table::new(head, &["ended"]);
    for process in &summary.processes {
        table.row(process_row(process, summary.missing.is_some(), is_running));
    }
    table.row(total_row(summary));
    table
}

fn process_row(process: &ProcessSummary, has_missing_lines: bool, is_running: bool) -> Vec<String> {
    // All fields, so that a new number cannot be forgotten.
    let ProcessSummary {
        name,
        pid,
        runs,
        ok,
        not_found,
        error,
        lost,
        busy,
        median_ms,
        p95_ms,
        bytes: data,
        cpu_s,
        peak_memory,
        how,
        is_regular,
    } = process;
    let time = |ms: &Option<f64>| ms.map(fine_milliseconds).unwrap_or_else(|| "-".to_owned());
    let (color, how) = match how {
        Some(how) if *is_regular => (Style::new(), how.as_str()),
        Some(how) => (RED, how.as_str()),
        None if is_running => (AnsiColor::Green.on_default(), "it goes on"),
        None if has_missing_lines => (RED, "not known"),
        None => (RED, "killed"),
    };
    vec![
        name.clone(),
        pid.to_string(),
        number(*runs),
        number(*ok),
        number(*not_found),
        red_number(*error),
        red_number(*lost),
        if *runs == 0 { "-".to_owned() } else { format!("{:.0}%", busy * 100.0) },
        time(median_ms),
        time(p95_ms),
        if *data == 0 { "-".to_owned() } else { bytes(*data) },
        seconds(*cpu_s),
        peak_memory.map_or_else(|| "?".to_owned(), bytes),
        format!("{color}{how}{color:#}"),
    ]
}

fn total_row(summary: &LogSummary) -> Vec<String> {
    let processes = &summary.processes;
    let all =
        |of: fn(&ProcessSummary) -> u64| processes.iter().map(of).fold(0, u64::saturating_add);
    let cpu = processes.iter().filter_map(|process| process.cpu_s).reduce(|sum, cpu| sum + cpu);
    vec![
        "all".to_owned(),
        String::new(),
        number(all(|process| process.runs)),
        number(summary.ok),
        number(summary.not_found),
        red_number(summary.error),
        red_number(all(|process| process.lost)),
        String::new(),
        String::new(),
        String::new(),
        bytes(all(|process| process.bytes)),
        seconds(cpu),
        String::new(),
        String::new(),
    ]
}
