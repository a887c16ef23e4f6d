//! A task that hangs is ended at its timeout, together with its worker. The others are done.

use std::time::Duration;

use procession::{Executor, ProcessPool, TaskError};

#[procession::task]
fn parse(text: String) -> usize {
    if text == "(((" {
        loop {
            std::hint::spin_loop(); // a parser that finds no end
        }
    }
    text.len()
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(2).timeout(Duration::from_millis(500)).build()?;
    let texts = ["(a)", "(((", "(b c)"];
    for (text, result) in pool.map_keyed(texts.map(|text| (text, parse(text.to_owned())))) {
        match result {
            Ok(length) => println!("{text}: {length}"),
            Err(TaskError::TimedOut { after, .. }) => println!("{text}: not done in {after:?}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
