//! What a worker may make the coordinator read and keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use procession::{Blob, Builder, Executor, PartialError, PoolError, Sandbox, TaskError};
use rustix::process::Signal;

use super::attacks::{Attack, Hostile};
use super::{LINES, ends_at_once};
use crate::harness::{self, eventually, skip};
use crate::tasks::{Echo, LengthOfAll, Pid, Repeat, await_workers, quiet, succeeds_with};

pub(super) fn trials() -> Vec<Trial> {
    trials![
        a_flood_of_blobs_is_read_at_a_limited_rate,
        a_flood_of_blobs_leaves_a_sibling_half_of_its_throughput,
        what_is_larger_than_an_output_may_be_is_not_received_and_its_worker_goes_on,
    ]
}

/// Bytes a second, and as many at once in the beginning.
const BYTES: f64 = 67_108_864.0;

fn a_flood_of_blobs_is_read_at_a_limited_rate() {
    let long = Attack::EmitsBlobsWithoutEnd { bytes: 4 << 20 };
    let floods = [(long, BYTES / 4_194_304.0), (Attack::EmitsShortBlobsWithoutEnd, LINES / 200.0)];
    for (attack, most_a_second) in floods {
        let pool = quiet().workers(2).build().expect("a pool");
        await_workers(&pool);
        let began = Instant::now();
        let flood = pool.submit(Hostile(attack.clone()));
        let (partials, number) = (flood.partials::<Blob>(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&number);
        let reader = thread::spawn(move || {
            for partial in partials {
                let more = match partial {
                    Err(PartialError::Missed { number }) => number as usize,
                    _ => 1,
                };
                counted.fetch_add(more, Ordering::SeqCst);
            }
        });
        let number = || number.load(Ordering::SeqCst) as f64;
        eventually("all that may be read at once", || number() > most_a_second);
        thread::sleep(Duration::from_secs(1));
        let (number, took) = (number(), began.elapsed().as_secs_f64());
        println!("{attack:?}: {number} values in {took} s");
        assert!(number < most_a_second * (took + 1.3), "{number} values in {took} s");
        succeeds_with(&pool, 20);
        assert!(flood.cancel());
        reader.join().expect("it ended");
        ends_at_once(&pool);
    }
}

/// Counted in windows that alternate, and in several groups of them, of which most must have half of the tasks: what
/// other programs do at the same time spoils some. Then more groups are counted.
#[track_caller]
pub(super) fn leaves_a_sibling_half(builder: Builder, attack: &Attack, begins: impl Fn()) {
    const LEAST_GROUPS: usize = 7;
    const MOST_GROUPS: usize = 30;
    const WINDOWS: usize = 5;
    const WINDOW: Duration = Duration::from_millis(100);
    let pool = builder.workers(2).build().expect("a pool");
    await_workers(&pool);
    let flood = pool.submit(Hostile(attack.clone()));
    let sibling = pool.submit(Pid()).result().expect("a pid");
    let hostile = pool.pids().into_iter().find(|pid| *pid != sibling).expect("the other one");
    begins();
    let tasks_of_a_window = || {
        let (began, mut done) = (Instant::now(), 0);
        while began.elapsed() < WINDOW {
            assert!(pool.submit(Echo("1".to_owned())).result().is_ok());
            done += 1;
        }
        done
    };
    let group = || {
        let (mut in_peace, mut beside_it) = (0, 0);
        for _ in 0..WINDOWS {
            beside_it += tasks_of_a_window();
            harness::stop(hostile);
            in_peace += tasks_of_a_window();
            harness::signal(hostile, Signal::CONT);
        }
        println!("{attack:?}: {beside_it} tasks beside it, {in_peace} in peace");
        2 * beside_it >= in_peace
    };
    let (mut groups, mut with_half) = (0, 0);
    while groups < LEAST_GROUPS || 2 * with_half <= groups {
        assert!(
            groups < MOST_GROUPS,
            "{attack:?}: {with_half} of {groups} groups have half of the tasks"
        );
        with_half += usize::from(group());
        groups += 1;
    }
    assert!(flood.cancel());
    ends_at_once(&pool);
}

fn a_flood_of_blobs_leaves_a_sibling_half_of_its_throughput() {
    let long = Attack::EmitsBlobsWithoutEnd { bytes: 4 << 20 };
    for attack in [Attack::EmitsShortBlobsWithoutEnd, long] {
        // What may be read at once in the beginning is over.
        leaves_a_sibling_half(quiet(), &attack, || thread::sleep(Duration::from_secs(1)));
    }
}

fn what_is_larger_than_an_output_may_be_is_not_received_and_its_worker_goes_on() {
    const MOST: u64 = 1 << 20;
    let built = quiet().workers(1).sandbox(Sandbox::strict().largest_output(MOST)).build();
    let pool = match built {
        Ok(pool) => pool,
        Err(PoolError::SandboxUnavailable { layer, why }) => skip(&format!("{layer}: {why}")),
        Err(other) => panic!("{other}"),
    };
    let is_refused = |error: Option<TaskError>| {
        let too_large = format!("it has more than {MOST} bytes");
        matches!(&error, Some(TaskError::Undelivered { what, reason })
            if what == "output" && reason.contains(&too_large))
    };
    for _ in 0..3 {
        assert!(is_refused(pool.submit(Repeat("x".to_owned(), 2 << 20)).result().err()));
        let long = pool.submit(Repeat("x".to_owned(), 1 << 19)).result();
        assert_eq!(long.map(|text| text.len()), Ok(1 << 19));
    }
    let blobs = vec![Blob::from(vec![7; 1 << 19]); 3];
    assert_eq!(pool.submit(LengthOfAll(blobs)).result(), Ok(3 << 19), "calls are not measured");
    let flood = pool.submit(Hostile(Attack::EmitsBlobsWithoutEnd { bytes: 2 << 20 }));
    let mut partials = flood.partials::<Blob>();
    for _ in 0..10 {
        let partial = partials.next().expect("the task goes on");
        assert!(matches!(partial, Err(PartialError::Missed { .. })), "{partial:?}");
    }
    assert_eq!(pool.stats().respawned, 0);
    assert!(flood.cancel());
    ends_at_once(&pool);
}
