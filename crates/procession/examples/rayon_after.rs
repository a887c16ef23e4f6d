//! A program that used rayon, as `rayon_before.rs` does, with its work in worker processes.

use procession::{Executor, ProcessPool};

#[procession::task]
fn divisors(n: u64) -> u64 {
    (1..=n).filter(|divisor| n.is_multiple_of(*divisor)).count() as u64
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers = 1..=5000_u64;
    let all: Vec<u64> = ProcessPool::new()?.map(numbers.map(divisors)).collect::<Result<_, _>>()?;
    println!("{} divisors", all.iter().sum::<u64>());
    Ok(())
}
