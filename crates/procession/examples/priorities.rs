//! Urgent tasks overtake those that wait.

use std::sync::{Arc, Mutex};

use procession::{Executor, ProcessPool, TaskOptions};

#[procession::task]
fn work(_name: String, millis: u64) {
    std::thread::sleep(std::time::Duration::from_millis(millis));
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(1).build()?;
    let order = Arc::new(Mutex::new(Vec::new()));
    let submit = |name: &'static str, priority| {
        let (options, order) = (TaskOptions::new().priority(priority), Arc::clone(&order));
        let future = pool.submit_with(options, work(name.to_owned(), 30));
        future.on_done(move |_| order.lock().expect("no panic").push(name));
        future
    };
    let first = pool.submit(work("keeps the worker busy".to_owned(), 300));
    let futures = [submit("a report", 0), submit("a backup", -5), submit("a click", 10)];
    first.result()?;
    for future in futures {
        future.result()?;
    }
    println!("{}", order.lock().expect("no panic").join(", then "));
    Ok(())
}
