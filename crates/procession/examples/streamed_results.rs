//! A task that emits what it finds while it runs: typed, in order, before its result.

use procession::{Context, Executor, ProcessPool, Shutdown, Task, ThreadPool};

#[procession::task]
fn primes(below: u64, context: &Context) -> Result<usize, procession::PartialError> {
    let mut number = 0;
    for n in (2..below).filter(|n| (2..*n).all(|m| n % m != 0)) {
        context.emit(&n)?;
        number += 1;
    }
    Ok(number)
}

fn print(
    executor: &impl Executor,
    task: impl Task<Output = usize>,
) -> Result<(), Box<dyn std::error::Error>> {
    let future = executor.submit(task);
    for prime in future.partials::<u64>() {
        print!("{} ", prime?.value);
    }
    println!("are {}", future.result()?);
    executor.shutdown(Shutdown::Wait);
    Ok(())
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    print(&ThreadPool::new(1), primes(12))?; // the same on every executor
    print(&ProcessPool::builder().workers(1).build()?, primes(24))
}
