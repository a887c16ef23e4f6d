//! The journal of a pool: what each process writes down, read as a whole.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{
    Context, Executor, Failure, PoolError, PoolEvent, ProcessPool, Registry, Retries, Shutdown,
    Task, TaskError, TaskOptions,
};
use procession_journal::SpanOutcome;
use procession_journal::{LogEntry, LogEvent, ProcessKind, RunHistory};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::harness::eventually;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        each_process_writes_its_own_lines,
        the_workers_of_a_pool_that_is_dropped_have_not_died,
        many_short_tasks_are_summed_and_none_is_missing,
        the_slow_and_the_failed_of_many_short_tasks_have_lines_of_their_own,
        a_task_that_kills_its_worker_is_seen_there_with_its_label,
        short_tasks_with_labels_have_lines_of_their_own,
        an_attempt_that_is_lost_and_its_retry_are_seen,
        tasks_that_are_tried_again_have_a_bounded_number_of_lines,
        a_task_that_runs_long_is_seen_before_its_end,
        what_a_worker_prints_is_in_its_own_file,
        a_directory_that_cannot_be_made_is_an_error_of_the_builder,
        a_pool_that_is_refused_leaves_no_journal,
        a_pool_inside_a_task_does_not_write_into_the_journal_of_the_outer_pool,
        two_pools_in_a_program_have_a_journal_each,
        the_dashboard_of_a_pool_shows_its_tasks_workers_and_metrics,
        a_dashboard_without_a_journal_shows_the_numbers_of_the_pool,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Act>().with::<Inner>()
}

/// What a task does after it has given itself a label.
#[derive(Serialize, Deserialize, Clone)]
struct Act {
    label: Option<String>,
    deed: Deed,
}

#[derive(Serialize, Deserialize, Clone)]
enum Deed {
    Return(u64),
    Sleep(u64),
    Fail,
    FailAtFirst,
    Print(String),
    /// On the first attempt only, if so.
    Abort {
        once: bool,
    },
}

impl Act {
    fn new(deed: Deed) -> Self {
        Self { label: None, deed }
    }

    fn labelled(label: &str, deed: Deed) -> Self {
        Self { label: Some(label.to_owned()), deed }
    }
}

impl Task for Act {
    const NAME: &'static str = "act";
    type Output = u64;
    fn run(self, context: &Context) -> Result<u64, Failure> {
        if let Some(label) = self.label {
            context.label(label);
        }
        match self.deed {
            Deed::Return(n) => return Ok(n),
            Deed::Sleep(ms) => thread::sleep(Duration::from_millis(ms)),
            Deed::Fail => return Err(Failure::msg("on purpose")),
            Deed::FailAtFirst if context.attempt() > 1 => {}
            Deed::FailAtFirst => return Err(Failure::msg("on purpose")),
            Deed::Print(line) => println!("{line}"),
            Deed::Abort { once } if once && context.attempt() > 1 => {}
            Deed::Abort { .. } => std::process::abort(),
        }
        Ok(0)
    }
}

/// Builds a pool in a worker, and runs a task there.
#[derive(Serialize, Deserialize)]
struct Inner;

impl Task for Inner {
    const NAME: &'static str = "inner";
    type Output = u64;
    fn run(self, _: &Context) -> Result<u64, Failure> {
        let pool = ProcessPool::builder().workers(1).build()?;
        Ok(pool.submit(Act::new(Deed::Return(7))).result()?)
    }
}

fn pool(logs: &Path) -> ProcessPool {
    builder(logs).build().expect("a pool")
}

fn builder(logs: &Path) -> procession::Builder {
    ProcessPool::builder().workers(2).journal(logs).on_output(|_| {})
}

fn read(dir: &Path) -> RunHistory {
    let (history, warnings) = procession_journal::read(dir).expect("a journal");
    // A pool that ends kills a worker that is starting, perhaps before its first line.
    let lines = warnings.lines().into_iter().filter(|line| !line.ends_with(": it is empty"));
    assert_eq!(lines.collect::<Vec<_>>(), Vec::<String>::new());
    history
}

/// The events of all files whose names begin with this.
fn events(dir: &Path, begin: &str) -> Vec<LogEvent> {
    let files = fs::read_dir(dir).expect("a directory").flatten();
    let files = files.filter(|file| file.file_name().to_string_lossy().starts_with(begin));
    let texts: Vec<_> = files.map(|file| fs::read_to_string(file.path()).expect("text")).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    lines.map(|line| serde_json::from_str::<LogEntry>(line).expect(line).event).collect()
}

fn each_process_writes_its_own_lines() {
    let logs = TempDir::new().expect("a directory");
    let (ready, readies) = mpsc::channel();
    let note = move |event: &PoolEvent| {
        if let PoolEvent::WorkerStarted { .. } = event {
            let _ = ready.send(());
        }
    };
    let pool = builder(logs.path()).on_event(note).build().expect("a pool");
    let dir = pool.journal_dir().expect("a journal").to_owned();
    assert!(procession_journal::is_running(&dir));
    // A worker that is not ready at the shutdown is killed.
    for _ in 0..2 {
        readies.recv_timeout(Duration::from_secs(60)).expect("a worker that is ready");
    }
    let futures: Vec<_> =
        (0..6).map(|n| pool.submit(Act::labelled(&format!("file {n}"), Deed::Sleep(2)))).collect();
    futures.into_iter().for_each(|future| assert_eq!(future.result(), Ok(0)));
    pool.shutdown(Shutdown::Wait);
    // A process that another test starts has the lock of the file until it has become a program.
    eventually("the end of the journal", || !procession_journal::is_running(&dir));
    let history = read(&dir);
    let mut titles: Vec<_> = history.spans.iter().map(|span| span.code.clone()).collect();
    titles.sort();
    assert_eq!(titles, ["file 0", "file 1", "file 2", "file 3", "file 4", "file 5"]);
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error, summary.not_done), (6, 0, 0));
    assert!(history.processes.iter().all(|process| process.is_regular), "{:?}", history.processes);
    let workers = history.processes.iter().filter(|process| process.kind == ProcessKind::Worker);
    assert_eq!(workers.count(), 2);
    let settings = history.settings.expect("settings");
    assert_eq!((settings.workers, settings.program.is_some()), (2, true));
    assert_eq!(history.report.expect("a report").ok, 6);
    let latest = logs.path().join("latest").canonicalize().expect("a link");
    assert_eq!(latest, dir.canonicalize().expect("a directory"));
}

fn the_workers_of_a_pool_that_is_dropped_have_not_died() {
    let logs = TempDir::new().expect("a directory");
    let pool = builder(logs.path()).build().expect("a pool");
    let dir = pool.journal_dir().expect("a journal").to_owned();
    assert_eq!(pool.submit(Act::labelled("one", Deed::Sleep(2))).result(), Ok(0));
    drop(pool);
    eventually("the end of the journal", || !procession_journal::is_running(&dir));
    let processes = read(&dir).processes;
    assert!(processes.iter().all(|process| process.is_regular), "{processes:?}");
}

fn many_short_tasks_are_summed_and_none_is_missing() {
    let logs = TempDir::new().expect("a directory");
    let pool = pool(logs.path());
    let dir = pool.journal_dir().expect("a journal").to_owned();
    let sum: u64 = pool
        .map((0..20_000).map(|n| Act::new(Deed::Return(n))))
        .map(|output| output.expect("an output"))
        .sum();
    assert_eq!(sum, 20_000 * 19_999 / 2);
    let one_by_one: Vec<_> = (0..500).map(|n| pool.submit(Act::new(Deed::Return(n)))).collect();
    one_by_one.into_iter().for_each(|future| assert!(future.result().is_ok()));
    pool.shutdown(Shutdown::Wait);
    let history = read(&dir);
    assert_eq!(history.summary().ok, 20_500);
    assert_eq!(history.report.expect("a report").ok, 20_500);
    // Some tasks take longer than a millisecond where the machine is busy.
    let lines = events(&dir, "").len();
    assert!(lines < 4_000, "{lines} lines");
}

fn the_slow_and_the_failed_of_many_short_tasks_have_lines_of_their_own() {
    let logs = TempDir::new().expect("a directory");
    let pool = pool(logs.path());
    let dir = pool.journal_dir().expect("a journal").to_owned();
    let tasks = (0..2_000).map(|n| match n {
        700 => Act::labelled("the slow one", Deed::Sleep(60)),
        1_400 => Act::new(Deed::Fail),
        n => Act::new(Deed::Return(n)),
    });
    let failed = pool.map(tasks).filter(Result::is_err).count();
    assert_eq!(failed, 1);
    pool.shutdown(Shutdown::Wait);
    let history = read(&dir);
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error), (1_999, 1));
    assert_eq!(summary.errors[0].cause, "on purpose");
    let slow = &summary.slowest.iter().find(|task| task.code == "the slow one").expect("slow");
    assert!(slow.ms >= 60.0, "{slow:?}");
}

fn a_task_that_kills_its_worker_is_seen_there_with_its_label() {
    let logs = TempDir::new().expect("a directory");
    let pool = pool(logs.path());
    let dir = pool.journal_dir().expect("a journal").to_owned();
    let died = pool.submit(Act::labelled("bad.png", Deed::Abort { once: false })).result();
    let Err(TaskError::WorkerDied(death)) = died else { panic!("{died:?}") };
    assert_eq!(pool.submit(Act::new(Deed::Sleep(2))).result(), Ok(0));
    pool.shutdown(Shutdown::Wait);
    let history = read(&dir);
    let lost: Vec<_> =
        history.spans.iter().filter(|span| span.outcome == SpanOutcome::Lost).collect();
    let [lost] = &lost[..] else { panic!("{lost:?}") };
    assert_eq!((&*lost.code, history.processes[lost.process].pid), ("bad.png", death.pid));
    assert!(lost.error.as_ref().is_some_and(|error| error.contains("SIGABRT")), "{lost:?}");
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error), (1, 1));
    assert_eq!(summary.errors[0].codes.len(), 1);
    assert!(summary.errors[0].codes[0].starts_with("bad.png #"), "{:?}", summary.errors);
    assert_eq!(history.report.expect("a report").error, 1);
}

fn short_tasks_with_labels_have_lines_of_their_own() {
    let logs = TempDir::new().expect("a directory");
    let pool = pool(logs.path());
    let dir = pool.journal_dir().expect("a journal").to_owned();
    let act = |n: u64| match n % 3 {
        0 => Act::new(Deed::Return(n)),
        _ => Act::labelled(&format!("file {n}"), Deed::Return(n)),
    };
    let done = pool.map((0..3_000).map(act)).filter(Result::is_ok).count();
    assert_eq!(done, 3_000);
    pool.shutdown(Shutdown::Wait);
    let history = read(&dir);
    let labels: HashSet<_> = history.spans.iter().map(|span| &*span.code).collect();
    assert!((0..3_000).filter(|n| n % 3 > 0).all(|n| labels.contains(&*format!("file {n}"))));
    assert!(history.spans.iter().all(|span| span.outcome == SpanOutcome::Ok), "none is lost");
    assert_eq!(history.summary().ok, 3_000);
}

fn an_attempt_that_is_lost_and_its_retry_are_seen() {
    let logs = TempDir::new().expect("a directory");
    let pool = pool(logs.path());
    let dir = pool.journal_dir().expect("a journal").to_owned();
    let options = TaskOptions::new().retries(Retries::times(1));
    let future = pool.submit_with(options, Act::new(Deed::Abort { once: true }));
    assert_eq!(future.result(), Ok(0));
    pool.shutdown(Shutdown::Wait);
    let history = read(&dir);
    let runs: Vec<_> =
        history.spans.iter().map(|span| (span.outcome, span.is_retried, &*span.code)).collect();
    assert_eq!(runs, [(SpanOutcome::Lost, true, "act"), (SpanOutcome::Ok, false, "act")]);
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error), (1, 0));
}

fn a_task_that_runs_long_is_seen_before_its_end() {
    let logs = TempDir::new().expect("a directory");
    let pool = pool(logs.path());
    let dir = pool.journal_dir().expect("a journal").to_owned();
    let future = pool.submit(Act::new(Deed::Sleep(60_000)));
    eventually("the task is in the journal", || {
        let (history, _) = procession_journal::read(&dir).expect("a journal");
        history.spans.iter().any(|span| span.outcome == SpanOutcome::Running)
    });
    assert!(future.cancel());
    pool.shutdown(Shutdown::Wait);
    let (history, _) = procession_journal::read(&dir).expect("a journal");
    assert_eq!(history.spans[0].outcome, SpanOutcome::Lost);
    assert_eq!(history.report.expect("a report").not_done, Some(1));
}

fn what_a_worker_prints_is_in_its_own_file() {
    let logs = TempDir::new().expect("a directory");
    let pool = builder(logs.path()).workers(1).build().expect("a pool");
    let dir = pool.journal_dir().expect("a journal").to_owned();
    assert_eq!(pool.submit(Act::new(Deed::Print("from the task".to_owned()))).result(), Ok(0));
    pool.shutdown(Shutdown::Wait);
    let printed = events(&dir, "worker-0-")
        .into_iter()
        .filter(|event| matches!(event, LogEvent::Output { text, .. } if text == "from the task"));
    assert_eq!(printed.count(), 1);
}

fn a_directory_that_cannot_be_made_is_an_error_of_the_builder() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    let error = builder(&file).build().expect_err("no directory");
    let PoolError::Journal(reason) = error else { panic!("{error:?}") };
    assert!(reason.contains("/file"), "{reason}");
}

fn a_pool_that_is_refused_leaves_no_journal() {
    let dir = TempDir::new().expect("a directory");
    let (logs, file) = (dir.path().join("logs"), dir.path().join("file"));
    fs::write(&file, "").expect("a file");
    let bad: [fn(procession::Builder, &Path) -> procession::Builder; 6] = [
        |builder, _| builder.workers(0),
        |builder, _| builder.max_pending(0),
        |builder, _| builder.spares(usize::MAX),
        |builder, file| builder.keep_crashes(file),
        |builder, _| builder.worker_env("A=B", ""),
        |builder, file| builder.worker_program(file.with_extension("none")),
    ];
    for (number, bad) in bad.into_iter().enumerate() {
        assert!(bad(builder(&logs), &file).build().is_err(), "setting {number}");
        assert!(!logs.exists(), "setting {number}");
    }
}

fn a_pool_inside_a_task_does_not_write_into_the_journal_of_the_outer_pool() {
    let logs = TempDir::new().expect("a directory");
    let pool = builder(logs.path()).workers(1).build().expect("a pool");
    let dir = pool.journal_dir().expect("a journal").to_owned();
    assert_eq!(pool.submit(Inner).result(), Ok(7));
    pool.shutdown(Shutdown::Wait);
    let history = read(&dir);
    assert_eq!(history.processes.len(), 2, "{:?}", history.processes);
    assert_eq!(history.summary().ok, 1);
}

fn two_pools_in_a_program_have_a_journal_each() {
    let logs = TempDir::new().expect("a directory");
    let pools = [pool(logs.path()), pool(logs.path())];
    let dirs = pools.each_ref().map(|pool| pool.journal_dir().expect("a journal").to_owned());
    for (pool, tasks) in pools.iter().zip([1, 2]) {
        let futures: Vec<_> = (0..tasks).map(|_| pool.submit(Act::new(Deed::Sleep(2)))).collect();
        futures.into_iter().for_each(|future| assert_eq!(future.result(), Ok(0)));
        pool.shutdown(Shutdown::Wait);
    }
    assert_eq!(dirs.map(|dir| read(&dir).summary().ok), [1, 2]);
}

fn get(addr: std::net::SocketAddr, path: &str) -> String {
    use std::io::{Read, Write};
    let mut server = std::net::TcpStream::connect(addr).expect("a server");
    server.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    write!(server, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("a request");
    let mut answer = String::new();
    let _ = server.read_to_string(&mut answer);
    answer
}

/// The data of a page.
fn data(page: &str) -> serde_json::Value {
    let (_, data) = page.split_once("id=\"data\">").expect("data");
    serde_json::from_str(data.split_once("</script>").expect("an end").0).expect("JSON")
}

fn the_dashboard_of_a_pool_shows_its_tasks_workers_and_metrics() {
    let logs = TempDir::new().expect("a directory");
    let pool = pool(logs.path());
    let local = "127.0.0.1:0".parse().expect("an address");
    let dashboard = pool.dashboard(local).expect("a dashboard");
    assert_eq!(pool.submit(Act::labelled("a.png", Deed::Sleep(30))).result(), Ok(0));
    assert!(pool.submit(Act::new(Deed::Fail)).result().is_err());
    assert!(pool.submit(Act::new(Deed::Abort { once: false })).result().is_err());
    eventually("both workers live", || pool.stats().pids.len() == 2);
    let metrics = get(dashboard.addr(), "/metrics");
    let has = |line: &str| assert!(metrics.lines().any(|other| other == line), "{metrics}");
    has("procession_tasks_total{outcome=\"done\"} 1");
    has("procession_tasks_total{outcome=\"failed\"} 2");
    has("procession_workers 2");
    let page = data(&get(dashboard.addr(), "/"));
    let bars: Vec<_> = page["bars"].as_array().expect("bars").iter().map(|bar| &bar["c"]).collect();
    assert!(bars.iter().any(|title| **title == "a.png"), "{bars:?}");
    assert_eq!(page["summary"]["error"], 2);
    assert_eq!(page["marks"][0]["kind"], "died");
    pool.shutdown(Shutdown::Wait);
    drop(pool);
    // The page outlives its pool.
    let metrics = get(dashboard.addr(), "/metrics");
    assert!(metrics.contains("procession_workers 0\n"), "{metrics}");
    let file = logs.path().join("page.html");
    dashboard.save(&file).expect("a file");
    let saved = data(&fs::read_to_string(&file).expect("a page"));
    assert_eq!(saved["report"]["exit_code"], 0);
    dashboard.close();
}

fn a_dashboard_without_a_journal_shows_the_numbers_of_the_pool() {
    let pool = ProcessPool::builder().workers(1).build().expect("a pool");
    let local = "127.0.0.1:0".parse().expect("an address");
    let dashboard = pool.dashboard(local).expect("a dashboard");
    assert_eq!(pool.submit(Act::new(Deed::Return(3))).result(), Ok(3));
    eventually("a sample has the task", || {
        data(&get(dashboard.addr(), "/"))["pool"]["now"]["done"] == 1
    });
    let taken = pool.dashboard(dashboard.addr()).expect_err("the address is in use");
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

fn tasks_that_are_tried_again_have_a_bounded_number_of_lines() {
    const TASKS: usize = 11_000;
    const MOST: usize = 10_000;
    let logs = TempDir::new().expect("a directory");
    let builder = builder(logs.path()).workers(1).retries(Retries::times(1).on_failure(true));
    let pool = builder.build().expect("a pool");
    let dir = pool.journal_dir().expect("a journal").to_owned();
    let tasks = (0..TASKS).map(|_| Act::new(Deed::FailAtFirst));
    assert_eq!(pool.map(tasks).filter(Result::is_ok).count(), TASKS);
    pool.shutdown(Shutdown::Wait);
    let retried = |event: &LogEvent| matches!(event, LogEvent::TaskRetried { .. });
    let retries = events(&dir, "coordinator").iter().filter(|event| retried(event)).count();
    assert_eq!(retries, MOST);
    // Those that ran for long, on a busy machine, are counted elsewhere.
    let short = |run: u32| {
        move |event: &LogEvent| match event {
            LogEvent::Task(task) => task.attempt == run && task.elapsed_ms < 1.0,
            _ => false,
        }
    };
    let events = events(&dir, "worker");
    assert!(events.iter().filter(|event| short(1)(event)).count() <= MOST);
    assert!(events.iter().filter(|event| short(2)(event)).count() <= MOST);
    let history = read(&dir);
    let report = history.report.expect("a report");
    assert_eq!((report.ok, report.error), (TASKS as u64, 0));
    let summary = history.summary();
    assert_eq!((summary.ok, summary.error), (TASKS as u64, 0));
    assert!(summary.errors.is_empty(), "{:?}", summary.errors[0].cause);
    assert!(summary.processes.iter().all(|row| row.error == 0), "{:?}", summary.processes);
}
