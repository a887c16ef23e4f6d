//! One figure of procspawn's pool, as JSON.

use std::env;
use std::time::Instant;

use peers::{Asked, answer, keep_to_cpu, timed};
use procspawn::Pool;

/// Tells a worker from the program that started it.
const IS_WORKER: &str = "PEER_IS_WORKER";

fn main() {
    if env::var_os(IS_WORKER).is_some() {
        keep_to_cpu();
    }
    procspawn::init();
    let asked = Asked::from_args();
    answer(match asked.measure.as_str() {
        "dispatch" => dispatch(&asked),
        "round_trip" => round_trip(&asked),
        "start_up" => start_up(&asked),
        "payload" => payload(&asked),
        other => panic!("no such measure: {other:?}"),
    });
}

fn pool(workers: usize) -> Pool {
    Pool::builder(workers).env(IS_WORKER, "1").build().expect("a pool")
}

fn run(pool: &Pool, n: u64) {
    procspawn::spawn!(in pool, (n => n) || { let _ = n; }).join().expect("a result");
}

/// It has no `as_completed`: the handles are joined in their order.
fn dispatch(asked: &Asked) -> f64 {
    let (pool, batch) = (pool(asked.count("workers", 2)), asked.count("batch", 10_000));
    let once = || {
        timed(|| {
            let handles: Vec<_> = (0..batch as u64)
                .map(|n| procspawn::spawn!(in pool, (n => n) || { let _ = n; }))
                .collect();
            handles.into_iter().for_each(|handle| handle.join().expect("a result"));
        })
    };
    once();
    batch as f64 / asked.median(once)
}

fn round_trip(asked: &Asked) -> f64 {
    let pool = pool(1);
    run(&pool, 7);
    asked.median(|| timed(|| run(&pool, 7))) * 1e6
}

fn start_up(asked: &Asked) -> f64 {
    asked.median(|| {
        let begun = Instant::now();
        let pool = pool(2);
        run(&pool, 7);
        begun.elapsed()
    }) * 1e3
}

fn payload(asked: &Asked) -> f64 {
    let pool = pool(1);
    run(&pool, 7);
    let text = "x".repeat(asked.count("mib", 64) << 20);
    asked.median(|| {
        let text = text.clone();
        timed(|| {
            let length = text.len();
            let back = procspawn::spawn!(in pool, (text => text) || text).join();
            assert_eq!(back.expect("a result").len(), length);
        })
    }) * 1e3
}
