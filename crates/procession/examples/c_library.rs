//! A decoder in C crashes on one of many files: the others are decoded, and the error names the function.
//!
//! `cargo run --example c_library`

use procession::{Executor, ProcessPool, Sandbox, TaskError};

#[procession::task]
fn decode(image: Vec<u8>) -> u32 {
    example_c_library::decode(&image)
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let images: Vec<Vec<u8>> = vec![
        vec![0, 0, 0, 0, 1, 2, 3],
        vec![255, 255, 255, 255, 1, 2, 3], // the first row is at an offset far outside
        vec![0, 0, 0, 0, 9],
    ];
    let sandbox = Sandbox::strict().best_effort(); // where the system has one
    let pool = ProcessPool::builder().workers(2).sandbox(sandbox).build()?;
    for (name, result) in ["a", "b", "c"].iter().zip(pool.map(images.into_iter().map(decode))) {
        match result {
            Ok(sum) => println!("{name}: {sum}"),
            Err(error) => println!("{name}: {error}"),
        }
    }

    // All of the calls, for a report:
    let Err(TaskError::WorkerDied(death)) = pool.submit(decode(vec![1])).result() else {
        return Err("an image of one byte is decoded".into());
    };
    println!("\n{}", death.backtrace.ok_or("the calls were not recorded")?);
    Ok(())
}
