//! A million records: progress, and each bad one with what was wrong. The argument is another number of them.

use procession::{Executor, ProcessPool, TaskError};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum BadRecord {
    Empty,
    TooLong { length: usize },
}

impl std::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for BadRecord {}

#[procession::task(encoding = binary)]
fn parse(line: String) -> Result<u64, BadRecord> {
    match line.len() {
        0 => Err(BadRecord::Empty),
        13 => std::process::abort(), // a bug of the library that parses
        length @ 20.. => Err(BadRecord::TooLong { length }),
        length => Ok(length as u64),
    }
}

/// The lines of a file, say. An iterator, of which the pool takes a few thousand ahead.
fn lines(number: usize) -> impl Iterator<Item = (usize, String)> {
    let bad = [(70, 0), (700, 13), (7_000, 25)];
    let length = move |index| bad.iter().find(|(at, _)| *at == index).map_or(9, |(_, is)| *is);
    (0..number).map(move |index| (index, "x".repeat(length(index))))
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let number = std::env::args().nth(1).map_or(Ok(1_000_000), |number| number.parse())?;
    let pool = ProcessPool::builder().workers(2).build()?;
    let (mut sum, mut bad) = (0, 0);
    for (index, result) in pool.map_keyed(lines(number).map(|(index, line)| (index, parse(line)))) {
        match result {
            Ok(length) => sum += length,
            Err(TaskError::PoolBroken(error)) => return Err(error.into()), // so are all that follow
            Err(error) => {
                bad += 1;
                let why = error.downcast().map(|why: BadRecord| why.to_string());
                println!("record {index}: {}", why.unwrap_or("no answer".to_owned())); // it crashed
            }
        }
        if index % 100_000 == 0 {
            eprintln!("{} %", index * 100 / number);
        }
    }
    println!("{bad} bad, the others have {sum} bytes");
    Ok(())
}
