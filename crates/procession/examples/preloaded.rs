//! Workers that share the memory of a model: it is loaded once, in a process of which they are copies. The first
//! argument is the size of the model in MiB (16 by default). With `each` as the second one each worker loads its
//! own; with `tell` in its place the program tells on standard error what its workers take.

use std::env;
use std::fs;
use std::sync::OnceLock;

use procession::{Executor, Failure, ProcessPool};

static MODEL: OnceLock<Vec<u8>> = OnceLock::new();

#[procession::task]
fn load(mib: usize) {
    MODEL.get_or_init(|| vec![1; mib << 20]); // reads a file
}

#[procession::task]
fn sum() -> Result<usize, Failure> {
    let model = MODEL.get().ok_or_else(|| Failure::msg("nothing was loaded"))?;
    Ok(model.iter().map(|byte| usize::from(*byte)).sum())
}

/// What a process takes, in MiB. Memory that it shares is divided among those that share it.
fn memory(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib / 1024)
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mib = env::args().nth(1).map_or(Ok(16), |mib| mib.parse())?;
    let how = env::args().nth(2).unwrap_or_default();
    let builder = ProcessPool::builder().workers(4);
    let pool = match how.as_str() {
        "each" => builder.initializer(load(mib)).build()?,
        _ => builder.preload(load(mib)).build()?,
    };
    let sums: Result<Vec<_>, _> = pool.map((0..40).map(|_| sum())).collect();
    println!("{} sums of {mib} MiB", sums?.iter().filter(|sum| **sum == mib << 20).count());
    if !how.is_empty() {
        let each: Option<Vec<_>> = pool.pids().into_iter().map(memory).collect();
        eprintln!("the workers take {each:?} MiB");
    }
    Ok(())
}
