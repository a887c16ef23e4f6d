//! Workers that overwrite the memory that they share with the coordinator. Such a worker is killed; the pool
//! and the other workers go on.

#![allow(unsafe_code, reason = "a vandal uses what has no safe interface")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::Duration;
use std::{process, thread};

use libtest_mimic::Trial;
use procession::{
    Context, Executor, Failure, ProcessPool, Registry, Retries, Shutdown, Task, TaskError,
    as_completed,
};
use serde::{Deserialize, Serialize};

use crate::tasks::{Length, await_workers, quiet, succeeds_with};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        who_makes_the_bells_forget_their_sleepers_is_missed_all_the_same,
        who_moves_the_positions_of_the_coordinator_is_ended,
        who_claims_to_have_read_what_was_never_written_is_ended,
        who_replies_to_what_was_not_asked_is_ended,
        who_gives_an_output_in_the_wrong_form_is_ended,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Vandalize>()
}

/// What is done to the memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Mischief {
    /// Nobody sleeps, says the memory, and then the worker dies.
    Bells,
    /// The coordinator has read other than it has.
    ReplyHead,
    /// The worker has read more than there ever was, says the memory; the task succeeds.
    CallHead,
    /// A record of this kind and with this number and text is published.
    Record(u8, u64, String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Vandalize(Mischief);

impl Task for Vandalize {
    const NAME: &'static str = "vandalize";
    type Output = u32;

    fn run(self, context: &Context) -> Result<u32, Failure> {
        match self.0 {
            Mischief::Bells => {
                // Until all who wait have gone to sleep.
                thread::sleep(Duration::from_millis(50));
                for bell in [REPLY_EVENTS, CALLER_EVENTS] {
                    write(bell + SLEEPERS, &0_u64.to_le_bytes());
                }
                process::abort();
            }
            Mischief::CallHead => {
                thread::spawn(|| {
                    loop {
                        write(CALLS_HEAD, &(1_u64 << 40).to_le_bytes());
                    }
                });
                return Ok(process::id());
            }
            Mischief::ReplyHead | Mischief::Record(..) => {}
        }
        if let Mischief::Record(kind, number, text) = &self.0 {
            let tail = read_tail();
            write_record(tail, *kind, *number, text);
            write(REPLIES_TAIL, &(tail + record_len(text)).to_le_bytes());
        }
        loop {
            if let Mischief::ReplyHead = self.0 {
                write(REPLIES_HEAD, &(1_u64 << 40).to_le_bytes());
                context.say("look!");
            }
            ring(REPLY_EVENTS);
            ring(CALLER_EVENTS);
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Counts an event without waking its sleepers. Those of the coordinator look once a second.
pub(crate) fn ring(events: u64) {
    let count = u32::from_le_bytes(read(events).to_le_bytes()[..4].try_into().expect("a word"));
    write(events, &count.wrapping_add(1).to_le_bytes());
}

/// Counts an event and wakes all who sleep.
#[cfg(target_os = "linux")]
pub(crate) fn wake(events: u64) {
    use std::sync::atomic::{AtomicU32, Ordering};

    let word = (shared().from + events) as *mut u32;
    // SAFETY: the word is in the memory that this process shares, which stays mapped; all use it as an atomic word.
    unsafe {
        AtomicU32::from_ptr(word).fetch_add(1, Ordering::SeqCst);
        libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX);
    }
}

// Where things lie, see `src/transport/shared_region.rs`; the rings at the end.
const CALLS_HEAD: u64 = 64;
pub(crate) const REPLIES_TAIL: u64 = 2 * 64;
const REPLIES_HEAD: u64 = 3 * 64;
pub(crate) const REPLY_EVENTS: u64 = 5 * 64;
pub(crate) const CALLER_EVENTS: u64 = 6 * 64;
const SLEEPERS: u64 = 4;
const NUMBER_OF_CLAIMS: u64 = 11 * 64;
const CLAIMS: u64 = 12 * 64;
const CLAIM: u64 = 32;
const RING: u64 = 128 * 1024;

/// The memory of this process, a worker, and where that begins which it shares with the coordinator.
struct Shared {
    memory: File,
    /// The address of its first byte.
    from: u64,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let maps = fs::read_to_string("/proc/self/maps").expect("the mappings");
        let mut lines = maps.lines();
        let map = lines.find(|line| line.ends_with("/memfd:procession (deleted)"));
        let from = map.and_then(|map| map.split('-').next()).expect("the shared memory");
        let memory = File::options().read(true).write(true).open("/proc/self/mem");
        let memory = memory.expect("the memory of this process");
        Shared { memory, from: u64::from_str_radix(from, 16).expect("an address") }
    })
}

pub(crate) fn write(at: u64, bytes: &[u8]) {
    let shared = shared();
    shared.memory.write_all_at(bytes, shared.from + at).expect("written memory");
}

pub(crate) fn read_tail() -> u64 {
    read(REPLIES_TAIL)
}

pub(crate) fn read(at: u64) -> u64 {
    let mut number = [0; 8];
    let shared = shared();
    shared.memory.read_exact_at(&mut number, shared.from + at).expect("a number");
    u64::from_le_bytes(number)
}

/// Changes all claims of this worker: who has the call, since when its last task runs, and how many
/// have ended.
pub(crate) fn change_claims(change: impl Fn([&mut u64; 3])) {
    let claims = read(NUMBER_OF_CLAIMS) & u64::from(u32::MAX);
    for at in (0..claims).map(|claim| CLAIMS + claim * 32) {
        let [mut state, mut begun_at, mut ended] = [at, at + 8, at + 16].map(read);
        let before = [state, begun_at, ended];
        change([&mut state, &mut begun_at, &mut ended]);
        for (n, (now, before)) in [state, begun_at, ended].into_iter().zip(before).enumerate() {
            if now != before {
                write(at + 8 * n as u64, &now.to_le_bytes());
            }
        }
    }
}

pub(crate) fn record_len(text: &str) -> u64 {
    (16 + text.len()).next_multiple_of(8) as u64
}

pub(crate) fn write_record(at: u64, kind: u8, number: u64, text: &str) {
    let claims = read(NUMBER_OF_CLAIMS) & u64::from(u32::MAX);
    let ring = (CLAIMS + claims * CLAIM).next_multiple_of(64) + RING;
    let len = u32::try_from(8 + text.len()).expect("a short text").to_le_bytes();
    let header = [len[0], len[1], len[2], len[3], kind, 0, 0, 0];
    write(ring + at % RING, &[&header[..], &number.to_le_bytes(), text.as_bytes()].concat());
}

fn pool(retries: Retries) -> ProcessPool {
    let pool = quiet().workers(1).on_say(|_| {}).retries(retries).build().expect("a pool");
    await_workers(&pool);
    pool
}

/// The task costs its own worker, whoever waits for it and however, and the pool goes on.
fn costs_only_its_worker(mischief: impl Fn() -> Mischief) {
    let pool = pool(Retries::none());
    let died = pool.submit(Vandalize(mischief())).result();
    assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{died:?}");
    succeeds_with(&pool, 20);
    // Nobody lends a hand to this one.
    let future = pool.submit(Vandalize(mischief()));
    let died = as_completed([future]).next().expect("one").result();
    assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{died:?}");
    succeeds_with(&pool, 20);
    let stats = pool.stats();
    assert_eq!((stats.done, stats.failed, stats.cancelled), (40, 2, 0));
    pool.shutdown(Shutdown::Wait);
}

fn who_makes_the_bells_forget_their_sleepers_is_missed_all_the_same() {
    costs_only_its_worker(|| Mischief::Bells);
}

fn who_moves_the_positions_of_the_coordinator_is_ended() {
    costs_only_its_worker(|| Mischief::ReplyHead);
}

fn who_replies_to_what_was_not_asked_is_ended() {
    let reply = r#"{"id":999999,"status":"ok","data":7,"run_us":1}"#;
    costs_only_its_worker(|| Mischief::Record(2, 0, reply.to_owned()));
}

fn who_gives_an_output_in_the_wrong_form_is_ended() {
    costs_only_its_worker(|| Mischief::Record(4, 0, "7".to_owned()));
}

fn who_claims_to_have_read_what_was_never_written_is_ended() {
    // Whatever the worker runs when it is ended must be run again.
    let pool = pool(Retries::times(1).on_crash(true));
    let text = || "x".repeat(20_000);
    // Until several lie ahead.
    for _ in 0..50 {
        let futures: Vec<_> = (0..20).map(|_| pool.submit(Length(text()))).collect();
        assert!(as_completed(futures).all(|future| future.result() == Ok(20_000)));
    }
    let first = pool.submit(Vandalize(Mischief::CallHead)).result().expect("an output");
    // What had not begun goes to the next worker, and nobody else comes to harm.
    let futures: Vec<_> = (0..200).map(|_| pool.submit(Length(text()))).collect();
    assert!(as_completed(futures).all(|future| future.result() == Ok(20_000)));
    assert_ne!(pool.pids(), [first]);
}
