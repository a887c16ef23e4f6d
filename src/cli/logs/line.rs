//! A line of a log as it is shown.
//!
//! ```text
//! 23:49:32.123 coordinator 4711  676 files from ERROR: processes, 2 workers, 30 connections
//! 23:49:32.131 worker 0    4712  BR ok, 590 B in 1.90 ms
//! 23:49:32.140 worker 1    4713  KE error: HTTP 503 - Service Unavailable, after 3 tries in 1.20 s
//! ```

use std::fmt::Write;
use std::io::{self, IsTerminal};

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::super::format::{bytes, count, milliseconds, printable};
use super::super::options::ColorOption;
use super::super::stdout;
use procession_journal::{
    Level, LogEntry, LogEvent, NamedTask, OutputStream, ProcessKind, ResourceUsage, RunReport,
    RunSettings, TaskEnd, TaskSums,
};

/// On terminals with fewer columns, the names of processes are short.
const WIDE: usize = 60;

/// The colours of workers. Red and yellow are the colours of errors and warnings.
const COLORS: [AnsiColor; 8] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightGreen,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightBlue,
];

/// Formats lines.
pub(super) struct LineFormatter {
    zone: TimeZone,
    is_narrow: bool,
    is_coloured: bool,
    day: Option<Date>,
}

impl LineFormatter {
    pub(super) fn new(color: ColorOption) -> Self {
        Self {
            zone: TimeZone::system(),
            is_narrow: io::stdout().is_terminal() && stdout::width() < WIDE,
            is_coloured: color.for_stdout() != anstream::ColorChoice::Never,
            day: None,
        }
    }

    /// The line, with its line feed. A line with the date precedes the first line of another day.
    pub(super) fn line(&mut self, entry: &LogEntry) -> String {
        let LogEntry { ts, level, process, worker, pid, own_cpu_s: _, event, extra } = entry;
        let mut line = String::with_capacity(120);
        self.put_time(*ts, &mut line);
        let color = self.style(match (process, worker) {
            (ProcessKind::Worker, Some(worker)) => COLORS[worker % COLORS.len()].on_default(),
            _ => Style::new().bold(),
        });
        let _ = match (process, worker, self.is_narrow) {
            (ProcessKind::Worker, Some(worker), false) => {
                write!(line, "{color}worker {worker:<4} {pid:<7}{color:#} ")
            }
            (ProcessKind::Worker, Some(worker), true) => write!(line, "{color}w{worker}{color:#} "),
            (_, _, true) => write!(line, "{color}c{color:#} "),
            (process, _, false) => {
                write!(line, "{color}{:<11} {pid:<7}{color:#} ", printable(&process.to_string()))
            }
        };
        let color = self.style(match level {
            Level::Debug => Style::new().dimmed(),
            Level::Info => Style::new(),
            Level::Warn => AnsiColor::Yellow.on_default(),
            Level::Error | Level::Other(_) => AnsiColor::Red.on_default(),
        });
        let mut text = describe(event);
        for (name, value) in extra {
            let _ = write!(text, " {name}={value}");
        }
        let _ = writeln!(line, "{color}{}{color:#}", printable(&text));
        line
    }

    fn put_time(&mut self, ts: Timestamp, line: &mut String) {
        let time = ts.to_zoned(self.zone.clone());
        let day = time.date();
        if self.day.is_some_and(|before| before != day) {
            let _ = writeln!(line, "{day}");
        }
        self.day = Some(day);
        let (h, m, s, ms) = (time.hour(), time.minute(), time.second(), time.millisecond());
        let dim = self.style(Style::new().dimmed());
        let _ = match self.is_narrow {
            true => write!(line, "{dim}{m:02}:{s:02}.{ms:03}{dim:#} "),
            false => write!(line, "{dim}{h:02}:{m:02}:{s:02}.{ms:03}{dim:#} "),
        };
    }

    fn style(&self, style: Style) -> Style {
        if self.is_coloured { style } else { Style::new() }
    }
}

/// The event in words.
fn describe(event: &LogEvent) -> String {
    match event {
        LogEvent::Start { version, args, .. } => {
            let args = args.get(1..).unwrap_or_default().join(" ");
            let args = if args.is_empty() { args } else { format!(": {args}") };
            format!("begins, version {version}{args}")
        }
        LogEvent::Run(settings) => describe_run(settings),
        LogEvent::TaskStarted { code, task, run, late_ms, .. } => {
            describe_start(&named(code, task), *run, *late_ms)
        }
        LogEvent::TryFailed { code, attempt, error, pause_ms, .. } => {
            format!("{code} try {attempt}: {error}; again in {}", milliseconds(*pause_ms))
        }
        LogEvent::Task(task) => describe_task(task),
        LogEvent::Tasks(sums) => describe_sums(sums),
        LogEvent::ErrorReceived { code } => format!("the error of {code} was received"),
        LogEvent::TaskRetried { code, task, fault, run, pause_ms, .. } => {
            let code = named(code.as_deref().unwrap_or_default(), task);
            format!("{code} will run again in {}, as run {run} ({fault})", milliseconds(*pause_ms))
        }
        LogEvent::TasksRetried { by, count: runs } => {
            let worker = by.child.map_or_else(String::new, |worker| format!(" in worker {worker}"));
            format!("{} that failed{worker} will run again", count(*runs, "more task"))
        }
        LogEvent::TaskTimedOut { code, task, after_ms } => {
            let code = named(code.as_deref().unwrap_or_default(), task);
            format!("{code} ran longer than {} and was ended", milliseconds(*after_ms))
        }
        LogEvent::Output { stream: OutputStream::Stdout, text } => format!("says: {text}"),
        LogEvent::Output { stream: OutputStream::Stderr, text } => text.clone(),
        LogEvent::WorkerStarted { child, child_pid } => {
            format!("worker {child} (pid {child_pid}) is ready")
        }
        LogEvent::WorkerNotStarted { child, child_pid, why, .. } => {
            format!("worker {child} (pid {child_pid}) did not start: {why}")
        }
        LogEvent::WorkerExited { child, child_pid, how, usage, .. } => {
            format!("worker {child} (pid {child_pid}) ended with {how}{}", describe_usage(usage))
        }
        LogEvent::Summary { report, .. } => describe_report(report),
        LogEvent::LinesLost { lines, why } => {
            format!("{} of this run's log could not be written: {why}", count(*lines, "line"))
        }
        LogEvent::Exit { exit_code, why } => {
            let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("ends with exit code {exit_code}{why}")
        }
        LogEvent::Other(fields) => {
            let others = fields.iter().filter(|(name, _)| *name != "event");
            let others = others.map(|(name, value)| format!(" {name}={value}"));
            format!("{}{}", event.name(), others.collect::<String>())
        }
    }
}

/// That a task has begun, for which time, and when if that is not the time of the line.
fn describe_start(task: &str, run: u32, late_ms: f64) -> String {
    match run {
        1 if late_ms == 0.0 => format!("{task} begins"),
        1 => format!("{task} has begun {} ago", milliseconds(late_ms)),
        run => format!("{task} begins again, as run {run}"),
    }
}

/// The code of a task; or its label or kind, with its id.
fn named(code: &str, NamedTask { id, name, label }: &NamedTask) -> String {
    if !code.is_empty() {
        return code.to_owned();
    }
    let title = label.as_deref().or(name.as_deref()).unwrap_or("task");
    match id {
        Some(id) => format!("{title} #{id}"),
        None => "a task".to_owned(),
    }
}

/// `5123 square, 20 cube (2 failed): 95.2 ms of 99.8 ms, the longest 0.90 ms`.
fn describe_sums(TaskSums { period_ms, tasks, .. }: &TaskSums) -> String {
    let kinds = tasks.iter().map(|sum| {
        let failed = match sum.failed {
            0 => String::new(),
            failed => format!(" ({failed} failed)"),
        };
        format!("{} {}{failed}", sum.count, sum.name)
    });
    let kinds: Vec<_> = kinds.collect();
    let run_ms: f64 = tasks.iter().map(|sum| sum.run_ms).sum();
    let max_ms = tasks.iter().map(|sum| sum.max_ms).fold(0.0, f64::max);
    let (ran, of, longest) = (milliseconds(run_ms), milliseconds(*period_ms), milliseconds(max_ms));
    format!("{}: {ran} of {of}, the longest {longest}", kinds.join(", "))
}

fn describe_run(settings: &RunSettings) -> String {
    if let Some(program) = &settings.program {
        let RunSettings { mode, workers, connections, .. } = settings;
        let workers = count(*workers as u64, "worker");
        return format!(
            "{program}: {mode}, {workers}, {} at a time",
            count(*connections as u64, "task")
        );
    }
    let RunSettings { mode, server, codes, workers, connections, dest, continues, .. } = settings;
    let files = count(*codes as u64, "file");
    let workers = match workers {
        0 => String::new(),
        n => format!(", {}", count(*n as u64, "worker")),
    };
    let connections = count(*connections as u64, "connection");
    let continues = match continues {
        Some(run) => format!(", going on with {run}"),
        None => String::new(),
    };
    format!("{files} from {server}: {mode}{workers}, {connections}, into {dest}{continues}")
}

fn describe_task(task: &TaskEnd) -> String {
    let TaskEnd { status, bytes: size, unchanged, elapsed_ms, attempt, error, .. } = task;
    let code = named(&task.code, &task.task);
    let size = size.map(|size| format!(", {}", bytes(size))).unwrap_or_default();
    let what = match (status.as_str(), error) {
        ("ok", _) if *unchanged => "unchanged".to_owned(),
        ("ok", _) => format!("ok{size}"),
        ("not_found", _) => "not found".to_owned(),
        ("not_done", Some(why)) => format!("not done: {why}"),
        ("not_done", None) => "not done".to_owned(),
        (status, Some(error)) => format!("{status}: {error}"),
        (status, None) => status.to_owned(),
    };
    match attempt {
        0 => format!("{code} {what}"),
        1 => format!("{code} {what} in {}", milliseconds(*elapsed_ms)),
        n => format!("{code} {what} after {n} tries in {}", milliseconds(*elapsed_ms)),
    }
}

fn describe_usage(usage: &ResourceUsage) -> String {
    let cpu = usage.cpu_s.map(|cpu| format!("; {} of CPU", milliseconds(cpu * 1e3)));
    let memory = usage.peak_memory.map(|memory| format!(", {} at most", bytes(memory)));
    cpu.unwrap_or_default() + &memory.unwrap_or_default()
}

fn describe_report(report: &RunReport) -> String {
    let RunReport { ok, not_found, error, not_done, unchanged, elapsed_s, .. } = report;
    let unchanged = match unchanged {
        0 => String::new(),
        n => format!(" ({n} unchanged)"),
    };
    let errors = count(*error, "error");
    let not_done = match not_done {
        None | Some(0) => String::new(),
        Some(n) => format!(", {n} not done"),
    };
    format!("{ok} ok{unchanged}, {not_found} not found, {errors}{not_done} in {elapsed_s:.2} s")
}
