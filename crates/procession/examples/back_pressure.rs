//! A bound on the tasks that wait: `submit` waits for room, `try_submit` gives the task back.

use std::time::Duration;

use procession::{Executor, Full, ProcessPool};

#[procession::task]
fn resize(image: u32) -> u32 {
    std::thread::sleep(Duration::from_millis(100));
    image
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(1).max_pending(2).build()?;
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for image in 0..10 {
        match pool.try_submit(resize(image)) {
            Ok(future) => accepted.push(future),
            Err(Full(_task)) => refused += 1, // a server would answer 503
        }
    }
    println!("all are accounted for: {}", accepted.len() + refused == 10 && refused > 0);
    let last = pool.submit(resize(10)); // waits until there is room
    println!("image {}", last.result()?);
    Ok(())
}
