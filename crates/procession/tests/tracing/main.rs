//! The events of a process pool that a program's own subscriber of `tracing` gets.

mod border;
#[path = "../support/harness.rs"]
mod harness;
mod recorder;
#[path = "../support/tasks.rs"]
mod tasks;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{Gate, eventually, signal, trial};
use libtest_mimic::Arguments;
use procession::{Executor, Retries, Shutdown, TaskError, TaskOptions};
use rustix::process::Signal;
use tasks::{Echo, Pass, await_workers, quiet};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

fn main() {
    harness::hush_panics_on_purpose();
    procession::worker::serve_if_asked(border::with_tasks(tasks::registry()));
    let mut trials = vec![
        trial(
            "a_subscriber_hears_of_workers_and_of_tasks_that_come_to_grief",
            a_subscriber_hears_of_workers_and_of_tasks_that_come_to_grief,
        ),
        trial("a_subscriber_that_panics_harms_nobody", a_subscriber_that_panics_harms_nobody),
    ];
    // First those that need a program without a subscriber of its own.
    trials.splice(0..0, border::trials());
    // One at a time: a subscriber is for the whole program.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit();
}

/// Keeps all events of the pool: level and fields, the message among them.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<(Level, BTreeMap<String, String>)>>,
    panics: Mutex<bool>,
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

struct Listener(Arc<Ear>);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "procession"
    }

    fn event(&self, event: &Event<'_>) {
        assert!(!*self.0.panics.lock().unwrap(), "{}", harness::ON_PURPOSE);
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.heard.lock().unwrap().push((*event.metadata().level(), fields.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Ear {
    /// The one of the whole program.
    fn of_the_program() -> Arc<Self> {
        static EAR: Mutex<Option<Arc<Ear>>> = Mutex::new(None);
        let mut ear = EAR.lock().unwrap();
        let ear = ear.get_or_insert_with(|| {
            let ear = Arc::<Ear>::default();
            tracing::subscriber::set_global_default(Listener(Arc::clone(&ear))).unwrap();
            ear
        });
        ear.heard.lock().unwrap().clear();
        Arc::clone(ear)
    }

    fn of(&self, message: &str) -> Vec<(Level, BTreeMap<String, String>)> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|(_, fields)| fields["message"] == message).cloned().collect()
    }
}

fn a_subscriber_hears_of_workers_and_of_tasks_that_come_to_grief() {
    let ear = Ear::of_the_program();
    let pool = quiet().workers(1).retries(Retries::times(1));
    let pool = pool.timeout(Duration::from_secs(60)).build().expect("a pool");
    await_workers(&pool);
    eventually("the worker has said so", || ear.of("worker started").len() == 1);
    let first = pool.pids()[0];
    let gate = Gate::new();
    let task = pool.submit(Pass(gate.path()));
    let id = task.id().to_string();
    gate.await_arrivals(1);
    signal(first, Signal::KILL);
    gate.await_arrivals(2);
    gate.open();
    let second = task.result().expect("the second run");
    let closed = Gate::new();
    let terms = TaskOptions::new().timeout(Duration::from_millis(50)).retries(Retries::none());
    let hangs = pool.submit_with(terms, Pass(closed.path()));
    let hanging = hangs.id().to_string();
    assert!(matches!(hangs.result(), Err(TaskError::TimedOut { .. })));
    pool.shutdown(Shutdown::Wait);

    let (level, died) = ear.of("worker died").remove(0);
    assert_eq!(
        (level, &died["worker"], &died["pid"]),
        (Level::ERROR, &"0".into(), &first.to_string())
    );
    assert_eq!(died["exit"], "signal 9 (SIGKILL)");
    assert!(died["peak_memory"].parse::<u64>().unwrap() > 1 << 20, "{died:?}");
    let (level, retried) = ear.of("task is tried again").remove(0);
    assert_eq!((level, &retried["task"], &retried["attempt"]), (Level::WARN, &id, &"2".into()));
    assert_eq!(retried["fault"], "Crash");
    let handed: Vec<_> =
        ear.of("task handed over").into_iter().filter(|(_, of)| of["task"] == id).collect();
    let pids: Vec<_> = handed.iter().map(|(_, of)| of["pid"].clone()).collect();
    assert_eq!(pids, [first.to_string(), second.to_string()]);
    assert!(handed.iter().all(|(level, _)| *level == Level::TRACE));
    let started = ear.of("worker started");
    assert!(started.len() >= 2 && started.iter().all(|(level, _)| *level == Level::INFO));
    let (level, late) = ear.of("task timed out").remove(0);
    assert_eq!((level, &late["task"], late["after_ms"].as_str()), (Level::ERROR, &hanging, "50.0"));
}

fn a_subscriber_that_panics_harms_nobody() {
    let ear = Ear::of_the_program();
    *ear.panics.lock().unwrap() = true;
    let pool = quiet().workers(2).build().expect("a pool");
    let outputs: Vec<_> = pool.map((0..20).map(|n| Echo(n.to_string()))).collect();
    pool.shutdown(Shutdown::Wait);
    assert!(outputs.into_iter().all(|output: Result<String, TaskError>| output.is_ok()));
    *ear.panics.lock().unwrap() = false;
}
