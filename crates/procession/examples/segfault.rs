//! A task that segfaults gets an error; all other tasks and the pool go on.
//!
//! `cargo run --release --example segfault`

use procession::{
    Context, Executor, Failure, ProcessPool, Registry, Task, TaskError, as_completed, worker,
};
use serde::{Deserialize, Serialize};

/// Squares a number, with a library that has a bug.
#[derive(Serialize, Deserialize)]
struct Square(u64);

impl Task for Square {
    const NAME: &'static str = "square";
    type Output = u64;

    fn run(self, _: &Context) -> Result<u64, Failure> {
        if self.0 == 5 {
            eprintln!("about to read from address 0");
            read_from_nowhere();
        }
        Ok(self.0 * self.0)
    }
}

#[allow(unsafe_code, reason = "the whole point of this example")]
fn read_from_nowhere() {
    // SAFETY: there is none: this is the bug that the example is about.
    unsafe { std::ptr::null::<u64>().read_volatile() };
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    worker::serve_if_asked(Registry::new().with::<Square>());

    // What workers print is shown in the report of a death; here it need not be shown twice.
    let pool = ProcessPool::builder().workers(2).on_output(|_| {}).build()?;
    println!("squaring 1 to 8 in two worker processes, one of which will segfault:");
    for future in as_completed((1..=8).map(|n| pool.submit(Square(n)))) {
        match future.result() {
            Ok(square) => println!("  ok     {square}"),
            Err(TaskError::WorkerDied(death)) => println!("  CRASH  {death}"),
            Err(error) => println!("  error  {error}"),
        }
    }
    println!("the pool has replaced it and works on:");
    println!("  ok     {}", pool.submit(Square(100)).result()?);
    println!("{} done, {} failed", pool.stats().done, pool.stats().failed);
    Ok(())
}
