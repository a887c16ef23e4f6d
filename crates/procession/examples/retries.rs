//! A task whose worker crashes is run again in another one, with a pause that doubles.

use std::time::Duration;

use procession::{Context, Executor, ProcessPool, Retries};

#[procession::task]
fn fetch(page: u32, context: &Context) -> String {
    if page == 2 && context.attempt() < 3 {
        std::process::abort(); // a library with a bug that shows now and then
    }
    format!("page {page} at attempt {}", context.attempt())
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pause = Retries::times(3).backoff(Duration::from_millis(10), Duration::from_secs(1));
    let pool = ProcessPool::builder().workers(2).retries(pause).build()?;
    for page in pool.map((1..=3).map(fetch)) {
        println!("{}", page?);
    }
    println!("{} retries", pool.stats().retried);
    Ok(())
}
