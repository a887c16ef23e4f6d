//! What a pool does, on standard error: workers that start and end, tasks that are tried again.

use procession::{Context, Executor, PoolEvent, ProcessPool, Retries, Shutdown};

#[procession::task]
fn divide(n: u32, context: &Context) -> u32 {
    context.say(format_args!("dividing {n}"));
    if n == 0 && context.attempt() == 1 {
        std::process::abort();
    }
    100_u32.checked_div(n).unwrap_or_default()
}

fn log(event: &PoolEvent) {
    match event {
        PoolEvent::WorkerStarted { worker, pid } => eprintln!("worker {worker} (pid {pid}) serves"),
        PoolEvent::WorkerExited { worker, exit, .. } => eprintln!("worker {worker} ended: {exit}"),
        PoolEvent::TaskRetried { attempt, .. } => eprintln!("tried again, attempt {attempt}"),
        other => eprintln!("{other:?}"), // there may be more with a new version
    }
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder()
        .workers(1)
        .retries(Retries::times(1))
        .on_event_except_starts(log)
        .on_say(|said| eprintln!("task {} says: {}", said.task, said.line))
        .build()?;
    println!("{:?}", pool.map([5, 0].map(divide)).collect::<Result<Vec<_>, _>>()?);
    pool.shutdown(Shutdown::Wait);
    Ok(())
}
