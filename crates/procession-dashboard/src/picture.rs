//! [`Picture`]: a history as JSON, for the script of the pages, which draws it.
//!
//! Times are in milliseconds after the beginning of the run. A picture has either the whole run or only what
//! has changed since an earlier picture. The script replaces bars by their numbers.

use serde::Serialize;

use crate::gauges::PoolPicture;
use procession_journal::{Annotation, LogSummary, Micros};
use procession_journal::{RunHistory, RunReport, RunSettings};

/// A run, or the changes in it.
#[derive(Debug, Serialize)]
pub struct Picture {
    name: String,
    /// The settings, in words.
    what: String,
    /// The begin of the run, in milliseconds since 1970.
    epoch: f64,
    /// The time of the picture.
    now: f64,
    is_over: bool,
    /// Number of requested codes.
    total: u64,
    summary: LogSummary,
    report: Option<ReportLine>,
    #[serde(rename = "parties")]
    processes: Vec<ProcessLine>,
    bars: Vec<TaskBar>,
    #[serde(rename = "marks")]
    annotations: Vec<AnnotationLine>,
    /// Number of tasks that are drawn as parts of sums because there are too many.
    joined: u64,
    pool: Option<PoolPicture>,
    /// The CPUs in use in each part of the run, if its processes recorded that.
    cpus: Vec<f32>,
}

/// A run is divided into this number of equal parts. The page shows the CPUs in use for each part.
const CPU_PARTS: usize = 200;

#[derive(Debug, Serialize)]
struct ReportLine {
    elapsed_s: f64,
    exit_code: i32,
    ok: u64,
    error: u64,
}

#[derive(Debug, Serialize)]
struct ProcessLine {
    name: String,
    pid: u32,
    worker: Option<usize>,
    slots: usize,
    begin: f64,
    end: Option<f64>,
    how: Option<String>,
    is_regular: bool,
}

/// A span. The names are short, since a page may have a hundred thousand bars.
#[derive(Debug, Serialize)]
struct TaskBar {
    /// Its number.
    i: usize,
    /// Party and slot.
    p: usize,
    s: usize,
    /// Code, run, and what became of it.
    c: String,
    r: u32,
    f: &'static str,
    /// Begin and end.
    b: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<f64>,
    /// Number of requests, and size in bytes.
    n: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    z: Option<u64>,
    /// Number of tasks, of those that failed, and sum of the durations, if it is a sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    m: Option<(u64, u64, f64)>,
    /// The error.
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    /// Whether the flag had not changed; whether the task was lost and is run again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    u: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    a: bool,
    /// Whether it exceeded its timeout.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    l: bool,
    /// Failed tries: time and error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    t: Vec<(f64, String)>,
}

#[derive(Debug, Serialize)]
struct AnnotationLine {
    at: f64,
    kind: &'static str,
    #[serde(rename = "party", skip_serializing_if = "Option::is_none")]
    process: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bar: Option<usize>,
    text: String,
}

impl Picture {
    /// The whole run.
    pub fn of(name: &str, history: &RunHistory, is_over: bool) -> Self {
        Self::since(0, name, history, is_over)
    }

    /// The bars that have changed since this revision of the history, and everything that is not a bar.
    pub fn since(revision: u64, name: &str, history: &RunHistory, is_over: bool) -> Self {
        let (begin, end) = history.period.unwrap_or_default();
        let ms = |at: Micros| (at - begin) as f64 / 1e3;
        let summary = history.summary();
        let processes = history.processes.iter().map(|process| ProcessLine {
            name: process.name(),
            pid: process.pid,
            worker: process.worker,
            slots: process.slots,
            begin: ms(process.begin),
            end: process.end.map(ms),
            how: process.how.clone(),
            is_regular: process.is_regular,
        });
        let changed = history.spans.iter().enumerate().filter(|(_, span)| span.revision > revision);
        let bars = changed.map(|(i, span)| TaskBar {
            i,
            p: span.process,
            s: span.slot,
            c: span.label().into_owned(),
            r: span.run,
            f: span.outcome.as_str(),
            b: ms(span.begin),
            e: span.end.map(ms),
            n: span.attempts,
            z: span.bytes,
            m: span.is_sum().then(|| (span.count, span.failed, span.busy as f64 / 1e3)),
            x: span.error.clone(),
            u: span.unchanged,
            a: span.is_retried,
            l: span.timed_out,
            t: span.tries.iter().map(|failed| (ms(failed.at), failed.error.clone())).collect(),
        });
        Self {
            joined: history.joined,
            pool: None,
            cpus: cpus_in_use(history),
            name: name.to_owned(),
            what: history.settings.as_ref().map(in_words).unwrap_or_default(),
            epoch: begin as f64 / 1e3,
            now: ms(end),
            is_over,
            total: history.settings.as_ref().map_or(0, |settings| settings.codes as u64),
            report: history.report.map(|RunReport { elapsed_s, exit_code, ok, error, .. }| {
                ReportLine { elapsed_s, exit_code, ok, error }
            }),
            processes: processes.collect(),
            bars: bars.collect(),
            annotations: history
                .annotations
                .iter()
                .map(|annotation| annotation_line(annotation, ms))
                .collect(),
            summary,
        }
    }
}

impl Picture {
    pub(crate) fn with_pool(self, pool: Option<PoolPicture>) -> Self {
        Self { pool, ..self }
    }
}

/// In hundredths, since all of them are sent again and again.
fn cpus_in_use(history: &RunHistory) -> Vec<f32> {
    let cpus = history.cpus_in_use(CPU_PARTS);
    cpus.into_iter().map(|cpus| ((cpus * 100.0).round() / 100.0) as f32).collect()
}

fn in_words(settings: &RunSettings) -> String {
    if let Some(program) = &settings.program {
        let RunSettings { workers, connections, .. } = settings;
        let tasks = if *connections == 1 { "1 task" } else { &format!("{connections} tasks") };
        let workers = if *workers == 1 { "1 worker" } else { &format!("{workers} workers") };
        return format!("{program}, {workers}, {tasks} at a time");
    }
    let RunSettings { mode, server, workers, connections, .. } = settings;
    let workers = match workers {
        0 => String::new(),
        1 => ", 1 worker".to_owned(),
        n => format!(", {n} workers"),
    };
    let connections = match connections {
        1 => "1 connection".to_owned(),
        n => format!("{n} connections"),
    };
    format!("from {server}, {mode}{workers}, {connections}")
}

fn annotation_line(annotation: &Annotation, ms: impl Fn(Micros) -> f64) -> AnnotationLine {
    match annotation {
        Annotation::Died { at, process, how } => AnnotationLine {
            at: ms(*at),
            kind: "died",
            process: Some(*process),
            bar: None,
            text: how.clone(),
        },
        Annotation::Retried { at, code, fault, span, .. } => {
            let code = code.as_deref().unwrap_or("a task");
            AnnotationLine {
                at: ms(*at),
                kind: "retried",
                process: None,
                bar: *span,
                text: format!("{code} is run again after a {fault}"),
            }
        }
        Annotation::TimedOut { at, code } => {
            let code = code.as_deref().unwrap_or("a task");
            let text = format!("{code} ran for too long");
            AnnotationLine { at: ms(*at), kind: "timed_out", process: None, bar: None, text }
        }
    }
}
