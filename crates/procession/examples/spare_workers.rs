//! A worker that takes long to start has a spare, which takes over at once when the worker dies.

use std::thread;
use std::time::Duration;

use procession::{Context, Executor, ProcessPool};

struct Model(u64);

#[procession::task]
fn load(context: &Context) {
    context.local(|| {
        thread::sleep(Duration::from_millis(300)); // reads a gigabyte
        Model(3)
    });
}

#[procession::task]
fn classify(n: u64, context: &Context) -> Result<bool, &'static str> {
    let model = context.get_local::<Model>().ok_or("the initializer has run before")?;
    if n == 13 {
        std::process::abort();
    }
    Ok(n.is_multiple_of(model.0))
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(1).spares(1).initializer(load()).build()?;
    while pool.stats().spares == 0 {
        thread::sleep(Duration::from_millis(10)); // until the spare has loaded the model, too
    }
    for n in [12, 13, 14] {
        match pool.submit(classify(n)).result() {
            Ok(yes) => println!("{n}: {yes}"),
            Err(_) => println!("{n}: its worker died"),
        }
    }
    println!("{} spare took over", pool.stats().promoted);
    Ok(())
}
