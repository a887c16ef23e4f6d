//! The first of several searches wins; the others are cancelled, also those that run.

use std::time::Duration;

use procession::{Executor, ProcessPool, TaskError, Until, wait};

#[procession::task]
fn search(strategy: u64) -> u64 {
    std::thread::sleep(Duration::from_secs(strategy * 600));
    strategy
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(3).build()?;
    let futures = [1, 0, 2].map(|strategy| pool.submit(search(strategy)));
    let waited = wait(&futures, Until::FirstCompleted, None);
    for loser in waited.not_done {
        assert!(loser.cancel(), "its worker is replaced");
    }
    for future in futures {
        match future.result() {
            Ok(winner) => println!("strategy {winner} wins"),
            Err(TaskError::Cancelled) => {}
            Err(error) => return Err(error.into()),
        }
    }
    println!("{} cancelled", pool.stats().cancelled);
    Ok(())
}
