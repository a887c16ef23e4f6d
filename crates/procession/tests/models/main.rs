//! The bell, the rings and the claims under a scheduler that tries many orders of their steps: the
//! code of the library itself, with atomics, memory and sleep of a model in place of the real ones.
//!
//! The steps of all threads are interleaved at random, and in half of the schedules by priorities
//! that change a few times (PCT). In addition, a store that is not `SeqCst` becomes visible to the
//! other threads later than to its own, and a relaxed one, or bytes, out of order.
//!
//! What the model does not know: loads that are carried out early, and a read-modify-write that
//! becomes visible late. A thread that sleeps for ever is found as a deadlock, one that loops for
//! ever by its number of steps.
//!
//! `PROCESSION_SCHEDULES=1000000 cargo test --release --test models` tries more of them. The schedule
//! of a failure is printed; `shuttle::replay` plays it again.

#[path = "../../src/transport/claim.rs"]
#[allow(dead_code)]
mod claim;
#[path = "../../src/transport/event_count.rs"]
#[allow(dead_code)]
mod event_count;
#[path = "../../src/transport/ring.rs"]
#[allow(dead_code)]
mod ring;
mod sync;

mod claims;
mod event_counts;
mod hostile;
mod rings;

use std::time::Instant;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};

/// How many schedules of each model are tried, unless the environment says otherwise.
const SCHEDULES: usize = 600;
/// More steps than any schedule takes in which nobody goes round in circles.
const MOST_STEPS: usize = 50_000;

/// Tries schedules of a model; fails with the first one that panics, or in which all threads sleep.
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
