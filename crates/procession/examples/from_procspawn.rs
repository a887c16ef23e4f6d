//! What a program with a pool of the crate procspawn becomes: its closures are functions with a name.

use std::time::Duration;

use procession::{Executor, ProcessPool, TaskError};

#[procession::task]
fn words(text: String) -> usize {
    assert!(!text.is_empty(), "nothing to count");
    text.split_whitespace().count()
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(2).timeout(Duration::from_secs(5)).build()?;
    let texts = ["two words", "", "a b c"];
    let futures: Vec<_> = texts.iter().map(|text| pool.submit(words((*text).to_owned()))).collect();
    for future in futures {
        match future.result() {
            Ok(number) => println!("{number} words"),
            Err(TaskError::Panicked { message, .. }) => println!("panicked: {message}"),
            Err(TaskError::TimedOut { after, .. }) => println!("not done in {after:?}"),
            Err(error) => return Err(error.into()), // a crash, say
        }
    }
    Ok(())
}
