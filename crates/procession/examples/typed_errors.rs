//! A task's own error comes back as its own type, though the task ran in another process.

use std::fmt;

use procession::{Executor, ProcessPool};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct TooLarge {
    limit: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "larger than {}", self.limit)
    }
}

impl std::error::Error for TooLarge {}

#[procession::task]
fn factorial(n: u64) -> Result<u64, TooLarge> {
    if n > 20 { Err(TooLarge { limit: 20 }) } else { Ok((1..=n).product()) }
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(2).build()?;
    for result in pool.map([5, 21].into_iter().map(factorial)) {
        match result {
            Ok(product) => println!("{product}"),
            Err(error) => match error.downcast::<TooLarge>() {
                Ok(TooLarge { limit }) => println!("the limit is {limit}"),
                Err(_) => return Err(error.into()), // a crash, say
            },
        }
    }
    Ok(())
}
