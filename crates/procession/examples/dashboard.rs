//! A pool whose processes can be seen: each writes a journal, and a page shows it while it grows.
//!
//! ```text
//! cargo run --release -p procession --example dashboard --features dashboard -- [TASKS [WORKERS]]
//! cargo run --release -- timeline target/pool-logs
//! ```

use std::{env, process, thread, time::Duration};

use procession::{Context, Executor, ProcessPool, Retries, Shutdown};

/// Most tasks are short. About a thousand take some time, ten crash at first, and ten fail.
#[procession::task]
fn thumbnail(n: u64, tasks: u64, context: &Context) -> Result<u64, String> {
    let step = (tasks / 1000).max(10);
    if n.is_multiple_of(10) {
        context.label(format_args!("{n}.png"));
    }
    if !n.is_multiple_of(step) {
        return Ok(n);
    }
    match n / step % 100 {
        13 if context.attempt() == 1 => process::abort(), // a decoder with a bug
        31 => return Err("this is no image".to_owned()),
        rest => thread::sleep(Duration::from_millis(rest * 10 % 90)),
    }
    Ok(n)
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u64> = env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let (tasks, workers) = (*numbers.first().unwrap_or(&1000), *numbers.get(1).unwrap_or(&2));
    let pool = ProcessPool::builder().workers(workers as usize).retries(Retries::times(1));
    let pool = pool.journal("target/pool-logs").build()?;
    let dashboard = pool.dashboard("127.0.0.1:0".parse()?)?;
    println!("{}", dashboard.url());
    let done = pool.map((0..tasks).map(|n| thumbnail(n, tasks))).filter(Result::is_ok).count();
    println!("{done} of {tasks} thumbnails; {}", pool.journal_dir().ok_or("no journal")?.display());
    pool.shutdown(Shutdown::Wait);
    dashboard.save("target/pool.html")?;
    dashboard.close();
    Ok(())
}
