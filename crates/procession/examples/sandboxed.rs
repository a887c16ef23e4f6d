//! A task without files and sockets: what is not its work is refused by the kernel (Linux).

use procession::{Executor, ProcessPool, Sandbox};

#[procession::task]
fn evaluate(formula: String) -> Result<usize, std::io::Error> {
    if formula == "secrets" {
        std::fs::read("/etc/hostname")?; // what a formula that takes the worker over would try
    }
    Ok(formula.split('+').map(|part| part.trim().len()).sum())
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sandbox = Sandbox::strict().memory(512 << 20).best_effort();
    let pool = ProcessPool::builder().workers(1).sandbox(sandbox).build()?;
    for formula in ["a + bc", "secrets"] {
        match pool.submit(evaluate(formula.to_owned())).result() {
            Ok(length) => println!("{formula}: {length}"),
            Err(error) => println!("{formula}: {error}"),
        }
    }
    let report = pool.sandbox_report().ok_or("there is a sandbox")?;
    println!("all layers: {}", report.is_complete());
    Ok(())
}
