//! What a hostile worker tells while its task runs: spans and events, partial results, shared values, and nothing
//! at all, loudly.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use libtest_mimic::Trial;
use procession::{
    Blob, Context, Executor, Failure, PartialError, ProcessPool, Registry, SharedValue, Task,
    TaskError,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::attacks::{
    Attack, HAS_ATTACHMENT, Hostile, INLINE, PARTIAL, REPLY, message, publish,
    publish_when_there_is_room, send,
};
use super::{LINES, ends_at_once};
use crate::tasks::{Echo, await_workers, quiet, succeeds_with};
use crate::vandals::{CALLER_EVENTS, REPLY_EVENTS, wake};

pub(super) fn trials() -> Vec<Trial> {
    trials![
        lies_about_spans_and_events_cost_only_their_worker,
        events_of_a_worker_are_those_of_its_own_tasks_and_their_text_is_inert,
        a_flood_of_events_is_read_at_a_limited_rate,
        a_flood_of_partial_results_is_read_at_a_limited_rate,
        a_shared_value_of_a_worker_is_not_taken_for_another,
        who_wakes_its_coordinator_without_end_does_not_keep_it_busy,
    ]
}

pub(super) fn add_to(registry: Registry) -> Registry {
    registry.with::<Replace>().with::<Read>()
}

/// The attacks by what a worker tells.
pub(super) fn make(attack: &Attack, id: u64, context: &Context) -> Result<(), Failure> {
    match attack {
        Attack::Traced { records, ends } => {
            trace(id, records);
            if *ends {
                [0, 1, id - 1, id + 1, u64::MAX]
                    .into_iter()
                    .for_each(|other| trace(other, &records[1..]));
                let reply = r#"status":"ok","data":[7],"run_us":1}"#;
                publish(REPLY, 0, &format!(r#"{{"id":{id},"{reply}"#));
            }
        }
        Attack::TracedWithoutEnd => {
            const SITE: &str = r#"{"Site":{"is_span":false,"level":1,"name":"e","target":"t","module":null,"file":null,"line":null,"fields":[]}}"#;
            const EVENT: &str = r#"{"Event":{"parent":0,"site":0,"values":[]}}"#;
            trace(id, &[SITE.to_owned()]);
            loop {
                trace(id, &[EVENT.to_owned()]);
            }
        }
        Attack::EmitsWithoutEnd => loop {
            context.emit(&7_u64)?;
        },
        Attack::EmitsBlobsWithoutEnd { bytes } => {
            let blob = Blob::from(vec![7; *bytes]);
            loop {
                context.emit(&blob)?;
            }
        }
        Attack::EmitsShortBlobsWithoutEnd => loop {
            let blobs = message(0, &[1 | INLINE; 200], &[7; 200]);
            while !send(&blobs, &[]) {
                thread::sleep(Duration::from_millis(1));
            }
            publish_when_there_is_room(PARTIAL | HAS_ATTACHMENT, id, "no value");
        },
        Attack::Wakes => loop {
            wake(REPLY_EVENTS);
            wake(CALLER_EVENTS);
        },
        _ => {}
    }
    Ok(())
}

const TRACED: u8 = 9;

fn trace(task: u64, records: &[String]) {
    for record in records {
        publish_when_there_is_room(TRACED, task, record);
    }
}

/// Notes the events, each with the name of the span above it.
#[derive(Clone, Default)]
struct Notes {
    spans: Arc<Mutex<Vec<String>>>,
    events: Arc<Mutex<Vec<(String, String)>>>,
    number: Arc<AtomicU64>,
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{}={value:?}", field.name()));
    }
}

impl Subscriber for Notes {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut spans = self.spans.lock().expect("a list");
        let mut text = Text(format!("{} ", span.metadata().name()));
        span.record(&mut text);
        spans.push(text.0);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.number.fetch_add(1, Ordering::SeqCst);
        let mut events = self.events.lock().expect("a list");
        if events.len() < 1_000 {
            let mut text = Text(event.metadata().target().to_owned());
            event.record(&mut text);
            let above = event.parent().map(|id| id.into_u64() as usize - 1);
            let above = above.map(|at| self.spans.lock().expect("a list")[at].clone());
            events.push((above.unwrap_or_default(), text.0));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn traced(notes: &Notes, workers: usize) -> ProcessPool {
    let pool = tracing::subscriber::with_default(notes.clone(), || {
        quiet().workers(workers).tracing(LevelFilter::TRACE).build().expect("a pool")
    });
    await_workers(&pool);
    pool
}

const SITE: &str = r#"{"Site":{"is_span":true,"level":3,"name":"s","target":"remote","module":null,"file":null,"line":null,"fields":["a\u001b","message"]}}"#;
const EVENTS: &str = r#"{"Site":{"is_span":false,"level":1,"name":"e\u001b","target":"remote\u0007","module":null,"file":null,"line":null,"fields":["a\u001b"]}}"#;

fn span(number: u64, parent: u64) -> String {
    format!(r#"{{"Span":{{"span":{number},"parent":{parent},"site":0,"values":[]}}}}"#)
}

/// Records of which the last one is a lie, or one too many.
fn lies() -> Vec<(&'static str, Vec<String>)> {
    let text = |number: usize| vec![format!(r#"[0,{{"Text":"{}"}}]"#, "x".repeat(1_000)); number];
    let values = |number| {
        format!(r#"{{"Event":{{"parent":0,"site":0,"values":[{}]}}}}"#, text(number).join(","))
    };
    let fields = format!(r#""fields":[{}]"#, vec![r#""f""#; 40].join(","));
    // The same one: different ones would use up what all workers with its index may add to this process.
    let sites = vec![SITE.to_owned(); 1_030];
    let spans = (1..1_030).map(|n| span(n, 0));
    vec![
        ("garbage", vec!["{}".to_owned()]),
        ("no text", vec!["\u{fffd}".to_owned()]),
        ("deep", vec!["[".repeat(20_000)]),
        ("no such place", vec![r#"{"Event":{"parent":0,"site":0,"values":[]}}"#.to_owned()]),
        ("no such level", vec![SITE.replace("3", "6")]),
        ("a long name", vec![SITE.replace("remote", &"x".repeat(3_000))]),
        ("too many fields", vec![SITE.replace(r#""fields":["a\u001b","message"]"#, &fields)]),
        ("too many places", sites),
        ("too much text", vec![SITE.to_owned(), values(9)]),
        ("a span twice", vec![SITE.to_owned(), span(1, 0), span(1, 0)]),
        ("no such parent", vec![SITE.to_owned(), span(1, 7)]),
        ("too many spans", [SITE.to_owned()].into_iter().chain(spans).collect()),
        ("never opened", vec![r#"{"Closed":{"span":7}}"#.to_owned()]),
        (
            "follows nothing",
            vec![SITE.to_owned(), span(1, 0), r#"{"Follows":{"span":1,"from":7}}"#.to_owned()],
        ),
        ("values of no span", vec![r#"{"Values":{"span":7,"values":[]}}"#.to_owned()]),
    ]
}

fn lies_about_spans_and_events_cost_only_their_worker() {
    let notes = Notes::default();
    let pool = traced(&notes, 2);
    for (name, records) in lies() {
        let died = pool.submit(Hostile(Attack::Traced { records, ends: false })).result();
        assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{name}: {died:?}");
        succeeds_with(&pool, 20);
    }
    ends_at_once(&pool);
    // This pool does not trace.
    let pool = quiet().workers(1).build().expect("a pool");
    let records = vec![SITE.to_owned()];
    let died = pool.submit(Hostile(Attack::Traced { records, ends: false })).result();
    assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{died:?}");
    succeeds_with(&pool, 20);
}

fn events_of_a_worker_are_those_of_its_own_tasks_and_their_text_is_inert() {
    let notes = Notes::default();
    let pool = traced(&notes, 1);
    let earlier = pool.submit(Echo("1".to_owned()));
    assert!(earlier.result().is_ok());
    let event =
        r#"{"Event":{"parent":0,"site":0,"values":[[0,{"Text":"x\u001b[2J"}],[9,{"Bool":true}]]}}"#;
    let records = vec![EVENTS.to_owned(), event.to_owned()];
    // The records are sent once more in the names of other tasks.
    let own = pool.submit(Hostile(Attack::Traced { records, ends: true }));
    let own_id = own.id().to_string();
    assert!(own.result().is_ok());
    let events = notes.events.lock().expect("a list").clone();
    assert!(events.len() > 2, "{events:?}");
    for (above, text) in events {
        let is_own = above.starts_with("task ") && above.contains(&format!("task={own_id}"));
        assert!(is_own || above.starts_with("worker "), "{above}");
        // The subscriber shows the value as a literal.
        assert_eq!(text, r#"remote\u{7}a\u{1b}="x\\u{1b}[2J""#, "{above}");
    }
}

/// So many are read at once in the beginning, and in each second.
fn is_within_the_rate(number: f64, began: Instant) -> bool {
    let took = began.elapsed().as_secs_f64();
    println!("{number} in {took} s");
    number < LINES * (took + 1.3)
}

fn a_flood_of_events_is_read_at_a_limited_rate() {
    let notes = Notes::default();
    let pool = traced(&notes, 2);
    let began = Instant::now();
    let flood = pool.submit(Hostile(Attack::TracedWithoutEnd));
    let number = || notes.number.load(Ordering::SeqCst) as f64;
    crate::harness::eventually("all that may be read at once", || number() > LINES);
    thread::sleep(Duration::from_secs(1));
    assert!(is_within_the_rate(number(), began));
    succeeds_with(&pool, 20);
    assert!(flood.cancel());
    ends_at_once(&pool);
}

fn a_flood_of_partial_results_is_read_at_a_limited_rate() {
    let pool = quiet().workers(2).build().expect("a pool");
    await_workers(&pool);
    let began = Instant::now();
    let flood = pool.submit(Hostile(Attack::EmitsWithoutEnd));
    let (partials, number) = (flood.partials::<u64>(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&number);
    let reader = thread::spawn(move || {
        for partial in partials {
            let more = match partial {
                Ok(_) => 1,
                Err(PartialError::Missed { number }) => number as usize,
                Err(other) => panic!("{other:?}"),
            };
            counted.fetch_add(more, Ordering::SeqCst);
        }
    });
    let number = || number.load(Ordering::SeqCst) as f64;
    crate::harness::eventually("all that may be read at once", || number() > LINES);
    thread::sleep(Duration::from_secs(1));
    assert!(is_within_the_rate(number(), began));
    succeeds_with(&pool, 20);
    assert!(flood.cancel());
    reader.join().expect("it ended");
    ends_at_once(&pool);
}

/// A shared value in the form in which it is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SentValue {
    id: (u64, u64),
    bytes: Blob,
}

/// A task that gets a shared value and returns another one with the same id.
#[derive(Debug, Clone)]
enum Replace {
    Sent(SharedValue<String>),
    Received(SentValue),
}

impl Serialize for Replace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Sent(value) => value.serialize(serializer),
            Self::Received(value) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Replace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The worker looks at the form; the coordinator takes it for a value.
        match std::env::var_os("PROCESSION_INVITATION") {
            Some(_) => SentValue::deserialize(deserializer).map(Self::Received),
            None => SharedValue::deserialize(deserializer).map(Self::Sent),
        }
    }
}

impl Task for Replace {
    const NAME: &'static str = "replace";
    type Output = Replace;

    fn run(self, _: &Context) -> Result<Replace, Failure> {
        match self {
            Self::Received(SentValue { id, .. }) => {
                // A text in the binary encoding.
                Ok(Self::Received(SentValue { id, bytes: Blob::from(b"\x12\x04evil".to_vec()) }))
            }
            Self::Sent(_) => Err(Failure::msg("not in a worker")),
        }
    }
}

/// The output is the shared value.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Read(SharedValue<String>);

impl Task for Read {
    const NAME: &'static str = "read shared";
    type Output = String;

    fn run(self, _: &Context) -> Result<String, Failure> {
        Ok((*self.0).clone())
    }
}

fn a_shared_value_of_a_worker_is_not_taken_for_another() {
    let genuine = SharedValue::new("genuine".to_owned());
    let hostile = quiet().workers(1).build().expect("a pool");
    let forged = hostile.submit(Replace::Sent(genuine.clone())).result();
    let Ok(Replace::Sent(forged)) = forged else { panic!("{forged:?}") };
    assert_eq!(*forged, "evil");
    // A worker that has seen neither gets both.
    let honest = quiet().workers(1).build().expect("a pool");
    assert_eq!(honest.submit(Read(forged.clone())).result().as_deref(), Ok("evil"));
    assert_eq!(honest.submit(Read(genuine.clone())).result().as_deref(), Ok("genuine"));
    assert_eq!(honest.submit(Read(forged)).result().as_deref(), Ok("evil"));
    assert_eq!(honest.submit(Read(genuine)).result().as_deref(), Ok("genuine"));
}

pub(super) fn is_woken_without_end() {
    let pool = quiet().workers(2).build().expect("a pool");
    await_workers(&pool);
    let flood = pool.submit(Hostile(Attack::Wakes));
    thread::sleep(Duration::from_millis(500));
    assert_takes_little("share of the time");
    // One that waits for its result is woken as well.
    let waits = thread::spawn(move || flood.result().is_err());
    thread::sleep(Duration::from_millis(500));
    assert_takes_little("share of the time while a thread waits");
    succeeds_with(&pool, 20);
    ends_at_once(&pool);
    assert!(waits.join().expect("it ended"));
    println!("it works");
    std::process::exit(0);
}

/// Of the time that passes, what the coordinator may take. Without pauses it takes all of it.
const MOST: f64 = 0.4;

fn assert_takes_little(what: &str) {
    let share = || {
        let (began, used) = (Instant::now(), cpu_time());
        thread::sleep(Duration::from_millis(500));
        (cpu_time() - used).as_secs_f64() / began.elapsed().as_secs_f64()
    };
    // The least of some: on a busy machine each wake-up costs more.
    let mut shares = (0..10).map(|_| share()).inspect(|share| eprintln!("{what}: {share}"));
    assert!(shares.any(|share| share < MOST), "{what}: always more than {MOST}");
}

/// The time that this process has had a CPU.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

fn who_wakes_its_coordinator_without_end_does_not_keep_it_busy() {
    let mut command = crate::program::command("nothing else");
    crate::program::assert_works(command.env(super::VARIABLE, "wakes"));
}
