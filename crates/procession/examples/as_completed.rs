//! Results as they arrive, each told apart by its kind: an output, the task's own error, a panic, a crash.

use procession::{Executor, ProcessPool, TaskError, as_completed};

#[procession::task]
fn halve(n: u32) -> Result<u32, String> {
    match n {
        13 => std::process::abort(),
        0 => panic!("nothing to halve"),
        n if n % 2 == 1 => Err(format!("{n} is odd")),
        n => Ok(n / 2),
    }
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(2).on_output(|_| {}).build()?;
    let (mut lines, mut tasks) = (Vec::new(), std::collections::HashMap::new());
    let futures = [10, 7, 0, 13].map(|n| {
        let future = pool.submit(halve(n));
        tasks.insert(future.id(), n);
        future
    });
    for future in as_completed(futures) {
        let n = tasks[&future.id()];
        lines.push(match future.result() {
            Ok(half) => format!("{n}: {half}"),
            Err(TaskError::Failed(cause)) => format!("{n}: failed: {cause}"),
            Err(TaskError::Panicked { message, .. }) => format!("{n}: panicked: {message}"),
            Err(TaskError::WorkerDied(death)) => format!("{n}: {}", death.exit),
            Err(other) => return Err(other.into()),
        });
    }
    lines.sort(); // they arrive in any order
    println!("{}", lines.join("\n"));
    Ok(())
}
