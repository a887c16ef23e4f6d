//! Models of event counts, rings and claims: the code of the library, compiled with the atomics,
//! memory and sleep of `sync.rs`, under a scheduler that explores orders of their steps. The model of the idle
//! threads of a `ThreadPool` uses the library's decisions which thread to wake, with a simpler queue.
//!
//! | in the model | |
//! |---|---|
//! | order of threads | random; in half of the schedules by priorities that change a few times (PCT) |
//! | a store that is not `SeqCst` | becomes visible to other threads later than to its own |
//! | a relaxed store, or bytes | may also become visible out of order |
//! | a thread that sleeps for ever | fails as a deadlock |
//! | a thread that loops for ever | fails by its number of steps |
//! | loads that are carried out early | not modelled |
//! | a read-modify-write that becomes visible late | not modelled |
//!
//! `PROCESSION_SCHEDULES=1000000 cargo test -p procession --release --test models` explores more
//! schedules. The schedule of a failure is printed; `shuttle::replay` runs it again.

#[path = "../../src/transport/claim.rs"]
#[allow(dead_code)]
mod claim;
#[path = "../../src/transport/event_count.rs"]
#[allow(dead_code)]
mod event_count;
#[path = "../../src/executor/threads/idle.rs"]
#[allow(dead_code)]
mod idle;
#[path = "../../src/transport/ring.rs"]
#[allow(dead_code)]
mod ring;
mod sync;

mod claims;
mod event_counts;
mod hostile;
mod idle_threads;
mod rings;

use std::time::Instant;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};

/// The number of schedules of each model, unless `PROCESSION_SCHEDULES` is set.
const SCHEDULES: usize = 600;
/// More steps than a schedule without an endless loop takes.
const MOST_STEPS: usize = 50_000;

/// Runs schedules of a model. Panics at the first one that panics, or in which all threads sleep.
fn explore(model: impl Fn() + Clone + Send + Sync + 'static) {
    let number = std::env::var("PROCESSION_SCHEDULES").ok();
    let number = number.map_or(SCHEDULES, |number| number.parse().expect("a number"));
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.silence_warnings = true;
    let model = move || {
        sync::begin();
        model();
    };
    let began = Instant::now();
    let random = RandomScheduler::new(number.div_ceil(2));
    Runner::new(random, config.clone()).run(model.clone());
    Runner::new(PctScheduler::new(3, number / 2), config).run(model);
    println!("{number} schedules in {:.1} s", began.elapsed().as_secs_f64());
}
