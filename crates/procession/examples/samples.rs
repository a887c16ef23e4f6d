//! Millions of numbers go to a worker and come back in shared memory, not encoded one by one.

use procession::{Executor, PodVec, ProcessPool};

#[procession::task]
fn normalize(samples: PodVec<f32>) -> PodVec<f32> {
    let loudest = samples.iter().fold(0.0_f32, |most, sample| most.max(sample.abs()));
    samples.iter().map(|sample| sample / loudest).collect()
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(2).build()?;
    let samples: PodVec<f32> = (0..1_000_000).map(|n| (n % 500) as f32).collect();
    let normalized = pool.submit(normalize(samples)).result()?;
    println!("{} samples, the last is {}", normalized.len(), normalized[999_999]);
    Ok(())
}
