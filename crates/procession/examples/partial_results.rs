//! A task that is asked to stop at its timeout, and returns what it has found until then.

use std::time::Duration;

use procession::{Context, Executor, ProcessPool};

#[procession::task]
fn primes(from: u64, context: &Context) -> Vec<u64> {
    (from..).take_while(|_| !context.stop_requested()).filter(is_prime).collect()
}

fn is_prime(n: &u64) -> bool {
    (2..=n.isqrt()).all(|divisor| !n.is_multiple_of(divisor))
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder()
        .workers(2)
        .timeout(Duration::from_millis(200)) // then the task is asked to stop,
        .grace(Duration::from_secs(5)) // and after this time its worker is killed
        .build()?;
    for from in [1_000_000, 1_000_000_000] {
        let found = pool.submit(primes(from)).result()?;
        println!("{} primes from {from} in 200 ms", found.len());
    }
    Ok(())
}
