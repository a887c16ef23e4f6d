//! procspawn after a crash: 1,000 tasks of 2 ms on 2 workers, one of which dies.

use std::time::{Duration, Instant};

const TASKS: usize = 1000;

fn main() {
    procspawn::init();
    let began = Instant::now();
    let pool = procspawn::Pool::new(2).expect("a pool");
    let handles: Vec<_> = (0..TASKS)
        .map(|n| {
            procspawn::spawn!(in pool, (n => n) || {
                std::thread::sleep(Duration::from_millis(2));
                if n == TASKS / 2 {
                    std::process::abort();
                }
                n
            })
        })
        .collect();
    let results = handles.into_iter().filter_map(|handle| handle.join().ok()).count();
    let seconds = began.elapsed().as_secs_f64();
    println!("{results} results, {} errors, {seconds:.2} s", TASKS - results);
}
