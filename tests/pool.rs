//! The process pool through its public face, with real processes: this program is its own worker.

use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use procession::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Clone)]
enum Job {
    Echo(String),
}
impl Task for Job {
    const NAME: &'static str = "job";
    type Output = String;
    fn run(self, _: &Context) -> Result<String, Failure> {
        match self {
            Self::Echo(text) => Ok(text),
        }
    }
}

fn main() {
    worker::serve_if_asked(Registry::new().with::<Job>());
    let t = Instant::now();
    let pool = ProcessPool::builder().workers(2).build().unwrap();
    let f = pool.submit(Job::Echo("x".into()));
    println!("{:?}", f.result_timeout(Duration::from_secs(5)).map_err(|_| "timeout"));
    println!("first {:?}", t.elapsed());
    let t = Instant::now();
    let n = 20_000;
    let fs: Vec<_> = (0..n).map(|i| pool.submit(Job::Echo(i.to_string()))).collect();
    let mut c = 0;
    for f in as_completed(fs) {
        f.result().unwrap();
        c += 1;
    }
    println!("{c} {:.0}/s", n as f64 / t.elapsed().as_secs_f64());
    let t = Instant::now();
    for i in 0..2000 {
        pool.submit(Job::Echo(i.to_string())).result().unwrap();
    }
    println!("rt {:?}", t.elapsed() / 2000);
    let t = Instant::now();
    println!(
        "{}",
        pool.map((0..n).map(|i| Job::Echo(i.to_string()))).map(|r| r.unwrap().len()).sum::<usize>()
    );
    println!("map {:.0}/s", n as f64 / t.elapsed().as_secs_f64());
    let big = "x".repeat(10_000_000);
    let t = Instant::now();
    assert!(pool.submit(Job::Echo(big.clone())).result().unwrap() == big);
    println!("10MB {:?}", t.elapsed());
    let t = Instant::now();
    pool.shutdown(Shutdown::Wait);
    println!("shutdown {:?}", t.elapsed());
}
