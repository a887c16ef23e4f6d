//! Spans and events that tasks make in their workers, at the subscriber of the coordinator.

use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Context, Executor, Failure, ProcessPool, Registry, Shutdown, Task, TaskError};
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing::{Level, debug, error, info, info_span, subscriber, warn};

use crate::harness::{eventually, trial};
use crate::recorder::TreeRecorder;
use crate::tasks::quiet;

pub(crate) fn with_tasks(registry: Registry) -> Registry {
    registry
        .with::<TellSpans>()
        .with::<Flood>()
        .with::<TellAndDie>()
        .with::<Orphan>()
        .with::<Wanted>()
        .with::<Install>()
        .with::<Fork>()
        .with::<Linger>()
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("without_a_subscriber_nothing_is_sent", without_a_subscriber_nothing_is_sent),
        trial(
            "spans_and_events_of_a_task_are_below_the_span_of_its_submitter",
            spans_and_events_of_a_task_are_below_the_span_of_its_submitter,
        ),
        trial(
            "the_tasks_of_a_map_have_spans_of_their_own",
            the_tasks_of_a_map_have_spans_of_their_own,
        ),
        trial("what_is_dropped_is_counted", what_is_dropped_is_counted),
        trial(
            "a_span_that_was_dropped_breaks_nothing_below_it",
            a_span_that_was_dropped_breaks_nothing_below_it,
        ),
        trial("a_task_that_dies_has_told_all_before", a_task_that_dies_has_told_all_before),
        trial(
            "a_program_with_a_subscriber_of_its_own_is_left_alone",
            a_program_with_a_subscriber_of_its_own_is_left_alone,
        ),
        trial("a_forked_copy_of_a_worker_tells_nothing", a_forked_copy_of_a_worker_tells_nothing),
        trial(
            "what_belongs_to_no_task_is_in_a_span_of_the_worker",
            what_belongs_to_no_task_is_in_a_span_of_the_worker,
        ),
    ]
}

/// The line before the task [`TellSpans`].
const BEFORE_TELL: u32 = line!();

#[derive(Serialize, Deserialize)]
struct TellSpans(u64);
impl Task for TellSpans {
    const NAME: &'static str = "tell";
    type Output = u64;
    fn run(self, _: &Context) -> Result<u64, Failure> {
        info!(target: "remote", n = self.0, "begins");
        let outer = info_span!(target: "remote", "outer", n = self.0, late = tracing::field::Empty);
        outer.in_scope(|| {
            let (ratio, big, text) = (0.1 + 0.2, u128::MAX, "a\u{1b}[31mb\nc");
            warn!(target: "remote", ratio, big, ok = true, minus = -7_i64, text, list = ?[1, 2], "values");
            let inner = info_span!(target: "unwanted", "inner");
            let _entered = inner.enter();
            error!(target: "remote", "in a span that the subscriber does not want");
            debug!(target: "remote", "too much");
            log::warn!(target: "logged", "by {}", "log");
        });
        outer.record("late", "recorded");
        let spawned = outer.clone();
        thread::spawn(move || {
            info!(target: "remote", parent: &spawned, "from a thread");
            info!(target: "remote", "from a thread without a span");
        })
        .join()
        .map_err(|_| "a panic")?;
        info!(target: "remote", "ends");
        Ok(self.0)
    }
}

#[derive(Serialize, Deserialize)]
struct Flood(u64);
impl Task for Flood {
    const NAME: &'static str = "flood";
    type Output = ();
    fn run(self, _: &Context) -> Result<(), Failure> {
        (0..self.0).for_each(|n| info!(target: "remote", n, "one of many"));
        Ok(())
    }
}

/// The number of events that a worker may not send within a second.
const MANY: u64 = 60_000;

/// An event in a span that was dropped, after its parent, which was sent, has ended.
#[derive(Serialize, Deserialize)]
struct Orphan;
impl Task for Orphan {
    const NAME: &'static str = "orphan";
    type Output = ();
    fn run(self, _: &Context) -> Result<(), Failure> {
        let parent = info_span!(target: "remote", "parent");
        let others: Vec<_> = (1..1024).map(|_| info_span!(target: "remote", "other")).collect();
        // One more than are shown at a time.
        let child = info_span!(target: "remote", parent: &parent, "child");
        drop(parent);
        child.in_scope(|| warn!(target: "remote", "in the child"));
        drop(others);
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct TellAndDie;
impl Task for TellAndDie {
    const NAME: &'static str = "last";
    type Output = ();
    fn run(self, _: &Context) -> Result<(), Failure> {
        let _entered = info_span!(target: "remote", "open").entered();
        (0..100).for_each(|n| info!(target: "remote", "{n}"));
        kill_process(getpid(), Signal::KILL)?;
        Ok(())
    }
}

/// Which levels the worker's subscriber wants.
#[derive(Serialize, Deserialize)]
struct Wanted;
impl Task for Wanted {
    const NAME: &'static str = "wanted";
    type Output = (bool, bool, bool);
    fn run(self, _: &Context) -> Result<Self::Output, Failure> {
        let (error, info) = (tracing::enabled!(Level::ERROR), tracing::enabled!(Level::INFO));
        Ok((error, info, log::log_enabled!(log::Level::Error)))
    }
}

#[derive(Serialize, Deserialize)]
struct Install;
impl Task for Install {
    const NAME: &'static str = "install";
    type Output = ();
    fn run(self, _: &Context) -> Result<(), Failure> {
        info!(target: "remote", "from the initializer");
        Ok(subscriber::set_global_default(TreeRecorder::new(LevelFilter::INFO))?)
    }
}

#[derive(Serialize, Deserialize)]
struct Fork;
impl Task for Fork {
    const NAME: &'static str = "fork";
    type Output = ();
    fn run(self, _: &Context) -> Result<(), Failure> {
        info!(target: "remote", "before");
        let span = info_span!(target: "remote", "shared").entered();
        #[expect(unsafe_code, reason = "a test of forked copies")]
        // SAFETY: the copy only makes events, and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            info!(target: "remote", "in the copy");
            info_span!(target: "remote", "of the copy").in_scope(|| drop(span));
            std::process::exit(0);
        }
        // SAFETY: it waits for the process that was just made.
        #[expect(unsafe_code, reason = "a test of forked copies")]
        let waited = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        info!(target: "remote", "after");
        if waited == pid { Ok(()) } else { Err("no copy".into()) }
    }
}

#[derive(Serialize, Deserialize)]
struct Linger;
impl Task for Linger {
    const NAME: &'static str = "linger";
    type Output = ();
    fn run(self, _: &Context) -> Result<(), Failure> {
        thread::spawn(|| {
            loop {
                info!(target: "remote", "still here");
                thread::sleep(Duration::from_millis(5));
            }
        });
        Ok(())
    }
}

/// A pool whose subscriber is this recorder.
fn pool(recorder: &TreeRecorder, level: LevelFilter) -> ProcessPool {
    subscriber::with_default(recorder.clone(), || {
        quiet().workers(1).tracing(level).build().expect("a pool")
    })
}

fn without_a_subscriber_nothing_is_sent() {
    let pool = quiet().workers(1).tracing(Level::TRACE).build().expect("a pool");
    assert_eq!(pool.submit(Wanted).result(), Ok((false, false, false)));
    assert_eq!(pool.submit(TellSpans(7)).result(), Ok(7));
    let recorder = TreeRecorder::new(LevelFilter::WARN);
    let pool = self::pool(&recorder, LevelFilter::TRACE);
    assert_eq!(pool.submit(Wanted).result(), Ok((true, false, true)), "no more than is wanted");
    let untold = subscriber::with_default(recorder, || quiet().workers(1).build().expect("a pool"));
    assert_eq!(untold.submit(Wanted).result(), Ok((false, false, false)), "not asked for");
}

fn spans_and_events_of_a_task_are_below_the_span_of_its_submitter() {
    let recorder = TreeRecorder::new(LevelFilter::INFO);
    let pool = pool(&recorder, LevelFilter::DEBUG);
    let future = subscriber::with_default(recorder.clone(), || {
        info_span!("submitter", request = 4711).in_scope(|| pool.submit(TellSpans(7)))
    });
    let id = future.id().to_string();
    assert_eq!(future.result(), Ok(7));
    let pid = pool.pids()[0].to_string();

    // All is there when the future is done, in order, and no span is open any more.
    let events = recorder.events("remote");
    assert_eq!(
        recorder.messages("remote"),
        [
            "begins",
            "values",
            "in a span that the subscriber does not want",
            "from a thread",
            "from a thread without a span",
            "ends"
        ]
    );
    assert!(recorder.open().iter().all(|name| name == "submitter"));
    let paths: Vec<_> = events.iter().map(|event| recorder.path(event)).collect();
    assert_eq!(paths[0], ["task", "submitter"]);
    assert_eq!(paths[1], ["outer", "task", "submitter"]);
    assert_eq!(paths[2], ["outer", "task", "submitter"]);
    assert_eq!(paths[3], ["outer", "task", "submitter"]);
    assert_eq!(paths[4], ["task", "submitter"]);
    assert_eq!(paths[5], ["task", "submitter"]);
    let above = recorder.above(&events[1]);
    let [outer, task, submitter] = &above[..] else { panic!("{above:?}") };
    assert_eq!((outer.fields["n"].as_str(), outer.fields["late"].as_str()), ("7", "recorded"));
    assert_eq!((outer.level, outer.target.as_str()), (Level::INFO, "remote"));
    assert_eq!((&task.fields["task"], &task.fields["pid"]), (&id, &pid));
    assert_eq!((&*task.fields["name"], &*task.fields["worker"]), ("tell", "0"));
    assert_eq!(submitter.fields["request"], "4711");
    let values = &events[1];
    assert_eq!(values.level, Level::WARN);
    assert!(values.line.is_some_and(|line| (BEFORE_TELL..BEFORE_TELL + 20).contains(&line)));
    let shown = |name: &str| values.fields[name].as_str();
    assert_eq!(
        (shown("ratio"), shown("ok"), shown("minus")),
        ("0.30000000000000004", "true", "-7")
    );
    assert_eq!((shown("text"), shown("list")), ("a\\u{1b}[31mb\nc", "[1, 2]"));
    assert_eq!(shown("big"), u128::MAX.to_string());
    let logged = recorder.events("logged").remove(0);
    assert_eq!((logged.level, &*logged.fields["message"]), (Level::WARN, "by log"));
    assert_eq!(recorder.path(&logged), ["outer", "task", "submitter"]);

    eventually("the end of the submitter's span", || recorder.open().is_empty());

    // Without a span, at the subscriber of the pool.
    assert_eq!(pool.submit(TellSpans(8)).result(), Ok(8));
    let event = recorder.events("remote").remove(6);
    assert_eq!((&*event.fields["n"], recorder.path(&event)), ("8", vec!["task".to_owned()]));
}

fn the_tasks_of_a_map_have_spans_of_their_own() {
    let recorder = TreeRecorder::new(LevelFilter::INFO);
    let pool = pool(&recorder, LevelFilter::INFO);
    subscriber::with_default(recorder.clone(), || {
        let _submitter = info_span!("submitter").entered();
        let outputs: Result<Vec<_>, TaskError> = pool.map((0..500).map(TellSpans)).collect();
        assert_eq!(outputs.expect("all of them").len(), 500);
    });
    pool.shutdown(Shutdown::Wait);
    let events = recorder.events("remote");
    let begins = events.into_iter().filter(|event| event.fields["message"] == "begins");
    let mut tasks = std::collections::BTreeMap::new();
    for event in begins {
        assert_eq!(recorder.path(&event), ["task", "submitter"]);
        let task = recorder.above(&event).remove(0).fields["task"].parse::<u64>().expect("an id");
        assert_eq!(tasks.insert(task, event.fields["n"].parse::<u64>().expect("a number")), None);
    }
    // Ids increase in the order of the tasks.
    assert_eq!(tasks.into_values().collect::<Vec<_>>(), (0..500).collect::<Vec<_>>());
    assert_eq!(recorder.open(), [] as [&str; 0]);
}

fn what_is_dropped_is_counted() {
    let recorder = TreeRecorder::new(LevelFilter::INFO);
    let pool = pool(&recorder, LevelFilter::INFO);
    assert_eq!(pool.submit(Flood(MANY)).result(), Ok(()));
    pool.shutdown(Shutdown::Wait);
    let told = recorder.events("remote").len() as u64;
    let warnings = recorder.events("procession");
    let warnings = warnings.iter().filter(|event| event.level == Level::WARN);
    let dropped: u64 =
        warnings.map(|event| event.fields["number"].parse::<u64>().expect("a number")).sum();
    assert_eq!(told + dropped, MANY);
    assert!(told >= 20_000, "{told}");
}

fn a_span_that_was_dropped_breaks_nothing_below_it() {
    let recorder = TreeRecorder::new(LevelFilter::INFO);
    let pool = pool(&recorder, LevelFilter::INFO);
    assert_eq!(pool.submit(Wanted).result(), Ok((true, true, true)));
    let pids = pool.pids();
    assert_eq!(pool.submit(Orphan).result(), Ok(()));
    assert_eq!(pool.submit(Wanted).result(), Ok((true, true, true)));
    assert_eq!(pool.pids(), pids, "the worker lives");
    let events = recorder.events("remote");
    let last = events.iter().find(|event| event.fields["message"] == "in the child");
    let path = recorder.path(last.expect("it was sent"));
    assert_eq!(path.last().map(String::as_str), Some("task"), "{path:?}");
    pool.shutdown(Shutdown::Wait);
    assert_eq!(recorder.open(), [] as [&str; 0]);
}

fn a_task_that_dies_has_told_all_before() {
    let recorder = TreeRecorder::new(LevelFilter::INFO);
    let pool = pool(&recorder, LevelFilter::INFO);
    assert!(matches!(pool.submit(TellAndDie).result(), Err(TaskError::WorkerDied(_))));
    let numbers: Vec<_> = (0..100).map(|n: u32| n.to_string()).collect();
    assert_eq!(recorder.messages("remote"), numbers);
    let last = recorder.events("remote").pop().expect("events");
    assert_eq!(recorder.path(&last), ["open", "task"]);
    assert_eq!(recorder.open(), [] as [&str; 0]);
}

fn a_program_with_a_subscriber_of_its_own_is_left_alone() {
    let recorder = TreeRecorder::new(LevelFilter::INFO);
    let pool = subscriber::with_default(recorder.clone(), || {
        quiet().workers(1).tracing(Level::INFO).initializer(Install).build().expect("a pool")
    });
    assert_eq!(pool.submit(TellSpans(1)).result(), Ok(1));
    pool.shutdown(Shutdown::Wait);
    assert_eq!(recorder.messages("remote"), ["from the initializer"]);
}

fn a_forked_copy_of_a_worker_tells_nothing() {
    let recorder = TreeRecorder::new(LevelFilter::INFO);
    let pool = pool(&recorder, LevelFilter::INFO);
    assert_eq!(pool.submit(Fork).result(), Ok(()));
    pool.shutdown(Shutdown::Wait);
    assert_eq!(recorder.messages("remote"), ["before", "after"]);
}

fn what_belongs_to_no_task_is_in_a_span_of_the_worker() {
    let recorder = TreeRecorder::new(LevelFilter::INFO);
    let pool = pool(&recorder, LevelFilter::INFO);
    assert_eq!(pool.submit(Linger).result(), Ok(()));
    let in_worker = || {
        let events = recorder.events("remote");
        events.into_iter().find(|event| recorder.path(event) == ["worker"])
    };
    eventually("an event after the end of the task", || in_worker().is_some());
    let worker = recorder.above(&in_worker().expect("just seen")).remove(0);
    assert_eq!(worker.fields["pid"], pool.pids()[0].to_string());
    pool.shutdown(Shutdown::Wait);
    assert_eq!(recorder.open(), [] as [&str; 0]);
}
