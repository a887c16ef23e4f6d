//! Tasks that leak memory: each worker is replaced after ten of them. Its successor starts before it ends.

use std::collections::HashSet;

use procession::{Executor, ProcessPool, Recycling, Shutdown};

#[procession::task]
fn render(page: usize) -> u32 {
    std::mem::forget(vec![page; 100_000]); // a library that frees nothing
    std::process::id()
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recycling = Recycling::never().after_tasks(10).above_memory(1 << 30);
    let pool = ProcessPool::builder().workers(1).recycling(recycling).build()?;
    let pids: HashSet<u32> = pool.map((0..50).map(render)).collect::<Result<_, _>>()?;
    println!("50 pages by {} processes, one after the other", pids.len());
    pool.shutdown(Shutdown::Wait);
    Ok(())
}
