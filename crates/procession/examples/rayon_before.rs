//! A program that uses rayon; `rayon_after.rs` is the same in worker processes.

use rayon::prelude::*;

fn divisors(n: u64) -> u64 {
    (1..=n).filter(|divisor| n.is_multiple_of(*divisor)).count() as u64
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers = 1..=5000_u64;
    let all: Vec<u64> = numbers.into_par_iter().map(divisors).collect();
    println!("{} divisors", all.iter().sum::<u64>());
    Ok(())
}
