//! A program whose `main` is tokio's. Workers serve before the runtime starts, and futures of tasks are
//! awaited like any other.

use procession::{Executor, ProcessPool, Shutdown};

#[procession::task]
fn checksum(text: String) -> u32 {
    assert!(tokio::runtime::Handle::try_current().is_err(), "tasks run outside of any runtime");
    text.bytes().map(u32::from).sum()
}

#[procession::main]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(2).build()?;
    let one = pool.submit(checksum("one".to_owned()));
    let other = pool.submit(checksum("other".to_owned()));
    let (one, other) = tokio::try_join!(one, other)?;
    println!("{one} and {other}");
    // The end of a pool blocks until its workers have ended, which no thread of a runtime should do.
    pool.shutdown_async(Shutdown::Wait).await;
    Ok(())
}
