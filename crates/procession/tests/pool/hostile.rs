//! Attacks of a worker that was taken over on its coordinator. After each attack the coordinator runs, no
//! output of another task is wrong, no wait was longer than its bound, and other tasks are run.
//!
//! The table in SECURITY.md names these tests.

mod attacks;
mod budgets;
mod false_segments;
mod lingering;
mod processes;
mod tells;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use libtest_mimic::Trial;
use procession::{
    Builder, Executor, Exit, Output, Partial, PartialError, ProcessPool, Registry, Said, Shutdown,
    TaskError, TaskOptions, as_completed,
};
use rustix::process::Signal;

use self::attacks::{Attack, Hostile};
use self::false_segments::SegmentLie;
use self::lingering::a_descriptor_whose_close_takes_long_delays_nothing;
pub(crate) use self::processes::play_if_asked as play_processes_if_asked;
use crate::harness::{self, eventually, is_alive};
use crate::program;
use crate::tasks::{Bad, Echo, Ending, await_workers, quiet, succeeds_with};

pub(crate) fn trials() -> Vec<Trial> {
    let mut all = tells::trials();
    all.extend(budgets::trials());
    all.extend(trials![
        a_text_or_a_blob_that_is_cut_after_it_was_announced_is_refused,
        announced_or_sparse_memory_is_refused_before_it_is_mapped,
        memory_that_is_no_sealed_memory_is_refused,
        half_messages_cost_only_their_worker,
        a_text_that_goes_on_changing_is_refused,
        a_blob_that_was_delivered_never_changes,
        a_segment_that_goes_on_changing_is_copied_once,
        lies_about_segments_cost_only_their_worker,
        a_flood_of_descriptors_leaves_no_descriptor_open,
        a_descriptor_whose_close_takes_long_delays_nothing,
        who_begins_the_handshake_anew_is_ended,
        a_flood_of_requests_ends_its_worker,
        a_worker_speaks_for_no_task_but_its_own,
        a_worker_emits_for_no_task_but_its_own,
        control_characters_of_tasks_are_inert,
        a_flood_of_lines_is_read_at_a_limited_rate,
        a_flood_of_lines_leaves_a_sibling_half_of_its_throughput,
        a_flood_of_lines_of_an_initializer_is_read_at_a_limited_rate,
        a_daemon_that_holds_all_delays_no_end,
        a_dead_worker_that_is_traced_delays_no_end,
        a_squatter_at_the_sockets_of_new_workers_keeps_none_from_starting,
    ]);
    all
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    tells::add_to(registry.with::<Hostile>())
}

pub(crate) fn play_if_asked() {
    play_processes_if_asked();
    match std::env::var(VARIABLE).as_deref() {
        Ok("says") => prints_what_tasks_say(),
        Ok("wakes") => tells::is_woken_without_end(),
        Ok("squatter") => starts_workers_beside_a_squatter(),
        _ => {}
    }
}

fn pool() -> ProcessPool {
    let pool = quiet().workers(2).on_say(|_| {}).build().expect("a pool");
    await_workers(&pool);
    pool
}

/// The attack fails as the death of its worker; what the caller waits with makes no difference. The pool
/// goes on, and ends at once.
#[track_caller]
fn costs_only_its_worker(attack: &Attack) {
    let pool = pool();
    let died = pool.submit(Hostile(attack.clone())).result();
    assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{attack:?}: {died:?}");
    succeeds_with(&pool, 20);
    let future = pool.submit(Hostile(attack.clone()));
    let died = as_completed([future]).next().expect("one").result();
    assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{attack:?}: {died:?}");
    succeeds_with(&pool, 20);
    ends_at_once(&pool);
}

/// It takes some milliseconds; on a machine that other tests keep busy, a second may pass. A wait for what a
/// worker has left behind would take [`processes::LIFE_OF_A_DAEMON`].
#[track_caller]
fn ends_at_once(pool: &ProcessPool) {
    let began = Instant::now();
    pool.shutdown(Shutdown::Kill);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

fn a_text_or_a_blob_that_is_cut_after_it_was_announced_is_refused() {
    costs_only_its_worker(&Attack::CutText);
    costs_only_its_worker(&Attack::CutBlob);
}

fn announced_or_sparse_memory_is_refused_before_it_is_mapped() {
    costs_only_its_worker(&Attack::Announced);
    costs_only_its_worker(&Attack::SparseTebibyte);
}

fn memory_that_is_no_sealed_memory_is_refused() {
    for attack in [Attack::EmptyFile, Attack::Pipe, Attack::DiskFile] {
        costs_only_its_worker(&attack);
    }
}

fn half_messages_cost_only_their_worker() {
    let pool = pool();
    for bytes in (0..18).chain([2_048, 2_049]) {
        let died = pool.submit(Hostile(Attack::HalfMessage(bytes))).result();
        assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{bytes} bytes: {died:?}");
    }
    succeeds_with(&pool, 20);
    ends_at_once(&pool);
}

fn a_text_that_goes_on_changing_is_refused() {
    costs_only_its_worker(&Attack::FlippingText);
    costs_only_its_worker(&Attack::FlippingBlob);
}

fn a_blob_that_was_delivered_never_changes() {
    let pool = pool();
    let dir = tempfile::tempdir().expect("a directory");
    let [go, notes] = ["go", "notes"].map(|name| dir.path().join(name));
    let attack = Attack::ChangeDelivered { go: go.clone(), notes: notes.clone() };
    let blob = pool.submit(Hostile(attack)).result().expect("an output");
    let is_whole = || blob.len() == 5_000 && blob.iter().all(|byte| *byte == 7);
    assert!(is_whole());
    fs::write(go, "").expect("a file");
    eventually("the end of the attack", || {
        assert!(is_whole());
        notes.exists()
    });
    assert_eq!(fs::read_to_string(notes).expect("notes"), "", "each way is refused");
    // Its worker is gone, and the memory stays.
    let pids = pool.pids();
    for pid in &pids {
        harness::signal(*pid, Signal::KILL);
    }
    eventually("the end of the workers", || !pids.iter().any(|pid| is_alive(*pid)));
    assert!(is_whole());
    ends_at_once(&pool);
}

/// The value is what was copied, whatever the worker does to the segment afterwards.
fn a_segment_that_goes_on_changing_is_copied_once() {
    let pool = pool();
    let attack = Attack::Segment(SegmentLie::Flipping);
    let blob = pool.submit(Hostile(attack)).result().expect("an output");
    let first = blob.to_vec();
    let is_other = |(at, byte): (usize, &u8)| *byte != 7 && at != false_segments::LEN / 2;
    assert_eq!(first.len(), false_segments::LEN);
    assert!(!first.iter().enumerate().any(is_other));
    for _ in 0..50 {
        assert!(*blob == *first);
        std::thread::sleep(Duration::from_millis(2));
    }
    ends_at_once(&pool);
    // A text may be garbage in that moment, or not.
    for _ in 0..3 {
        let pool = self::pool();
        let attack = Attack::Segment(SegmentLie::FlippingText);
        let result = pool.submit(Hostile(attack)).result();
        match result {
            // The worker has replied, and goes on doing nothing: it would keep other tasks.
            Ok(_) => {}
            Err(TaskError::WorkerDied(_)) => succeeds_with(&pool, 5),
            Err(other) => panic!("{other:?}"),
        }
        ends_at_once(&pool);
    }
}

fn lies_about_segments_cost_only_their_worker() {
    for lie in [
        SegmentLie::NeverSent,
        SegmentLie::NoSuchSlot,
        SegmentLie::Twice,
        SegmentLie::Tebibyte,
        SegmentLie::Holes,
        SegmentLie::Unsealed,
        SegmentLie::TooLong,
        SegmentLie::TooMany,
    ] {
        costs_only_its_worker(&Attack::Segment(lie));
    }
}

fn a_flood_of_descriptors_leaves_no_descriptor_open() {
    // Other tests of this program open and close other descriptors at the same time.
    let open = || {
        let all = fs::read_dir("/proc/self/fd").expect("a directory").flatten();
        let names = all.filter_map(|entry| fs::read_link(entry.path()).ok());
        names.filter(|name| name.to_string_lossy().contains(attacks::FLOOD)).count()
    };
    costs_only_its_worker(&Attack::Descriptors);
    eventually("no descriptor of the flood", || open() == 0);
}

fn who_begins_the_handshake_anew_is_ended() {
    costs_only_its_worker(&Attack::Handshake);
}

fn a_flood_of_requests_ends_its_worker() {
    costs_only_its_worker(&Attack::Requests);
}

fn a_worker_speaks_for_no_task_but_its_own() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let printed = Arc::new(AtomicUsize::new(0));
    let (says, prints) = (Arc::clone(&said), Arc::clone(&printed));
    let pool = quiet()
        .workers(1)
        .on_say(move |Said { task, line, .. }: &Said<'_>| {
            says.lock().expect("a list").push((*task, (*line).to_owned()));
        })
        .on_output(move |output: &Output<'_>| {
            prints.fetch_add(usize::from(output.line == "forged"), Ordering::SeqCst);
        });
    let pool = pool.build().expect("a pool");
    let earlier = pool.submit(Echo("1".to_owned()));
    let future = pool.submit(Hostile(Attack::ForgedLines));
    let own = future.id();
    assert!(earlier.result().is_ok() && future.result().is_ok());
    assert_eq!(*said.lock().expect("a list"), [(own, "honest".to_owned())]);
    assert!(printed.load(Ordering::SeqCst) > 2, "no line is lost");
}

fn a_worker_emits_for_no_task_but_its_own() {
    let pool = quiet().workers(1).build().expect("a pool");
    let earlier = pool.submit(Echo("1".to_owned()));
    let future = pool.submit(Hostile(Attack::ForgedPartials));
    let partials: Vec<_> = future.partials::<String>().collect();
    assert!(future.result().is_ok());
    assert!(
        matches!(&partials[..], [Ok(Partial { value, attempt: 1, .. }), Err(PartialError::Undecodable { .. })]
            if value == "honest"),
        "{partials:?}"
    );
    assert_eq!(earlier.partials::<String>().count(), 0);
}

const VARIABLE: &str = "PROCESSION_TEST_HOSTILE_POOL";
const ESCAPES: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\rgone";

fn prints_what_tasks_say() {
    let pool = ProcessPool::builder().workers(1).build().expect("a pool");
    let said = pool.submit(crate::says::tell([ESCAPES]));
    said.result().expect("an output");
    let printed = crate::tasks::Say(ESCAPES.to_owned(), ESCAPES.to_owned());
    pool.submit(printed).result().expect("an output");
    let died = pool.submit(Bad(Ending::Abort)).result();
    println!("{}", died.expect_err("it died"));
    process::exit(0);
}

fn control_characters_of_tasks_are_inert() {
    let output =
        program::command("nothing else").env(VARIABLE, "says").output().expect("a program");
    assert!(output.status.success(), "{output:?}");
    for text in [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text")) {
        assert!(text.contains(r"\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\rgone"), "{text:?}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
}

/// See `src/process_pool/flood.rs`: lines a second, and as many at once in the beginning.
const LINES: f64 = 50_000.0;

fn a_flood_of_lines_of_an_initializer_is_read_at_a_limited_rate() {
    let (builder, heard) = listening();
    let builder = builder.workers(1).start_timeout(Duration::from_secs(3));
    let builder = builder.initializer(Hostile(Attack::Lines));
    let began = Instant::now();
    let pool = builder.build().expect("a pool");
    let lines = || heard.load(Ordering::SeqCst) as f64;
    eventually("many lines", || lines() > 2.0 * LINES);
    let (lines, took) = (lines(), began.elapsed().as_secs_f64());
    assert!(lines < LINES * (took + 1.3), "{lines} lines in {took} s");
    ends_at_once(&pool);
}

fn a_flood_of_lines_is_read_at_a_limited_rate() {
    for attack in [Attack::Lines, Attack::Prints] {
        let (builder, heard) = listening();
        let pool = builder.workers(2).build().expect("a pool");
        await_workers(&pool);
        let began = Instant::now();
        let flood = pool.submit(Hostile(attack.clone()));
        let is_many = || heard.load(Ordering::SeqCst) as f64 > LINES;
        eventually("all that may be read at once", is_many);
        thread::sleep(Duration::from_secs(1));
        let (lines, took) = (heard.load(Ordering::SeqCst) as f64, began.elapsed());
        println!("{attack:?}: {lines} lines in {took:?}");
        assert!(lines < LINES * (took.as_secs_f64() + 1.3), "{attack:?}: {lines} lines");
        assert!(flood.cancel());
        ends_at_once(&pool);
    }
}

/// A pool that counts the lines of its tasks.
fn listening() -> (Builder, Arc<AtomicUsize>) {
    let heard = Arc::new(AtomicUsize::new(0));
    let (says, prints) = (Arc::clone(&heard), Arc::clone(&heard));
    let builder = ProcessPool::builder()
        .on_say(move |_: &Said<'_>| _ = says.fetch_add(1, Ordering::SeqCst))
        .on_output(move |_: &Output<'_>| _ = prints.fetch_add(1, Ordering::SeqCst));
    (builder, heard)
}

fn a_flood_of_lines_leaves_a_sibling_half_of_its_throughput() {
    for attack in [Attack::Lines, Attack::Prints] {
        let (builder, heard) = listening();
        // What may be read at once in the beginning is over.
        let is_over = || heard.load(Ordering::SeqCst) as f64 > 2.0 * LINES;
        budgets::leaves_a_sibling_half(builder, &attack, || eventually("many lines", is_over));
    }
}

fn a_daemon_that_holds_all_delays_no_end() {
    for attack in [Attack::Daemon, Attack::Thief] {
        let pool = pool();
        let began = Instant::now();
        let died = pool.submit(Hostile(attack.clone())).result();
        let took = began.elapsed();
        assert!(
            matches!(&died, Err(TaskError::WorkerDied(death))
            if death.exit == Exit::Signal(libc::SIGABRT)),
            "{attack:?}: {died:?}"
        );
        assert!(took < processes::LIFE_OF_A_DAEMON / 2, "{attack:?}: {took:?}");
        succeeds_with(&pool, 20);
        ends_at_once(&pool);
    }
}

fn a_dead_worker_that_is_traced_delays_no_end() {
    for all in [false, true] {
        let pool = pool();
        let began = Instant::now();
        // With all of its threads traced, the system does not report its death.
        let options = TaskOptions::new().timeout(Duration::from_secs(3));
        let died = pool.submit_with(options, Hostile(Attack::TracedDeath { all })).result();
        let took = began.elapsed();
        let is_ended = match &died {
            Err(TaskError::WorkerDied(_)) => !all,
            Err(TaskError::TimedOut { .. }) => all,
            _ => false,
        };
        assert!(is_ended, "{died:?}");
        println!("{died:?} after {took:?}");
        assert!(took < processes::LIFE_OF_A_DAEMON / 2, "{took:?}");
        succeeds_with(&pool, 20);
        ends_at_once(&pool);
    }
}

/// Sockets of new workers that a squatter takes in a run.
const SQUATTED: u64 = 5;

/// The sockets of the workers of this program are in the temporary directory, and those of no other.
fn starts_workers_beside_a_squatter() {
    for sends in [0, 8, 24] {
        let notes = std::env::temp_dir().join(processes::SQUATTED);
        let _ = fs::remove_file(&notes);
        let squatted = || fs::metadata(&notes).map_or(0, |notes| notes.len());
        let pool = quiet().workers(2).build().expect("a pool");
        await_workers(&pool);
        let squatter = pool.submit(Hostile(Attack::Squat { sends }));
        let (began, mut workers) = (Instant::now(), 0);
        while squatted() < SQUATTED {
            assert!(workers < 100, "{} of {workers} sockets were taken", squatted());
            let died = pool.submit(Bad(Ending::Abort)).result();
            assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{died:?}");
            succeeds_with(&pool, 5);
            workers += 1;
        }
        eprintln!(
            "{sends} bytes: {workers} new workers in {:?}, {} sockets taken",
            began.elapsed(),
            squatted()
        );
        assert!(!squatter.is_done());
        ends_at_once(&pool);
    }
    println!("it works");
    process::exit(0);
}

fn a_squatter_at_the_sockets_of_new_workers_keeps_none_from_starting() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = program::command("nothing else");
    program::assert_works(command.env(VARIABLE, "squatter").env("TMPDIR", dir.path()));
}
