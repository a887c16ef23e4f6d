//! A large value that many tasks use: encoded once, decoded once by each worker.

use std::collections::HashMap;

use procession::{Executor, ProcessPool, SharedValue};

type Prices = HashMap<String, u32>;

#[procession::task]
fn price(list: SharedValue<Prices>, name: String) -> Option<u32> {
    list.get(&name).copied()
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let list: Prices = (0..10_000).map(|n| (format!("part {n}"), n * 3)).collect();
    let list = SharedValue::new(list);
    let pool = ProcessPool::builder().workers(2).build()?;
    let names = ["part 7", "part 9999", "part 10000"];
    for (name, found) in pool.map_keyed(names.map(|n| (n, price(list.clone(), n.to_owned())))) {
        match found? {
            Some(price) => println!("{name} costs {price}"),
            None => println!("there is no {name}"),
        }
    }
    Ok(())
}
